"""What steps run on. The GPU itself is tried where there is one; its logic is `RecordingDevice`'s."""

import numpy as np
import pytest
import torch

from models.runtime.devices import Cuda, Device, Unrecorded, moved, sizes_of
from tests.models.runtime.recording import RecordingDevice


def devices() -> list[Device]:
    return [Unrecorded(), RecordingDevice(), *([Cuda()] if torch.cuda.is_available() else [])]


def test_a_recorded_step_reads_what_is_in_its_tensors_when_it_is_repeated() -> None:
    for device in devices():
        with torch.inference_mode(), device.working():
            heard, total = torch.zeros(4, device=device.where), torch.zeros(4, device=device.where)

            def step(heard: torch.Tensor = heard, total: torch.Tensor = total) -> None:
                total.copy_(2 * heard + 1)

            repeat = device.record(step)
            sent = device.pinned((4,), torch.float32)
            for loud in (3, 5):
                sent.fill_(loud)
                heard.copy_(sent, non_blocking=True)
                repeat()
                home = device.fetch(total, device.pinned((4,), torch.float32))
                assert home.tolist() == [2 * loud + 1] * 4


def test_what_is_sent_ahead_is_there_after_joining() -> None:
    for device in devices():
        with torch.inference_mode(), device.working():
            frame = torch.zeros(3, device=device.where)
            with device.aside():
                frame.copy_(torch.ones(3), non_blocking=True)
            device.join()
            assert device.fetch(frame + 1, device.pinned((3,), torch.float32)).tolist() == [2, 2, 2]


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="torch sees no NVIDIA GPU"):
        Cuda()


def test_arrays_are_moved_whole_whatever_their_strides() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    assert (moved(Unrecorded(), array).numpy() == array).all()
    assert sizes_of({"a": np.zeros((2, 3), np.float32), "b": np.zeros(5, np.uint8)}) == 29
