"""Where the reference loops lie: once, in memory that the model's process shares with its owner, or on disk.

The owner makes a `LoopStore` and passes its two files on; the model's process decodes into it (`with store.serving()`,
then `keep`), and says in which `Place` each loop is, so that a process that takes its place decodes nothing again.
Without such a store each process has its own.

A loop beyond the budget lies in a file that has no name any more. Its seconds are read ahead of those who play them,
and what was played longest ago is dropped: what is mapped of it stays within the budget, however long it is.
"""

import math
import mmap
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from models.avatar import Avatar, loop_frames
from models.rates import FRAME_RATE
from models.runtime import AvatarCard, Bytes, Pictures

LOOP_BYTES: Final = 512 << 20
"""What a loop may take of memory: 52 s at 512 x 512, 13 s at 1024 x 1024."""

_COPIED_AT_ONCE: Final = 1 << 22


class LoopFiles:
    """The two files of a store, made by whoever serves and passed on to each of its model's processes."""

    def __init__(self) -> None:
        self.memory, self.disk = memory_file(), disk_file()

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.memory, self.disk) if self.disk >= 0 else (self.memory,)

    def close(self) -> None:
        """What is mapped of them stays."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.memory = self.disk = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a loop lies, as it travels to another process."""

    name: str
    revision: str
    on_disk: bool
    start: int
    shape: tuple[int, ...]


def place_of(told: Mapping[str, Any]) -> Place:
    """A place that came as JSON."""
    return Place(**{**told, "shape": tuple(told["shape"])})


class LoopStore:
    """Loops within the budget are written to the file `memory`, the others to `disk` (-1: there is none)."""

    def __init__(self, memory: int, disk: int, budget: int = LOOP_BYTES, places: Iterable[Place] = ()) -> None:
        self._files = {False: memory, True: disk}
        self._budget = budget
        self._places = {(place.name, place.revision): place for place in places}

    def keep(self, avatar: Avatar) -> Pictures:
        """The loop, decoded unless it is here already."""
        place = self._places.get((avatar.name, avatar.revision))
        return self.map(place or self.write(avatar.name, avatar.revision, loop_frames(avatar)))

    def publish(self, card: AvatarCard) -> Place:
        """Where a card's loop lies; one that was not kept here is copied."""
        pictures = card.loop
        return self._places.get((card.name, card.revision)) or self.write(
            card.name, card.revision, (pictures[index] for index in range(card.frames))
        )

    def map(self, place: Place) -> Pictures:
        """The same pictures, not copied, read-only."""
        count = math.prod(place.shape)
        mapping = mmap.mmap(self._files[place.on_disk], count, prot=mmap.PROT_READ, offset=place.start)
        if place.on_disk:
            return Paged(mapping, place.shape, self._budget)
        return np.frombuffer(mapping, np.uint8, count).reshape(place.shape)

    @contextmanager
    def serving(self) -> Iterator[Self]:
        """Within the block, every loop that this process opens is kept here."""
        before = _serving.set(self)
        try:
            yield self
        finally:
            _serving.reset(before)

    def write(self, name: str, revision: str, pictures: Iterable[Bytes]) -> Place:
        """Pictures, or other rows of bytes that are all alike, one for each frame."""
        on_disk, frames, written = False, 0, 0
        start = self._end(on_disk)
        shape: tuple[int, ...] = ()
        for picture in pictures:
            if not on_disk and written + picture.nbytes > self._budget:
                on_disk, start = True, self._to_disk(start, written)
            _write_all(self._files[on_disk], picture.tobytes(), start + written)
            written += picture.nbytes
            frames, shape = frames + 1, picture.shape
        place = self._places[name, revision] = Place(name, revision, on_disk, start, (frames, *shape))
        return place

    def _end(self, on_disk: bool) -> int:
        size = os.fstat(self._files[on_disk]).st_size
        return -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY

    def _to_disk(self, start: int, written: int) -> int:
        """Move what was written of a loop that turns out to be too long; returns where it begins now."""
        memory, disk = self._files[False], self._files[True]
        if disk < 0:
            raise RuntimeError(
                f"a loop is longer than {self._budget >> 20} MB, and there is no folder to keep it in: "
                "set XDG_CACHE_HOME"
            )
        begin = self._end(True)
        for at in range(0, written, _COPIED_AT_ONCE):
            piece = os.pread(memory, min(_COPIED_AT_ONCE, written - at), start + at)
            _write_all(disk, piece, begin + at)
        os.ftruncate(memory, start)
        return begin


_serving: ContextVar[LoopStore | None] = ContextVar("loops of this process", default=None)


def keep(avatar: Avatar) -> Pictures:
    """An avatar's loop, in the store that serves here, or in one of its own."""
    store = _serving.get()
    if store is not None:
        return store.keep(avatar)
    with LoopFiles() as files:
        return LoopStore(files.memory, files.disk).keep(avatar)


def kept(rows: Iterable[Bytes], budget: int = LOOP_BYTES) -> Pictures:
    """Rows of bytes [n], one for each frame of a loop, kept as its pictures are: beyond the budget on disk."""
    with LoopFiles() as files:
        store = LoopStore(files.memory, files.disk, budget)
        return store.map(store.write("", "", rows))


class Paged:
    """Pictures on disk, of which only what was played last is mapped. One thread reads it."""

    def __init__(self, mapping: mmap.mmap, shape: Sequence[int], budget: int) -> None:
        self.shape = tuple(shape)
        self._pictures: Bytes = np.frombuffer(mapping, np.uint8, math.prod(shape)).reshape(shape)
        self._mapping = mapping
        self._second = FRAME_RATE * math.prod(shape[1:])
        self._played: OrderedDict[int, None] = OrderedDict()
        self._most = max(3, budget // self._second)

    @property
    def most_bytes(self) -> int:
        return self._most * self._second

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Bytes:
        second = (index % len(self)) // FRAME_RATE
        if next(reversed(self._played), None) != second:
            self._play(second)
        picture: Bytes = self._pictures[index]
        return picture

    def _play(self, second: int) -> None:
        """Read ahead, and let go of what was played longest ago. A loop is played there and back again."""
        last = (len(self) - 1) // FRAME_RATE
        for needed in (max(0, second - 1), min(last, second + 1), second):  # the one that is played is the last to go
            if needed not in self._played:
                self._advise(needed, mmap.MADV_WILLNEED)
            self._played[needed] = None
            self._played.move_to_end(needed)
        while len(self._played) > self._most:
            self._advise(self._played.popitem(last=False)[0], mmap.MADV_DONTNEED)

    def _advise(self, second: int, advice: int) -> None:
        """The mapping is of a file, so that nothing is lost by it."""
        start = second * self._second // mmap.PAGESIZE * mmap.PAGESIZE
        self._mapping.madvise(advice, start, min((second + 1) * self._second, len(self._mapping)) - start)


def resident_bytes(loop: Pictures) -> int:
    """What a loop may hold of memory."""
    return loop.most_bytes if isinstance(loop, Paged) else math.prod(loop.shape)


def memory_file() -> int:
    """Memory with no name in any file system, closed on exec unless it is passed on."""
    return os.memfd_create("liveface-loops") if hasattr(os, "memfd_create") else disk_file()


def disk_file() -> int:
    """A file with no name, in the user's cache; -1 where none can be made."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "liveface"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.dup(file.fileno())
    except OSError:
        return -1


def _write_all(file: int, content: bytes, at: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
