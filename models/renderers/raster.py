"""Lips and jaw as a picture that a network can read: signed distances to their polylines, antialiased, in the graph.

Points are [B, 57, 2] in patch pixels (`face.HOUSE_SPOKEN`), the sketch is [B, 6, S / 2, S / 2]: half as fine as the
patch, since a distance that falls over a pixel and a half tells where an edge is to a fraction of a pixel at any
fineness. Only products, sums and comparisons: no OpenCV, no scatter, no loop.
"""

from typing import Final

import torch
from torch import Tensor

from .. import face

CHANNELS: Final = 6
"""Outer lips, inner mouth, jaw line: each sharp, for where it is, and wide, for how far away."""

SHARP_PIXELS: Final = 1.5
WIDE_PIXELS: Final = 12.0
BOUND: Final = 2.0
"""Patches: what lies farther off is drawn there."""

_OUTER = slice(0, len(face.LIPS_OUTER))
_INNER = slice(len(face.LIPS_OUTER), len(face.LIPS))
_JAW = face.JAW_LINE_IN_HOUSE.tolist()


def sketch(points: Tensor, size: int) -> Tensor:
    """Finite points [B, 57, 2] in pixels of a patch of `size` → [B, 6, size / 2, size / 2]."""
    points = points.clamp((1 - BOUND) * size, BOUND * size)
    at = torch.arange(0, size, 2, dtype=points.dtype, device=points.device) + 0.5
    outer, inner = (ring_distance(points[:, ring], at) for ring in (_OUTER, _INNER))
    line = points.index_select(1, torch.tensor(_JAW, device=points.device))
    jaw = line_distance(line[:, :-1], line[:, 1:], at)
    scaled = size / 128  # a wider patch sees the same face larger
    planes = [_within(-outer, SHARP_PIXELS), _within(-inner, SHARP_PIXELS), _near(jaw, 2 * SHARP_PIXELS)]
    planes += [_within(-ring, WIDE_PIXELS * scaled) for ring in (outer, inner)]
    planes.append(_near(jaw, 2 * WIDE_PIXELS * scaled))
    return torch.stack(planes, 1)


def _within(depth: Tensor, pixels: float) -> Tensor:
    """0 outside, 1 inside, rising over twice so many pixels."""
    return (0.5 + depth / (2 * pixels)).clamp(0, 1)


def _near(distance: Tensor, pixels: float) -> Tensor:
    return (1 - distance / pixels).clamp(0, 1)


def ring_distance(ring: Tensor, at: Tensor) -> Tensor:
    """[B, P, 2] → signed distance [B, H, W], negative inside. Where a ring is turned inside out, nothing is inside."""
    ends = torch.cat([ring[:, 1:], ring[:, :1]], 1)
    distance = line_distance(ring, ends, at)
    ax, ay, bx, by = (p[..., None] for p in (*ring.unbind(-1), *ends.unbind(-1)))  # [B, P, 1]
    rising = (ay <= at).to(at.dtype) - (by <= at).to(at.dtype)  # [B, P, H]: 1 where the edge goes down the picture
    level = (by - ay).abs() < 1e-6
    crossing = ax + (at - ay) * (bx - ax) / torch.where(level, torch.ones_like(ay), by - ay)
    turns = (rising[..., None] * (crossing[..., None] > at).to(at.dtype)).sum(1)  # [B, H, W]
    return torch.where(turns > 0.5, -distance, distance)


def line_distance(starts: Tensor, ends: Tensor, at: Tensor) -> Tensor:
    """[B, P, 2] each → distance [B, H, W] to the nearest of the segments; `at` holds rows' and columns' middles."""
    along = ends - starts
    length = along.square().sum(-1).clamp(min=1e-6)  # [B, P]
    x = at - starts[..., :1]  # [B, P, W]
    y = at - starts[..., 1:]  # [B, P, H]
    share = along / length[..., None]
    part = x[:, :, None] * share[:, :, None, :1] + y[..., None] * share[:, :, None, 1:]  # [B, P, H, W]
    part = part.clamp(0, 1)
    off_x = x[:, :, None] - part * along[:, :, None, :1]
    off_y = y[..., None] - part * along[:, :, None, 1:]
    return (off_x * off_x + off_y * off_y).amin(1).clamp(min=1e-12).sqrt()
