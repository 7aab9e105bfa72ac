"""The corpus: the same every time, kept on disk, and without the voices that a test needs unheard."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from models.studio import corpus as module
from models.studio.corpus import Plan, corpus, load, save
from models.studio.festival import missing
from models.studio.speech import Utterance

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed (make deps)")
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (make deps)")


@needs_flite
@needs_espeak
def test_the_same_seed_gives_the_same_corpus_and_keeps_it(tmp_path: Path) -> None:
    plan = Plan(seed=3, per_flite_voice=1, espeak_utterances=3, per_festival_voice=0)
    first = list(corpus(plan, tmp_path))
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = list(corpus(plan, tmp_path))
    assert [u.text for u in first] == [u.text for u in second]
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(ours.sound, theirs.sound, atol=1e-4)


@needs_flite
@needs_espeak
def test_voices_that_are_held_out_are_not_heard() -> None:
    plan = Plan(per_flite_voice=1, espeak_utterances=4, per_festival_voice=0, hold_out=("slt", "espeak:en-gb"))
    voices = [spoken.voice for spoken in corpus(plan)]
    assert "slt" not in voices
    assert not any(voice.startswith("espeak:en-gb") for voice in voices)
    assert "rms" in voices


def test_utterances_come_back_from_disk(tmp_path: Path) -> None:
    spoken = Utterance("v", "hello", np.linspace(-1, 1, 100).astype(np.float32), ())
    save(tmp_path / "a.npz", spoken)
    back = load(tmp_path / "a.npz")
    np.testing.assert_allclose(back.sound, spoken.sound, atol=1e-4)
    assert (back.voice, back.text, back.phones) == ("v", "hello", ())


@needs_flite
@pytest.mark.skipif("ked_diphone" in missing(), reason="festival's American voice is not installed")
def test_festival_joins_where_it_is_installed_and_its_speech_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(per_flite_voice=0, espeak_utterances=0, per_festival_voice=2, hold_out=("espeak:", "festival:suo"))
    monkeypatch.setattr(module, "FESTIVAL_VOICES", {name: module.FESTIVAL_VOICES[name] for name in ("ked_diphone",)})
    first = list(corpus(plan, tmp_path))
    assert [spoken.voice for spoken in first] == ["festival:ked_diphone"] * 2
    monkeypatch.setattr(module, "festival", None)  # whoever asks it again fails
    assert [spoken.text for spoken in corpus(plan, tmp_path)] == [spoken.text for spoken in first]


@needs_flite
def test_a_machine_without_festival_has_a_corpus_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing", lambda: tuple(module.FESTIVAL_VOICES))
    plan = Plan(per_flite_voice=1, espeak_utterances=0, hold_out=("espeak:",))
    assert not any(spoken.voice.startswith("festival") for spoken in corpus(plan))
