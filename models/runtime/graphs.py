"""A layer as an ONNX graph: input `x` and state in, output `y` and the next state out, any batch.

State is explicit: inputs `state_0` …, outputs `after_0` …, batch first, in the order of `streaming.leaves`. What a new
session starts from is not always zeros, so the silent state of one row travels beside the graph.
"""

import inspect
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import onnx.numpy_helper
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from models.streaming import Layer, State, leaves

OPSET = 20
MOST_ROWS = 1024


By = Literal["dynamo", "tracing"]
"""Which of torch's exporters. The first is the one that is kept up, and reasons for half a minute about the sizes of a
painter's pictures; the second runs it once and writes down what it did, in a second: for tests of other things."""


def export_named(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    halve_weights: bool = True,
    by: By = "dynamo",
) -> bytes:
    """The graph of a module whose `forward` takes these tensors in this order, each [2, …], and gives a tuple of
    `outputs`; any batch. Weights are stored in 16 bits (round them first: `rounded`), computed in 32."""
    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        model = (_reasoned if by == "dynamo" else _traced)(module, inputs, outputs)
    if halve_weights:
        _halve_weights(model.graph)
    return unsigned(model)


def _reasoned(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    axes = [{0: torch.export.Dim("batch", min=1, max=MOST_ROWS)}] * len(inputs)
    parameters = list(inspect.signature(module.forward).parameters.values())
    rest = parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL  # they count as one argument
    first = len(parameters) - rest
    shapes = (*axes[:first], *([tuple(axes[first:])] if rest else []))
    program = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=shapes, strict=False)
    return written(program, list(inputs), outputs)


def _traced(module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    with TemporaryDirectory() as folder:
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            path := Path(folder) / "graph.onnx",
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        )
        return onnxscript.optimizer.optimize(onnx.load(path))


def written(program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """An exported program in ONNX, its inputs and outputs named."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    graph = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        optimize=True,
        input_names=inputs,
        output_names=outputs,
    )
    assert graph is not None
    return graph.model_proto


def unsigned(model: onnx.ModelProto) -> bytes:
    """The graph without where it was made: the exporter writes into each node the stack it was traced from, with the
    directories of whoever exports, and packages are passed on."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
        graphs += [said.g for node in graph.node for said in node.attribute if said.HasField("g")]
    for part in (model, *model.functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return bytes(model.SerializeToString())


Module = TypeVar("Module", bound=nn.Module)

LARGE = 256
"""Numbers in a weight that is worth halving."""


def _halve_weights(graph: onnx.GraphProto) -> None:
    casts = []
    for weight in graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and math.prod(weight.dims) >= LARGE:
            values, name = onnx.numpy_helper.to_array(weight), weight.name
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@torch.no_grad()
def rounded(module: Module) -> Module:
    """The module with every large weight as 16 bits hold it, in place: what its halved graph computes."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dtype == torch.float32 and tensor.numel() >= LARGE:
            tensor.copy_(tensor.half().float())
    return module


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
        model = written(
            program,
            ["x", *(f"state_{n}" for n in range(count))],
            ["y", *(f"after_{n}" for n in range(count))],
        )
    return unsigned(model), [leaf.numpy() for leaf in leaves(layer.silence(1))]


def _same(state: State, axes: dict[int, torch.export.Dim]) -> tuple[object, ...]:
    return tuple(axes if isinstance(part, Tensor) else _same(part, axes) for part in state)
