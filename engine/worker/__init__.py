"""The model's process, seen from asyncio: batches sessions, hands answers back, replaces the process when it dies.

    async with Worker([Path("models/shipped/demo")], slots=4, clock=RealClock()) as worker:
        with worker.seat("demo") as seat:
            out = await seat.hear(features, loop_index=0, wants=Wants.PICTURE, reset=True)

Rows and answers travel through memory shared with a child process (`models.runtime.child`) in which one thread steps
the runtime. Rows that are ready when a step ends go together into the next one; there is no tick to wait for. An
answer carries (slot, generation), so that a late one never reaches a new session.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from engine.clock import Clock
from engine.worker.host import Calls, Host, Opened, Terms
from engine.worker.process import Loops, ProcessHost
from engine.worker.seat import MOST_PENDING, NoFreeSlot, Seat, SeatBusy, UnknownAvatar, WorkerLost
from engine.worker.thread import ThreadHost
from models.rates import CHUNK
from models.runtime import AvatarCard, OpenRuntime, Out, Row, Wants

__all__ = ["MOST_PENDING", "NoFreeSlot", "Seat", "SeatBusy", "UnknownAvatar", "Worker", "WorkerLost"]

log = logging.getLogger(__name__)

HUNG_SECONDS: Final = 0.8
"""With work pending and no answer for this long, the process is taken for hung and killed: within a second in all."""

WATCH_SECONDS: Final = 0.1
"""How often the watchdog looks."""

BACK_OFF_MOST: Final = 8.0
"""Seconds between two attempts to open a runtime that will not open."""

LISTEN_SECONDS: Final = 2.0
"""How long a better runtime hears what all sessions say before it answers, so that it knows what they have said."""

LISTEN_MOST_SECONDS: Final = 20.0
"""For how long it may stay behind before it is dismissed."""


class Worker:
    """Owns the model's process from `async with` to its end.

    `packages` are avatar directories. `backend`: "auto", "plain", "openvino", … or the dotted name of any module with
    `open(packages, slots, lookahead=None) -> Runtime`; with `inline=True` such a callable itself too. `inline` runs the
    runtime in a thread of this process, for tests and debugging: a step that hangs cannot be killed there. One more
    slot than `slots` is opened: the canary's. `clock` is the real one, except in tests of the watchdog. `patience`:
    seconds without an answer after which the process is taken for hung; `HUNG_SECONDS` unless nobody is waiting.
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
        patience: float | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError("a worker needs at least one slot")
        if not inline and not isinstance(backend, str):
            raise ValueError("only an inline worker takes a callable: a process needs the name of a module")
        self._terms = Terms(tuple(packages), slots + 1, backend, lookahead)
        self._inline = inline
        self._clock = clock
        self._slots = slots
        self._patience = HUNG_SECONDS if patience is None else patience
        self._cards: dict[str, AvatarCard] = {}
        self._seats: list[Seat | None] = [None] * slots
        self._generations = [0] * (slots + 1)
        self._sequence = 0
        self._pending: dict[int, tuple[Seat, asyncio.Future[Out], Host]] = {}
        self._host: Host | None = None
        self._understudy: Understudy | None = None  # a better host, which hears along
        self._leaving: Host | None = None  # the one before, until it has answered what it was asked
        self._loops: Loops | None = None  # outlives the processes that decode into it
        self._canary: Seat | None = None
        self._dying: list[Host] = []
        self._lost = asyncio.Event()
        self._better = asyncio.Event()
        self._quiet = 0.0  # seconds without an answer while one was due
        self._last_step: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.restarts = 0
        """Times that the process was replaced."""
        self.improvements = 0
        """Times that a better runtime took over."""
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
            self._host, opened = await self._open()
        except BaseException:
            self._close_loops()
            raise
        self._cards, self.backend = opened.cards, opened.reason
        card = next(iter(self._cards.values()), None)
        if card is not None:
            self._canary = Seat(self, self._slots, 1, card)
        self._tasks = [
            asyncio.create_task(self._watch(), name="worker watchdog"),
            asyncio.create_task(self._replace_lost(), name="worker supervisor"),
            asyncio.create_task(self._improve(), name="worker improver"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        hosts = [*self._dying, *self._all_hosts()]
        self._host = self._leaving = self._understudy = None
        self._fail_pending("the worker is closed")
        for host in hosts:
            await host.close()
        self._close_loops()
        self._cards = {}
        self._canary = None

    def _all_hosts(self) -> list[Host]:
        understudy = self._understudy.host if self._understudy is not None else None
        return [host for host in (self._host, self._leaving, understudy) if host is not None]

    def _close_loops(self) -> None:
        if self._loops is not None:
            self._loops.close()
            self._loops = None

    def send(self, seat: Seat, row: Row) -> "asyncio.Future[Out]":
        """For `Seat.hear`."""
        answer: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        if self._host is None:
            answer.set_exception(WorkerLost("the model's process is being replaced"))
            return answer
        if seat.unanswered >= MOST_PENDING:
            raise SeatBusy(f"{MOST_PENDING} chunks are unanswered; await one before the next")
        if not self._pending:
            self._quiet = 0.0
        if not seat.unanswered or seat.at is None:  # between two steps of its own, a seat moves on
            seat.at = self._host
        seat.unanswered += 1
        self._sequence += 1
        self._pending[self._sequence] = seat, answer, seat.at
        seat.at.send(self._sequence, row)
        if self._understudy is not None:
            self._understudy.hear(seat, row)
        elif seat.at is self._leaving:
            self._host.send(0, in_passing(row))
        return answer

    def _answered(self, host: "Host", outs: Sequence[tuple[int, Out]]) -> None:
        if self._understudy is not None and host is self._understudy.host:
            self._understudy.heard += len(outs)
            return
        asked = [(sequence, out) for sequence, out in outs if sequence]
        if asked:
            self.batches[len(asked)] += 1
        for sequence, out in asked:
            self._hand_over(sequence, out)

    def _hand_over(self, sequence: int, out: Out) -> None:
        self._quiet = 0.0
        self.held += out.held
        if not out.held:
            self._last_step = self._clock.now()
        if sequence not in self._pending:
            return
        seat, answer, host = self._pending.pop(sequence)
        seat.unanswered -= 1
        if answer.done():
            return  # its session has left
        if (out.slot, out.generation) != (seat.slot, seat.generation):
            self._lose(host, f"an answer for slot {out.slot} came out as one for slot {seat.slot}")
            answer.set_exception(WorkerLost("the answer was another session's"))
            return
        answer.set_result(out)

    def release(self, seat: Seat) -> None:
        """For `Seat.release`."""
        self._seats[seat.slot] = None
        for asker, answer, _ in self._pending.values():
            if asker is seat:
                answer.cancel()  # stays in the table until its answer comes, so that the watchdog still counts it

    async def _open(self) -> "tuple[Host, Opened]":
        host: Host
        calls = Calls(
            answered=lambda outs: self._answered(host, outs),
            lost=lambda reason: self._lose(host, reason),
            better=self._better.set,
        )
        host = ThreadHost(self._terms, calls) if self._loops is None else ProcessHost(self._terms, self._loops, calls)
        try:
            opened = await host.open()
            known = {name: card.revision for name, card in self._cards.items()}
            if known and known != {name: card.revision for name, card in opened.cards.items()}:
                raise RuntimeError("an avatar changed on disk while it was served; restart the server to use it")
        except BaseException:
            host.kill()
            await host.close()
            raise
        return host, opened

    def _lose(self, lost: Host, reason: str) -> None:
        """A host is no more to be used. If it serves, every open question fails now, and the supervisor replaces it."""
        if self._understudy is not None and lost is self._understudy.host:
            log.warning("the better runtime is lost before it served (%s)", reason)
            self._dismiss(lost)
            self._understudy = None
        elif lost in (self._host, self._leaving):
            log.warning("the model is lost (%s): replacing it", reason)
            for host in self._all_hosts():
                self._dismiss(host)
            self._host = self._leaving = self._understudy = None
            self._fail_pending(reason)
        self._lost.set()

    def _dismiss(self, host: Host) -> None:
        host.kill()
        self._see_off(host)

    def _see_off(self, host: Host) -> None:
        """The supervisor closes it; or whoever leaves the worker, if that comes first."""
        self._dying.append(host)
        self._lost.set()

    def _fail_pending(self, reason: str) -> None:
        pending, self._pending = self._pending, {}
        for seat, answer, _ in pending.values():
            seat.unanswered -= 1
            if not answer.done():
                answer.set_exception(WorkerLost(reason))

    async def _watch(self) -> None:
        """Lose a host that answers nothing for `patience` seconds while something is due.

        Only time in which this loop ran counts: if the whole machine stood still, the model did too.
        """
        before = self._clock.now()
        while True:
            await self._clock.sleep_until(before + WATCH_SECONDS)
            now = self._clock.now()
            if self._host is not None and self._pending:
                self._quiet += min(now - before, 2 * WATCH_SECONDS)
                for host in self._all_hosts():
                    host.collect()
                if self._quiet > self._patience and self._pending:
                    self._lose(self._host, f"no answer for {self._patience:g} s")
            before = now

    async def _replace_lost(self) -> None:
        while True:
            await self._lost.wait()
            self._lost.clear()
            while self._dying:
                host = self._dying[0]
                await host.close()
                self._dying.remove(host)
            wait = 0.0
            while self._host is None:
                await self._clock.sleep_until(self._clock.now() + wait)
                try:
                    host, opened = await self._open()
                except (RuntimeError, OSError) as error:
                    wait = min(max(0.5, 2 * wait), BACK_OFF_MOST)
                    log.error("the model cannot be opened again (%s): next attempt in %g s", error, wait)
                    continue
                for seat in self._taken():
                    seat.stale = True
                self._quiet = 0.0
                self.restarts += 1
                self._host, self.backend = host, opened.reason

    def _taken(self) -> list[Seat]:
        return [seat for seat in (*self._seats, self._canary) if seat is not None]

    async def _improve(self) -> None:
        """When something better can be had, open it beside what serves, let it hear along, and let it take over."""
        while True:
            await self._better.wait()
            self._better.clear()
            try:
                host, opened = await self._open()
            except (RuntimeError, OSError) as error:
                log.warning("the better runtime cannot be opened (%s): the present one serves on", error)
                continue
            if opened.improving or self._host is None:  # no better than before, or nobody to take over from
                self._see_off(host)
                continue
            understudy = self._understudy = Understudy(host)
            until = self._clock.now() + LISTEN_MOST_SECONDS
            await self._clock.sleep_until(self._clock.now() + LISTEN_SECONDS)
            while self._understudy is understudy and understudy.behind(self._slots) and self._clock.now() < until:
                await self._clock.sleep_until(self._clock.now() + WATCH_SECONDS)
            if self._understudy is understudy:
                await self._take_over(understudy, opened.reason)

    async def _take_over(self, understudy: "Understudy", reason: str) -> None:
        """Each seat moves on as soon as all that it has asked is answered; who never was heard starts from silence."""
        self._understudy = None
        if understudy.behind(self._slots):
            log.warning("the better runtime does not keep up: the present one serves on")
            return self._see_off(understudy.host)
        for seat in self._taken():
            seat.stale = seat.stale or seat not in understudy.seats
        self._leaving, self._host = self._host, understudy.host
        self.backend = reason
        self.improvements += 1
        log.info("%s now serves", reason)
        until = self._clock.now() + LISTEN_SECONDS
        while self._leaving is not None and any(host is self._leaving for *_, host in self._pending.values()):
            await self._clock.sleep_until(self._clock.now() + WATCH_SECONDS)
            if self._clock.now() > until:  # who never waits for an answer moves on all the same
                for seat in self._taken():
                    seat.at = None
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            self._see_off(leaving)


class Understudy:
    """A host that hears what all seats say, and answers nobody."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.seats: set[Seat] = set()
        """Those that it has heard."""
        self.told = 0
        self.heard = 0

    def behind(self, slots: int) -> bool:
        """It has not shown yet that it can step, or not that it is fast enough."""
        return self.told - self.heard > MOST_PENDING * slots or (self.told > 0 and self.heard == 0)

    def hear(self, seat: Seat, row: Row) -> None:
        self.host.send(0, replace(in_passing(row), reset=row.reset or seat not in self.seats))
        self.seats.add(seat)
        self.told += 1


def in_passing(row: Row) -> Row:
    """Only what follows from sound is computed: that is where states are. Nobody is answered (question 0)."""
    return replace(row, wants=Wants.NOTHING)
