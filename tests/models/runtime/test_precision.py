"""Half precision where networks compute, and nowhere else."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models.runtime.interpreted import Interpreted
from models.runtime.precision import HALVES, mixed

SIZE = 8


def painter() -> bytes:
    """As renderers are: a sketch by distances, two convolutions, a warp, grey levels over the loop's."""
    random = np.random.default_rng(0)
    constants = {
        "places": np.linspace(0, 511, SIZE, dtype=np.float32)[None, None, None],
        "w1": random.normal(size=(4, 1, 3, 3)).astype(np.float32) / 3,
        "b1": np.zeros(4, np.float32),
        "w2": random.normal(size=(1, 4, 3, 3)).astype(np.float32) / 6,
        "turn": np.eye(2, dtype=np.float32),
        "levels": np.array(255, np.float32),
        "width": np.array(64, np.float32),
    }
    same = {"pads": [1, 1, 1, 1]}
    nodes: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Sub", ["places", "at"], ["distance"], {}),
        ("Div", ["distance", "width"], ["sketch"], {}),
        ("Conv", ["sketch", "w1", "b1"], ["deep"], same),
        ("Relu", ["deep"], ["bent"], {}),
        ("Add", ["bent", "bent"], ["twice"], {}),
        ("Conv", ["twice", "w2"], ["shade"], same),
        ("Sigmoid", ["shade"], ["mouth"], {}),
        ("MatMul", ["grid", "turn"], ["turned"], {}),
        ("GridSample", ["mouth", "turned"], ["warped"], {"padding_mode": "border"}),
        ("Mul", ["warped", "levels"], ["luma"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, takes, gives, name=gives[0], **said) for kind, takes, gives, said in nodes],
        "painter",
        [
            helper.make_tensor_value_info("at", TensorProto.FLOAT, ["batch", 1, SIZE, 1]),
            helper.make_tensor_value_info("grid", TensorProto.FLOAT, ["batch", SIZE, SIZE, 2]),
        ],
        [helper.make_tensor_value_info("luma", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def kinds_of(model: onnx.ModelProto) -> dict[str, int]:
    """Name of a node → the type of its first output."""
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {port.name: port.type.tensor_type.elem_type for port in (*typed.value_info, *typed.output)}
    return {node.name: types[node.output[0]] for node in typed.node if node.name}


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_only_what_lies_between_convolutions_is_half(precision: str) -> None:
    kinds = kinds_of(onnx.load_from_string(mixed(painter(), precision)))
    halves = {name for name, kind in kinds.items() if kind == HALVES[precision]}
    assert halves == {"deep", "bent", "twice", "shade"}


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_inputs_outputs_and_small_weights_stay_as_they_were(precision: str) -> None:
    model = onnx.load_from_string(mixed(painter(), precision))
    onnx.checker.check_model(model, full_check=precision == "f16")  # ONNX itself allows bf16 in Conv from opset 22 only
    ports = [*model.graph.input, *model.graph.output]
    assert {port.type.tensor_type.elem_type for port in ports} == {TensorProto.FLOAT}
    weights = {each.name: each.data_type for each in model.graph.initializer}
    assert weights["places"] == weights["turn"] == weights["levels"] == TensorProto.FLOAT
    assert weights["w1.half"] == HALVES[precision]


def stored_in_half(graph: bytes) -> bytes:
    """As packages hold them: a weight of 16 bits, cast when it is used."""
    model = onnx.load_from_string(graph)
    for name in ("w1", "w2", "turn"):
        weight = next(each for each in model.graph.initializer if each.name == name)
        values = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(values, f"{name}.half"))
        model.graph.node.insert(0, helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_weights_that_are_stored_in_half_change_nothing(precision: str) -> None:
    stored = onnx.load_from_string(mixed(stored_in_half(painter()), precision))
    onnx.checker.check_model(stored, full_check=precision == "f16")  # each name is given once
    kinds = kinds_of(onnx.load_from_string(mixed(painter(), precision)))
    assert {name: kind for name, kind in kinds_of(stored).items() if name in kinds} == kinds
    weights = {each.name: each.data_type for each in stored.graph.initializer}
    assert weights["w1.half"] == HALVES[precision]
    assert weights["turn"] == TensorProto.FLOAT
    assert "turn.half" not in weights


@pytest.mark.parametrize(("precision", "allowed"), [("f16", 0.3), ("bf16", 2.5)])
def test_grey_levels_differ_by_little(precision: str, allowed: float) -> None:
    random = np.random.default_rng(1)
    inputs = {
        "at": torch.from_numpy(random.uniform(0, 511, (2, 1, SIZE, 1)).astype(np.float32)),
        "grid": torch.from_numpy(random.uniform(-1, 1, (2, SIZE, SIZE, 2)).astype(np.float32)),
    }
    exact, rough = Interpreted(painter())(inputs), Interpreted(mixed(painter(), precision))(inputs)
    difference = (exact["luma"] - rough["luma"]).abs().max()
    assert 0 < difference < allowed
    assert rough["luma"].dtype == torch.float32


def test_an_output_that_is_half_comes_out_whole_and_is_still_used_inside() -> None:
    model = onnx.load_from_string(painter())
    model.graph.output.append(helper.make_tensor_value_info("bent", TensorProto.FLOAT, ["batch", 4, SIZE, SIZE]))
    halved = onnx.load_from_string(mixed(model.SerializeToString(), "f16"))
    onnx.checker.check_model(halved, full_check=True)
    assert kinds_of(halved)["shade"] == TensorProto.FLOAT16


def test_f32_changes_nothing() -> None:
    assert mixed(painter(), "f32") == painter()


def test_large_products_with_weights_are_networks_and_small_ones_are_geometry() -> None:
    def product(size: int) -> bytes:
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"], name="y")],
            "product",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", size])],
            [numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()

    assert b"w.half" not in mixed(product(3), "f16")
    assert b"w.half" in mixed(product(32), "f16")
