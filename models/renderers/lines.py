"""The whole face as a drawing in lines, as IP-LAP and Zheng et al. show it to their networks: lips, jaw, the rest.

Points are [B, 131, 2] (`face.HOUSE`) in patch pixels; the drawing is [B, 3, S, S], black on which lines are bright.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from .. import face
from .raster import line_distance

PLANES: Final = 3
"""Lips, jaw, and what a network is told: temples, brows, eyes, nose."""
PIXELS: Final = 1.5
"""Half the width of a line, and how far it fades."""


def _line(points: face.Indices, closed: bool = False) -> list[tuple[int, int]]:
    at = {int(index): place for place, index in enumerate(face.HOUSE)}
    places = [at[int(index)] for index in points]
    ends = places[1:] + places[:1] if closed else places[1:]
    return list(zip(places, ends, strict=False))


def _brow(points: face.Indices) -> list[tuple[int, int]]:
    half = len(points) // 2
    return _line(np.concatenate([points[:half], points[: half - 1 : -1]]), closed=True)


SEGMENTS: Final = (
    _line(face.LIPS_OUTER, closed=True) + _line(face.LIPS_INNER, closed=True),
    _line(face.JAW_LINE),
    [
        *(_line(face.TEMPLES[3::-1]) + _line(face.TEMPLES[4:])),
        *(_brow(face.BROW_RIGHT) + _brow(face.BROW_LEFT)),
        *(_line(face.EYE_RIGHT, closed=True) + _line(face.EYE_LEFT, closed=True)),
        *(_line(face.NOSE_RIDGE) + _line(face.NOSE_BASE)),
    ],
)


def lines(points: Tensor, size: int) -> Tensor:
    """Points [B, 131, 2 or 3] that are numbers → [B, 3, S, S]."""
    points = points[..., :2].clamp(-size, 2 * size)
    at = torch.arange(size, dtype=points.dtype, device=points.device)
    planes = []
    for segments in SEGMENTS:
        starts, ends = (points[:, list(side)] for side in zip(*segments, strict=True))
        planes.append((1.5 - line_distance(starts, ends, at) / PIXELS).clamp(0, 1))
    return torch.stack(planes, 1)


def drawn(points: Tensor, size: int) -> Tensor:
    """The same, bit for bit but for rounding, a dozen times sooner: each line is looked at only where it may show. For
    training, which draws thousands of faces; its windows are as many as lines, which no graph wants."""
    points = points[..., :2].clamp(-size, 2 * size)
    batch, reach = len(points), 1.5 * PIXELS
    planes = points.new_zeros(batch, PLANES, size * size)
    for plane, segments in enumerate(SEGMENTS):
        starts, ends = (points[:, list(side)] for side in zip(*segments, strict=True))  # [B, P, 2]
        corner = (torch.minimum(starts, ends) - reach).floor()
        wide = int((torch.maximum(starts, ends) + reach - corner).max().ceil()) + 1
        at = torch.arange(wide, dtype=points.dtype, device=points.device)
        near = line_distance((starts - corner).flatten(0, 1)[:, None], (ends - corner).flatten(0, 1)[:, None], at)
        bright = (1.5 - near / PIXELS).clamp(0, 1)
        x, y = (corner.flatten(0, 1)[:, side, None] + at for side in (0, 1))  # [B P, wide]
        within = ((x >= 0) & (x < size))[:, None] & ((y >= 0) & (y < size))[..., None]
        place = (y.clamp(0, size - 1)[..., None] * size + x.clamp(0, size - 1)[:, None]).long()
        flat = (bright * within).reshape(batch, -1)
        planes[:, plane] = planes[:, plane].scatter_reduce(1, place.reshape(batch, -1), flat, "amax")
    return planes.reshape(batch, PLANES, size, size)
