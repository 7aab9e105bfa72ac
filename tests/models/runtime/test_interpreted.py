"""Every operation as ONNX Runtime computes it; whole graphs too; what is not known is named."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from models.runtime.interpreted import OPERATIONS, Half, Interpreted
from models.runtime.precision import mixed

Case = tuple[str, list[Any], dict[str, Any]]
"""Operation, inputs (arrays [3, …] come from outside; a list or number is a constant; None is left out), attributes."""


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32)


def weights(*shape: int, seed: int = 1) -> list[Any]:
    return (0.3 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32).tolist()


X, Y, PLANE = numbers(4, 6), numbers(4, 6, seed=5), numbers(4, 6, 8)
GRID = np.clip(numbers(5, 7, 2, seed=2), -1.3, 1.3)

LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}

CASES: list[Case] = [
    *[(kind, [X], {}) for kind in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg")],
    *[(kind, [X], {}) for kind in ("Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Tanh", "Softmax", "Gelu")],
    *[(kind, [np.abs(X) + 0.1], {}) for kind in ("Log", "Reciprocal", "Sqrt")],
    *[(kind, [X, Y], {}) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min")],
    *[(f"Reduce{kind}", [PLANE, [-1]], {"keepdims": keep}) for kind in ("Max", "Mean", "Min") for keep in (0, 1)],
    ("ReduceSum", [PLANE, [2, 3]], {}),
    ("ReduceL2", [PLANE, [-1]], {"keepdims": 0}),
    ("Pow", [np.abs(X), 1.7], {}),
    ("MatMul", [X, weights(6, 5)], {}),
    ("Gemm", [numbers(6), weights(5, 6), weights(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Clip", [X, -0.3, 0.4], {}),
    ("Clip", [X, None, 0.4], {}),
    ("PRelu", [PLANE, weights(4, 1, 1)], {}),
    ("LeakyRelu", [X], {"alpha": 0.2}),
    ("Elu", [X], {}),
    ("Concat", [X, Y], {"axis": -1}),
    ("Slice", [PLANE, [1, -3], [3, 100], [1, 3], [1, 2]], {}),
    ("Slice", [PLANE, [-1], [-100], [2], [-2]], {}),
    ("Split", [PLANE, [1, 3]], {"axis": 1}),
    ("Reshape", [PLANE, [0, -1, 16]], {}),
    ("Flatten", [PLANE], {"axis": 1}),
    ("Transpose", [PLANE], {"perm": [0, 3, 1, 2]}),
    ("Unsqueeze", [X, [1, -1]], {}),
    ("Squeeze", [numbers(1, 5, 1), [1, 3]], {}),
    ("Expand", [numbers(1, 6), [3, 4, 6]], {}),
    ("Tile", [X, [1, 2, 3]], {}),
    ("Pad", [PLANE, [0, 0, 1, 2, 0, 0, 3, 4], 0.5], {}),
    ("Pad", [PLANE, [0, 0, 1, 2, 0, 0, 3, 4]], {"mode": "edge"}),
    ("Pad", [PLANE, [0, 0, 1, 2, 0, 0, 1, 1]], {"mode": "reflect"}),
    ("Gather", [PLANE, [[0, -1], [2, 1]]], {"axis": 1}),
    ("GatherND", [PLANE, [[1, 0], [-1, 3], [0, 2]]], {}),
    ("ScatterND", [PLANE, [[1, 0], [-1, 3], [0, 2]], weights(3, 6, 8)], {}),
    ("CumSum", [X, 1], {}),
    ("Trilu", [X], {"upper": 0}),
    ("DepthToSpace", [PLANE], {"blocksize": 2, "mode": "CRD"}),
    ("DepthToSpace", [PLANE], {"blocksize": 2, "mode": "DCR"}),
    ("SpaceToDepth", [PLANE], {"blocksize": 2}),
    ("Conv", [PLANE, weights(5, 4, 3, 3), weights(5)], {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    ("Conv", [PLANE, weights(4, 1, 3, 3)], {"group": 4, "pads": [1, 1, 1, 1], "dilations": [1, 1]}),
    ("Conv", [X, weights(5, 4, 3), weights(5)], {}),
    ("ConvTranspose", [PLANE, weights(4, 5, 2, 2), weights(5)], {"strides": [2, 2]}),
    ("AveragePool", [PLANE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("MaxPool", [PLANE], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("GlobalAveragePool", [PLANE], {}),
    ("LayerNormalization", [PLANE, weights(8), weights(8)], {}),
    ("InstanceNormalization", [PLANE, weights(4), weights(4)], {}),
    ("BatchNormalization", [PLANE, weights(4), weights(4), weights(4), [0.5, 1.0, 2.0, 0.1]], {}),
    *[
        ("GridSample", [PLANE, GRID], {"mode": mode, "padding_mode": padding, "align_corners": corners})
        for mode, padding, corners in (("linear", "border", 1), ("linear", "zeros", 0), ("nearest", "border", 0))
    ],
    ("Resize", [PLANE, None, [1.0, 1.0, 2.0, 2.0]], LINEAR),
    ("Resize", [PLANE, None, None, [3, 4, 9, 5]], LINEAR | {"coordinate_transformation_mode": "align_corners"}),
    ("Resize", [PLANE, None, [1.0, 1.0, 2.0, 3.0]], NEAREST),
]


def model_of(kind: str, inputs: list[Any], said: dict[str, Any]) -> tuple[bytes, dict[str, np.ndarray]]:
    names, given, constants = [], {}, []
    for place, value in enumerate(inputs):
        names.append("" if value is None else f"in_{place}")
        if isinstance(value, np.ndarray):
            given[names[-1]] = value
        elif value is not None:
            array = np.array(value)
            array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
            constants.append(numpy_helper.from_array(array, names[-1]))
    outputs = ["out_0", "out_1"] if kind == "Split" else ["out_0"]
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, **said)],
        "one",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *a.shape[1:]]) for n, a in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString(), given


def both(model: bytes, given: dict[str, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    theirs = onnxruntime.InferenceSession(model).run(None, given)
    ours = Interpreted(model)({name: torch.from_numpy(array) for name, array in given.items()})
    return [(ours[f"out_{n}"].numpy(), their) for n, their in enumerate(theirs)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_an_operation_is_what_onnx_says_it_is(case: Case) -> None:
    for ours, theirs in both(*model_of(*case)):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers(kind: str, bias: bool) -> None:
    gates = {"GRU": 3, "LSTM": 4}[kind]
    x, state = numbers(2, 5).transpose(1, 0, 2).copy(), numbers(4)
    named = {"weight": weights(1, gates * 4, 5), "recurrent": weights(1, gates * 4, 4, seed=2)}
    if bias:
        named["bias"] = weights(1, gates * 8, seed=3)
    takes = ["seq", "weight", "recurrent", "bias" if bias else "", "", "first"]
    said = {"hidden_size": 4, **({"linear_before_reset": 1} if kind == "GRU" else {})}
    gives = ["out_0", "out_1", "out_2"][: 2 if kind == "GRU" else 3]
    nodes = [
        helper.make_node("Transpose", ["x"], ["seq"], perm=[1, 0, 2]),
        helper.make_node("Unsqueeze", ["state", "axis"], ["first"]),
        helper.make_node(kind, takes if kind == "GRU" else [*takes, "first"], gives, **said),
    ]
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in named.items()]
    graph = helper.make_graph(
        nodes,
        "one",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 5]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["batch", 4]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in gives],
        [*constants, numpy_helper.from_array(np.array([0]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    for ours, theirs in both(model, {"x": x.transpose(1, 0, 2).copy(), "state": state}):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def chained(nodes: list[tuple[str, list[str], list[str], dict[str, Any]]], constants: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(kind, takes, gives, **said) for kind, takes, gives, said in nodes],
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 6])],
        [helper.make_tensor_value_info("out_0", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def test_what_depends_on_the_batch_is_reckoned_anew_for_each_size() -> None:
    """Zeros in the shape of what came, as exporters write them, and what is made of them."""
    model = chained(
        [
            ("Shape", ["x"], ["shape"], {"start": 0, "end": 2}),
            ("ConstantOfShape", ["shape"], ["zeros"], {"value": helper.make_tensor("v", 1, [1], [0.5])}),
            ("Range", ["zero", "four", "one"], ["ramp"], {}),
            ("Cast", ["ramp"], ["numbers"], {"to": TensorProto.FLOAT}),
            ("Add", ["zeros", "numbers"], ["rows"], {}),
            ("Greater", ["rows", "limit"], ["above"], {}),
            ("GreaterOrEqual", ["rows", "limit"], ["least"], {}),
            ("And", ["above", "least"], ["both"], {}),
            ("Where", ["both", "rows", "limit"], ["chosen"], {}),
            ("Unsqueeze", ["chosen", "last"], ["deep"], {}),
            ("Mul", ["x", "deep"], ["out_0"], {}),
        ],
        {
            "limit": np.array(1.6, np.float32),
            "last": np.array([-1]),
            **{name: np.array(n) for n, name in ((0, "zero"), (1, "one"), (4, "four"))},
        },
    )
    net = Interpreted(model)
    for rows in (3, 1, 2):
        x = numbers(4, 6)[:rows]
        (theirs,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
        np.testing.assert_allclose(net({"x": torch.from_numpy(x)})["out_0"].numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["Less", "LessOrEqual", "Equal", "Or", "Not"])
def test_comparisons(kind: str) -> None:
    nodes = {
        "Not": [("Less", ["x", "y"], ["a"], {}), ("Not", ["a"], ["b"], {})],
        "Or": [("Less", ["x", "y"], ["a"], {}), ("Equal", ["x", "y"], ["c"], {}), ("Or", ["a", "c"], ["b"], {})],
    }.get(kind, [(kind, ["x", "y"], ["b"], {})])
    model = chained([*nodes, ("Cast", ["b"], ["out_0"], {"to": TensorProto.FLOAT})], {"y": X[0]})
    for ours, theirs in both(model, {"x": X}):
        assert (ours == theirs).all()
        assert 0 < ours.sum() < ours.size


@pytest.mark.parametrize(
    ("kind", "said", "found"),
    [("IsInf", {}, 2), ("IsInf", {"detect_negative": 0}, 1), ("IsInf", {"detect_positive": 0}, 1), ("IsNaN", {}, 1)],
)
def test_what_is_no_number(kind: str, said: dict[str, Any], found: int) -> None:
    x = X.copy()
    x[0, 0, :3] = np.inf, -np.inf, np.nan
    nodes = [(kind, ["x"], ["b"], said), ("Cast", ["b"], ["out_0"], {"to": TensorProto.FLOAT})]
    for ours, theirs in both(chained(nodes, {}), {"x": x}):
        assert (ours == theirs).all()
        assert ours.sum() == found


def test_scattering() -> None:
    nodes = [("ScatterElements", ["x", "at", "y"], ["out_0"], {"axis": 2})]
    model = chained(nodes, {"at": np.full((3, 4, 1), 2), "y": Y[:, :, :1]})
    for ours, theirs in both(model, {"x": X}):
        assert (ours == theirs).all()


def test_every_operation_that_is_offered_is_tried_here() -> None:
    tried = {case[0] for case in CASES} | {
        "GRU",
        "IsInf",
        "IsNaN",
        "LSTM",
        "ScatterElements",
        "Less",
        "LessOrEqual",
        "Equal",
        "Or",
        "Not",
    }
    tried |= {"Shape", "ConstantOfShape", "Range", "Cast", "Greater", "GreaterOrEqual", "And", "Where"}
    assert set(OPERATIONS) == tried


@pytest.mark.parametrize(
    ("nodes", "complaint"),
    [
        ([("Det", ["x"], ["out_0"], {})], "torch has no Det here"),
        ([("Resize", ["x", "", "s"], ["out_0"], NEAREST | {"mode": "cubic"})], "Resize with mode cubic and asymmetric"),
        ([("Conv", ["x", "w"], ["out_0"], {"auto_pad": "SAME_UPPER"})], "auto_pad SAME_UPPER"),
        ([("ScatterND", ["x", "i", "w"], ["out_0"], {"reduction": "add"})], "ScatterND with sums"),
        ([("GatherND", ["x", "i"], ["out_0"], {"batch_dims": 1})], "GatherND with batches"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_named(nodes: list[Any], complaint: str) -> None:
    constants = {"s": np.ones(3, np.float32), "w": np.zeros((5, 4, 3), np.float32), "i": np.zeros((3, 1), np.int64)}
    with pytest.raises(RuntimeError, match=complaint):
        Interpreted(chained(nodes, constants))({"x": torch.from_numpy(X)})


def test_constants_in_bf16_are_kept_to_the_bit() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32)
    graph = mixed(chained([("Conv", ["x", "w"], ["out_0"], {})], {"w": weight}), "bf16")
    net = Interpreted(graph)
    kept = next(value for value in net._known.values() if isinstance(value, Half))
    assert (kept.tensor == torch.from_numpy(weight).bfloat16()).all()
    assert kept.shape == (5, 4, 3)
