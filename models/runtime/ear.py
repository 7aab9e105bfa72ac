"""What every mouth must do, from what was heard: the shipped voice encoder under OpenVINO. No torch.

One graph serves all sessions and all avatars: pcm [B, 640] → ARKit weights [B, 1, 4, 52], one row for each look-ahead
K = 0, 1, 2, 3. State is a value per slot, gathered before and scattered after each step.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import load_file

from models.rates import CHUNK
from models.runtime import Floats
from models.runtime.compiled import Compiled
from models.runtime.slots import Slots, batches, bucket, buckets

LIPS: Final = Path(__file__).parent.parent / "shipped" / "voice" / "lips.onnx"


class Ear:
    """The voice encoder for a number of slots. One thread calls it."""

    def __init__(self, slots: int, path: Path = LIPS) -> None:
        if not path.is_file():
            raise RuntimeError(f"{path.name} is missing: no voice encoder has been trained and shipped here")
        self._slots = Slots(load_file(path.with_name("silence.safetensors")), slots)
        self._graph = Compiled(path.read_bytes(), buckets(slots))

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        """One chunk [640] for each of `slots` → weights [len(slots), 4, 52]; a reset begins from silence."""
        return np.concatenate([self._hear(slots[part], resets[part], pcm[part]) for part in batches(len(slots))])

    def _hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        heard = np.zeros((bucket(len(slots)), CHUNK), np.float32)
        heard[: len(slots)] = pcm
        states = self._slots.gather(slots, resets)
        out = self._graph({"x": heard, **states})
        self._slots.scatter(slots, {name: out[name.replace("state_", "after_")] for name in states})
        return out["y"][: len(slots), 0]
