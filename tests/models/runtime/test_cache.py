"""The cache of engines: what is trusted, what is built again, and that nothing but our own is ever read."""

import fcntl
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.runtime.cache import EngineCache, Entry, Key, NotBuilt, default_cache

ENGINE = bytes(random.Random(1).randbytes(4096))
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEY = Key("ab" * 32, "tensorrt", "11.4.0.106", "13.0", "9.0", "NVIDIA H200", "f16", (1, 2, 4))


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def filled(cache: EngineCache) -> EngineCache:
    cache.store(KEY, ENGINE, NOW, 61.5)
    return cache


def engine_file(cache: EngineCache) -> Path:
    return next(cache.root.glob("*.engine"))


def manifest(cache: EngineCache) -> Path:
    return cache.root / f"{KEY.digest}.json"


def never(_: object) -> bytes:
    raise AssertionError("it was built again")


def test_what_was_built_is_found(filled: EngineCache) -> None:
    assert filled.find(KEY) == (ENGINE, (1, 2, 4))
    assert filled.find_or_build(KEY, never, lambda: NOW) == (ENGINE, (1, 2, 4))


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "cd" * 32},
        {"library": "tensorrt_rtx"},
        {"version": "10.16.1.11"},
        {"cuda": "12.9"},
        {"capability": "8.9"},
        {"gpu": "NVIDIA L4"},
        {"precision": "bf16"},
        {"buckets": (1, 2, 4, 8)},
    ],
)
def test_an_engine_serves_nothing_but_what_it_was_built_for(filled: EngineCache, change: dict[str, object]) -> None:
    with pytest.raises(NotBuilt, match="not built for this machine yet"):
        filled.find(replace(KEY, **change))  # type: ignore[arg-type]


def test_an_engine_with_more_sizes_serves_those_who_ask_for_fewer(filled: EngineCache) -> None:
    assert filled.find(replace(KEY, buckets=(1, 2))) == (ENGINE, (1, 2, 4))


def test_an_engine_with_a_hundred_bits_turned_is_never_read(filled: EngineCache) -> None:
    path, chance = engine_file(filled), random.Random(3)
    for _ in range(100):
        spoiled = bytearray(ENGINE)
        spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
        path.write_bytes(spoiled)
        with pytest.raises(NotBuilt, match="its engine is damaged: the SHA-256 is another"):
            filled.find(KEY)


@pytest.mark.parametrize("length", [0, 1, 2000, 4095, 4097])
def test_a_truncated_engine_is_never_read(filled: EngineCache, length: int) -> None:
    engine_file(filled).write_bytes((ENGINE + b"x")[:length])
    with pytest.raises(NotBuilt, match=f"its engine is truncated: {length} bytes of 4096"):
        filled.find(KEY)


def test_a_manifest_with_a_hundred_bytes_changed_is_refused_or_says_the_same(filled: EngineCache) -> None:
    path, chance = manifest(filled), random.Random(5)
    told = path.read_bytes()
    for _ in range(100):
        spoiled = bytearray(told)
        spoiled[chance.randrange(len(spoiled))] = chance.randrange(256)
        path.write_bytes(spoiled)
        try:
            assert filled.find(KEY) == (ENGINE, (1, 2, 4))  # only when it harmed nothing that counts
        except NotBuilt:
            continue


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "cannot be read"),
        (b"[]", "cannot be read"),
        (b"{}", "cannot be read"),
        (b"null", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"schema": 99}', "of another version of this program"),
    ],
)
def test_a_manifest_that_is_none_is_refused_in_one_line(filled: EngineCache, content: bytes, complaint: str) -> None:
    manifest(filled).write_bytes(content)
    with pytest.raises(NotBuilt, match=complaint):
        filled.find(KEY)


def changed(cache: EngineCache, **fields: object) -> None:
    path = manifest(cache)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_manifest_that_was_copied_from_another_key_is_foreign(filled: EngineCache) -> None:
    other = replace(KEY, gpu="NVIDIA L4")
    (filled.root / f"{other.digest}.json").write_bytes(manifest(filled).read_bytes())
    with pytest.raises(NotBuilt, match="another engine's"):
        filled.find(other)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "AB" * 32])
def test_a_manifest_cannot_name_a_file_elsewhere(filled: EngineCache, name: str) -> None:
    changed(filled, sha256=name)
    with pytest.raises(NotBuilt, match="its manifest names no engine"):
        filled.find(KEY)


def test_an_engine_that_is_gone_is_missed(filled: EngineCache) -> None:
    engine_file(filled).unlink()
    with pytest.raises(NotBuilt, match="its engine is gone"):
        filled.find(KEY)


def test_a_link_is_not_followed(filled: EngineCache, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(ENGINE)
    path = engine_file(filled)
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        filled.find(KEY)


@pytest.mark.parametrize("which", ["root", "engine", "manifest"])
def test_what_others_can_write_to_is_not_trusted(filled: EngineCache, which: str) -> None:
    path = {"root": filled.root, "engine": engine_file(filled), "manifest": manifest(filled)}[which]
    path.chmod(path.stat().st_mode | 0o022)
    with pytest.raises(NotBuilt, match="can be written by others: nothing in it is trusted"):
        filled.find(KEY)


def test_the_folder_is_made_for_its_owner_alone(filled: EngineCache) -> None:
    assert filled.root.stat().st_mode & 0o777 == 0o700


def spoil_engine(cache: EngineCache) -> None:
    engine_file(cache).write_bytes(ENGINE[:100])


def spoil_manifest(cache: EngineCache) -> None:
    manifest(cache).write_bytes(b"{")


@pytest.mark.parametrize("misfortune", [spoil_engine, spoil_manifest, lambda cache: manifest(cache).unlink()])
def test_what_is_damaged_is_built_again_and_then_found(
    filled: EngineCache, misfortune: Callable[[EngineCache], None], capsys: pytest.CaptureFixture[str]
) -> None:
    misfortune(filled)
    times = iter([NOW, NOW + timedelta(seconds=90), NOW + timedelta(seconds=90)])

    def make(progress: Callable[[str], None]) -> bytes:
        progress("layer 3 of 9")
        assert "layer 3 of 9" in filled.building()[KEY.digest]
        return b"new"

    assert filled.find_or_build(KEY, make, lambda: next(times)) == (b"new", (1, 2, 4))
    assert filled.find(KEY)[0] == b"new"
    assert filled.building() == {}
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("abababab f16: building: it")
    assert said[1] == "abababab f16: layer 3 of 9"
    (entry,) = filled.entries()
    assert isinstance(entry, Entry)
    assert entry.seconds == 90


def test_a_builder_that_fails_leaves_no_engine_and_no_lock(cache: EngineCache) -> None:
    def fails(_: object) -> bytes:
        raise RuntimeError("no tactic")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no tactic"):
            cache.find_or_build(KEY, fails, lambda: NOW)
        assert list(cache.entries()) == []
        assert cache.building() == {}


def test_two_who_need_the_same_engine_build_it_once(cache: EngineCache) -> None:
    begun, go = threading.Event(), threading.Event()
    built: list[int] = []

    def make(_: object) -> bytes:
        built.append(1)
        begun.set()
        go.wait(10)
        return ENGINE

    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.find_or_build(KEY, make, lambda: NOW)[0])) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert found == [ENGINE] * 3
    assert built == [1]


def test_a_builder_that_was_killed_half_way_leaves_nothing_that_is_read(cache: EngineCache) -> None:
    code = (
        "import os, sys\nfrom datetime import UTC, datetime\nfrom pathlib import Path\n"
        "from models.runtime.cache import EngineCache, Key\n"
        "cache = EngineCache(Path(sys.argv[1]))\n"
        "def make(progress):\n    progress('half')\n    os.kill(os.getpid(), 9)\n"
        f"cache.find_or_build({KEY!r}, make, lambda: datetime.now(UTC))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache.root)], capture_output=True, check=False)
    assert done.returncode == -9
    assert cache.building() == {}  # its lock went with it
    assert cache.find_or_build(KEY, lambda _: ENGINE, lambda: NOW)[0] == ENGINE


def test_a_write_that_ends_half_way_leaves_the_old_engine(filled: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        filled.store(KEY, b"new", NOW, 1)
    assert filled.find(KEY)[0] == ENGINE


def test_pruning_removes_what_is_damaged_foreign_or_nobodys_and_keeps_the_rest(filled: EngineCache) -> None:
    foreign, spoiled = replace(KEY, gpu="NVIDIA L4"), replace(KEY, precision="f32")
    filled.store(foreign, b"foreign", NOW, 1)
    filled.store(spoiled, b"spoiled", NOW, 1)
    next(path for path in filled.root.glob("*.engine") if path.read_bytes() == b"spoiled").write_bytes(b"")
    (filled.root / f"{'0' * 64}.engine").write_bytes(b"orphan")
    (filled.root / "notes.txt").write_text("not ours")
    wrong = {entry.wrong for entry in filled.entries() if isinstance(entry, Entry)}
    assert wrong == {"", "its engine is truncated: 0 bytes of 7"}
    removed, freed = filled.prune(lambda entry: entry.key.gpu == KEY.gpu)
    assert removed == 3
    assert freed > len(b"foreign")
    assert filled.find(KEY)[0] == ENGINE
    assert {path.suffix for path in filled.root.iterdir()} == {".engine", ".json", ".txt"}


def test_what_is_being_built_is_not_pruned(filled: EngineCache) -> None:
    other = replace(KEY, precision="f32")
    (filled.root / f"{other.digest}.progress").write_text("half")
    with (filled.root / f"{other.digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        filled.prune(lambda _: False)
        assert filled.building() == {other.digest: "half"}
    filled.prune(lambda _: False)
    assert list(filled.root.iterdir()) == []


def test_the_cache_is_where_caches_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "liveface" / "engines"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache() == Path.home() / ".cache" / "liveface" / "engines"
