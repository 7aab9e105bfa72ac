"""The gate opens for a voice, and for nothing else."""

from pathlib import Path

import numpy as np
import pytest

from engine.gate import CLOSING, HOLD_CHUNKS, Gate, measure
from models.rates import CHUNK, SAMPLE_RATE
from tests.fakes import breath, hiss, hum, vowel

LEVELS = [pytest.param(10 ** (gain / 20), id=f"{gain:+} dB") for gain in (-20, -10, 0, 10)]


def room(*sounds: np.ndarray, floor: float = 1e-4) -> np.ndarray:
    """Sounds after one another in a quiet room."""
    sound = np.concatenate(sounds)
    return sound + hiss(len(sound) / SAMPLE_RATE, amplitude=floor)[: len(sound)]


def pause(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def gains(sound: np.ndarray, gate: Gate | None = None) -> np.ndarray:
    gate = gate or Gate()
    chunks = sound[: len(sound) // CHUNK * CHUNK].reshape(-1, CHUNK).astype(np.float32)
    return np.array([gate.open(chunk) for chunk in chunks])


def at(seconds: float) -> int:
    return round(seconds * 25)


@pytest.mark.parametrize("level", LEVELS)
def test_it_opens_in_the_chunk_in_which_a_voice_begins(level):
    opened = gains(level * room(pause(1), vowel(1), pause(1)))
    assert not opened[: at(1)].any()
    assert (opened[at(1) : at(2)] == 1).all()


@pytest.mark.parametrize("level", LEVELS[2:])
def test_a_session_that_begins_in_mid_word_is_heard_from_its_first_chunk(level):
    """A text-to-speech stream has no quiet second before it."""
    assert (gains(level * room(vowel(1))) == 1).all()


@pytest.mark.parametrize("level", LEVELS)
def test_the_lips_may_rest_within_200_ms_after_a_voice(level):
    opened = gains(level * room(pause(1), vowel(1), pause(1)))
    assert not opened[at(2.2) :].any()


def test_it_closes_softly_and_only_once():
    opened = gains(room(pause(1), vowel(1), pause(1)))
    after = opened[at(2) :]
    hold = int((after == 1).sum())
    assert hold <= HOLD_CHUNKS
    assert tuple(after[hold : hold + len(CLOSING)]) == CLOSING
    assert not after[hold + len(CLOSING) :].any()


def test_words_are_not_cut_by_the_stops_and_fricatives_inside_them():
    fricative = hiss(0.12, amplitude=0.02, seed=5)
    word = [vowel(0.2), pause(0.08), vowel(0.16), fricative, vowel(0.2), pause(0.12), vowel(0.2)]
    opened = gains(room(pause(1), *word, pause(1)))
    spoken = sum(map(len, word)) / SAMPLE_RATE
    assert (opened[at(1) : at(1 + spoken)] == 1).all()


def test_a_loud_sudden_consonant_opens_it_before_the_vowel():
    fricative = hiss(0.16, amplitude=0.05, seed=5)
    opened = gains(room(pause(1), fricative, vowel(0.4), pause(0.6)))
    assert (opened[at(1) : at(1.56)] == 1).all()


@pytest.mark.parametrize("level", LEVELS)
def test_breath_between_sentences_moves_nothing(level):
    """25 dB below the voice, as breath is."""
    opened = gains(level * room(pause(1), vowel(0.6), pause(0.4), breath(0.8, amplitude=0.005), pause(0.2), vowel(0.4)))
    assert not opened[at(1.8) : at(3.0)].any()
    assert (opened[at(3.0) : at(3.4)] == 1).all()


@pytest.mark.parametrize("level", LEVELS)
def test_breath_before_the_first_word_moves_nothing(level):
    assert not gains(level * room(*[breath(0.8, amplitude=0.005), pause(1)] * 3)).any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(hiss(4, amplitude=0.03), id="hiss"),
        pytest.param(hum(4, amplitude=0.05), id="50 Hz hum"),
        pytest.param(hum(4, amplitude=0.05, mains=60), id="60 Hz hum"),
    ],
)
def test_steady_noise_never_opens_it(level, noise):
    assert not gains(level * noise).any()


@pytest.mark.parametrize("noise", [hiss(6, amplitude=0.03), hum(6, amplitude=0.03, mains=60)], ids=["fan", "hum"])
def test_noise_that_is_switched_on_is_floor_within_a_second(noise):
    opened = gains(room(pause(1), noise))
    assert not opened[at(2) :].any()
    assert np.abs(np.diff(opened > 0)).sum() <= 2


def test_a_voice_is_heard_over_noise_10_db_below():
    opened = gains(room(pause(1), vowel(0.6), pause(1), vowel(0.6), floor=0.01))
    assert (opened[at(1) : at(1.6)] == 1).all()
    assert (opened[at(2.6) : at(3.2)] == 1).all()
    assert not opened[at(1.84) : at(2.6)].any()


def test_typing_opens_it_at_most_once():
    key = np.concatenate([hiss(0.01, amplitude=0.2), pause(0.15)])
    opened = gains(room(pause(1), *[key] * 20))
    assert (np.diff(opened) > 0).sum() <= 1
    assert not opened[at(1.6) :].any()
    assert (gains(room(pause(1), *[key] * 20, vowel(0.4)))[-at(0.36) :] == 1).all()


def test_a_held_vowel_stays_open_for_five_seconds():
    assert (gains(room(pause(1), vowel(5)))[at(1) :] == 1).all()


def test_a_held_tone_closes_in_the_end():
    tone = (0.1 * np.sin(2 * np.pi * 220 * np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    assert not gains(room(pause(1), tone))[-at(1) :].any()


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -1.0])
def test_constant_sound_is_silence(value):
    """M10: direct current."""
    assert not gains(np.full(SAMPLE_RATE, value, np.float32)).any()


def test_the_level_is_in_decibels_of_full_scale_and_a_voice_is_periodic():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(CHUNK) / SAMPLE_RATE).astype(np.float32)
    level, _ = measure(tone)
    assert level == pytest.approx(-3.0, abs=0.2)
    assert measure(0.1 * tone)[0] == pytest.approx(level - 20, abs=0.01)
    assert measure(vowel(0.04))[1] > 0.6
    assert max(measure(hiss(0.04, amplitude=0.1, seed=seed))[1] for seed in range(50)) < 0.5
    assert measure(np.zeros(CHUNK, np.float32)) == (-120.0, 0.0)


def test_quiet_knows_without_changing_anything():
    gate = Gate()
    gains(room(pause(1), vowel(1), pause(0.4)), gate)
    known = {name: value for name, value in vars(gate).items() if name != "_last"}
    assert gate.quiet(hiss(0.04, amplitude=1e-4))
    assert not gate.quiet(vowel(0.04))
    assert {name: value for name, value in vars(gate).items() if name != "_last"} == known
    for last in (hiss(0.04, amplitude=1e-4), vowel(0.04)):
        gate.open(last)
        assert gate.quiet() == gate.quiet(last), "of the last chunk, without measuring it again"


def test_a_chunk_is_measured_once(monkeypatch: pytest.MonkeyPatch):
    """Who is behind asks of each whether it is quiet, and then lets it in."""
    measured = []
    monkeypatch.setattr("engine.gate.measure", lambda features: measured.append(features) or measure(features))
    gate, sound = Gate(), vowel(0.04).astype(np.float32)
    assert not gate.quiet(sound)
    gate.open(sound)
    assert len(measured) == 1
    gate.open(vowel(0.04).astype(np.float32))
    assert len(measured) == 2


def test_two_sessions_do_not_know_of_each_other():
    sound = room(pause(1), vowel(1), pause(1))
    alone = gains(sound)
    other, gate = Gate(), Gate()
    together = []
    for chunk in sound.reshape(-1, CHUNK):
        other.open(hiss(0.04, amplitude=0.3))
        together.append(gate.open(chunk))
    assert np.array_equal(alone, together)


SPEECH = Path(__file__).parents[3] / "shared" / "data" / "speech"


@pytest.mark.skipif(not SPEECH.is_dir(), reason="real speech lies beside the repository and is not part of it")
def test_real_speech_passes():
    import av

    for path in sorted(SPEECH.glob("*.wav")):
        with av.open(str(path)) as source:
            resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
            frames = [out for frame in source.decode(audio=0) for out in resampler.resample(frame)]
        voice = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
        sound = room(pause(1), voice, pause(1))
        chunks = sound[: len(sound) // CHUNK * CHUNK].reshape(-1, CHUNK)
        levels = np.array([measure(chunk)[0] for chunk in chunks])
        spoken = levels > np.percentile(levels, 95) - 20
        assert (gains(sound)[spoken] == 1).mean() > 0.9, path.name
