"""The default renderer, personal: the loop's own mouth cut out, and painted anew where a sketch says lips and jaw are.

An encoder reads the loop patch without its mouth, once for each frame of the loop; a small U-net reads the sketch,
meets those features at each scale and writes what differs from the person's mean patch. No convolution runs at full
size: pixels are unshuffled into channels on the way in and shuffled out at the end. Identity lives in the weights, in
the mean patch, and in maps that say what is usually where. What of a layer can be said once for a loop frame is said
when it is looked at, and nothing is doubled only to be convolved: the same sums, a quarter fewer products.
"""

from collections.abc import Sequence
from typing import Final, cast

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
PAINT: Final = (32, 64, 96, 128)
"""All but the loop's are sixteens: what a vector of 512 bits holds, and what a convolution rounds up to and computes.
Older fits have others, which their file tells."""
BLUR: Final = 1.2
"""Standard deviation in pixels of what sharpening takes away."""


class Patch(Renderer):
    """The person's own, which `fit` finds: `face` [478, 2], the mean face in patch pixels; `mean` [3, S, S]; `hole` and
    `mask` [S, S]; `rest` [57, 2], where lips and jaw usually are; `sharpen`."""

    def __init__(self, size: int = 128, widths: Sequence[int] | None = None) -> None:
        """`widths`: of the painter, from half its size to a sixteenth."""
        super().__init__(size)
        widths = widths or PAINT
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
        for level, width in enumerate(widths):
            below = widths[level + 1] if level + 1 < len(widths) else 0
            self.painter.append(_Brush(LOOP[level], SKETCH[level], below, width))
            side = size >> (level + 1)
            self.places.append(nn.Parameter(torch.zeros(1, width, side, side)))
        self.writer = nn.Conv2d(widths[0], 12, 3, padding=1)
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
        for level, (layer, brush) in enumerate(zip(self.looker, self.painter, strict=True)):
            x = layer(x)
            # At the finest scale it is three times as many numbers as `x`, for every frame of a loop: said later there.
            rows[f"look_{level}"] = cast(_Brush, brush).looked(x) if level else x
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
        for level in reversed(range(len(self.painter))):
            brush, looked = cast(_Brush, self.painter[level]), rows[f"look_{level}"]
            x = brush(looked if level else brush.looked(looked), read[level + 1], x, self.places[level])
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
    """A convolution of what the loop shows, what is read and what comes from below, what is usual there added, and a
    residual block.

    That convolution is of all three side by side, what comes from below doubled to their size; it is done part by part.
    """

    def __init__(self, looked: int, read: int, below: int, width: int) -> None:
        super().__init__()
        self.parts = looked, read, below
        self.enter = _conv(sum(self.parts), width)
        self.first = _conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def looked(self, x: Tensor) -> Tensor:
        """What features of the loop add to the sum."""
        return F.conv2d(x, self._weights()[0], padding=1)

    def forward(self, looked: Tensor, read: Tensor, below: Tensor | None, usual: Tensor) -> Tensor:
        _, of_read, of_below = self._weights()
        x = looked + F.conv2d(read, of_read, padding=1)
        if below is not None:
            x = x + F.conv_transpose2d(below, _doubling(of_below), stride=2, padding=1)
        x = F.relu(self.enter[1](x)) + usual
        return F.relu(x + self.second(self.first(x)))

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        weight = cast(nn.Conv2d, self.enter[0]).weight
        looked, read, _ = self.parts
        return weight[:, :looked], weight[:, looked : looked + read], weight[:, looked + read :]


def _doubling(weight: Tensor) -> Tensor:
    """[C, B, 3, 3] → [B, C, 4, 4]: doubled (nearest) and convolved by the one, or transposed by the other with stride
    2, is the same, with four products where there were nine."""
    out, into = weight.shape[:2]
    a, b, c = weight.transpose(0, 1).unbind(2)
    tall = torch.stack([c, b + c, a + b, a], 2)
    a, b, c = tall.unbind(3)
    return torch.stack([c, b + c, a + b, a], 3).reshape(into, out, 4, 4)  # no exporter would know its shape
