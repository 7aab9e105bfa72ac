"""Making the graph's proof again."""

import shutil
import sys
from pathlib import Path

import pytest

from models.runtime import export
from models.runtime.ear import Ear
from models.runtime.hearing import require_parity


def test_a_graph_that_lost_its_proof_gets_it_back(
    voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "voice"
    shutil.copytree(voice, directory)
    golden = directory / "golden.safetensors"
    before = golden.read_bytes()
    golden.unlink()
    monkeypatch.setattr(sys, "argv", ["export", "--voice", str(directory / "voice.safetensors")])
    export.main()
    assert golden.read_bytes() == before
    assert "golden" in capsys.readouterr().out
    assert require_parity(Ear(2, directory / "lips.onnx"), golden) < 1e-5
