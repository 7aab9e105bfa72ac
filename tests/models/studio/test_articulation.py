"""What a mouth must do, it does: at any frame rate, next to any neighbour."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.face import ARKIT_52
from models.studio.articulation import (
    CLOSED_PHONES,
    LIKE_FILM,
    PHONES,
    Phone,
    Style,
    articulate,
    closure,
    opening,
    rounding,
)


def said(names: list[str], seconds: float = 0.1) -> list[Phone]:
    return [Phone(name, n * seconds, (n + 1) * seconds) for n, name in enumerate(names)]


def at(curves: np.ndarray, time: float, rate: float) -> np.ndarray:
    return curves[int(time * rate)]


@given(
    st.lists(st.sampled_from(PHONES), min_size=1, max_size=20),
    st.floats(0.03, 0.3),
    st.sampled_from([25.0, 50.0, 100.0]),
)
def test_lips_meet_in_every_closure_whatever_stands_beside_it(names: list[str], seconds: float, rate: float) -> None:
    phones = said(names, seconds)
    curves = articulate(phones, rate, int(len(names) * seconds * rate) + 10)
    gaps = opening(curves)
    for phone in phones:
        if phone.name in CLOSED_PHONES:
            first, last = int((phone.start - 0.02) * rate), int((phone.end + 0.02) * rate) + 1
            assert gaps[max(0, first) : last + 1].min() < 0.02


@given(st.lists(st.sampled_from(PHONES), max_size=30), st.floats(0.02, 0.5), st.floats(0.5, 1.5))
def test_weights_are_weights(names: list[str], seconds: float, much: float) -> None:
    curves = articulate(said(names, seconds), 25, 50, Style(opening=much, rounding=much, smile=0.2))
    assert curves.shape == (50, len(ARKIT_52))
    assert np.isfinite(curves).all()
    assert curves.min() >= 0
    assert curves.max() <= 1


def test_silence_rests() -> None:
    curves = articulate(said(["pau"] * 10), 25, 25)
    assert opening(curves).max() < 0.01
    assert opening(articulate([], 25, 25)).max() == 0


@pytest.mark.parametrize(("open_phone", "shut_phone"), [("aa", "iy"), ("ae", "s"), ("ao", "uw")])
def test_open_vowels_are_opener(open_phone: str, shut_phone: str) -> None:
    curves = articulate(said(["pau", open_phone, "pau", shut_phone, "pau"], 0.2), 100, 100)
    assert opening(at(curves, 0.3, 100)) > 1.5 * opening(at(curves, 0.7, 100))


def test_rounding_anticipates() -> None:
    """In "stew" the lips are already round during the t."""
    plain = articulate(said(["s", "t", "iy", "pau"]), 100, 40)
    round_ = articulate(said(["s", "t", "uw", "pau"]), 100, 40)
    assert rounding(at(round_, 0.17, 100)) > rounding(at(plain, 0.17, 100)) + 0.1
    assert rounding(at(round_, 0.25, 100)) > 0.6


def test_lower_lip_is_at_the_teeth_in_f() -> None:
    curves = articulate(said(["aa", "f", "aa"]), 100, 30)
    roll, jaw = ARKIT_52.index("mouthRollLower"), ARKIT_52.index("jawOpen")
    assert at(curves, 0.15, 100)[roll] > 0.7
    assert at(curves, 0.15, 100)[jaw] < 0.5 * at(curves, 0.05, 100)[jaw]


def test_closure_says_where_lips_are_held() -> None:
    held = closure(said(["aa", "m", "aa"]), 100, 30)
    assert held[15] == 1
    assert held[2] == 0
    assert held[27] == 0


def test_the_same_mouth_at_every_frame_rate() -> None:
    phones = said(["hh", "ax", "l", "ow", "m", "aa", "m"], 0.11)
    coarse, fine = articulate(phones, 25, 20), articulate(phones, 125, 100)
    np.testing.assert_allclose(coarse, fine[2::5], atol=1e-5)


@given(st.lists(st.sampled_from(PHONES), min_size=1, max_size=20), st.floats(0.05, 0.3))
def test_lips_meet_in_the_style_of_film_too(names: list[str], seconds: float) -> None:
    phones = said(names, seconds)
    gaps = opening(articulate(phones, 50.0, int(len(names) * seconds * 50) + 10, LIKE_FILM))
    for phone in phones:
        if phone.name in CLOSED_PHONES:
            assert gaps[max(0, int((phone.start - 0.02) * 50)) : int((phone.end + 0.02) * 50) + 2].min() < 0.02


def test_the_style_of_film_is_opener_in_consonants_and_quicker() -> None:
    phones = said(["pau", "t", "ah", "t", "eh", "k", "aa", "t", "pau"], 0.1)
    plain, film = (opening(articulate(phones, 100, 90, style)) for style in (Style(), LIKE_FILM))
    assert film[30:40].min() > 1.2 * plain[30:40].min(), "a t between vowels"
    assert np.abs(np.diff(film)).max() > np.abs(np.diff(plain)).max()
