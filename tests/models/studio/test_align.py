"""Aligned recordings: against flite, which knows when it said what."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest

from models.rates import SAMPLE_RATE
from models.studio.align import UnspokenError, aligned
from models.studio.articulation import Phone
from models.studio.speech import MissingVoiceError, flite

needs_pocketsphinx = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason="pip install liveface[align]"
)
TEXT = "My mother bought a big purple pumpkin."


@needs_pocketsphinx
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed (make deps)")
def test_phones_are_found_where_they_were_said() -> None:
    truth = flite(TEXT, "rms")
    found = aligned(truth.sound, TEXT, "real")

    def closures(phones: tuple[Phone, ...]) -> list[float]:
        return [(p.start + p.end) / 2 for p in phones if p.name in "mbp"]

    ours, theirs = closures(found.phones), closures(truth.phones)
    assert len(ours) == len(theirs) == 9
    assert np.abs(np.subtract(ours, theirs)).max() < 0.04
    assert found.phones[0].name == found.phones[-1].name == "pau"
    assert found.phones[-1].end == pytest.approx(truth.seconds, abs=0.05)


@needs_pocketsphinx
def test_a_word_that_nobody_knows_is_named() -> None:
    with pytest.raises(UnspokenError, match="blorgs"):
        aligned(np.zeros(SAMPLE_RATE, np.float32), "the blorgs", "real")


@needs_pocketsphinx
def test_words_that_were_not_said_are_an_error() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 4)
    with pytest.raises(UnspokenError, match="not what is heard"):
        aligned(noise.astype(np.float32), 20 * "my mother bought a big purple pumpkin ", "real")


def test_without_pocketsphinx_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(MissingVoiceError, match="liveface"):
        aligned(np.zeros(SAMPLE_RATE, np.float32), "a", "real")
