"""The patch discriminators of pix2pixHD (Wang et al. 2018), which Zheng et al. and IP-LAP train against.

Each of several judges the picture at another fineness, patch by patch, beside what it was made from; a renderer is to
convince them (least squares) and to look the same to their inner layers (feature matching).
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Verdict(NamedTuple):
    patches: Tensor  # [B, 1, h, w]: 1 real, 0 painted
    layers: list[Tensor]


class Judge(nn.Module):
    """The 70 × 70 patch discriminator: strides 2, 2, 2, 1, 1."""

    def __init__(self, into: int, width: int = 64) -> None:
        super().__init__()
        widths = [into, width, 2 * width, 4 * width, 8 * width]
        strides = [2, 2, 2, 1]
        self.layers = nn.ModuleList()
        for number, stride in enumerate(strides):
            conv = nn.Conv2d(widths[number], widths[number + 1], 4, stride, 2)
            norm = nn.InstanceNorm2d(widths[number + 1]) if number else nn.Identity()
            self.layers.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
        self.say = nn.Conv2d(widths[-1], 1, 4, 1, 2)

    def forward(self, x: Tensor) -> Verdict:
        layers = []
        for layer in self.layers:
            x = cast(Tensor, layer(x))
            layers.append(x)
        return Verdict(self.say(x), layers)


class Adversary(nn.Module):
    """Judges at full, half, … size of (what it was made from, picture)."""

    def __init__(self, into: int, judges: int = 2, width: int = 64) -> None:
        super().__init__()
        self.judges = nn.ModuleList(Judge(into, width) for _ in range(judges))

    def forward(self, given: Tensor, picture: Tensor) -> list[Verdict]:
        x = torch.cat([given, picture], 1)
        verdicts = []
        for judge in self.judges:
            verdicts.append(cast(Verdict, judge(x)))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return verdicts


def unmasked(true: list[Verdict], painted: list[Verdict]) -> Tensor:
    """The adversary's own loss."""
    total = true[0].patches.new_zeros(())
    for a, b in zip(true, painted, strict=True):
        total = total + 0.5 * ((a.patches - 1).square().mean() + b.patches.square().mean())
    return total


def convincing(painted: list[Verdict]) -> Tensor:
    """The renderer's."""
    return torch.stack([(verdict.patches - 1).square().mean() for verdict in painted]).sum()


def alike(true: list[Verdict], painted: list[Verdict]) -> Tensor:
    """Feature matching: L1 of every inner layer, the mean over layers and judges."""
    pairs = [(a, b) for x, y in zip(true, painted, strict=True) for a, b in zip(x.layers, y.layers, strict=True)]
    return torch.stack([(a.detach() - b).abs().mean() for a, b in pairs]).mean()
