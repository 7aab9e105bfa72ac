"""The model's process, seen from asyncio: batches sessions, hands answers back, replaces the process when it dies.

    async with Worker([Path("models/shipped/demo")], slots=4, clock=RealClock()) as worker:
        with worker.seat("demo") as seat:
            out = await seat.hear(features, loop_index=0, wants=Wants.PICTURE, reset=True)

Rows and answers travel through memory shared with a child process (`models.runtime.child`) in which one thread steps
the runtime. Rows that are ready when a step ends go together into the next one; there is no tick to wait for. An
answer carries (slot, generation), so that a late one never reaches a new session.
"""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from engine.clock import Clock
from models.rates import CHUNK
from models.runtime import AvatarCard, Floats, OpenRuntime, Out, Pictures, Row, Runtime, Wants
from models.runtime.child import Orders
from models.runtime.choose import open_runtime
from models.runtime.loops import LoopFiles, LoopStore, Place, place_of
from models.runtime.rings import Rings, anonymous
from models.runtime.sanity import Sane
from models.runtime.serve import Numbered, serve

log = logging.getLogger(__name__)

MOST_PENDING = 8
"""Chunks of one seat that may wait for an answer: 320 ms of sound."""

HUNG_SECONDS = 1.0
"""With work pending and no answer for this long, the process is taken for hung and killed."""

WATCH_SECONDS = 0.1
"""How often the watchdog looks."""

POLITE_SECONDS = 1.0
"""How long a process may take to end by itself before it is killed."""

BACK_OFF_MOST = 8.0
"""Seconds between two attempts to open a runtime that will not open."""


class NoFreeSlot(RuntimeError):
    """Every slot is taken. Try again after `retry_after` seconds."""

    def __init__(self, slots: int, retry_after: float = 5.0) -> None:
        super().__init__(f"all {slots} slots are taken; try again in {retry_after:g} s or serve with more --slots")
        self.retry_after = retry_after


class UnknownAvatar(LookupError):
    """No open avatar has this name."""


class WorkerLost(RuntimeError):
    """The model's process died, hung or is being replaced; this chunk gets no answer. Show the loop picture."""


class SeatBusy(RuntimeError):
    """The seat has `MOST_PENDING` chunks unanswered: await a future before the next `hear`."""


class Seat:
    """One session's place in the batch. Leaving the `with` block, or `release()`, frees it."""

    def __init__(self, worker: "Worker", slot: int, generation: int, card: AvatarCard) -> None:
        self.slot = slot
        self.generation = generation
        self.card = card
        self._worker = worker
        self._stale = True  # the slot's state is not this seat's yet: the next row resets it
        self._released = False
        self._unanswered = 0

    def hear(self, features: Floats, loop_index: int, wants: Wants, reset: bool = False) -> "asyncio.Future[Out]":
        """Send 40 ms (f32 [640], copied before return) and get a future of the answer. Never blocks.

        The answer is for the chunk heard `card.lookahead` calls before this one, and `loop_index` is of that frame.
        Raises `SeatBusy` at the ninth unanswered call. The future raises `WorkerLost` if the process is lost before it
        answers, or is lost now; later calls work again when it is back, and the first of them resets by itself.
        Calls of one seat are answered in their order. A released seat's futures are cancelled.
        """
        if self._released:
            raise RuntimeError("the seat was released")
        if features.shape != (CHUNK,):
            raise ValueError(f"a chunk has {CHUNK} samples, not {features.shape}")
        row = Row(
            slot=self.slot,
            generation=self.generation,
            reset=reset or self._stale,
            avatar=self.card.name,
            pcm=features.astype(np.float32),
            loop_index=loop_index % self.card.frames,
            wants=wants,
        )
        answer = self._worker._send(self, row)
        if not answer.done():
            self._stale = False
        return answer

    def release(self) -> None:
        """Free the slot. Calling it again does nothing."""
        if not self._released:
            self._released = True
            self._worker._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()


class Worker:
    """Owns the model's process from `async with` to its end.

    `packages` are avatar directories. `backend`: "auto", "plain", "openvino", … or the dotted name of any module with
    `open(packages, slots, lookahead=None) -> Runtime`; with `inline=True` such a callable itself too. `inline` runs the
    runtime in a thread of this process, for tests and debugging: a step that hangs cannot be killed there. One more
    slot than `slots` is opened: the canary's. `clock` is the real one, except in tests of the watchdog.
    Entering waits until the runtime is open and warm; it raises `RuntimeError` with one line when it cannot be opened.
    """

    def __init__(
        self,
        packages: Sequence[Path],
        slots: int,
        backend: str | OpenRuntime = "auto",
        *,
        inline: bool = False,
        clock: Clock,
        lookahead: int | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError("a worker needs at least one slot")
        if not inline and not isinstance(backend, str):
            raise ValueError("only an inline worker takes a callable: a process needs the name of a module")
        self._terms = Terms(tuple(packages), slots + 1, backend, lookahead)
        self._inline = inline
        self._clock = clock
        self._slots = slots
        self._cards: dict[str, AvatarCard] = {}
        self._seats: list[Seat | None] = [None] * slots
        self._generations = [0] * (slots + 1)
        self._sequence = 0
        self._pending: dict[int, tuple[Seat, asyncio.Future[Out]]] = {}
        self._host: Host | None = None
        self._loops: Loops | None = None  # outlives the processes that decode into it
        self._canary: Seat | None = None
        self._dying: Host | None = None
        self._lost = asyncio.Event()
        self._quiet = 0.0  # seconds without an answer while one was due
        self._last_step: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts = 0
        """Times that the process was replaced."""
        self.held = 0
        """Answers that were not sane (NaN, flat) and were replaced by the last good one."""
        self.batches: Counter[int] = Counter()
        """How many answers came together, and how often: the rows of a step."""
        self.backend = ""
        """What serves, and why it was chosen, in one line."""

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        """By name, in the order of the packages. Loop pictures are shared with the child, not copied; read-only."""
        return self._cards

    @property
    def slots(self) -> int:
        return self._slots

    @property
    def free_slots(self) -> int:
        return self._seats.count(None)

    @property
    def alive(self) -> bool:
        """The process is there, open and warm."""
        return self._host is not None

    @property
    def process_id(self) -> int | None:
        """Of the model's process; None while there is none, and for an inline worker."""
        return self._host.process_id if self._host is not None else None

    @property
    def last_step(self) -> float | None:
        """When the last good answer came, on the worker's clock."""
        return self._last_step

    def seat(self, avatar: str) -> Seat:
        """Take a slot. Raises `UnknownAvatar`, `NoFreeSlot`."""
        card = self._cards.get(avatar)
        if card is None:
            raise UnknownAvatar(f"no avatar is called {avatar!r}; open are: {', '.join(self._cards) or 'none'}")
        for slot, taken in enumerate(self._seats):
            if taken is None:
                self._generations[slot] += 1
                seat = Seat(self, slot, self._generations[slot], card)
                self._seats[slot] = seat
                return seat
        raise NoFreeSlot(self._slots)

    async def canary(self) -> Out:
        """Step the reserved slot once, from silence. Raises `WorkerLost`; the watchdog bounds the wait."""
        if self._canary is None:
            raise WorkerLost("the worker is not open")
        silence = np.zeros(CHUNK, np.float32)
        return await self._canary.hear(silence, loop_index=0, wants=Wants.PICTURE, reset=True)

    async def __aenter__(self) -> Self:
        self._loops = None if self._inline else Loops()
        try:
            self._host = await self._open()
        except BaseException:
            self._close_loops()
            raise
        card = next(iter(self._cards.values()), None)
        if card is not None:
            self._canary = Seat(self, self._slots, 1, card)
        self._tasks = [
            asyncio.create_task(self._watch(), name="worker watchdog"),
            asyncio.create_task(self._replace_lost(), name="worker supervisor"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        host, self._host = self._host or self._dying, None
        self._fail_pending("the worker is closed")
        if host is not None:
            await host.close()
        self._close_loops()
        self._cards = {}
        self._canary = None

    def _close_loops(self) -> None:
        if self._loops is not None:
            self._loops.close()
            self._loops = None

    def _send(self, seat: Seat, row: Row) -> "asyncio.Future[Out]":
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        if self._host is None:
            answer.set_exception(WorkerLost("the model's process is being replaced"))
            return answer
        if seat._unanswered >= MOST_PENDING:
            raise SeatBusy(f"{MOST_PENDING} chunks are unanswered; await one before the next")
        if not self._pending:
            self._quiet = 0.0
        seat._unanswered += 1
        self._sequence += 1
        self._pending[self._sequence] = seat, answer
        self._host.send(self._sequence, row)
        return answer

    def _answered(self, outs: Sequence[tuple[int, Out]]) -> None:
        self.batches[len(outs)] += 1
        for sequence, out in outs:
            self._hand_over(sequence, out)

    def _hand_over(self, sequence: int, out: Out) -> None:
        self._quiet = 0.0
        self.held += out.held
        if not out.held:
            self._last_step = self._clock.now()
        if sequence not in self._pending:
            return
        seat, answer = self._pending.pop(sequence)
        seat._unanswered -= 1
        if answer.done():
            return  # its session has left
        if (out.slot, out.generation) != (seat.slot, seat.generation):
            self._lose(f"an answer for slot {out.slot} came out as one for slot {seat.slot}")
            answer.set_exception(WorkerLost("the answer was another session's"))
            return
        answer.set_result(out)

    def _release(self, seat: Seat) -> None:
        self._seats[seat.slot] = None
        for asker, answer in self._pending.values():
            if asker is seat:
                answer.cancel()  # stays in the table until its answer comes, so that the watchdog still counts it

    async def _open(self) -> "Host":
        host: Host
        if self._loops is None:
            host = ThreadHost(self._terms, self._answered, self._lose)
        else:
            host = ProcessHost(self._terms, self._loops, self._answered, self._lose)
        try:
            opened = await host.open()
        except BaseException:
            host.kill()
            await host.close()
            raise
        known = {name: card.revision for name, card in self._cards.items()}
        if known and known != {name: card.revision for name, card in opened.cards.items()}:
            host.kill()
            await host.close()
            raise RuntimeError("an avatar changed on disk while it was served; restart the server to use it")
        self._cards = self._cards or opened.cards
        self.backend = opened.reason
        return host

    def _lose(self, reason: str) -> None:
        """The host is no more to be used: every open question fails now, and the supervisor replaces it."""
        if self._host is None:
            return
        log.warning("the model is lost (%s): replacing it", reason)
        host, self._dying, self._host = self._host, self._host, None
        host.kill()
        self._fail_pending(reason)
        self._lost.set()

    def _fail_pending(self, reason: str) -> None:
        pending, self._pending = self._pending, {}
        for seat, answer in pending.values():
            seat._unanswered -= 1
            if not answer.done():
                answer.set_exception(WorkerLost(reason))

    async def _watch(self) -> None:
        """Lose a host that answers nothing for `HUNG_SECONDS` while something is due.

        Only time in which this loop ran counts: if the whole machine stood still, the model did too.
        """
        before = self._clock.now()
        while True:
            await self._clock.sleep_until(before + WATCH_SECONDS)
            now = self._clock.now()
            if self._host is not None and self._pending:
                self._quiet += min(now - before, 2 * WATCH_SECONDS)
                self._host.collect()
                if self._quiet > HUNG_SECONDS and self._pending:
                    self._lose(f"no answer for {HUNG_SECONDS:g} s")
            before = now

    async def _replace_lost(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            if self._dying is not None:
                await self._dying.close()
                self._dying = None
            wait = 0.0
            while self._host is None:
                await self._clock.sleep_until(self._clock.now() + wait)
                try:
                    host = await self._open()
                except (RuntimeError, OSError) as error:
                    wait = min(max(0.5, 2 * wait), BACK_OFF_MOST)
                    log.error("the model cannot be opened again (%s): next attempt in %g s", error, wait)
                    continue
                for seat in (*self._seats, self._canary):
                    if seat is not None:
                        seat._stale = True
                self._quiet = 0.0
                self.restarts += 1
                self._host = host


@dataclass(frozen=True, slots=True)
class Terms:
    """What a runtime is opened with."""

    packages: tuple[Path, ...]
    slots: int
    backend: str | OpenRuntime
    lookahead: int | None

    def open(self) -> tuple[Runtime, str]:
        if isinstance(self.backend, str):
            return open_runtime(self.backend, self.packages, self.slots, self.lookahead)
        return self.backend(self.packages, self.slots, self.lookahead), "given by the caller"


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What a host tells when its runtime is ready."""

    cards: dict[str, AvatarCard]
    reason: str


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


Answered = Callable[[Sequence[tuple[int, Out]]], None]
"""Given the answers of a step, each with its question's number."""

Lost = Callable[[str], None]


class Host(Protocol):
    """Where the runtime lives: a process, or a thread. Used from the event loop only; calls `lost` at most once."""

    @property
    def process_id(self) -> int | None: ...

    async def open(self) -> Opened:
        """Raises `RuntimeError` with one line when the runtime cannot be opened."""
        ...

    def send(self, sequence: int, row: Row) -> None: ...

    def collect(self) -> None:
        """Hand over at once the answers that are there."""
        ...

    def kill(self) -> None:
        """Now. Nothing is called back afterwards."""
        ...

    async def close(self) -> None:
        """End it, politely unless it was killed, and free everything."""
        ...


class ProcessHost:
    """The runtime in a child process, behind rings of shared memory."""

    def __init__(self, terms: Terms, loops: Loops, answered: Answered, lost: Lost) -> None:
        self._terms = terms
        self._loops = loops
        self._answered = answered
        self._lost = lost
        self._process: subprocess.Popen[bytes] | None = None
        self._rings: Rings | None = None
        self._capacity = 2 * terms.slots + 8
        self._waiting: deque[tuple[int, Row]] = deque()
        self._sent = 0
        self._read = 0
        self._told = b""
        self._reason = ""
        self._dead = False
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
        return Opened({card.name: card for card in cards}, told["reason"])

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
            self._answered(outs)
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
            self._lost(reason)

    def kill(self) -> None:
        self._dead = True
        if self._process is not None and not self._ended.is_set():
            self._process.kill()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        polite = not self._dead
        self._dead = True
        if self._process is not None:
            self._disown(self._lifeline)
            if polite:
                try:
                    await asyncio.wait_for(self._ended.wait(), POLITE_SECONDS)
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


class ThreadHost:
    """The runtime in a thread of this process."""

    process_id = None

    def __init__(self, terms: Terms, answered: Answered, lost: Lost) -> None:
        self._terms = terms
        self._answered = answered
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Opened] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._rows: deque[Numbered] = deque()
        self._changed = threading.Condition()
        self._over = False
        self._dead = False
        self._thread = threading.Thread(target=self._run, name="liveface model", daemon=True)

    async def open(self) -> Opened:
        self._thread.start()
        return await self._opened

    def send(self, sequence: int, row: Row) -> None:
        with self._changed:
            self._rows.append((sequence, row))
            self._changed.notify()

    def collect(self) -> None:
        """Answers come by themselves."""

    def kill(self) -> None:
        self._dead = True
        self._finish()

    async def close(self) -> None:
        self._dead = True
        self._finish()
        if not self._thread.ident:
            return
        try:
            await asyncio.wait_for(self._ended.wait(), POLITE_SECONDS)
        except TimeoutError:
            log.error("the model's thread hangs in a step and is left behind")
            return
        self._thread.join()

    def _finish(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            runtime, reason = self._terms.open()
            sane = Sane(runtime)
            self._tell(self._set_opened, Opened(dict(runtime.cards), reason))
            serve(sane, self)
            sane.close()
        except Exception as error:
            self._tell(self._fail, f"{type(error).__name__}: {error}")
        self._tell(self._ended.set)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        if not self._loop.is_closed():  # as it is when this thread was left behind
            self._loop.call_soon_threadsafe(what, *arguments)

    def take(self, wait: bool) -> list[Numbered] | None:
        with self._changed:
            while wait and not self._rows and not self._over:
                self._changed.wait()
            if self._over:
                return None
            rows = list(self._rows)
            self._rows.clear()
            return rows

    def answer(self, outs: Sequence[tuple[int, Out]]) -> None:
        self._tell(self._hand_over, outs)

    def _hand_over(self, outs: Sequence[tuple[int, Out]]) -> None:
        if not self._dead:
            self._answered(outs)

    def _set_opened(self, opened: Opened) -> None:
        if not self._opened.done():
            self._opened.set_result(opened)

    def _fail(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(RuntimeError(reason))
        elif not self._dead:
            self._lost(reason)
