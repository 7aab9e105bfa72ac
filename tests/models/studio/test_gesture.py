"""The face beside the mouth: alive, led by speech, never more than somebody before a camera does."""

import numpy as np

from models.face import ARKIT_52
from models.studio.articulation import Phone
from models.studio.gesture import BLINK_STAGES, Gesture, gesture

RATE = 25.0
BLINK, BROW = ARKIT_52.index("eyeBlinkLeft"), ARKIT_52.index("browInnerUp")


def monologue(seconds: float = 60.0) -> list[Phone]:
    """Syllables of 160 ms, a long one in five, a pause of 0.4 s in every three seconds."""
    phones, at, n = list[Phone](), 0.0, 0
    while at < seconds:
        if at % 3.0 > 2.6:
            phones.append(Phone("pau", at, at + 0.4))
            at += 0.4
            continue
        long = 0.22 if n % 5 == 0 else 0.09
        phones += [Phone("t", at, at + 0.07), Phone("aa", at + 0.07, at + 0.07 + long)]
        at, n = at + 0.07 + long, n + 1
    return phones


def moved(phones: list[Phone], seconds: float = 60.0, seed: int = 3) -> Gesture:
    return gesture(phones, RATE, int(seconds * RATE), np.random.default_rng(seed))


def test_the_same_seed_moves_alike_and_another_does_not() -> None:
    first, again, other = moved(monologue()), moved(monologue()), moved(monologue(), seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.angles, other.angles)


def test_only_the_upper_face_moves_and_weights_are_weights() -> None:
    curves = moved(monologue()).curves
    assert curves.shape == (1500, 52)
    assert 0 <= curves.min() <= curves.max() <= 1
    lower = [i for i, name in enumerate(ARKIT_52) if name.startswith(("mouth", "jaw", "cheek", "tongue"))]
    assert curves[:, lower].max() == 0


def test_people_blink_every_few_seconds_and_wholly() -> None:
    lids = moved(monologue()).curves[:, BLINK]
    shut = (lids[1:] > 0.9) & (lids[:-1] <= 0.9)
    assert 10 <= shut.sum() <= 30, "in a minute"
    assert set(lids) <= set(np.array(BLINK_STAGES, np.float32))


def test_the_head_stays_before_the_camera_without_a_jerk() -> None:
    angles = moved(monologue()).angles
    assert np.abs(angles).max() < 8
    assert np.abs(np.diff(angles, axis=0)).max() < 1.2, "degrees in 40 ms"
    assert (angles.std(0) > 0.3).all()


def test_a_listener_is_stiller_than_a_speaker() -> None:
    silent = [Phone("pau", 0.0, 60.0)]
    speaking, listening = moved(monologue()), moved(silent)
    steps = [np.abs(np.diff(one.angles[:, 1])).mean() for one in (speaking, listening)]
    assert steps[0] > 2 * steps[1]
    assert np.ptp(listening.curves[:, BROW]) <= 0.15 < np.ptp(speaking.curves[:, BROW])
    assert listening.curves[:, BLINK].max() == 1.0, "but blinks"


def test_nobody_at_all_is_no_trouble() -> None:
    assert len(gesture([], RATE, 1, np.random.default_rng(1)).angles) == 1
