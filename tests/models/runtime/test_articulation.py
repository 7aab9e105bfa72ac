"""Vowels open, round and widen; hiss bares the teeth; stops and murmurs shut; silence rests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.rates import CHUNK
from models.runtime import Floats
from models.runtime.articulation import OPENING, PRESS, ROUNDING, TEETH, WIDTH, hear
from models.runtime.articulation import silence as state_of_silence
from tests.models.runtime.voices import hiss, silence, vowel


def articulations(sound: Floats, lookahead: int = 2) -> Floats:
    """The answer for each chunk, aligned with it; the end is heard out in silence."""
    state = state_of_silence(lookahead)
    answers = []
    for chunk in np.concatenate([sound, silence(lookahead)]):
        state, answer = hear(state, chunk)
        answers.append(answer)
    assert not np.any(answers[:lookahead])
    return np.array(answers[lookahead:])


def test_ah_opens_more_than_oo_and_ee() -> None:
    ah, oo, ee = (articulations(vowel(name, 8))[6] for name in "aui")
    assert ah[OPENING] > 0.7
    assert 0.1 < oo[OPENING] < 0.6 * ah[OPENING]
    assert 0.1 < ee[OPENING] < 0.6 * ah[OPENING]


def test_oo_is_round_and_ee_is_wide() -> None:
    oo, ee = (articulations(vowel(name, 8))[6] for name in "ui")
    assert oo[ROUNDING] > 0.6
    assert oo[WIDTH] < 0.1
    assert ee[WIDTH] > 0.6
    assert ee[ROUNDING] < 0.1


def test_hiss_brings_the_teeth_together() -> None:
    s = articulations(np.concatenate([vowel("a", 6), hiss(6)]))[10]
    assert s[TEETH] > 0.6
    assert s[OPENING] < 0.15


def test_a_stop_between_vowels_presses_the_lips_only_when_the_future_shows_the_second_vowel() -> None:
    apa = np.concatenate([vowel("a", 6), silence(2), vowel("a", 6)])
    assert articulations(apa, 2)[6:8, PRESS].max() > 0.6
    ends = np.concatenate([vowel("a", 6), silence(8)])
    assert articulations(ends, 2)[6:, PRESS].max() < 0.1
    assert articulations(apa, 0)[6:8, PRESS].max() == 0


@pytest.mark.parametrize("lookahead", [0, 1, 2, 3])
def test_the_mouth_opens_with_the_sound_and_rests_within_200_ms_of_its_end(lookahead: int) -> None:
    opening = articulations(np.concatenate([silence(5), vowel("a", 10), silence(12)]), lookahead)[:, OPENING]
    assert not opening[:4].any()
    assert opening[5] > 0.5  # in the very frame of its first sound
    assert opening[7:14].min() > 0.7
    assert opening[15 + 5] < 0.05
    assert not opening[15 + 8 :].any()


def test_volume_matters_little_once_a_voice_is_known() -> None:
    soft, loud = (articulations(vowel("a", 30, level))[-4, OPENING] for level in (0.03, 0.3))
    assert soft > 0.6 * loud


@pytest.mark.parametrize("sound", [silence(20), np.full((20, CHUNK), 0.5, np.float32), 1e-4 * hiss(20, 1.0)])
def test_silence_dc_and_faint_noise_open_nothing(sound: Floats) -> None:
    assert articulations(sound)[2:, OPENING].max() < 0.1  # DC begins and ends with a click


@settings(max_examples=60, deadline=None)
@given(
    sound=arrays(np.float32, (4, CHUNK), elements=st.floats(width=32), fill=st.floats(width=32)),
    lookahead=st.integers(0, 5),
)
def test_whatever_comes_in_what_comes_out_is_finite_and_between_0_and_1(sound: Floats, lookahead: int) -> None:
    out = articulations(sound, lookahead)
    assert np.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_the_future_never_changes_the_past() -> None:
    one = np.concatenate([vowel("a", 6), vowel("u", 6)])
    other = np.concatenate([vowel("a", 6), hiss(6)])
    assert (articulations(one, 2)[:4] == articulations(other, 2)[:4]).all()
    assert (articulations(one, 2)[4:6] != articulations(other, 2)[4:6]).any()  # within the look-ahead
