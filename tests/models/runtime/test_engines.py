"""The command that makes, shows and removes engines."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.runtime import engines, tensorrt
from models.runtime.cache import EngineCache, Key
from tests.models.runtime.test_cache import ENGINE, KEY, NOW


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def filled(cache: EngineCache) -> EngineCache:
    cache.store(KEY, ENGINE, NOW, 61.5)
    return cache


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["engine", *words])
    return engines.main()


def test_list_shows_engines_damage_and_progress(
    filled: EngineCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.store(replace(KEY, precision="bf16"), b"x", NOW, 1)
    next(path for path in filled.root.glob("*.engine") if path.stat().st_size == 1).write_bytes(b"y")
    (filled.root / "odd.json").write_text("{")
    with filled._locked(replace(KEY, precision="f32")):
        filled._say(replace(KEY, precision="f32"), "layer 1 of 9")
        assert command(monkeypatch, "--cache", str(filled.root), "list") == 0
        told = capsys.readouterr().out
        assert "f16  tensorrt 11.4.0.106, CUDA 13.0, NVIDIA H200 (sm 9.0), batches 1 2 4: 0.0 MB" in told
        assert "its engine is damaged" in told
        assert "odd.json cannot be read" in told
        assert "being built: f32, abababab: layer 1 of 9" in told
        assert command(monkeypatch, "--cache", str(filled.root), "list", "--json") == 0
        as_json = json.loads(capsys.readouterr().out)
        assert len(as_json["engines"]) == 3
        assert list(as_json["building"].values()) == ["f32, abababab: layer 1 of 9"]


def test_list_and_prune_of_a_cache_that_is_not_there(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--cache", str(cache.root), "list") == 0
    assert command(monkeypatch, "--cache", str(cache.root), "prune") == 0
    assert capsys.readouterr().out == f"{cache.root}: 0 engines\n0 engines removed, 0.0 MB freed\n"


@pytest.mark.parametrize(
    ("words", "left"),
    [([], {"here"}), (["--days", "30"], set()), (["--days", "1e6"], {"here"}), (["--all"], set())],
)
def test_prune_keeps_what_this_machine_can_use(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, words: list[str], left: set[str]
) -> None:
    monkeypatch.setattr(tensorrt, "key_of", lambda *_: KEY)
    long_ago = datetime.now(UTC) - timedelta(days=60)
    cache.store(replace(KEY, precision="f32"), b"here", long_ago, 1)
    cache.store(replace(KEY, version="10.16"), b"elsewhere", long_ago, 1)
    assert command(monkeypatch, "--cache", str(cache.root), "prune", *words) == 0
    assert {path.read_text() for path in cache.root.glob("*.engine")} == left


def test_prune_without_a_gpu_does_not_take_everything_for_foreign(
    filled: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> Key:
        raise RuntimeError("torch sees no NVIDIA GPU")

    monkeypatch.setattr(tensorrt, "key_of", nothing)
    assert command(monkeypatch, "--cache", str(filled.root), "prune") == 0
    assert filled.find(KEY)[0] == ENGINE


def test_build_without_tensorrt_says_what_is_missing_in_one_line(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--cache", str(cache.root), "build", "demo") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("liveface engine build: TensorRT is not installed: pip install")


def test_build_without_torch_names_the_extra(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(tensorrt, "open_with", missing)
    assert command(monkeypatch, "--cache", str(cache.root), "build") == 1
    assert capsys.readouterr().err == 'liveface engine build: needs torch: pip install "liveface[tensorrt]"\n'


def test_building_beside_is_a_process_of_its_own_that_writes_down_what_it_said(tmp_path: Path) -> None:
    process = engines.build_beside([tmp_path / "nobody"], 3, tmp_path / "cache" / "building.log")
    assert process.wait(60) == 1
    assert "liveface engine build: " in (tmp_path / "cache" / "building.log").read_text()


@pytest.mark.parametrize("status", [0, 1, -11])
def test_who_waits_for_engines_waits_for_others_first_and_then_has_them_proven(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Another builds the same: nothing is begun before it is done. What was built then is found, not built again."""
    looked = iter([{"a": "half"}, {"a": "nearly"}, {}])
    begun: list[tuple[int, Path]] = []

    def build_beside(packages: list[Path], slots: int, log: Path) -> object:
        begun.append((slots, log))
        return SimpleNamespace(wait=lambda: status)

    monkeypatch.setattr(EngineCache, "building", lambda _: next(looked))
    monkeypatch.setattr(engines, "sleep", lambda seconds: begun == [] or pytest.fail("too early"))
    monkeypatch.setattr(engines, "build_beside", build_beside)
    assert engines.built([Path("anna")], 4, cache.root) == (status == 0)
    assert begun == [(4, cache.root / "building.log")]
