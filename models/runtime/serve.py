"""The model's one thread: takes the rows that wait, steps them together, answers, at once again."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from models.runtime import Out, Row, Runtime

Numbered = tuple[int, Row]


class Link(Protocol):
    """The model thread's end of whatever connects it with the sessions."""

    def take(self, wait: bool) -> Sequence[Numbered] | None:
        """The new rows, each with its sequence number, in order; waits for one if told to. None: it is over."""
        ...

    def answer(self, outs: Sequence[tuple[int, Out]]) -> None: ...


def serve(runtime: Runtime, link: Link) -> None:
    """Until the link is over. What the runtime raises is raised: a runtime that fails once is not trusted again."""
    waiting: deque[Numbered] = deque()
    while True:
        taken = link.take(wait=not waiting)
        if taken is None:
            return
        waiting.extend(taken)
        batch = first_of_each_slot(waiting)
        if batch:
            outs = runtime.step([row for _, row in batch])
            link.answer([(sequence, out) for (sequence, _), out in zip(batch, outs, strict=True)])


def first_of_each_slot(waiting: deque[Numbered]) -> list[Numbered]:
    """Move them out of `waiting`: a session's rows follow one another, so a batch has one row of a slot at most."""
    batch: list[Numbered] = []
    slots: set[int] = set()
    for _ in range(len(waiting)):
        numbered = waiting.popleft()
        if numbered[1].slot in slots:
            waiting.append(numbered)
        else:
            slots.add(numbered[1].slot)
            batch.append(numbered)
    return batch
