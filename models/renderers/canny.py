"""Edges of a picture (Canny 1986), for the face maps of Zheng et al.: of loop frames, once, where an avatar is made."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

BLUR: Final = (1.0, 4.0, 6.0, 4.0, 1.0)
WEAK: Final = 0.04
STRONG: Final = 0.10
"""Slopes of luma a pixel, of a picture in 0…1."""
_SOBEL: Final = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_LUMA: Final = (0.299, 0.587, 0.114)


def edges(pictures: Tensor, weak: float = WEAK, strong: float = STRONG) -> Tensor:
    """[N, 3, H, W] in 0…1 → [N, 1, H, W], 1 on edges one pixel wide."""
    luma = (pictures * pictures.new_tensor(_LUMA)[:, None, None]).sum(1, True)
    taps = pictures.new_tensor(BLUR) / sum(BLUR)
    smooth = F.conv2d(F.pad(luma, (2, 2, 2, 2), mode="replicate"), (taps[:, None] * taps)[None, None])
    sobel = pictures.new_tensor(_SOBEL) / 8
    slopes = F.conv2d(F.pad(smooth, (1, 1, 1, 1), mode="replicate"), torch.stack([sobel, sobel.mT])[:, None])
    steep = slopes.square().sum(1, True).sqrt()
    ridge = steep * _highest(steep, slopes)
    kept = ridge >= strong
    may = ridge >= weak
    while True:  # what hangs on a strong edge stays
        more = _grown(kept) & may
        if torch.equal(more, kept):
            return kept.float()
        kept = more


def _grown(kept: Tensor) -> Tensor:
    """By one pixel to all eight sides. On bits, since edges are followed for fifty rounds: pooling takes ten times as
    long."""
    rows = kept.clone()
    rows[..., 1:] |= kept[..., :-1]
    rows[..., :-1] |= kept[..., 1:]
    both = rows.clone()
    both[..., 1:, :] |= rows[..., :-1, :]
    both[..., :-1, :] |= rows[..., 1:, :]
    return both


def _highest(steep: Tensor, slopes: Tensor) -> Tensor:
    """1 where no neighbour across the edge is steeper."""
    height, width = steep.shape[-2:]
    around = F.pad(steep, (1, 1, 1, 1))
    angle = torch.atan2(slopes[:, 1:], slopes[:, :1])
    sector = torch.round(angle / (torch.pi / 4)).long() % 4  # across: 0 right, 1 down right, 2 down
    highest = torch.zeros_like(steep)
    for number, (down, right) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        one = around[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        other = around[..., 1 - down : 1 - down + height, 1 - right : 1 - right + width]
        # A plateau of two keeps one of them.
        highest = torch.where(sector == number, ((steep > other) & (steep >= one)).to(steep.dtype), highest)
    return highest
