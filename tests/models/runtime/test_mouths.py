"""Which mouths a face needs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import face
from models.runtime import Floats
from models.runtime.articulation import BITE, FUNNEL, OPENING, PRESS, REST, ROUNDING, TEETH, WIDTH
from models.runtime.mouths import Choice
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
    (weights,) = choice.weigh(REST[None])
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
    assert choice.weigh(articulation(**values)[None])[0].argmax() == place


def test_opening_moves_through_neighbours_only(choice: Choice) -> None:
    seen = []
    for opening in np.linspace(0, 1, 50):
        used = np.flatnonzero(choice.weigh(articulation(opening=opening)[None])[0])
        assert len(used) <= 2
        assert np.ptp(used) <= 1
        seen.append(int(used[-1]))
    assert seen == sorted(seen)
    assert seen[-1] == FIRST["plain"] + COUNT - 1


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=7, max_size=7), min_size=1, max_size=5))
def test_weights_are_shares_whoever_is_weighed_beside(choice: Choice, values: list[list[float]]) -> None:
    articulations = np.array(values, np.float32)
    weights = choice.weigh(articulations)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    for alone, among in zip(articulations, weights, strict=True):
        assert (choice.weigh(alone[None])[0] == among).all()


def test_mouths_of_no_common_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="no three mouths"):
        Choice(np.eye(52, dtype=np.float32)[17:20], np.zeros(3, np.float32))


def weights_of(**named: float) -> Floats:
    return np.array([[named.get(name, 0.0) for name in face.ARKIT_52]], np.float32)


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
    assert choice.articulate(weights_of(**named))[0].argmax() == kind


def test_jaw_that_the_lips_close_over_opens_nothing(choice: Choice) -> None:
    assert choice.articulate(weights_of(jawOpen=0.3, mouthClose=0.3))[0, OPENING] == 0


def test_what_a_network_says_of_silence_is_rest(choice: Choice) -> None:
    faint = weights_of(jawOpen=0.03, mouthStretchLeft=0.02, mouthRollLower=0.05, mouthLowerDownLeft=0.02)
    assert choice.weigh(choice.articulate(faint))[0, FIRST["plain"]] == 1
