"""Which mouths are mixed, and that they land where the head is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import face
from models.runtime import Bytes, Floats
from models.runtime.articulation import BITE, FUNNEL, OPENING, PRESS, REST, ROUNDING, TEETH, WIDTH
from models.runtime.mouths import Choice, Painter
from tests.models.runtime.drawn import OPENINGS, SHAPES, SINGLES

COUNT = len(OPENINGS)
FIRST = {name: COUNT * place for place, name in enumerate(SHAPES)}
SINGLE = {name: COUNT * len(SHAPES) + place for place, name in enumerate(SINGLES)}


@pytest.fixture(scope="module")
def choice() -> Choice:
    faces = [({**shape, "jawOpen": gap}, 24 * gap) for shape, _ in SHAPES.values() for gap in OPENINGS]
    faces += [(named, gap) for named, _, gap in SINGLES.values()]
    weights = np.array([[named.get(n, 0.0) for n in face.ARKIT_52] for named, _ in faces], np.float32)
    return Choice(weights, np.array([gap for _, gap in faces], np.float32))


def articulation(**values: float) -> Floats:
    kinds = {"opening": OPENING, "rounding": ROUNDING, "width": WIDTH, "teeth": TEETH, "funnel": FUNNEL, "press": PRESS}
    made = REST.copy()
    for name, value in values.items():
        made[kinds[name]] = value
    return made


def test_rest_is_the_shut_plain_mouth(choice: Choice) -> None:
    weights = choice.weigh(REST)
    assert weights[FIRST["plain"]] == 1


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"press": 1.0}, SINGLE["press"]),
        ({"teeth": 1.0, "opening": 0.1}, SINGLE["teeth"]),
        ({"funnel": 1.0}, SINGLE["funnel"]),
        ({"rounding": 1.0}, FIRST["rounded"]),
        ({"width": 1.0}, FIRST["wide"]),
    ],
)
def test_each_sound_has_its_mouth(choice: Choice, values: dict[str, float], place: int) -> None:
    assert choice.weigh(articulation(**values)).argmax() == place


def test_opening_moves_through_neighbours_only(choice: Choice) -> None:
    seen = []
    for opening in np.linspace(0, 1, 50):
        used = np.flatnonzero(choice.weigh(articulation(opening=opening)))
        assert len(used) <= 2
        assert np.ptp(used) <= 1
        seen.append(int(used[-1]))
    assert seen == sorted(seen)
    assert seen[-1] == FIRST["plain"] + COUNT - 1


@given(st.lists(st.floats(0, 1, width=32), min_size=6, max_size=6))
def test_weights_are_shares(choice: Choice, values: list[float]) -> None:
    weights = choice.weigh(np.array(values, np.float32))
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1, abs=1e-5)


def test_mouths_of_no_common_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="no three mouths"):
        Choice(np.eye(52, dtype=np.float32)[17:20], np.zeros(3, np.float32))


def gradient_painter(similarity: list[float], mask: Floats | None = None) -> tuple[Painter, Bytes]:
    """A patch [30, 40] whose red grows to the right and green downwards, over a grey loop."""
    y, x = np.mgrid[:30, :40]
    patch = np.stack([x * 5, y * 5, 0 * x], -1).astype(np.uint8)
    loop = np.full((1, 96 * 3 // 2, 128), 99, np.uint8)
    mouths = {
        "patches": patch[None],
        "mask": np.ones((30, 40), np.float32) if mask is None else mask,
        "points": np.zeros((1, 131, 3), np.float32),
    }
    return Painter(mouths, np.array([similarity], np.float32), loop), loop


def test_a_patch_that_is_only_moved_arrives_unchanged() -> None:
    painter, _ = gradient_painter([1, 0, 20, 10])
    roi = painter.paint(np.ones(1, np.float32), 0)
    y, x = np.mgrid[:30, :40]
    assert (roi.x, roi.y) == (20, 10)
    expected = 16 + (65.481 * x * 5 + 128.553 * y * 5) / 255
    assert np.abs(roi.luma[:29, :39] - expected[:29, :39]).max() <= 0.6
    assert roi.u.shape == (15, 20)


def test_a_turned_and_scaled_patch_lands_where_the_similarity_says() -> None:
    a, b = 1.2 * np.cos(0.3), 1.2 * np.sin(0.3)
    painter, _ = gradient_painter([a, b, 40, 20])
    roi = painter.paint(np.ones(1, np.float32), 0)
    for x, y in ((5, 5), (20, 10), (35, 25), (8, 22)):
        column, row = a * x - b * y + 40 - roi.x, b * x + a * y + 20 - roi.y
        assert abs(int(roi.luma[round(row), round(column)]) - (16 + (65.481 * x + 128.553 * y) * 5 / 255)) < 4


def test_without_mask_there_is_only_the_loop() -> None:
    mask = np.zeros((30, 40), np.float32)
    mask[10:20, 10:30] = 1
    painter, loop = gradient_painter([1, 0, 20, 10], mask)
    roi = painter.paint(np.ones(1, np.float32), 0)
    assert (roi.x, roi.y) == (30, 20)
    assert (roi.u != 99).any()
    painter, loop = gradient_painter([1, 0, 20, 10], 0.001 * mask)
    roi = painter.paint(np.ones(1, np.float32), 0)
    assert (roi.luma == loop[0, 0, 0]).all()
    assert (roi.v == 99).all()


def test_a_mouth_that_hangs_over_the_edge_stays_in_the_frame() -> None:
    painter, _ = gradient_painter([1, 0, 100, 80])
    roi = painter.paint(np.ones(1, np.float32), 0)
    assert roi.x + roi.luma.shape[1] <= 128
    assert roi.y + roi.luma.shape[0] <= 96


def test_no_mouth_is_no_picture() -> None:
    painter, _ = gradient_painter([1, 0, 20, 10])
    with pytest.raises(ValueError, match="no mouth"):
        painter.paint(np.zeros(1, np.float32), 0)


def two_mouths() -> Painter:
    """A light patch [60, 40] with a dark band as tall as the lips are parted: 8 pixels in one, 24 in the other."""
    patches = np.full((2, 60, 40, 3), 220, np.uint8)
    points = np.zeros((2, 131, 3), np.float32)
    points[:, :57, 0] = np.linspace(0, 39, 57)
    for mouth, gap in enumerate((8, 24)):
        patches[mouth, 30 - gap // 2 : 30 + gap // 2] = 20
        points[mouth, :57:2, 1] = 29.5 - gap / 2
        points[mouth, 1:57:2, 1] = 29.5 + gap / 2
    mouths = {"patches": patches, "mask": np.ones((60, 40), np.float32), "points": points}
    return Painter(mouths, np.array([[1, 0, 20, 10]], np.float32), np.full((1, 144, 128), 99, np.uint8))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_mixture_has_lips_in_between_and_no_ghosts(share: float) -> None:
    painter = two_mouths()
    column = painter.paint(np.array([1 - share, share], np.float32), 0).luma[2:58, 20].astype(int)
    dark, light = 16 + 20 * 219 / 255, 16 + 220 * 219 / 255
    assert abs((column < (dark + light) / 2).sum() - (8 + 16 * share)) <= 2
    ghosts = (column > dark + 25) & (column < light - 25)
    assert ghosts.sum() <= 4  # a cross-fade of these two would show 16


def test_the_picture_far_from_the_lips_does_not_bend() -> None:
    painter, _ = gradient_painter([1, 0, 20, 10])
    one = painter.paint(np.ones(1, np.float32), 0)
    painter._planes = np.repeat(painter._planes, 2, axis=0)
    painter._points = np.stack([np.full((57, 2), 300.0), np.full((57, 2), 320.0)]).astype(np.float32)
    both = painter.paint(np.array([0.5, 0.5], np.float32), 0)
    assert np.abs(one.luma.astype(int) - both.luma).max() <= 1


def test_a_mixture_of_many_costs_no_more_than_one_of_three() -> None:
    painter, _ = gradient_painter([1, 0, 20, 10])
    painter._planes = np.concatenate([painter._planes] * 3 + [0 * painter._planes] * 2)
    painter._points = np.zeros((5, 57, 2), np.float32)
    roi = painter.paint(np.array([0.3, 0.25, 0.2, 0.15, 0.1], np.float32), 0)
    assert roi.luma[20, 30] > 100  # the two least, which are black, were left out


def weights_of(**named: float) -> Floats:
    return np.array([named.get(name, 0.0) for name in face.ARKIT_52], np.float32)


@pytest.mark.parametrize(
    ("named", "kind"),
    [
        ({"jawOpen": 0.6}, OPENING),
        ({"mouthPucker": 0.6, "jawOpen": 0.05}, ROUNDING),
        ({"mouthStretchLeft": 0.4, "mouthSmileLeft": 0.2}, WIDTH),
        ({"mouthLowerDownLeft": 0.3, "jawOpen": 0.05}, TEETH),
        ({"mouthFunnel": 0.6, "mouthPucker": 0.1}, FUNNEL),
        ({"mouthPressLeft": 0.66, "mouthRollLower": 0.3}, PRESS),
        ({"mouthRollLower": 0.7, "mouthUpperUpLeft": 0.3}, BITE),
    ],
)
def test_what_is_heard_as_weights_is_shown_as_its_articulation(
    choice: Choice, named: dict[str, float], kind: int
) -> None:
    assert choice.articulate(weights_of(**named)).argmax() == kind


def test_jaw_that_the_lips_close_over_opens_nothing(choice: Choice) -> None:
    assert choice.articulate(weights_of(jawOpen=0.3, mouthClose=0.3))[OPENING] == 0


def test_what_a_network_says_of_silence_is_rest(choice: Choice) -> None:
    faint = weights_of(jawOpen=0.03, mouthStretchLeft=0.02, mouthRollLower=0.05, mouthLowerDownLeft=0.02)
    assert choice.weigh(choice.articulate(faint))[FIRST["plain"]] == 1
