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


def _moves() -> Tensor:
    """[57, 57]: how far each point goes, out of where all are. One product: no graph has to write into places."""
    moves = torch.zeros(57, 57)
    for upper, lower, above, below in zip(_INNER_UPPER, _INNER_LOWER, _OUTER_UPPER, _OUTER_LOWER, strict=True):
        for one, share in (
            (upper, UPPER_SHARE),
            (above, UPPER_SHARE),
            (lower, UPPER_SHARE - 1),
            (below, UPPER_SHARE - 1),
        ):
            moves[one, lower], moves[one, upper] = share, -share
    moves[_CHIN] = CHIN_SHARE * moves[_INNER_LOWER[4]]
    return moves


_MOVES: Final = _moves()


def drawn_shut(spoken: Tensor, closure: Tensor) -> Tensor:
    """Lips and jaw [B, T, 57, 3], pose-normal, with the lips drawn together by `closure` [B, T] in 0…1."""
    return spoken + closure[..., None, None] * (_MOVES.to(spoken) @ spoken)
