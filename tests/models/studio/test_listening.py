"""The school of the voice encoder, from its command line: who is heard, who is not, and that a run ships."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from models import voice
from models.mel import Mel
from models.studio import lessons, listening, speech
from models.studio.corpus import Plan
from models.studio.listening import UNHEARD, held_out, main, prepare, unheard
from models.studio.teaching import Course

needs_voices = pytest.mark.skipif(
    not (shutil.which("flite") and shutil.which("espeak-ng")), reason="make deps installs the voices"
)


def test_a_whole_synthesiser_can_stay_unheard() -> None:
    assert held_out([]) == UNHEARD
    assert "espeak:" in held_out(["espeak"])
    assert set(speech.FLITE_VOICES) <= set(held_out(["flite"]))
    assert held_out(["awb", "slt"]) == (*UNHEARD, "awb")
    assert held_out(["festival"], usual=()) == ("festival:",)
    with pytest.raises(speech.MissingVoiceError, match="--without nobody: it is none of flite, espeak, festival, kal"):
        held_out(["nobody"])


@needs_voices
def test_what_is_tested_is_not_taught(tmp_path: Path) -> None:
    plan = Plan(per_flite_voice=2, espeak_utterances=3, per_festival_voice=0, hold_out=held_out(["awb"]))
    training, known = prepare(plan, tmp_path, copies=1)
    assert training
    assert not {one.voice for one in (*training, *known)} & {"slt", "awb"}
    assert {one.voice for one in training} >= {"rms", "kal16"}


@needs_voices
def test_unheard_voices_speak(tmp_path: Path) -> None:
    said = unheard(("slt", "espeak:"), seed=1, number=3)
    assert set(said) == {"slt, never heard", "espeak, never heard"}
    assert len({spoken.voice for spoken in said["espeak, never heard"]}) == 3
    assert all(len(lessons.lesson(spoken, Mel()).visemes) > 25 for spoken in said["slt, never heard"])


@needs_voices
def test_a_run_of_a_moment_ships_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "unheard", lambda names, seed: unheard(names, seed, number=1))
    monkeypatch.setattr(listening, "Course", partial(Course, batch=2))
    words = [str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--minutes", "0.005"]
    assert main([*words, "--flite", "1", "--espeak", "6", "--festival", "0", "--copies", "0"]) == 0
    assert voice.load(tmp_path / "out" / "voice.safetensors")
    assert (tmp_path / "out" / "lips.onnx").exists()
    assert list((tmp_path / "cache").glob("out-1.json"))
