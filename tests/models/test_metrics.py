"""Each score against a case whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import face, metrics
from models.metrics import Performance, Phone

from .faces import rest_mesh, speaking, turned

WAVE = 6 + 6 * np.sin(np.arange(60) / 3.0)
SPEECH = np.repeat([True, False, True], 20)


def seen(mesh: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """[T, 131, 3] pose-normal."""
    normal = metrics.pose_normal(mesh, rest_mesh() if reference is None else reference)
    return normal(mesh)[:, face.HOUSE]


def performance(openings: np.ndarray, said: np.ndarray, speech: np.ndarray | None = None) -> Performance:
    return Performance(seen(speaking(openings)), seen(speaking(said)), speech)


NEUTRAL = seen(speaking(np.zeros(1)))[0]


def test_perfection_scores_nothing_and_correlates() -> None:
    scores = metrics.landmark_scores([performance(WAVE, WAVE, speech=SPEECH)], NEUTRAL)
    for name in ("ld", "lvd", "m_ld", "m_lvd", "f_ld", "f_lvd", "le", "de", "sync_ms"):
        assert scores[name] == pytest.approx(0, abs=1e-9), name
    assert scores["dae"] == pytest.approx(0, abs=1e-6)
    assert scores["opening_r"] == pytest.approx(1.0)
    assert scores["silence_motion"] > 0.3


def test_one_percent_aside_is_one_percent() -> None:
    true = seen(speaking(WAVE))
    beside = true + np.array([1.0, 0.0, 0.0])
    scores = metrics.landmark_scores([Performance(true, beside)], NEUTRAL)
    for name in ("ld", "m_ld", "f_ld", "le", "de"):
        assert scores[name] == pytest.approx(1.0), name
    assert scores["lvd"] == pytest.approx(0.0, abs=1e-9)


def test_eye_corners_are_a_hundred_apart() -> None:
    normal = metrics.pose_normal(speaking(np.zeros(2)), rest_mesh())(speaking(np.zeros(2)))
    assert np.linalg.norm(normal[0, 33] - normal[0, 263]) == pytest.approx(100.0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    degrees=st.floats(-60, 60),
    scale=st.floats(0.2, 5),
    x=st.floats(-500, 500),
)
def test_no_head_pose_changes_a_score(degrees: float, scale: float, x: float) -> None:
    swing = degrees * np.sin(np.arange(60) / 9.0)
    true, said = speaking(WAVE), speaking(0.7 * WAVE + 1)
    both = turned(np.concatenate([true, said], axis=1), swing, scale, (x, -x))  # one head, two mouths
    still, moved = metrics.pose_normal(true, rest_mesh()), metrics.pose_normal(both[:, :478], rest_mesh())
    np.testing.assert_allclose(moved(both[:, :478]), still(true), atol=1e-6)
    np.testing.assert_allclose(moved(both[:, 478:]), still(said), atol=1e-6)


def test_umeyama_finds_a_known_similarity_and_no_mirror() -> None:
    cloud = np.random.default_rng(0).normal(size=(5, 25, 3))
    seen_by = turned(cloud, 33.0, 2.5, (7, -3))
    found = metrics.umeyama(cloud, seen_by)
    np.testing.assert_allclose(found(cloud), seen_by, atol=1e-9)
    np.testing.assert_allclose(found.inverse()(seen_by), cloud, atol=1e-9)
    np.testing.assert_allclose(found.scale, 2.5)
    mirrored = metrics.umeyama(cloud, cloud * [-1, 1, 1])
    assert (np.linalg.det(mirrored.rotation) > 0.99).all()


def test_static_mouth_does_not_correlate_and_is_still() -> None:
    true = seen(speaking(WAVE))
    [still] = metrics.static_mouth([true], [true])
    clip = Performance(true, still, speech=SPEECH)
    assert metrics.opening_r([clip]) == 0.0
    assert metrics.silence_motion([(still, ~SPEECH)]) == pytest.approx(0.0)
    assert metrics.ld([clip]) > 1.0
    np.testing.assert_array_equal(still[:, face.HOUSE_UPPER], true[:, face.HOUSE_UPPER])


@pytest.mark.parametrize("late", [-3, 0, 2, 5])
def test_sync_is_positive_when_the_picture_is_late(late: int) -> None:
    noise = np.random.default_rng(3).normal(size=240)
    wave = 8 + np.convolve(noise, np.hanning(9), "same")
    assert metrics.sync_ms([performance(wave, np.roll(wave, late))]) == pytest.approx(40.0 * late, abs=6)


def test_sync_reads_part_of_a_frame() -> None:
    time = np.arange(200)
    wave = [8 + 5 * np.sin(2 * np.pi * (time - late) / 17) for late in (0.0, 0.5)]
    assert metrics.sync_ms([performance(*wave)]) == pytest.approx(20.0, abs=4)


def test_lips_that_come_to_rest_with_the_last_word_are_not_wrong() -> None:
    said = [metrics.Phone("pau", 0.0, 0.4), metrics.Phone("aa", 0.4, 1.0), metrics.Phone("pau", 1.0, 2.0)]
    lips = np.zeros(50)
    for last, expected in ((24, None), (20, 0.0)):
        lips[9:25] = 0.0
        lips[11:last] = 0.3
        found = metrics.closures([(lips, said)])["closure_precision"]
        assert np.isnan(found) if expected is None else found == expected


def test_any_two_series_have_a_lag() -> None:
    wave = np.random.default_rng(3).normal(size=240)
    assert metrics.lag_ms([(wave, np.roll(wave, -2))]) == pytest.approx(-80.0, abs=6)
    assert np.isnan(metrics.lag_ms([(wave, np.zeros(240))]))


def test_opening_is_of_the_inner_lips_and_relative_to_the_mouth() -> None:
    house = seen(speaking(np.array([0.0, 7.0])))
    np.testing.assert_allclose(metrics.opening(house), [0.0, 7.0], atol=1e-9)
    np.testing.assert_allclose(metrics.relative_opening(house), [0.0, 0.1], atol=1e-9)


def script(text: str) -> list[Phone]:
    """A phone a letter, 80 ms each; a dot is a pause."""
    names = {".": "pau", "a": "aa", "t": "t", "m": "m", "b": "b"}
    return [Phone(names[c], 0.08 * i, 0.08 * (i + 1)) for i, c in enumerate(text)]


def lips(text: str) -> np.ndarray:
    """Two frames a letter: o open, - shut."""
    return np.repeat([0.2 if c == "o" else 0.0 for c in text], 2)


def test_closures_are_wanted_at_bilabials_only() -> None:
    def scores(phones: str, mouth: str) -> tuple[float, float]:
        found = metrics.closures([(lips(mouth), script(phones))])
        return found["closure_recall"], found["closure_precision"]

    assert scores("..amatab..", "--o-ooo---") == (1.0, 1.0)
    assert scores("..amatab..", "--oooooo--")[0] == 0.5  # 40 ms after b is soon enough; m was missed
    assert scores("..amatat..", "--oooooo--")[0] == 0.0
    assert scores("..amataa..", "--o-o-oo--") == (1.0, 0.5)  # shut at t: not wanted
    assert math.isnan(scores("..aaaa..", "--oooo--")[0])


def test_lip_auc_needs_no_film() -> None:
    phones = script("amabamab")
    good = metrics.lip_auc([(lips("o-o-o-o-"), phones)])
    assert good == {"lip_auc": 1.0, "closures_reached": 1.0, "false_closures": 0.0}
    static = metrics.lip_auc([(lips("oooooooo"), phones)])
    assert static == {"lip_auc": 0.5, "closures_reached": 0.0, "false_closures": 0.0}
    inverted = metrics.lip_auc([(lips("-o-o-o-o"), phones)])
    assert inverted["lip_auc"] == 0.0
    assert inverted["false_closures"] == 1.0


def test_only_long_silences_count() -> None:
    house = seen(speaking(WAVE))
    short = np.zeros(60, bool)
    short[10:17] = True  # 280 ms
    assert math.isnan(metrics.silence_motion([(house, short)]))
    short[10:18] = True
    assert metrics.silence_motion([(house, short)]) > 0


def test_angles_of_what_hardly_moves_do_not_count() -> None:
    true = np.repeat(NEUTRAL[None], 4, 0)
    aside = np.array([0.0, 3.0, 0.0])
    said = true + aside
    assert metrics.speech_to_landmarks_three([Performance(true, said)], NEUTRAL)["dae"] == 0.0
    down, up = true + aside, true - aside
    opposed = metrics.speech_to_landmarks_three([Performance(down, up)], NEUTRAL)
    assert opposed["dae"] == pytest.approx(math.pi)
    assert opposed["le"] == pytest.approx(6.0)


def test_wrong_sets_of_points_are_refused() -> None:
    with pytest.raises(ValueError, match="131"):
        Performance(np.zeros((3, 68, 3)), np.zeros((3, 68, 3)))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_and_ssim_of_known_pictures() -> None:
    picture = noise((40, 50, 3))
    assert metrics.psnr(picture, picture) == math.inf
    assert metrics.ssim(picture, picture) == pytest.approx(1.0)
    grey = np.full((40, 50, 3), 100, np.uint8)
    assert metrics.psnr(grey + 10, grey) == pytest.approx(20 * math.log10(255 / 10))
    c1 = (0.01 * 255) ** 2
    assert metrics.ssim(grey + 10, grey) == pytest.approx((2 * 110 * 100 + c1) / (110**2 + 100**2 + c1))
    assert metrics.ssim(noise((40, 50, 3), 1), picture) < 0.1


def test_sharpness_falls_with_blur_and_flicker_rises_with_noise() -> None:
    picture = noise((40, 50))
    blurred = ((picture[:, :-1].astype(int) + picture[:, 1:]) // 2).astype(np.uint8)
    assert metrics.sharpness(blurred, picture[:, 1:]) < 0.7
    clip = np.repeat(picture[None], 6, 0)
    true = clip ^ noise(clip.shape, 1) % 4
    assert metrics.flicker(clip, true, np.ones((40, 50), bool)) == 0.0
    assert metrics.flicker(clip ^ noise(clip.shape, 2) % 16, true, np.ones((40, 50), bool)) > 2.0


def test_cpbd_falls_with_blur_and_knows_a_step_from_a_ramp() -> None:
    """A step is one pixel wide: nobody notices blur. A ramp over twelve pixels is noticed everywhere."""
    step = np.tile(np.repeat(np.array([40, 200], np.uint8), 64), (128, 1))
    ramp = np.tile(np.interp(np.arange(128), (58, 70), (40, 200)).astype(np.uint8), (128, 1))
    assert metrics.cpbd(step) == 1.0
    assert metrics.cpbd(ramp) == 0.0
    assert math.isnan(metrics.cpbd(np.full((64, 64), 128, np.uint8)))
    rng = np.random.default_rng(0)
    sharp = np.kron(rng.integers(0, 256, (20, 20)), np.ones((8, 8)))
    blurred = sharp
    seen = []
    for _ in range(3):
        seen.append(metrics.cpbd(blurred.astype(np.uint8)))
        for axis in (0, 1):
            blurred = sum(np.roll(blurred, by, axis) for by in (-2, -1, 0, 1, 2)) / 5
    assert seen[0] > seen[1] > seen[2]


def test_regions_lie_where_the_lips_are() -> None:
    house = speaking(np.array([20.0]))[0, face.HOUSE]
    box = metrics.lips_box(house, 500, 500)
    assert (box.left, box.right) == (250 - 35 - 7, 250 + 35 + 7 + 1)
    mask = metrics.inner_mask(house, 500, 500)
    assert mask[315, 250]
    assert not mask[305, 250]
    assert not mask[300, 100]
    assert not metrics.inner_mask(speaking(np.array([0.0]))[0, face.HOUSE], 500, 500).any()
    assert metrics.Box.around(house, 5.0, 300, 320) == metrics.Box(0, 0, 300, 320)
    whole = metrics.face_box(speaking(np.array([0.0]))[0], 500, 500)
    assert whole.top < box.top < box.bottom < whole.bottom


def mouth_drawn(opening: float, inside: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A grainy skin, lips with a highlight, and what is between them; with its landmarks."""
    house = speaking(np.array([opening]))[0, face.HOUSE]
    picture = np.tile(np.array([220, 170, 150], np.int64), (500, 500, 1))
    picture[296:326, 215:285] = [170, 80, 80]
    picture[318:320, 240:262] = [245, 190, 185]
    picture[metrics.inner_mask(house, 500, 500)] = inside
    grain = np.random.default_rng(round(opening)).integers(-5, 6, (500, 500, 1))
    return (picture + grain).clip(0, 255).astype(np.uint8), house


@pytest.mark.parametrize("inside", [(30, 10, 10), (200, 190, 175)], ids=["dark", "teeth"])
def test_gap_sees_what_is_between_the_lips(inside: tuple[int, int, int]) -> None:
    complexion = metrics.Complexion.of([mouth_drawn(0.0, inside)])
    shown = {opening: mouth_drawn(opening, inside) for opening in (0.0, 3.0, 12.0)}
    gaps = {opening: metrics.gap(picture, complexion, house) for opening, (picture, house) in shown.items()}
    assert gaps == {0.0: 0.0, 3.0: pytest.approx(1.0, abs=0.2), 12.0: 1.0}


def test_gaps_count_shut_consonants_and_open_vowels() -> None:
    seen = np.ones(50)
    seen[10:12] = 0.0
    phones = [Phone("m", 0.40, 0.48), Phone("b", 1.0, 1.08), Phone("aa", 0.8, 0.9), Phone("ae", 0.42, 0.46)]
    assert metrics.gaps([(seen, phones)]) == {"gap_shut": 0.5, "gap_open": 0.5}
    assert all(np.isnan(value) for value in metrics.gaps([(seen, [])]).values())
