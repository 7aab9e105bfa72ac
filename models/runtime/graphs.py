"""A layer as an ONNX graph: input `x` and state in, output `y` and the next state out, any batch.

State is explicit: inputs `state_0` …, outputs `after_0` …, batch first, in the order of `streaming.leaves`. What a new
session starts from is not always zeros, so the silent state of one row travels beside the graph.
"""

import logging
import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.streaming import Layer, State, leaves

OPSET = 20
MOST_ROWS = 1024


class _Flat(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, ...]:
        y, after = self.layer(x, state)
        return (y, *leaves(after))


def export(layer: Layer, chunk: Tensor) -> tuple[bytes, list[npt.NDArray[np.float32]]]:
    """The graph for chunks shaped like `chunk` [1, …], and the silent state of one row, leaf by leaf."""
    layer.eval()
    two = chunk[:1].expand(2, *chunk.shape[1:]).contiguous()  # a batch of 1 would be taken for a constant
    state = layer.silence(2)
    count = len(leaves(state))
    batch = torch.export.Dim("batch", min=1, max=MOST_ROWS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.export.export(
            _Flat(layer), (two, state), dynamic_shapes=({0: batch}, _same(state, {0: batch})), strict=False
        )
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        graph = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            optimize=True,
            input_names=["x", *(f"state_{n}" for n in range(count))],
            output_names=["y", *(f"after_{n}" for n in range(count))],
        )
    assert graph is not None
    return graph.model_proto.SerializeToString(), [leaf.numpy() for leaf in leaves(layer.silence(1))]


def _same(state: State, axes: dict[int, torch.export.Dim]) -> tuple[object, ...]:
    return tuple(axes if isinstance(part, Tensor) else _same(part, axes) for part in state)
