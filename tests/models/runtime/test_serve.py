"""The model's thread: what waits goes together, a session's rows one after another."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.runtime import Out, Row, Wants
from models.runtime.serve import APART_SECONDS, REST_MOST_SECONDS, Numbered, first_of_each_slot, serve
from tests.models.runtime.scripted import RAISE, Scripted


def row(slot: int, order: float = 0.0, value: float = 1.0) -> Row:
    pcm = np.zeros(640, np.float32)
    pcm[:2] = order, value
    return Row(slot, 1, False, "anna", pcm, 0, Wants.POINTS)


class Script:
    """Deliveries, one for each call of `take`, then the end."""

    def __init__(self, *deliveries: Sequence[Numbered]) -> None:
        self.deliveries = deque(deliveries)
        self.waits: list[bool] = []
        self.answers: list[list[tuple[int, float]]] = []

    def take(self, wait: bool) -> Sequence[Numbered] | None:
        self.waits.append(wait)
        return self.deliveries.popleft() if self.deliveries else None

    def answer(self, outs: Sequence[tuple[int, Out]]) -> None:
        self.answers.append([(sequence, float(out.points[0, 0])) for sequence, out in outs if out.points is not None])


def test_rows_of_many_sessions_go_in_one_step_and_of_one_session_in_many() -> None:
    link = Script([(1, row(0)), (2, row(1)), (3, row(0)), (4, row(2))], [(5, row(1))], [])
    serve(Scripted(["anna"], 3, None), link)
    assert link.answers == [[(1, 1), (2, 1), (4, 1)], [(3, 2), (5, 2)]]
    assert link.waits == [True, False, True, True]


def test_what_comes_soon_after_a_step_is_gathered_for_the_next() -> None:
    """A step begins, and 1 ms later the next row is there: it waits 2 ms, and another one comes to it."""
    time, pauses = 0.0, list[float]()

    def pause(seconds: float) -> None:
        nonlocal time
        time += seconds
        pauses.append(seconds)

    class Hours(Script):
        def take(self, wait: bool) -> Sequence[Numbered] | None:
            nonlocal time
            time += 0.001 if wait else 0.0
            return super().take(wait)

    link = Hours([(1, row(0))], [(2, row(1))], [(3, row(2))], [(4, row(3)), (5, row(3))], [], [])
    serve(Scripted(["anna"], 4, None), link, lambda: time, pause)
    assert [[sequence for sequence, _ in answer] for answer in link.answers] == [[1], [2, 3], [4], [5]]
    assert pauses == [pytest.approx(APART_SECONDS - 0.001)] * 2


@pytest.mark.parametrize(
    ("wants", "took", "rest"),
    [
        (Wants.FACE, 0.004, 0.004),
        (Wants.FACE, 0.5, REST_MOST_SECONDS),
        (Wants.FACE, 0.001, APART_SECONDS - 0.001),
        (Wants.FACE | Wants.PICTURE, 0.004, None),
    ],
    ids=["faces", "a step that was slow for once", "quick faces", "a picture"],
)
def test_after_faces_the_thread_rests_as_long_as_they_took(wants: Wants, took: float, rest: float | None) -> None:
    time, pauses = 0.0, list[float]()

    class Slow(Scripted):
        def step(self, rows: Sequence[Row]) -> list[Out]:
            nonlocal time
            time += took
            return super().step(rows)

    link = Script([(1, replace(row(0), wants=wants))], [(2, replace(row(1), wants=wants))], [])
    serve(Slow(["anna"], 4, None), link, lambda: time, pauses.append)
    assert pauses == ([] if rest is None else [pytest.approx(rest)])


def test_the_end_is_heard_while_rows_are_gathered() -> None:
    link = Script([(1, row(0))], [(2, row(1))])
    serve(Scripted(["anna"], 4, None), link, lambda: 0.0, lambda seconds: None)
    assert len(link.answers) == 1


def test_what_the_runtime_raises_is_raised() -> None:
    with pytest.raises(RuntimeError, match="illegal address"):
        serve(Scripted(["anna"], 1, None), Script([(1, row(0, RAISE))]))


@given(st.lists(st.integers(0, 4), max_size=30))
def test_every_row_is_served_once_and_in_its_session_s_order(slots: list[int]) -> None:
    waiting = deque((number, row(slot)) for number, slot in enumerate(slots))
    served: list[Numbered] = []
    while waiting:
        batch = first_of_each_slot(waiting)
        assert len({numbered[1].slot for numbered in batch}) == len(batch) > 0
        served.extend(batch)
    for slot in range(5):
        assert [n for n, r in served if r.slot == slot] == [n for n, s in enumerate(slots) if s == slot]
