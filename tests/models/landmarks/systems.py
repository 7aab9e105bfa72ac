"""What every system is tested for, in the form that streams."""

from collections.abc import Callable

import torch

from models.landmarks import LandmarkNetwork

from ..graphs import check_onnx_parity
from ..theorems import (
    check_ages_share_a_batch,
    check_chunks_equal_whole,
    check_future_never_changes_past,
    check_reset_touches_one_row,
)
from .conditioned import EXTRA, AsLayer, prepared

FRAMES = 9


def check_streams(make: Callable[[], LandmarkNetwork], code: int) -> None:
    """Both theorems and their corollaries, on a few cuts."""
    layer = AsLayer(prepared(make()), code)
    x = torch.randn(2, FRAMES, code + EXTRA, generator=torch.Generator().manual_seed(0))
    for cut in ([1] * FRAMES, [2, 3, 4], [8, 1]):
        check_chunks_equal_whole(layer, x, cut)
    for at in (0, 4, 8):
        check_future_never_changes_past(layer, x, at)
    check_ages_share_a_batch(layer, x, 5)
    check_reset_touches_one_row(layer, x, 5, 1)


def check_exports(make: Callable[[], LandmarkNetwork], code: int) -> None:
    """ONNX Runtime agrees over 50 streamed frames."""
    check_onnx_parity(AsLayer(prepared(make()), code), torch.randn(1, 1, code + EXTRA))


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
