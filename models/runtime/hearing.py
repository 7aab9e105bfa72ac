"""How the runtimes of painted mouths hear: by rule, or through the shared voice encoder, whoever computes it.

Whatever hears takes one chunk of each of some sessions, and says how the mouth is in the frame K chunks ago.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from safetensors import safe_open

from models.rates import BLENDSHAPES, CHUNK, LOOKAHEAD_MOST
from models.runtime import Floats
from models.runtime.articulation import REST, Heard, hear, silence
from models.runtime.mouths import Choice

VOICE_LOOKAHEADS: Final = (0, 1, 2, 3)
"""K for which the voice encoder has a head."""

LAST_HEAD: Final = VOICE_LOOKAHEADS[-1]

FAINT: Final = np.float32(0.04)
"""A weight that the encoder gives to silence: it counts as nothing."""

GOLDEN_STEPS: Final = 50
TOLERANCE: Final = 2e-3
"""Largest difference of a weight (0…1) from the reference's, over the golden steps, in f32."""


class Hearing(Protocol):
    """Three methods: a stranger can write one in an evening."""

    def listen(self, slots: Sequence[int], reset: Sequence[bool], pcm: Floats, lookahead: Sequence[int]) -> Floats:
        """[B, n]: what the mouths do, a row for each slot; `pcm` is [B, 640]. A row depends on its own slot only.

        The first K answers after a reset are at rest.
        """
        ...

    def weigh(self, choice: Choice, heard: Floats) -> Floats:
        """Rows of the answer [B, n] as weights of an avatar's painted mouths [B, M]."""
        ...

    def expression(self, heard: Floats) -> Floats | None:
        """Rows of the answer as ARKit weights [B, 52] of the mouth; None when only the painted mouths say them."""
        ...


class ByRule:
    """In numpy: knows no language and needs no file."""

    def __init__(self, slots: int) -> None:
        self._states: list[Heard | None] = [None] * slots

    def listen(self, slots: Sequence[int], reset: Sequence[bool], pcm: Floats, lookahead: Sequence[int]) -> Floats:
        answers = np.zeros((len(slots), len(REST)), np.float32)
        for row, slot in enumerate(slots):
            state = self._states[slot]
            if state is None or reset[row]:
                state = silence(lookahead[row])
            self._states[slot], answers[row] = hear(state, pcm[row])
        return answers

    def weigh(self, choice: Choice, heard: Floats) -> Floats:
        return choice.weigh(heard)

    def expression(self, heard: Floats) -> Floats | None:
        return None


class VoiceEar(Protocol):
    """The voice encoder for a number of slots: `models.runtime.ear.Ear`, `models.runtime.eager.EagerEar`."""

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        """One chunk [640] for each of `slots` → ARKit weights [len(slots), 4, 52], for each of `VOICE_LOOKAHEADS`."""
        ...


class ByVoice:
    """Through the voice encoder. A look-ahead beyond its last head waits for what that head has said already."""

    def __init__(self, ear: VoiceEar, slots: int) -> None:
        self._ear = ear
        self._rests = np.zeros(slots, np.int64)  # answers still to come that are for chunks before the first
        self._said = np.zeros((slots, LOOKAHEAD_MOST - LAST_HEAD, BLENDSHAPES), np.float32)
        """What the last head said, newest first."""

    def listen(self, slots: Sequence[int], reset: Sequence[bool], pcm: Floats, lookahead: Sequence[int]) -> Floats:
        at, ahead = np.array(slots), np.array(lookahead)
        heads = self._ear.hear(slots, reset, np.clip(np.nan_to_num(pcm), -1, 1))
        answers = np.concatenate([heads, self._said[at]], 1)  # one for each look-ahead
        weights = answers[np.arange(len(at)), ahead]
        self._said[at] = answers[:, LAST_HEAD:-1]
        rests = np.where(reset, ahead, self._rests[at])
        self._rests[at] = np.maximum(0, rests - 1)
        return np.where(rests[:, None] > 0, np.float32(0), weights)

    def weigh(self, choice: Choice, heard: Floats) -> Floats:
        return choice.weigh(choice.articulate(heard))

    def expression(self, heard: Floats) -> Floats | None:
        return np.clip((heard - FAINT) / (1 - FAINT), 0, 1)


def require_parity(ear: VoiceEar, golden: Path) -> float:
    """The largest difference from what the reference answered; raises `RuntimeError` when it is beyond `TOLERANCE`.

    `golden` holds fifty streamed steps and the reference's answers. The ear is asked in two slots, with other sound in
    the second.
    """
    arrays = _golden(golden)
    worst = 0.0
    for step, (chunk, expected) in enumerate(zip(arrays["pcm"], arrays["lips"], strict=True)):
        heard = ear.hear([1, 0], [step == 0] * 2, np.stack([chunk, -0.5 * chunk]))[0]
        difference = float(np.abs(heard - expected).max())
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    if worst > TOLERANCE:
        raise RuntimeError(f"it differs from the reference by {worst:.2g}, where {TOLERANCE:g} is allowed")
    return worst


def _golden(path: Path) -> dict[str, Floats]:
    graph = path.with_name("lips.onnx")
    if not path.is_file() or not graph.is_file():
        raise RuntimeError(f"{path.name} is missing: make it with python -m models.runtime.export")
    with safe_open(str(path), framework="np") as file:
        if (file.metadata() or {}).get("graph") != sha256(graph.read_bytes()).hexdigest():
            raise RuntimeError(f"{path.name} belongs to another {graph.name}: export both again")
        arrays = {name: file.get_tensor(name) for name in ("pcm", "lips")}
    if arrays["pcm"].shape != (GOLDEN_STEPS, CHUNK) or arrays["lips"].shape[1:] != (len(VOICE_LOOKAHEADS), BLENDSHAPES):
        raise RuntimeError(f"{path.name} has not the expected shapes")
    return arrays
