"""CUDA graphs: the promises are kept in `test_init.py`, on a device that records; here is what is its own."""

from pathlib import Path

import pytest
import torch

from models.runtime import Row, Wants, graphed
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.recording import RecordingDevice
from tests.models.runtime.taught import teach_package
from tests.models.runtime.voices import babble


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="torch sees no NVIDIA GPU"):
        graphed.open([draw_package(tmp_path / "ellipse")], 1)


def test_everything_is_recorded_when_it_opens_and_nothing_later(tmp_path: Path, voice: Path) -> None:
    device = RecordingDevice()
    packages = [draw_package(tmp_path / "ellipse"), teach_package(tmp_path / "net")]
    runtime = graphed.open_on(device, packages, 3, None, voice / "lips.onnx")
    recorded = device.recordings
    # the ear and the shelf for 1, 2, 4 rows; step and paint for 1 and 2 to prove themselves, and for 1, 2, 4 to serve
    assert recorded == 3 + 3 + 2 * 2 + 2 * 3
    sound = babble(3, 0)
    for n in range(3):
        names = ["ellipse", "net", "net"][: n + 1]
        runtime.step([Row(s, 1, n == 0, name, sound[n], n, Wants.PICTURE) for s, name in enumerate(names)])
    assert device.recordings == recorded
    runtime.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_it_opens_proven(tmp_path: Path, voice: Path) -> None:
    runtime = graphed.open(
        [draw_package(tmp_path / "ellipse"), teach_package(tmp_path / "net")], 9, None, voice / "lips.onnx"
    )
    out = runtime.step([Row(0, 1, True, "net", babble(1, 0)[0], 0, Wants.PICTURE)])[0]
    assert out.roi is not None
