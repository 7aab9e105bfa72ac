"""The voice encoder as a graph, with its proof beside it: `python -m models.runtime.export`. Needs the extra `create`.

The proof is fifty streamed steps and what torch answers to them: any backend is held to it, without torch.
"""

import argparse
from hashlib import sha256
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from models.avatar import write_atomically
from models.rates import CHUNK, SAMPLE_RATE
from models.runtime import Floats
from models.runtime.eager import VOICE, EagerEar
from models.runtime.hearing import GOLDEN_STEPS
from models.voice import Lips, VoiceEncoder, load, ship


def export_voice(directory: Path, encoder: VoiceEncoder, **made: str) -> None:
    """Write `voice.safetensors`, `lips.onnx`, `silence.safetensors` and `golden.safetensors`."""
    ship(directory, encoder, **made)
    prove(directory, encoder)


def prove(directory: Path, encoder: VoiceEncoder) -> None:
    """Write `golden.safetensors` for the graph that is there, from the encoder that it was made of."""
    ear = EagerEar(1, Lips(encoder))
    pcm = golden_sound()
    lips = np.concatenate([ear.hear([0], [step == 0], chunk[None]) for step, chunk in enumerate(pcm)])
    digest = sha256((directory / "lips.onnx").read_bytes()).hexdigest()
    write_atomically(directory / "golden.safetensors", save({"pcm": pcm, "lips": lips}, {"graph": digest}))


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make the proof of the shipped voice encoder's graph; with --graph the graph too.",
        epilog="example: python -m models.runtime.export --graph",
    )
    parser.add_argument("--voice", type=Path, default=VOICE, help="weights, as models.voice.save writes them")
    parser.add_argument("--graph", action="store_true", help="export lips.onnx again from these weights")
    arguments = parser.parse_args()
    directory, encoder = arguments.voice.parent, load(arguments.voice)
    if arguments.graph:
        export_voice(directory, encoder)
    else:
        prove(directory, encoder)
    print(f"{directory}: lips.onnx and the golden steps that prove it")


if __name__ == "__main__":
    main()
