"""The default renderer, personal: the loop's own mouth cut out, and painted anew where a sketch says lips and jaw are.

An encoder reads the loop patch without its mouth, once for each frame of the loop; a small U-net reads the sketch,
meets those features at each scale and writes what differs from the person's mean patch. No convolution runs at full
size: pixels are unshuffled into channels on the way in and shuffled out at the end. Identity lives in the weights, in
the mean patch, and in maps that say what is usually where.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import face
from ..streaming import State
from . import Features, Renderer
from .placing import defined, into_patch
from .raster import CHANNELS, sketch

SIZES: Final = (128, 192, 256)
LOOP: Final = (12, 40, 64, 96)
"""Channels of what is known of a loop patch, from half its size to a sixteenth."""
SKETCH: Final = (16, 32, 48, 64)
PAINT: Final = (36, 56, 80, 112)
BLUR: Final = 1.2
"""Standard deviation in pixels of what sharpening takes away."""


class Patch(Renderer):
    """The person's own, which `fit` finds: `face` [478, 2], the mean face in patch pixels; `mean` [3, S, S]; `hole` and
    `mask` [S, S]; `rest` [57, 2], where lips and jaw usually are; `sharpen`."""

    def __init__(self, size: int = 128) -> None:
        super().__init__(size)
        if size % 16:
            raise ValueError(f"a patch is some sixteens of pixels wide, not {size}")
        self.looker = nn.ModuleList()
        into = 12
        for level, width in enumerate(LOOP):
            layers = [_conv(into, width, 2 if level else 1)]
            if level < 3:
                layers.append(_conv(width, width))
            self.looker.append(nn.Sequential(*layers))
            into = width
        self.reader = nn.ModuleList()
        into = CHANNELS
        for level, width in enumerate(SKETCH):
            self.reader.append(_conv(into, width, 2 if level else 1))
            into = width
        self.painter = nn.ModuleList()
        self.places = nn.ParameterList()
        for level, width in enumerate(PAINT):
            below = PAINT[level + 1] if level + 1 < len(PAINT) else 0
            self.painter.append(_Brush(LOOP[level] + SKETCH[level] + below, width))
            side = size >> (level + 1)
            self.places.append(nn.Parameter(torch.zeros(1, width, side, side)))
        self.writer = nn.Conv2d(PAINT[0], 12, 3, padding=1)
        nn.init.normal_(self.writer.weight, std=1e-3)
        nn.init.zeros_(self.writer.bias)  # type: ignore[arg-type]  # it has one
        self.mean: Tensor
        self.hole: Tensor
        self.mask: Tensor
        self.rest: Tensor
        self.sharpen: Tensor
        self.face: Tensor
        self.register_buffer("face", torch.zeros(478, 2))
        self.register_buffer("mean", torch.zeros(3, size, size))
        self.register_buffer("hole", torch.zeros(size, size))
        self.register_buffer("mask", torch.zeros(size, size))
        self.register_buffer("rest", torch.zeros(len(face.HOUSE[face.HOUSE_SPOKEN]), 2))
        self.register_buffer("sharpen", torch.zeros(()))

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        x = F.pixel_unshuffle(patches * (1 - self.hole), 2)
        rows = {}
        for level, layer in enumerate(self.looker):
            x = layer(x)
            rows[f"look_{level}"] = x
        return rows

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        patch = self.write(rows, rows["sketch"])
        return patch, self.mask.expand(patch.shape[0], 1, -1, -1), ()

    def precisely(self, rows: Features, points: Tensor) -> dict[str, Tensor]:
        return {"sketch": self.sketch(points, rows["similarity"])}

    def sketch(self, points: Tensor, similarity: Tensor) -> Tensor:
        """House points in the frame [B, 131, 3] → the sketch; what is not a number is at rest."""
        return self.sketched(into_patch(points[:, face.HOUSE_SPOKEN], similarity))

    def sketched(self, spoken: Tensor) -> Tensor:
        """The same from lips and jaw in patch pixels [B, 57, 2]."""
        return sketch(defined(spoken, self.rest), self.size)

    def write(self, rows: Features, sketch: Tensor) -> Tensor:
        """[B, 3, S, S], sharpened, in 0…1."""
        patch = self.unsharpened(rows, sketch)
        return sharpened(patch, self.sharpen).clamp(0, 1)

    def unsharpened(self, rows: Features, sketch: Tensor) -> Tensor:
        read = [sketch]
        for layer in self.reader:
            read.append(layer(read[-1]))
        x: Tensor | None = None
        for level in reversed(range(len(PAINT))):
            parts = [rows[f"look_{level}"], read[level + 1]]
            if x is not None:
                parts.append(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = self.painter[level](torch.cat(parts, 1), self.places[level])
        return F.pixel_shuffle(self.writer(x), 2) + self.mean


def sharpened(patch: Tensor, amount: Tensor) -> Tensor:
    """Away from what a small Gaussian makes of it, channel by channel."""
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, dtype=patch.dtype, device=patch.device) / BLUR) ** 2)
    kernel = (taps[:, None] * taps) / (taps.sum() ** 2)
    blurred = F.conv2d(F.pad(patch, (2, 2, 2, 2), mode="replicate"), kernel.expand(3, 1, 5, 5), groups=3)
    return patch + amount * (patch - blurred)


def _conv(into: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU(True))


class _Brush(nn.Module):
    """A convolution, what is usual there added, and a residual block."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.enter = _conv(into, width)
        self.first = _conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor, usual: Tensor) -> Tensor:
        x = self.enter(x) + usual
        return F.relu(x + self.second(self.first(x)))
