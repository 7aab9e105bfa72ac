"""The model's one thread: takes the rows that wait, steps them together, answers, at once again."""

from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Final, Protocol

from models.runtime import Out, Row, Runtime, Wants

Numbered = tuple[int, Row]

APART_SECONDS: Final = 0.003
"""From the beginning of one step to that of the next, at least. What came meanwhile shares a step, and much of a step's
cost is one for all: a hundred faces take a third of a core instead of a whole one. Whoever is alone never waits, since
its chunks are 40 ms apart; nor does anybody whose steps take longer than this, as pictures do."""

REST_MOST_SECONDS: Final = 0.010
"""A step without pictures is followed by a rest as long as itself, up to this: a face costs less, the more there are in
a step, and 40 of them that are gathered a little longer leave a quarter of the core to whoever sends them."""


class Link(Protocol):
    """The model thread's end of whatever connects it with the sessions."""

    def take(self, wait: bool) -> Sequence[Numbered] | None:
        """The new rows, each with its sequence number, in order; waits for one if told to. None: it is over."""
        ...

    def answer(self, outs: Sequence[tuple[int, Out]]) -> None: ...


def serve(
    runtime: Runtime, link: Link, now: Callable[[], float] = perf_counter, pause: Callable[[float], None] = sleep
) -> None:
    """Until the link is over. What the runtime raises is raised: a runtime that fails once is not trusted again."""
    waiting: deque[Numbered] = deque()
    due = now()
    while True:
        taken = link.take(wait=not waiting)
        if taken and not waiting and due > now():
            pause(due - now())
            late = link.take(wait=False)
            taken = None if late is None else [*taken, *late]
        if taken is None:
            return
        waiting.extend(taken)
        begun = now()
        due = begun + APART_SECONDS
        batch = first_of_each_slot(waiting)
        if batch:
            outs = runtime.step([row for _, row in batch])
            if not any(Wants.PICTURE in row.wants for _, row in batch):
                ended = now()
                due = max(due, ended + min(ended - begun, REST_MOST_SECONDS))
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
