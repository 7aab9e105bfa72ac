"""Loops lie once, whoever looks at them; long ones on disk, and little of those in memory at a time."""

import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from models.avatar import decode_loop, read_avatar
from models.rates import FRAME_RATE
from models.runtime import AvatarCard, Bytes, Pictures, loops, plain
from models.runtime.loops import LoopFiles, LoopStore, Paged, Place, place_of, resident_bytes
from tests.models.runtime.drawn import draw_package

KILOBYTE = 1 << 10
MEGABYTE = 1 << 20


@pytest.fixture
def files() -> Iterator[LoopFiles]:
    with LoopFiles() as made:
        yield made


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_package(tmp_path_factory.mktemp("package") / "ellipse")


def pictures(count: int, seed: int = 0, size: int = 64) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, (count, size * 3 // 2, size), np.uint8)


def card(name: str, loop: Pictures) -> AvatarCard:
    return AvatarCard(name, name * 64, 64, 64, 2, loop)


def same(ours: Pictures, theirs: Pictures) -> bool:
    return len(ours) == len(theirs) and all((ours[n] == theirs[n]).all() for n in range(len(ours)))


def test_both_processes_see_the_same_memory_and_neither_can_write_to_it(files: LoopFiles) -> None:
    ours = LoopStore(files.memory, files.disk)
    given = {name: pictures(n + 2, n) for n, name in enumerate("ab")}
    told = [asdict(ours.publish(card(name, loop))) for name, loop in given.items()]
    theirs = LoopStore(os.dup(files.memory), -1)
    mapped = {one["name"]: theirs.map(place_of(one)) for one in told}
    assert all(same(mapped[name], loop) for name, loop in given.items())
    assert not any(one["on_disk"] for one in told)
    with pytest.raises(ValueError, match="read-only"):
        mapped["a"][0][0, 0] = 1


def test_a_runtime_keeps_no_loop_of_its_own(files: LoopFiles, package: Path) -> None:
    store = LoopStore(files.memory, files.disk)
    with store.serving():
        runtime = plain.open([package], 1)
    loop = runtime.cards["ellipse"].loop
    assert same(loop, decode_loop(read_avatar(package)))
    written = os.fstat(files.memory).st_size
    assert store.publish(runtime.cards["ellipse"]).start == 0
    assert os.fstat(files.memory).st_size == written  # it lay there already
    os.pwrite(files.memory, bytes([77]), 5)
    assert loop[0][0, 5] == 77  # the very same memory
    assert runtime._presenters["ellipse"].shelf._loop is loop


def test_a_process_that_takes_anothers_place_decodes_nothing_again(
    files: LoopFiles, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar = read_avatar(package)
    first = LoopStore(files.memory, files.disk)
    first.keep(avatar)
    place = first.publish(card("ellipse", pictures(1)))  # of another revision: not the same loop
    assert place.revision != avatar.revision
    told = [one for one in first._places.values() if one.revision == avatar.revision]
    monkeypatch.setattr(loops, "loop_frames", lambda _: pytest.fail("it was decoded again"))
    assert len(LoopStore(files.memory, files.disk, places=told).keep(avatar)) == 8


@pytest.mark.parametrize("budget", [0, 1, 3, 7, 8])
def test_a_loop_beyond_the_budget_lies_on_disk_and_shows_the_same_pictures(
    files: LoopFiles, package: Path, budget: int
) -> None:
    whole = decode_loop(read_avatar(package))
    store = LoopStore(files.memory, files.disk, budget * whole[0].nbytes)
    store.publish(card("a", pictures(2)))
    before = os.fstat(files.memory).st_size
    kept = store.keep(read_avatar(package))
    assert isinstance(kept, Paged) == (budget < 8)
    assert same(kept, whole)
    assert (kept.shape, kept.shape[0]) == (whole.shape, len(kept))
    if budget < 8:
        assert before <= os.fstat(files.memory).st_size < before + 4096  # nothing of it is left in memory


def mapped_kilobytes(of: int) -> int:
    """How much of a file this process has in its memory, by the kernel's own account."""
    inode, total, counts = os.fstat(of).st_ino, 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = line.split()[4] == str(inode)
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


@pytest.mark.parametrize("way", [1, -1])
def test_however_long_a_loop_is_what_is_mapped_of_it_stays_within_the_budget(files: LoopFiles, way: int) -> None:
    second = FRAME_RATE * 256 * 384
    seconds, budget = 24, 5 * second
    store = LoopStore(files.memory, files.disk, budget)
    long = pictures(seconds * FRAME_RATE, size=256)
    kept = store.map(store.publish(card("a", long)))
    largest = 0
    for index in range(len(kept))[::way]:
        assert int(kept[index].sum()) == int(long[index].sum())
        largest = max(largest, mapped_kilobytes(files.disk)) if index % FRAME_RATE == 13 else largest
    assert resident_bytes(kept) == budget
    assert resident_bytes(long) == long.nbytes
    assert second // KILOBYTE <= largest <= (budget + 2 * MEGABYTE) // KILOBYTE


def test_sessions_at_many_places_of_a_long_loop_each_see_their_own(files: LoopFiles) -> None:
    long = pictures(10 * FRAME_RATE)
    store = LoopStore(files.memory, files.disk, long[:1].nbytes)
    kept = store.map(store.publish(card("a", long)))
    chance = np.random.default_rng(3)
    for index in chance.integers(0, len(long), 300).tolist():
        assert (kept[index] == long[index]).all()


def test_without_a_disk_a_long_loop_is_refused_with_a_way_out(files: LoopFiles) -> None:
    with pytest.raises(
        RuntimeError, match="longer than 0 MB, and there is no folder to keep it in: set XDG_CACHE_HOME"
    ):
        LoopStore(files.memory, -1, 100).publish(card("a", pictures(3)))


def test_a_cache_that_cannot_be_written_is_no_fault_until_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    with LoopFiles() as files:
        assert files.disk == -1
        assert files.descriptors == (files.memory,)
        assert same(
            LoopStore(files.memory, files.disk).map(LoopStore(files.memory, -1).publish(card("a", pictures(2)))),
            pictures(2),
        )


def test_a_long_loops_file_has_no_name_that_could_be_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with LoopFiles() as files:
        LoopStore(files.memory, files.disk, 1).publish(card("a", pictures(3)))
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_place_survives_the_way_to_another_process() -> None:
    place = Place("a", "b" * 64, True, 4096, (3, 96, 64))
    assert place_of(asdict(place) | {"shape": [3, 96, 64]}) == place
