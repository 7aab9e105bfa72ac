"""Whole faces out of films: where they lie, what is hidden of them, and whose neighbours they are."""

import numpy as np
import pytest
import torch

from models import face, metrics
from models.renderers.faces import WHOLE_CHIN, WHOLE_NOSE, faces, lips_boxes, lower_face, whole_face
from models.renderers.fit import Clip
from models.renderers.placing import CHIN, NOSE_TIP, apply
from tests.models.renderers.people import speaks

SIZE = 64


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_face_is_whole_and_its_lower_half_begins_below_the_nose() -> None:
    mean = whole_face([speaks(12).points], SIZE)
    assert mean[NOSE_TIP, 1] == pytest.approx(WHOLE_NOSE * SIZE, abs=0.6)
    assert mean[CHIN, 1] == pytest.approx(WHOLE_CHIN * SIZE, abs=0.6)
    assert mean[face.LIPS, 1].min() > SIZE / 2


def test_what_is_read_lies_where_its_points_say() -> None:
    clip = speaks(8)
    mean = whole_face([clip.points], SIZE)
    seen = faces([clip], mean, SIZE, [torch.arange(8.0)[:, None]])
    assert seen.patches.shape == (8, 3, SIZE, SIZE)
    back = apply(seen.similarity, seen.house.numpy())
    np.testing.assert_allclose(back, clip.points[:, face.HOUSE, :2], atol=1e-2)
    assert seen.code[:, 0].tolist() == list(range(8))


def test_a_neighbour_is_of_the_same_clip() -> None:
    mean = whole_face([speaks(5).points], SIZE)
    seen = faces([speaks(5), speaks(4, seed=1)], mean, SIZE)
    assert seen.near(np.array([0, 4, 5, 8]), -2).tolist() == [0, 2, 5, 6]
    assert seen.near(np.array([0, 4, 5, 8]), np.array([9, 1, 1, 1])).tolist() == [4, 4, 6, 8]


def test_a_clip_that_lost_the_face_is_refused() -> None:
    clip = speaks(5)
    clip.points[2] = np.nan
    with pytest.raises(ValueError, match="lost in clip 0"):
        faces([Clip(clip.pictures, clip.points)], whole_face([speaks(5).points], SIZE), SIZE)


def test_mouth_and_jaw_are_hidden_and_the_patchs_edge_never_painted() -> None:
    points = speaks(12).points
    mean = whole_face([points], SIZE)
    hole, mask = lower_face([points], mean, SIZE)
    for x, y in mean[face.LIPS].round().astype(int):
        assert hole[y, x] == 1
        assert mask[y, x] > 0.9
    assert hole[: round(mean[NOSE_TIP, 1])].sum() == 0
    assert (mask[hole == 0] == 0).all()
    assert mask[[0, -1]].max() == mask[:, [0, -1]].max() == 0


def test_boxes_of_lips_are_those_that_pictures_are_judged_by() -> None:
    lips = torch.tensor([[[20.0, 30.0], [40.0, 36.0], [30.0, 44.0], [30.0, 33.0]]])
    house = np.zeros((131, 3))
    house[face.LIPS_IN_HOUSE[:4], :2] = lips[0].numpy()
    house[face.LIPS_IN_HOUSE[4:], :2] = lips[0, 0].numpy()
    box = metrics.lips_box(house, SIZE, SIZE)
    ours = lips_boxes(lips, SIZE)[0, 0].numpy()
    rows, columns = np.nonzero(ours)
    assert abs(rows.min() - box.top) <= 1
    assert abs(rows.max() + 1 - box.bottom) <= 1
    assert abs(columns.min() - box.left) <= 1
    assert abs(columns.max() + 1 - box.right) <= 1
