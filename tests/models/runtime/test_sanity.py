"""A broken picture never gets out, and breaks nobody else."""

from dataclasses import replace

import numpy as np
import pytest

from models.runtime import Out, Row, Wants
from models.runtime.sanity import Sane
from tests.models.runtime.scripted import FLAT, NAN, WELL, WRONG, Scripted

ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE


def row(slot: int = 0, order: float = WELL, value: float = 1.0, **changes: object) -> Row:
    pcm = np.zeros(640, np.float32)
    pcm[:2] = order, value
    return replace(Row(slot, 1, False, "anna", pcm, 0, ALL), **changes)  # type: ignore[arg-type]


def sane() -> Sane:
    return Sane(Scripted(["anna"], 3, None))


def heard(out: Out) -> float | None:
    return None if out.points is None else float(out.points[0, 0])


@pytest.mark.parametrize("order", [NAN, FLAT])
def test_the_last_good_answer_is_held_and_the_slot_alone_starts_again(order: float) -> None:
    runtime = sane()
    runtime.step([row(0), row(1)])
    bad, neighbour = runtime.step([row(0, order, 50), row(1)])
    assert (bad.held, heard(bad)) == (True, 1)
    assert bad.roi is not None
    assert np.ptp(bad.roi.luma) > 4
    assert (neighbour.held, heard(neighbour)) == (False, 2)
    after, neighbour = runtime.step([row(0, value=7), row(1)])
    assert (after.held, heard(after)) == (False, 7)
    assert heard(neighbour) == 3


def test_what_is_held_is_what_is_wanted_now() -> None:
    runtime = sane()
    runtime.step([row()])
    bad = runtime.step([row(order=NAN, wants=Wants.POINTS)])[0]
    assert bad.held
    assert bad.points is not None
    assert bad.roi is None
    assert bad.face is None


def test_what_one_session_was_shown_is_never_held_for_the_next() -> None:
    runtime = sane()
    runtime.step([row(value=99)])
    bad = runtime.step([row(order=NAN, generation=2, reset=True)])[0]
    assert (bad.held, bad.points, bad.roi) == (True, None, None)


def test_a_flat_picture_over_a_flat_loop_is_a_picture() -> None:
    scripted = Scripted(["anna"], 1, None)
    card = scripted.cards["anna"]
    scripted._cards["anna"] = replace(card, loop=np.zeros_like(card.loop))
    assert not Sane(scripted).step([row(order=FLAT)])[0].held


def test_answers_out_of_order_are_not_trusted() -> None:
    with pytest.raises(RuntimeError, match="in order"):
        sane().step([row(order=WRONG)])
