"""One session's place in the batch, and what may be wrong with it."""

import asyncio
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np

from engine.worker.host import Host
from models.rates import CHUNK
from models.runtime import AvatarCard, Floats, Out, Row, Wants

MOST_PENDING: Final = 8
"""Chunks of one seat that may wait for an answer: 320 ms of sound."""


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


class Seats(Protocol):
    """Whose seats they are."""

    def send(self, seat: "Seat", row: Row) -> "asyncio.Future[Out]": ...

    def release(self, seat: "Seat") -> None: ...


class Seat:
    """One session's place in the batch. Leaving the `with` block, or `release()`, frees it."""

    def __init__(self, seats: Seats, slot: int, generation: int, card: AvatarCard) -> None:
        self.slot = slot
        self.generation = generation
        self.card = card
        self._seats = seats
        self._released = False
        self.stale = True
        """The slot's state is not this seat's yet: the next row resets it."""
        self.unanswered = 0
        self.at: Host | None = None
        """Where its unanswered chunks are."""

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
            reset=reset or self.stale,
            avatar=self.card.name,
            pcm=features.astype(np.float32),
            loop_index=loop_index % self.card.frames,
            wants=wants,
        )
        answer = self._seats.send(self, row)
        if not answer.done():
            self.stale = False
        return answer

    def release(self) -> None:
        """Free the slot. Calling it again does nothing."""
        if not self._released:
            self._released = True
            self._seats.release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()
