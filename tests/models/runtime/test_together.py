"""Several runtimes as one."""

import numpy as np
import pytest

from models.runtime import Row, Wants
from models.runtime.together import Together
from tests.models.runtime.scripted import Scripted


def row(slot: int, avatar: str, value: float) -> Row:
    pcm = np.zeros(640, np.float32)
    pcm[1] = value
    return Row(slot, 1, True, avatar, pcm, 0, Wants.POINTS | Wants.FACE)


def test_every_row_goes_to_its_avatar_s_runtime_and_answers_come_in_order() -> None:
    together = Together([Scripted(["anna", "bert"], 4, None), Scripted(["cleo"], 4, None)], ["cleo", "anna", "bert"])
    assert list(together.cards) == ["cleo", "anna", "bert"]
    outs = together.step([row(3, "cleo", 1), row(0, "bert", 2), row(1, "cleo", 3), row(2, "anna", 4)])
    assert [(out.slot, float(out.points[0, 0])) for out in outs if out.points is not None] == [
        (3, 1),
        (0, 2),
        (1, 3),
        (2, 4),
    ]
    assert [float(out.face[0]) for out in outs if out.face is not None] == [2, 2, 2, 2]  # rows in each one's batch
    together.close()


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one name"):
        Together([Scripted(["anna"], 1, None), Scripted(["anna"], 1, None)], ["anna", "anna"])
