"""The reference against itself, and against what was exported of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.runtime import Row, Wants, eager
from models.runtime.eager import EagerEar
from models.runtime.hearing import require_parity
from models.voice import Lips, VoiceEncoder
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.voices import babble


def test_it_is_its_own_proof(voice: Path, encoder: VoiceEncoder) -> None:
    assert require_parity(EagerEar(2, Lips(encoder)), voice / "golden.safetensors") < 1e-5


def test_streaming_equals_the_whole(encoder: VoiceEncoder) -> None:
    sound = babble(12, 4)
    lips = Lips(encoder)
    with torch.inference_mode():
        whole, _ = lips(torch.from_numpy(sound.reshape(1, -1)), lips.silence(1))
    ear = EagerEar(3, lips)
    streamed = np.concatenate([ear.hear([2], [n == 0], chunk[None]) for n, chunk in enumerate(sound)])
    np.testing.assert_allclose(streamed, whole[0].numpy(), atol=2e-5)


def test_neighbours_slots_and_padding_change_nothing(encoder: VoiceEncoder) -> None:
    sounds = np.stack([babble(6, seed) for seed in range(3)])
    together, alone = EagerEar(5, Lips(encoder)), EagerEar(1, Lips(encoder))
    heard = np.stack([together.hear([4, 1, 2], [n == 0] * 3, sounds[:, n]) for n in range(6)], 1)
    for row, sound in zip(heard, sounds, strict=True):
        one = np.concatenate([alone.hear([0], [n == 0], chunk[None]) for n, chunk in enumerate(sound)])
        np.testing.assert_allclose(row, one, atol=2e-5)


def test_the_runtime_opens_and_answers(voice: Path, tmp_path: Path) -> None:
    runtime = eager.open([draw_package(tmp_path / "ellipse")], 1, 1, voice / "voice.safetensors")
    out = runtime.step([Row(0, 1, True, "ellipse", babble(1, 1)[0], 0, Wants.FACE)])[0]
    assert out.face is not None
    with pytest.raises(RuntimeError, match="no voice encoder has been trained"):
        eager.open([], 1, None, tmp_path / "voice.safetensors")
