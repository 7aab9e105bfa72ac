"""A worker without a process: the fake model answers after a delay of the test's own clock."""

import asyncio
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from engine.worker import NoFreeSlot, UnknownAvatar, WorkerLost
from models.runtime import AvatarCard, Floats, Out, Row, Wants
from tests.fakes import FakeRuntime, JumpingClock


class FakeSeat:
    def __init__(self, worker: "FakeWorker", slot: int, generation: int, card: AvatarCard) -> None:
        self.slot, self.generation, self.card = slot, generation, card
        self.calls: list[tuple[int, Wants, bool]] = []
        self._worker = worker
        self._pending: deque[asyncio.Future[Out]] = deque()

    def hear(self, features: Floats, loop_index: int, wants: Wants, reset: bool = False) -> "asyncio.Future[Out]":
        self.calls.append((loop_index, wants, reset))
        future: asyncio.Future[Out] = asyncio.get_running_loop().create_future()
        row = Row(self.slot, self.generation, reset, self.card.name, features.copy(), loop_index, wants)
        self._worker.answer(row, future)
        return future

    def release(self) -> None:
        self._worker.taken.discard(self.slot)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


class FakeWorker:
    """`delays` holds the seconds that each answer takes, in order; then `delay`. A delay of "lost" loses the worker."""

    def __init__(self, clock: JumpingClock, lookahead: int = 0, slots: int = 4, delay: float = 0.010) -> None:
        self.clock, self.slots, self.delay = clock, slots, delay
        self.runtime = FakeRuntime(slots=slots, lookahead=lookahead)
        self.delays: deque[float | str] = deque()
        self.taken: set[int] = set()
        self.seats: list[FakeSeat] = []
        self.lost = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self.runtime.cards

    @property
    def free_slots(self) -> int:
        return self.slots - len(self.taken)

    def seat(self, avatar: str) -> FakeSeat:
        if avatar not in self.cards:
            raise UnknownAvatar(avatar)
        free = [slot for slot in range(self.slots) if slot not in self.taken]
        if not free:
            raise NoFreeSlot(self.slots)
        self.taken.add(free[0])
        self.seats.append(FakeSeat(self, free[0], len(self.seats), self.cards[avatar]))
        return self.seats[-1]

    def answer(self, row: Row, future: "asyncio.Future[Out]") -> None:
        delay = self.delays.popleft() if self.delays else self.delay
        if delay == "lost" or self.lost:
            future.set_exception(WorkerLost("killed by the test"))
            return
        assert isinstance(delay, float)
        out = self.runtime.step([row])[0]
        task = asyncio.ensure_future(self._later(self.clock.now() + delay, out, future))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self, when: float, out: Out, future: "asyncio.Future[Out]") -> None:
        await self.clock.sleep_until(when)
        if not future.done():
            future.set_result(out)
