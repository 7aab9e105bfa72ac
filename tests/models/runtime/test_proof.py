"""The proof that travels with the graph."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from models.runtime.proof import golden_sound, streamed
from models.voice import Lips, VoiceEncoder


def test_the_golden_sound_has_silence_voice_and_hiss_and_is_always_the_same() -> None:
    sound = golden_sound()
    level = np.sqrt(np.square(sound).mean(1))
    assert sound.shape == (50, 640)
    assert level[:5].max() < 0.002
    assert level.max() > 0.2
    assert (sound == golden_sound()).all()


def test_what_is_proved_is_what_the_whole_would_say(encoder: VoiceEncoder) -> None:
    lips = Lips(encoder)
    sound = golden_sound()[5:20]
    with torch.no_grad():
        whole, _ = lips(torch.from_numpy(sound.reshape(1, -1)), lips.silence(1))
    np.testing.assert_allclose(streamed(lips, sound), whole[0].numpy(), atol=2e-5)


def test_the_proof_names_its_graph(voice: Path) -> None:
    with safe_open(str(voice / "golden.safetensors"), framework="np") as golden:
        assert golden.metadata()["graph"] == sha256((voice / "lips.onnx").read_bytes()).hexdigest()
        assert golden.get_tensor("lips").shape == (50, 4, 52)
