"""Festival's voices, where they are installed: phones where the sound says, in every language of theirs."""

import numpy as np
import pytest

from models.rates import SAMPLE_RATE
from models.studio import festival as module
from models.studio.articulation import PHONES
from models.studio.festival import FESTIVAL_VOICES, Saying, festival, missing, named
from models.studio.speech import MissingVoiceError, Utterance

ABSENT = missing()


def loudness(spoken: Utterance, names: set[str]) -> float:
    pieces = (
        spoken.sound[int(phone.start * SAMPLE_RATE) : int(phone.end * SAMPLE_RATE)]
        for phone in spoken.phones
        if phone.name in names
    )
    return float(np.median([np.sqrt(np.mean(piece**2)) for piece in pieces if len(piece)]))


@pytest.mark.parametrize("voice", ["lp_diphone", "czech_dita", "upc_ca_ona_hts", "suo_fi_lj_diphone", "ked_diphone"])
def test_a_voice_tells_its_phones(voice: str) -> None:
    if voice in ABSENT:
        pytest.skip(f"festival's {voice} is not installed")
    plain, quick = festival([Saying("mamo pabo meba"), Saying("mamo pabo meba", pitch=1.3, pace=1.3)], voice)
    assert {phone.name for phone in plain.phones} <= set(PHONES)
    assert sum(phone.name in "mbp" for phone in plain.phones) == 6
    assert plain.phones[-1].end == pytest.approx(plain.seconds, abs=0.1)
    assert loudness(plain, {"aa", "ow", "ey", "ao", "eh", "ax"}) > 3 * loudness(plain, {"p", "pau"})
    assert quick.seconds < 0.95 * plain.seconds or voice == "upc_ca_ona_hts"


@pytest.mark.parametrize(
    ("symbol", "language", "name"),
    [
        *(("a1", "it", "aa"), ("tS", "it", "ch"), ("nf", "it", "v"), ("rr", "ca", "dx"), ("hv", "en", "hh")),
        *(("s~", "cs", "sh"), ("r~*", "cs", "sh"), ("c", "cs", "s"), ("brth", "en", "pau"), ("aa", "en", "aa")),
        *(("m:", "fi", "m"), ("@:", "fi", "ae"), ("7", "fi", "er"), ("##", "fi", "pau")),
    ],
)
def test_its_symbols_become_arpabet(symbol: str, language: str, name: str) -> None:
    assert named(symbol, language) == name


def test_without_festival_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    assert missing() == tuple(FESTIVAL_VOICES)
    with pytest.raises(MissingVoiceError, match="apt-get install festival"):
        festival([Saying("mama")], "lp_diphone")


@pytest.mark.skipif("ked_diphone" in ABSENT, reason="festival's American voice is not installed")
def test_a_voice_that_breaks_down_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FESTIVAL_VOICES, "nobody", FESTIVAL_VOICES["ked_diphone"])
    with pytest.raises(MissingVoiceError, match="does not speak with voice 'nobody'"):
        festival([Saying("mama")], "nobody")
