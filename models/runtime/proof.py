"""The proof that travels with the voice encoder's graph: fifty streamed steps and what torch answers to them.

Any backend is held to it when it opens (`hearing.require_parity`), and needs no torch for that.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save

from models.avatar import write_atomically
from models.rates import CHUNK, SAMPLE_RATE
from models.runtime import Floats
from models.runtime.hearing import GOLDEN_STEPS
from models.streaming import Layer


def prove(directory: Path, lips: Layer) -> None:
    """Write `golden.safetensors` for the `lips.onnx` that is there, from the layer that it was made of."""
    pcm = golden_sound()
    digest = sha256((directory / "lips.onnx").read_bytes()).hexdigest()
    arrays = {"pcm": pcm, "lips": streamed(lips, pcm)}
    write_atomically(directory / "golden.safetensors", save(arrays, {"graph": digest}))


@torch.no_grad()
def streamed(lips: Layer, pcm: Floats) -> Floats:
    """[steps, 640] → [steps, 4, 52], one step at a time."""
    state = lips.silence(1)
    answers = []
    for chunk in torch.from_numpy(pcm):
        answer, state = lips(chunk[None], state)
        answers.append(answer[0, 0].numpy())
    return np.stack(answers)


def golden_sound() -> Floats:
    """[50, 640]: silence, a gliding voice, hiss, and a voice that ends too loud; made, so that it is everyone's."""
    time = np.arange(GOLDEN_STEPS * CHUNK) / SAMPLE_RATE
    pitch = 2 * np.pi * np.cumsum(110 + 40 * np.sin(2 * np.pi * 0.7 * time)) / SAMPLE_RATE
    first = 500 + 250 * np.sin(2 * np.pi * 1.3 * time)
    voice = np.sum([np.sin(n * pitch) / (1 + ((n * 120 - first) / 150) ** 2) for n in range(1, 30)], axis=0)
    hiss = np.random.default_rng(1).normal(size=time.shape)
    loudness = np.interp(time, [0, 0.2, 0.3, 0.9, 1.0, 1.3, 1.4, 2.0], [0, 0, 1, 0.6, 0, 0, 1, 2.5])
    noise = np.interp(time, [0, 0.9, 1.0, 1.2, 1.3, 2.0], [0.001, 0.001, 0.1, 0.1, 0.001, 0.001])
    sound = np.clip(0.15 * loudness * voice + noise * hiss, -1, 1)
    return np.asarray(sound.reshape(GOLDEN_STEPS, CHUNK), np.float32)
