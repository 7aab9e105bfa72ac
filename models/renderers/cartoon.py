"""LipSync3D's cartoon (Lahiri et al. 2021, section 3.3): colours flattened by a bilateral filter, and the contours of
nose, lips, cheeks and chin drawn over them. Of patches or of whole pictures: whatever the points lie in."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import face
from .lines import SEGMENTS
from .raster import line_distance

REACH: Final = 3
"""Pixels that a pixel looks at, each way."""
NEAR: Final = 2.0
ALIKE: Final = 0.10
"""Standard deviations: in pixels, and in colour of 0…1."""
ROUNDS: Final = 3
INK: Final = 0.75
"""How dark a contour is."""
STROKE: Final = 1 / 110
"""Half its width, as a share of the picture."""

_NOSE: Final = {int(index) for index in (*face.NOSE_RIDGE, *face.NOSE_BASE)}
_HOUSE: Final = [int(index) for index in face.HOUSE]
CONTOURS: Final = [
    *SEGMENTS[0],
    *SEGMENTS[1],
    *((a, b) for a, b in SEGMENTS[2] if {_HOUSE[a], _HOUSE[b]} <= _NOSE),
]
"""Lips; cheeks and chin, which are the jaw line; nose. Places among house points."""


def cartoon(pictures: Tensor, house: Tensor) -> Tensor:
    """[B, 3, S, S] in 0…1, and its points [B, 131, 2 or 3] in pixels → the same, drawn."""
    flat = pictures
    for _ in range(ROUNDS):
        flat = flattened(flat)
    size = pictures.shape[-1]
    starts, ends = (house[:, list(side), :2] for side in zip(*CONTOURS, strict=True))
    at = torch.arange(size, dtype=pictures.dtype, device=pictures.device)
    stroke = STROKE * size
    ink = (1.5 - line_distance(starts, ends, at) / stroke).clamp(0, 1)[:, None]
    return flat * (1 - INK * ink)


def flattened(pictures: Tensor) -> Tensor:
    """Every pixel a mean of those about it, of those most that are near and of its colour: edges stay."""
    side = 2 * REACH + 1
    batch, planes, high, wide = pictures.shape
    around = F.unfold(F.pad(pictures, (REACH,) * 4, mode="replicate"), side)
    around = around.reshape(batch, planes, side * side, high, wide)
    at = torch.arange(-REACH, REACH + 1, dtype=pictures.dtype, device=pictures.device)
    far = ((at[:, None] ** 2 + at**2) / (2 * NEAR**2)).reshape(1, -1, 1, 1)
    unlike = (around - pictures[:, :, None]).square().sum(1) / (2 * ALIKE**2)
    weights = torch.exp(-far - unlike)[:, None]
    return (around * weights).sum(2) / weights.sum(2)
