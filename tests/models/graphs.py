"""A layer as an ONNX graph with its state as explicit inputs and outputs, run by ONNX Runtime: used by parity tests."""

import io
import logging
import warnings

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from models.streaming import Layer, State, leaves, rebuild


class Flat(nn.Module):
    """x and the state's tensors in; y and the next state's tensors out."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, ...]:
        y, after = self.layer(x, state)
        return (y, *leaves(after))


class OnnxLayer:
    """The graph of `layer` for chunks of the shape of `chunk`, any batch."""

    def __init__(self, layer: Layer, chunk: Tensor) -> None:
        layer.eval()
        two = chunk[:1].expand(2, *chunk.shape[1:]).contiguous()  # a batch of 1 would be taken for a constant
        state = layer.silence(2)
        batch = torch.export.Dim("batch", min=1, max=1024)
        axes = {0: batch}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                Flat(layer), (two, state), dynamic_shapes=(axes, _same(state, axes)), strict=False
            )
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            graph = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False, optimize=True)
        assert graph is not None
        self.opset = graph.model.opset_imports[""]
        file = io.BytesIO()
        graph.save(file)
        self.graph = file.getvalue()
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(self.graph, settings, providers=["CPUExecutionProvider"])
        self.inputs = [item.name for item in self.session.get_inputs()]

    def __call__(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        tensors = [x, *leaves(state)]
        if len(self.inputs) != len(tensors):
            raise ValueError(f"the graph takes {self.inputs}, the layer {len(tensors)} tensors")
        feeds = {name: np.ascontiguousarray(t.numpy()) for name, t in zip(self.inputs, tensors, strict=True)}
        y, *after = (torch.from_numpy(out) for out in self.session.run(None, feeds))
        return y, rebuild(state, after)


def _same(state: State, axes: dict[int, torch.export.Dim]) -> tuple[object, ...]:
    return tuple(axes if isinstance(part, Tensor) else _same(part, axes) for part in state)


@torch.no_grad()
def check_onnx_parity(layer: Layer, chunk: Tensor, steps: int = 50, batch: int = 3, tolerance: float = 1e-5) -> None:
    """`steps` streamed chunks, each side keeping its own state, agree within `tolerance`."""
    graph = OnnxLayer(layer, chunk)
    assert graph.opset == 20
    torch.manual_seed(1)
    ours = theirs = layer.silence(batch)
    for _ in range(steps):
        x = torch.randn(batch, *chunk.shape[1:])
        y, ours = layer(x, ours)
        z, theirs = graph(x, theirs)
        torch.testing.assert_close(z, y, rtol=tolerance, atol=tolerance)
