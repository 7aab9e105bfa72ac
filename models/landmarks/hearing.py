"""What a landmark network may hear of 40 ms: a kind of mel, the voice encoder's code, or code and then mel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ..mel import HEARINGS as MEL_HEARINGS
from ..streaming import Layer, State
from ..voice import CODE, Voice, load

AND_MEL: Final = "mel-mean"
"""The mel that stands beside the code: less its running mean, as the encoder itself hears it."""

HEARINGS: Final = (*MEL_HEARINGS, "voice", "voice+mel")


@dataclass(frozen=True, eq=False)
class Hearing:
    """pcm [B, 640 T] → [B, T, code + mel], the code first."""

    layer: Layer
    code: int
    mel: int

    @property
    def width(self) -> int:
        return self.code + self.mel


class Beside(Layer):
    """Two layers that hear the same, their answers side by side."""

    def __init__(self, first: Layer, second: Layer) -> None:
        super().__init__()
        self.first, self.second = first, second

    def silence(self, batch: int) -> State:
        return (self.first.silence(batch), self.second.silence(batch))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        a, after_a = self.first(x, state[0])
        b, after_b = self.second(x, state[1])
        return torch.cat([a, b], dim=-1), (after_a, after_b)


def hearing(name: str, voice: Path | None = None) -> Hearing:
    """`voice` is the encoder's `voice.safetensors`, for the two that need it; it is not trained further."""
    if name in MEL_HEARINGS:
        width, make = MEL_HEARINGS[name]
        return Hearing(make().eval(), 0, width)
    if name not in HEARINGS:
        raise ValueError(f"hearing = {name!r} is none of {', '.join(HEARINGS)}")
    if voice is None:
        raise ValueError(f"hearing = {name!r} needs voice = the path of a voice.safetensors")
    encoder = Voice(load(voice)).eval().requires_grad_(False)
    if name == "voice":
        return Hearing(encoder, CODE, 0)
    width, make = MEL_HEARINGS[AND_MEL]
    return Hearing(Beside(encoder, make()).eval(), CODE, width)
