"""How large a graph is: its parameters, and the products it sums for one row. Needs onnx, and infers shapes only."""

import math
from typing import Final, NamedTuple

import onnx
from onnx import helper

RECURRENT: Final = {"GRU": 3, "LSTM": 4}


class Size(NamedTuple):
    parameters: int
    macs: int
    """Multiply-accumulates of convolutions, matrix products and recurrent cells, for one row of one step."""


def count(graph: bytes) -> Size:
    model = onnx.load_from_string(graph)
    for port in (*model.graph.input, *model.graph.output):
        side = port.type.tensor_type.shape.dim
        if len(side) and side[0].dim_param:
            side[0].dim_value = 1
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        port.name: [side.dim_value for side in port.type.tensor_type.shape.dim]
        for port in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    floats = [each for each in inferred.initializer if each.data_type == onnx.TensorProto.FLOAT]
    shapes |= {each.name: list(each.dims) for each in inferred.initializer}
    parameters = sum(math.prod(each.dims) for each in floats)
    return Size(parameters, sum(_macs(node, shapes) for node in inferred.node))


def _macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int:
    said = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    taken = [shapes.get(name, []) for name in node.input]
    given = math.prod(shapes.get(node.output[0], [0]) or [0])
    if node.op_type == "Conv":
        return given * math.prod(taken[1][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(taken[0]) * math.prod(taken[1][1:])
    if node.op_type == "MatMul":
        return given * (taken[0][-1] if taken[0] else 0)
    if node.op_type == "Gemm":
        return given * taken[0][0 if said.get("transA") else -1]
    if node.op_type in RECURRENT:
        steps, rows, width = taken[0]
        return int(steps * rows * RECURRENT[node.op_type] * said["hidden_size"] * (width + said["hidden_size"]))
    return 0
