"""Normalise, then let a map say anew how bright and how strong each place is: SPADE (Park et al. 2019).

What a map says does not depend on what it modulates. So it is asked once, and modulates any number of pictures: of
IP-LAP's 25 references, one is paid for.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Said(NamedTuple):
    """What a map says of each place, [B, C, H, W] each."""

    gain: Tensor
    shift: Tensor


class Spade(nn.Module):
    def __init__(self, channels: int, into: int, hidden: int) -> None:
        super().__init__()
        self.hear = nn.Sequential(nn.Conv2d(into, hidden, 3, padding=1), nn.ReLU())
        self.say = nn.Conv2d(hidden, 2 * channels, 3, padding=1)
        nn.init.zeros_(cast(Tensor, self.say.bias))

    def listen(self, map_: Tensor, height: int, width: int) -> Said:
        """The map [B, into, any, any], at the size of what it will modulate."""
        gain, shift = self.say(self.hear(F.interpolate(map_, (height, width)))).chunk(2, 1)
        return Said(gain, shift)

    def forward(self, x: Tensor, said: Said) -> Tensor:
        """[B, C, H, W], or [B, N, C, H, W] of N pictures that share the map."""
        gain, shift = (part if x.dim() == 4 else part[:, None] for part in said)
        return normalised(x) * (1 + gain) + shift


class Adain(nn.Module):
    """The same by a vector for the whole picture (Huang and Belongie 2017)."""

    def __init__(self, channels: int, into: int) -> None:
        super().__init__()
        self.say = nn.Linear(into, 2 * channels)
        nn.init.zeros_(self.say.weight)
        nn.init.zeros_(self.say.bias)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        said: Tensor = self.say(vector)
        gain, shift = said[:, :, None, None].chunk(2, 1)
        return normalised(x) * (1 + gain) + shift


def normalised(x: Tensor) -> Tensor:
    """Each plane to mean 0 and variance 1, by itself: a neighbour in the batch says nothing."""
    variance, mean = torch.var_mean(x, (-2, -1), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-5)
