"""An ONNX graph in f32 made into one whose networks compute in half precision; inputs and outputs stay f32.

The precision is written into the graph, so that every backend that reads it computes the same: TensorRT strongly
typed, torch as it stands. Half are convolutions and large products with weights, and what lies between two of them.
Everything before the first of them (where a pixel is, how far from a line) and after the last (a grey level) stays in
f32, and so does whatever adds many numbers up: a place or a grey level has more digits than half a number holds.
"""

from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HALVES: Final = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

ANCHORS: Final = {"Conv", "ConvTranspose"}
PRODUCTS: Final = {"Gemm", "MatMul"}
SMALLEST_PRODUCT: Final = 16
"""A product with a smaller matrix is geometry, not a network."""

BETWEEN: Final = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Clip",
    "Concat",
    "DepthToSpace",
    "Elu",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "PRelu",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
}
"""What may be half when it lies between two anchors."""


def mixed(graph: bytes, precision: str) -> bytes:
    """`precision` is "f32" (nothing changes), "f16" or "bf16"."""
    if precision == "f32":
        return graph
    model = onnx.load_from_string(graph)
    _unpack(model.graph)
    model = onnx.shape_inference.infer_shapes(model)
    _Halver(model.graph, HALVES[precision]).halve()
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _unpack(graph: onnx.GraphProto) -> None:
    """Weights that are stored in 16 bits and cast when they are used (see graphs.py), as if they had not been: a cast
    is no weight, and what multiplies by one no network."""
    stored = {each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT16}
    kept = []
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in stored and node.attribute[0].i == TensorProto.FLOAT:
            whole = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(whole, node.output[0]))
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    left = [each for each in graph.initializer if each.name in used or each.name not in stored]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(left)


class _Halver:
    def __init__(self, graph: onnx.GraphProto, half: int) -> None:
        self._graph = graph
        self._half = half
        self._weights = {each.name: each for each in graph.initializer}
        ports = [*graph.input, *graph.value_info, *graph.output]
        self._floats = {port.name for port in ports if port.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {name for name, each in self._weights.items() if each.data_type == TensorProto.FLOAT}
        self._are_half: set[str] = set()
        self._made: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []

    def halve(self) -> None:
        halves = self._halves()
        outputs = {port.name for port in self._graph.output}
        for index, node in enumerate(self._graph.node):
            if index in halves:
                node.input[:] = [self._as(name, True) for name in node.input]
                self._are_half.update(name for name in node.output if name in self._floats)
            else:
                node.input[:] = [self._as(name, False) for name in node.input]
            self._nodes.append(node)
        for name in outputs & self._are_half:
            self._rename(name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _halves(self) -> set[int]:
        """Places of the nodes that compute in half: anchors, and what has one before it and one after it."""
        nodes = list(self._graph.node)
        forward: set[str] = set()
        chosen: set[int] = set()
        for index, node in enumerate(nodes):
            moving = [name for name in node.input if name in self._floats and name not in self._weights]
            if self._anchor(node) or (node.op_type in BETWEEN and moving and all(name in forward for name in moving)):
                chosen.add(index)
                forward.update(node.output)
        backward: set[str] = set()
        for index in reversed(range(len(nodes))):
            node = nodes[index]
            if self._anchor(node) or (index in chosen and any(name in backward for name in node.output)):
                backward.update(node.input)
            else:
                chosen.discard(index)
        return chosen

    def _anchor(self, node: onnx.NodeProto) -> bool:
        if node.op_type in PRODUCTS:
            matrix = self._weights.get(node.input[1])
            return matrix is not None and matrix.data_type == TensorProto.FLOAT and min(matrix.dims) >= SMALLEST_PRODUCT
        return node.op_type in ANCHORS

    def _as(self, name: str, half: bool) -> str:
        """The same value in half or in full, cast once."""
        if name not in self._floats or (name in self._are_half) == half:
            return name
        wanted = f"{name}.{'half' if half else 'full'}"
        if wanted not in self._made:
            self._made[wanted] = name
            if half and name in self._weights:
                self._graph.initializer.append(_cast(self._weights[name], wanted, self._half))
            else:
                to = self._half if half else TensorProto.FLOAT
                self._nodes.append(helper.make_node("Cast", [name], [wanted], to=to))
        return wanted

    def _rename(self, name: str) -> None:
        """A half value that is an output: the output is its cast."""
        inner = f"{name}.inner"
        for node in self._nodes:
            node.input[:] = [inner if one == name else one for one in node.input]
            node.output[:] = [inner if one == name else one for one in node.output]
        self._nodes.append(helper.make_node("Cast", [inner], [name], to=TensorProto.FLOAT))


def _cast(weights: TensorProto, name: str, half: int) -> TensorProto:
    values = numpy_helper.to_array(weights)
    if half == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits: Any = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to nearest, ties to even
    return helper.make_tensor(name, half, values.shape, rounded.tobytes(), raw=True)
