"""Synthetic speech: its phones stand where the sound says, through every augmentation."""

import shutil

import numpy as np
import pytest

from models.rates import SAMPLE_RATE
from models.studio.articulation import PHONES
from models.studio.speech import (
    ESPEAK_ACCENTS,
    Espeak,
    MissingVoiceError,
    Utterance,
    arpabet,
    augment,
    flite,
    narrowed,
    through_opus,
    through_telephone,
)

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed (make deps)")
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (make deps)")

TEXT = "Mama, papa, people may be happy."


def level(spoken: Utterance, start: float, end: float) -> float:
    piece = spoken.sound[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
    return float(np.sqrt(np.mean(piece**2))) if len(piece) else 0.0


def loudness_of(spoken: Utterance, names: tuple[str, ...]) -> float:
    return float(np.median([level(spoken, p.start, p.end) for p in spoken.phones if p.name in names]))


@pytest.fixture(scope="module")
def spoken_by_flite() -> Utterance:
    return flite(TEXT, "slt")


@pytest.fixture(scope="module")
def spoken_by_espeak() -> Utterance:
    return Espeak().say(TEXT, "en-us+f2")


def check_phones(spoken: Utterance) -> None:
    assert {phone.name for phone in spoken.phones} <= set(PHONES)
    assert sum(phone.name in "mbp" for phone in spoken.phones) == 9
    for before, after in zip(spoken.phones, spoken.phones[1:], strict=False):
        assert before.end == pytest.approx(after.start, abs=1e-6)
    assert spoken.phones[-1].end == pytest.approx(spoken.seconds, abs=0.1)
    vowels, stops = loudness_of(spoken, ("aa", "ae", "iy", "ey")), loudness_of(spoken, ("p", "pau"))
    assert vowels > 3 * stops, "vowels are loud where the times say that vowels are"


@needs_flite
def test_flite_tells_its_phones(spoken_by_flite: Utterance) -> None:
    check_phones(spoken_by_flite)


@needs_espeak
def test_espeak_tells_its_phones(spoken_by_espeak: Utterance) -> None:
    check_phones(spoken_by_espeak)


@needs_espeak
@pytest.mark.parametrize("language", ["de", "fr", "es", "it", "nl", "pl", "pt"])
def test_every_language_comes_out_in_phones_that_have_a_shape(language: str) -> None:
    spoken = Espeak().say("Mama, papa, bombo, fava.", language)
    assert {phone.name for phone in spoken.phones} <= set(PHONES)
    assert sum(phone.name in "mbp" for phone in spoken.phones) >= 5


@needs_espeak
def test_every_accent_speaks() -> None:
    for accent in ESPEAK_ACCENTS:
        assert Espeak().say("Mama.", accent + "+f2").seconds > 0.2


@needs_espeak
def test_an_unknown_voice_is_one_clear_line() -> None:
    with pytest.raises(MissingVoiceError, match="espeak-ng --voices"):
        Espeak().say(TEXT, "klingon-xx")


@needs_flite
def test_phone_times_stay_exact_through_augmentation(spoken_by_flite: Utterance) -> None:
    for seed in range(8):
        changed = augment(spoken_by_flite, np.random.default_rng(seed))
        assert len(changed.phones) == len(spoken_by_flite.phones)
        assert np.isfinite(changed.sound).all()
        assert np.abs(changed.sound).max() <= 1
        ratio = changed.seconds / spoken_by_flite.seconds
        for ours, theirs in zip(changed.phones, spoken_by_flite.phones, strict=True):
            assert ours.start == pytest.approx(theirs.start * ratio, abs=0.001)
        assert loudness_of(changed, ("aa", "ae")) > loudness_of(changed, ("pau",))


def test_opus_keeps_the_time_of_things() -> None:
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8_000:8_400] = 0.5 * np.sin(np.arange(400) * 0.3)
    back = through_opus(click, 24_000)
    assert len(back) == len(click)
    assert abs(int(np.argmax(np.abs(back))) - 8_200) < 400


@pytest.mark.parametrize(
    ("ipa", "name"),
    [("tʃ", "ch"), ("aɪ", "ay"), ("ˈuː", "uw"), ("m", "m"), ("ɛ̃", "eh"), ("_:", "pau"), ("", "pau"), ("ʁ", "k")],
)
def test_ipa_becomes_arpabet(ipa: str, name: str) -> None:
    assert arpabet(ipa) == name


@needs_flite
def test_a_flite_voice_speaks_higher_and_faster() -> None:
    plain, other = flite(TEXT, "awb"), flite(TEXT, "awb", pitch=1.6, pace=1.25)
    assert other.seconds == pytest.approx(plain.seconds / 1.25, rel=0.05)
    assert pitch_of(other) == pytest.approx(1.6 * pitch_of(plain), rel=0.15)


def pitch_of(spoken: Utterance) -> float:
    """Median hertz of the voiced vowels."""
    found = []
    for phone in spoken.phones:
        middle = int((phone.start + phone.end) / 2 * SAMPLE_RATE)
        piece = spoken.sound[max(0, middle - 400) : middle + 400]
        if phone.name in ("aa", "ae", "iy", "ey"):
            same = np.correlate(piece, piece, "full")[len(piece) - 1 :]
            found.append(SAMPLE_RATE / (40 + int(np.argmax(same[40:250]))))
    return float(np.median(found))


@needs_flite
def test_the_telephone_keeps_the_time_and_the_middle_of_the_voice(spoken_by_flite: Utterance) -> None:
    back = through_telephone(spoken_by_flite.sound)
    assert len(back) == len(spoken_by_flite.sound)
    assert np.corrcoef(back, narrowed(spoken_by_flite.sound, 300, 3_400))[0, 1] > 0.97
    power = np.square(np.abs(np.fft.rfft(back)))
    hertz = np.fft.rfftfreq(len(back), 1 / SAMPLE_RATE)
    assert power[hertz > 4_100].sum() < 0.01 * power.sum()
