"""What every mouth must do, from what was heard: the shipped voice encoder under OpenVINO. No torch.

One graph serves all sessions and all avatars: pcm [B, 640] → ARKit weights [B, 1, 4, 52], one row for each look-ahead
K = 0, 1, 2, 3. State is a value per slot, gathered before and scattered after each step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino
from safetensors.numpy import load_file

from models.rates import CHUNK
from models.runtime import Floats

LIPS: Final = Path(__file__).parent.parent / "shipped" / "voice" / "lips.onnx"
LOOKAHEAD_MOST: Final = 3


class Ear:
    """The voice encoder for a number of slots. One thread calls it."""

    def __init__(self, slots: int, path: Path = LIPS, threads: int = 1) -> None:
        core = openvino.Core()
        # The default precision of newer CPUs is bf16, which is not what the graph was checked in.
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._request: Any = core.compile_model(str(path), "CPU", settings).create_infer_request()
        silent = load_file(path.with_name("silence.safetensors"))
        self._silence: list[Floats] = [silent[f"state_{n}"] for n in range(len(silent))]
        self._states: list[Floats] = [np.repeat(leaf, slots, axis=0) for leaf in self._silence]

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        """One chunk [640] for each of `slots` → weights [len(slots), 4, 52]; a reset begins from silence."""
        index = np.asarray(slots)
        fresh = np.asarray(resets, bool)
        for state, silence in zip(self._states, self._silence, strict=True):
            state[index[fresh]] = silence
        feeds = {"x": pcm.reshape(len(index), CHUNK)}
        feeds |= {f"state_{n}": state[index] for n, state in enumerate(self._states)}
        heard = self._request.infer(feeds)
        for n, state in enumerate(self._states):
            state[index] = heard[f"after_{n}"]
        return np.array(heard["y"][:, 0])
