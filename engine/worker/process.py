"""The runtime in a child process (`models.runtime.child`), behind rings of shared memory."""

import asyncio
import json
import os
import subprocess
import sys
from collections import deque
from dataclasses import asdict
from typing import Any, Final

from engine.worker.host import Calls, Opened, Terms
from models.runtime import AvatarCard, Pictures, Row
from models.runtime.child import Orders
from models.runtime.loops import LoopFiles, LoopStore, Place, place_of
from models.runtime.rings import Rings, anonymous

POLITE_SECONDS: Final = 1.0
"""How long a process may take to end by itself before it is killed."""


class Loops(LoopFiles):
    """The loop pictures, kept while one process of the model follows another."""

    def __init__(self) -> None:
        super().__init__()
        self._mapped: dict[Place, Pictures] = {}

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(self._mapped)

    def at(self, place: Place) -> Pictures:
        """Each is mapped once."""
        if place not in self._mapped:
            self._mapped[place] = LoopStore(self.memory, self.disk).map(place)
        return self._mapped[place]

    def close(self) -> None:
        self._mapped.clear()
        super().close()


class ProcessHost:
    """The runtime in a child process, behind rings of shared memory."""

    def __init__(self, terms: Terms, loops: Loops, calls: Calls) -> None:
        self._terms = terms
        self._loops = loops
        self._calls = calls
        self._process: subprocess.Popen[bytes] | None = None
        self._rings: Rings | None = None
        self._capacity = 2 * terms.slots + 8
        self._waiting: deque[tuple[int, Row]] = deque()
        self._sent = 0
        self._read = 0
        self._told = b""
        self._reason = ""
        self._dead = False  # nothing more is called back
        self._killed = False
        self._descriptors: set[int] = set()
        self._gone = False
        self._places: dict[str, int] = {}
        self._ended = asyncio.Event()

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def open(self) -> Opened:
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[dict[str, Any]] = loop.create_future()
        lifeline_end, self._lifeline = self._own(*os.pipe())
        self._status, status_end = self._own(*os.pipe())
        (self._ring_memory,) = self._own(anonymous("rings"))
        self._rows_bell, self._outs_bell = self._own(os.eventfd(0), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
        assert isinstance(self._terms.backend, str)
        orders = Orders(
            backend=self._terms.backend,
            packages=[str(package) for package in self._terms.packages],
            slots=self._terms.slots,
            lookahead=self._terms.lookahead,
            capacity=self._capacity,
            parent=os.getpid(),
            rows_bell=self._rows_bell,
            outs_bell=self._outs_bell,
            ring_memory=self._ring_memory,
            loop_memory=self._loops.memory,
            loop_disk=self._loops.disk,
            loop_places=[asdict(place) for place in self._loops.places],
            status=status_end,
        )
        self._process = self._start(orders, lifeline_end)
        self._disown(lifeline_end, status_end)
        (self._pidfd,) = self._own(os.pidfd_open(self._process.pid))
        os.set_blocking(self._status, False)
        loop.add_reader(self._pidfd, self._end)
        loop.add_reader(self._status, self._listen)
        told = await self._ready
        self._rings = Rings(self._ring_memory, self._capacity, told["picture_bytes"])
        loops = [self._loops.at(place_of(told)) for told in told["places"]]
        loop.add_reader(self._outs_bell, self.collect)
        cards = [AvatarCard(**fields, loop=pictures) for fields, pictures in zip(told["cards"], loops, strict=True)]
        self._places = {card.name: place for place, card in enumerate(cards)}
        return Opened({card.name: card for card in cards}, told["reason"], told["improving"])

    def _start(self, orders: Orders, lifeline_end: int) -> "subprocess.Popen[bytes]":
        """A few milliseconds, on the loop's own thread: the child is killed by the kernel when this thread ends."""
        # One thread per library unless the user says otherwise: the model's thread is the only one that computes.
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        path = os.pathsep.join(folder for folder in sys.path if folder)
        return subprocess.Popen(
            [sys.executable, "-m", "models.runtime.child", orders.to_json()],
            stdin=lifeline_end,
            stdout=2,  # whatever a library prints is no part of our own output
            start_new_session=True,  # Ctrl-C is for the server, which ends the child when the sessions are told
            pass_fds=(orders.rows_bell, orders.outs_bell, orders.ring_memory, orders.status, *self._loops.descriptors),
            env=single | dict(os.environ) | {"PYTHONPATH": path},
        )

    def send(self, sequence: int, row: Row) -> None:
        self._waiting.append((sequence, row))
        self._flush()

    def _flush(self) -> None:
        fits = min(len(self._waiting), self._capacity - (self._sent - self._read))
        if fits <= 0 or self._rings is None:
            return
        for _ in range(fits):
            sequence, row = self._waiting.popleft()
            self._rings.write_row(self._sent, sequence, row, self._places[row.avatar])
            self._sent += 1
        os.eventfd_write(self._rows_bell, fits)

    def collect(self) -> None:
        if self._rings is None or self._dead:
            return
        try:
            new = os.eventfd_read(self._outs_bell)
        except BlockingIOError:
            return
        end = self._read + new
        while self._read < end and not self._dead:
            rows = self._rings.rows_of(self._read)
            outs = [self._rings.read_out(self._read + i) for i in range(rows)]
            self._read += rows
            self._calls.answered(outs)
        if not self._dead:
            self._flush()

    def _listen(self) -> None:
        """Something on the status pipe: ready, failed, lost, or its end, which is the process's end too."""
        try:
            said = os.read(self._status, 65536)
        except BlockingIOError:
            return
        self._told += said
        *lines, self._told = self._told.split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "cards" in told and not self._ready.done():
                self._ready.set_result(told)
            if "better" in told and not self._dead:
                self._calls.better()
            self._reason = told.get("failed") or told.get("lost") or self._reason
        if not said:
            asyncio.get_running_loop().remove_reader(self._status)
            self._go("the model's process ended")

    def _end(self) -> None:
        """The process has ended."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        status = self._process.wait() if self._process is not None else 0
        self._ended.set()
        self._listen()
        self._go(f"the model's process ended with status {status}")

    def _go(self, reason: str) -> None:
        if self._gone:
            return
        self._gone = True
        reason = self._reason or reason
        if not self._ready.done():
            self._ready.set_exception(RuntimeError(reason))
        elif not self._dead:
            self.collect()  # what it answered before it died is good
            self._calls.lost(reason)

    def kill(self) -> None:
        self._dead = self._killed = True
        if self._process is not None and not self._ended.is_set():
            self._process.kill()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        self._dead = True
        if self._process is not None:
            self._disown(self._lifeline)
            if not self._killed:
                try:
                    async with asyncio.timeout(POLITE_SECONDS):
                        await self._ended.wait()
                except TimeoutError:
                    self._process.kill()
            await self._ended.wait()
        for descriptor in tuple(self._descriptors):
            loop.remove_reader(descriptor)
        if self._rings is not None:
            self._rings.close()
            self._rings = None
        self._disown(*self._descriptors)

    def _own(self, *descriptors: int) -> tuple[int, ...]:
        self._descriptors.update(descriptors)
        return descriptors

    def _disown(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            if descriptor in self._descriptors:
                self._descriptors.remove(descriptor)
                os.close(descriptor)
