"""Mouths mixed by OpenVINO: each plane sampled where its mouth lies, all of them summed by their shares. No torch.

The same as `shelf.mixed`, three times as fast: the sampling is one operation, compiled for this CPU.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
from openvino import opset13 as operations

from models.runtime import Floats


class Mixing:
    """For one avatar. Called with few different sizes, each compiled once."""

    def __init__(self) -> None:
        self._requests: dict[tuple[int, ...], tuple[Any, Floats]] = {}

    def __call__(self, planes: Floats, across: Sequence[Floats], down: Sequence[Floats], shares: Floats) -> Floats:
        """planes [M, C, H, W] at M times across, down [h, w] in pixels → [C, h, w], good until the next call."""
        size = (*planes.shape, *across[0].shape)
        if size not in self._requests:
            self._requests[size] = _compiled(*size), np.empty((len(planes), *across[0].shape, 2), np.float32)
        request, grid = self._requests[size]
        for mouth, places in enumerate(zip(across, down, strict=True)):
            for axis, place in enumerate(places):
                np.multiply(place, np.float32(2 / (planes.shape[3 - axis] - 1)), out=grid[mouth, :, :, axis])
        grid -= np.float32(1)
        request.infer([planes, grid, shares.astype(np.float32)], share_inputs=True)
        mixture: Floats = request.get_output_tensor().data
        return mixture


def _compiled(mouths: int, channels: int, height: int, width: int, rows: int, columns: int) -> Any:
    planes = operations.parameter([mouths, channels, height, width], np.float32)
    grid = operations.parameter([mouths, rows, columns, 2], np.float32)
    shares = operations.parameter([mouths], np.float32)
    way = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
    sampled = operations.grid_sample(planes, grid, way)
    weights = operations.unsqueeze(shares, operations.constant(np.array([1, 2, 3])))
    mixture = operations.reduce_sum(operations.multiply(sampled, weights), operations.constant(np.array([0])), False)
    model = openvino.Model([mixture], [planes, grid, shares])
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": "1",
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
