"""Lips that are drawn together, and the chin with them.

A head that was fitted to one voice shuts the lips of another too seldom; the encoder, which knows many voices, says
when they must meet, and then they do.
"""

from typing import Final

import torch
from torch import Tensor

UPPER_SHARE: Final = 0.35
"""Of the gap: what the upper lip comes down; the lower lip, which the jaw carries, comes up by the rest."""
CHIN_SHARE: Final = 0.5
"""Of the lower lip's way: what the chin goes along."""

_INNER_UPPER: Final = list(range(21, 30))
_INNER_LOWER: Final = list(range(39, 30, -1))
_OUTER_UPPER: Final = list(range(1, 10))
_OUTER_LOWER: Final = list(range(19, 10, -1))
"""Places in HOUSE's lips, each from the person's right to the left, so that those of one column stand opposite."""
_CHIN: Final = 40


def drawn_shut(spoken: Tensor, closure: Tensor) -> Tensor:
    """Lips and jaw [B, T, 57, 3], pose-normal, with the lips drawn together by `closure` [B, T] in 0…1."""
    amount = closure[..., None, None]
    gap = spoken[:, :, _INNER_LOWER] - spoken[:, :, _INNER_UPPER]  # [B, T, 9, 3]
    down, up = amount * UPPER_SHARE * gap, amount * (UPPER_SHARE - 1) * gap
    move = torch.zeros_like(spoken)
    move[:, :, _INNER_UPPER], move[:, :, _OUTER_UPPER] = down, down
    move[:, :, _INNER_LOWER], move[:, :, _OUTER_LOWER] = up, up
    move[:, :, _CHIN] = CHIN_SHARE * up[:, :, 4]
    return spoken + move
