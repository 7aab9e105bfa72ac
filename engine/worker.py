"""The model's process, seen from asyncio: batches sessions, hands answers back, replaces the process when it dies.

    async with Worker([Path("models/shipped/demo")], slots=4, clock=RealClock()) as worker:
        with worker.seat("demo") as seat:
            out = await seat.hear(features, loop_index=0, wants=Wants.PICTURE, reset=True)

Rows and answers travel through memory shared with a child process (`models.runtime.child`) in which one thread steps
the runtime. Rows that are ready when a step ends go together into the next one; there is no tick to wait for. An
answer carries (slot, generation), so that a late one never reaches a new session.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.clock import Clock
from models.runtime import AvatarCard, Floats, OpenRuntime, Out, Wants

MOST_PENDING = 8
"""Chunks of one seat that may wait for an answer: 320 ms of sound."""


class NoFreeSlot(RuntimeError):  # noqa: N818 - it is a refusal, not a fault
    """Every slot is taken. Try again after `retry_after` seconds."""

    def __init__(self, slots: int, retry_after: float = 5.0) -> None:
        super().__init__(f"all {slots} slots are taken; try again in {retry_after:g} s or serve with more --slots")
        self.retry_after = retry_after


class UnknownAvatar(LookupError):  # noqa: N818 - it is a refusal, not a fault
    """No open avatar has this name."""


class WorkerLost(RuntimeError):  # noqa: N818 - the worker is what was lost
    """The model's process died, hung or is being replaced; this chunk gets no answer. Show the loop picture."""


class SeatBusy(RuntimeError):  # noqa: N818 - it is a refusal, not a fault
    """The seat has `MOST_PENDING` chunks unanswered: await a future before the next `hear`."""


class Seat:
    """One session's place in the batch. Leaving the `with` block, or `release()`, frees it."""

    slot: int
    generation: int
    card: AvatarCard

    def hear(self, features: Floats, loop_index: int, wants: Wants, reset: bool = False) -> "asyncio.Future[Out]":
        """Send 40 ms (f32 [640], copied before return) and get a future of the answer. Never blocks.

        The answer is for the chunk heard `card.lookahead` calls before this one, and `loop_index` is of that frame.
        Raises `SeatBusy` at the ninth unanswered call. The future raises `WorkerLost` if the process is lost before it
        answers, or is lost now; later calls work again when it is back, and the first of them resets by itself.
        Calls of one seat are answered in their order. Released seats' futures are cancelled.
        """
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.release()


class Worker:
    """Owns the model's process from `async with` to its end.

    `packages` are avatar directories. `backend`: "auto", "plain", "openvino", … or the dotted name of any module with
    `open(packages, slots, lookahead=None) -> Runtime`; with `inline=True` such a callable itself too. `inline` runs the
    runtime in a thread of this process, for tests and debugging. One more slot than `slots` is opened: the canary's.
    Entering waits until the runtime is open and warm; it raises `RuntimeError` with one line when it cannot be opened.
    """

    restarts: int = 0
    """Times that the process was replaced."""
    held: int = 0
    """Answers that were not sane (NaN, flat) and were replaced by the last good one."""
    backend: str
    """What serves, and why it was chosen, in one line."""

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
        raise NotImplementedError

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        """By name, in the order of the packages. Loop pictures are shared with the child, not copied; read-only."""
        raise NotImplementedError

    @property
    def slots(self) -> int:
        raise NotImplementedError

    @property
    def free_slots(self) -> int:
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """The process is there, open and warm."""
        raise NotImplementedError

    @property
    def last_step(self) -> float | None:
        """When the last answer came, on the worker's clock."""
        raise NotImplementedError

    def seat(self, avatar: str) -> Seat:
        """Take a slot. Raises `UnknownAvatar`, `NoFreeSlot`."""
        raise NotImplementedError

    async def canary(self) -> Out:
        """Step the reserved slot once. Raises `WorkerLost`, or `TimeoutError` after the watchdog's second."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        raise NotImplementedError
