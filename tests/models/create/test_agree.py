"""Voice and lips: how well they agree, and by how much one is early."""

import numpy as np
import pytest

from models.create.agree import AGREES, TRUSTED, agreement, apart, delayed, heard_opening, speech
from models.rates import CHUNK, SAMPLE_RATE
from tests.models.create.filmed import hum


def syllables(frames: int = 300, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=frames)
    return np.convolve(noise, np.hanning(9), "same")


@pytest.mark.parametrize("lag", [-4, 0, 3])
def test_an_offset_is_found(lag):
    heard = syllables()
    found = agreement([(heard, np.roll(heard, lag))])
    assert found.offset_ms == pytest.approx(lag * 40, abs=8)
    assert found.r > 0.9


def test_a_take_whose_sound_is_beside_that_of_the_others_is_found():
    """All are seen half a frame after they are heard; one of them 1.5 frames later, one a frame earlier."""
    late = [0.5, 0.5, 2.0, 0.5, -0.5, 0.5]
    frames = np.arange(75)
    takes = []
    for seed, shift in enumerate(late):
        heard = syllables(75, seed)
        takes.append((heard, np.interp(frames - shift, frames, heard)))
    assert apart(takes) == pytest.approx([0, 0, 60 * TRUSTED, 0, -40 * TRUSTED, 0], abs=1)


def test_a_take_whose_voice_and_lips_do_not_agree_is_left_alone():
    heard = [syllables(75, seed) for seed in range(3)]
    takes = [(heard[0], heard[0]), (heard[1], np.roll(heard[1], 2)), (heard[2], syllables(75, 9))]
    assert apart(takes)[2] == 0
    assert apart([(heard[0], np.full(75, np.nan))]) == [0]


def test_the_voice_of_another_does_not_agree():
    assert agreement([(syllables(3000, 1), syllables(3000, 2))]).r < AGREES


def test_the_same_rhythm_of_sentences_is_no_agreement():
    """Clips in which everybody is silent, speaks for a second and is silent again."""
    rhythm = np.tile(np.repeat([0.0, 1.0, 0.0], 25), 20)
    heard, seen = (rhythm * (3 + syllables(1500, seed)) for seed in (1, 2))
    assert agreement([(heard, seen)]).r < 0.5 * agreement([(heard, heard)]).r


def test_lost_faces_do_not_count():
    heard = syllables()
    seen = heard.copy()
    seen[50:90] = np.nan
    assert agreement([(heard, seen)]).r > 0.99


def test_a_face_that_was_never_seen_agrees_with_nothing():
    assert agreement([(syllables(), np.full(300, np.nan))]).r == 0


def test_sound_is_moved_both_ways_and_stays_as_long():
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8000] = 1
    assert np.argmax(delayed(click, 100)) == 9600
    assert np.argmax(delayed(click, -100)) == 6400
    assert len(delayed(click, 100)) == len(delayed(click, -100)) == SAMPLE_RATE


def test_speech_is_where_it_is_loud_and_digital_silence_is_none():
    quiet = np.random.default_rng(0).normal(0, 1e-4, 2 * SAMPLE_RATE).astype(np.float32)
    both = np.concatenate([quiet, hum(2)])
    spoken = speech(both)
    assert spoken[:50].mean() < 0.1
    assert spoken[50:].mean() > 0.8
    assert not speech(np.zeros(100 * CHUNK, np.float32)).any()


def test_the_voice_encoder_says_something_of_every_frame():
    assert heard_opening(hum(1)).shape == (25,)
