"""`liveface studio` as its users call it."""

import argparse
import shutil
from pathlib import Path

import pytest

from models.studio import command, speech


def call(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(words))


@pytest.mark.skipif(not (shutil.which("flite") and shutil.which("espeak-ng")), reason="make deps installs the voices")
def test_a_small_corpus_is_spoken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("speech", str(tmp_path / "corpus"), "--flite", "1", "--espeak", "2", "--festival", "0") == 0
    assert "minutes of speech" in capsys.readouterr().out
    assert len(list((tmp_path / "corpus").glob("*.npz"))) >= 5


def test_without_a_synthesiser_one_line_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech.shutil, "which", lambda _: None)
    assert call("speech", str(tmp_path / "corpus"), "--flite", "1", "--espeak", "1") == 2
    said = capsys.readouterr().err
    assert "apt-get install flite" in said
    assert said.count("\n") <= 2
