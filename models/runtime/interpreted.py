"""An ONNX graph computed by torch, node by node, on any device. Needs torch and onnx.

So the very graphs that a package holds are what CUDA graphs record and what the reference computes; no network is
written twice. Values are of two kinds: tensors on the device, and what is known without them (weights, shapes, axes),
as numpy arrays. What is known is reckoned on the host, moved to the device once, and so never stops a recording.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

Known = npt.NDArray[Any]

DTYPES: Final = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """An operation: its attributes, and the names of what goes in and comes out ("" where nothing does)."""

    kind: str
    said: Mapping[str, Any]
    takes: tuple[str, ...]
    gives: tuple[str, ...]


class Interpreted:
    """Named tensors in, named tensors out. Raises `RuntimeError` that names an operation which it does not know."""

    def __init__(self, graph: bytes, device: str | torch.device = "cpu") -> None:
        model = onnx.load_from_string(graph)
        self._device = torch.device(device)
        self._known: dict[str, Any] = {each.name: _constant(each) for each in model.graph.initializer}
        self._nodes: list[Node] = []
        self._moved: dict[tuple[str, int], Tensor] = {}
        self.asks = [port.name for port in model.graph.input if port.name not in self._known]
        self.shapes = {
            port.name: tuple(side.dim_value for side in port.type.tensor_type.shape.dim[1:])
            for port in model.graph.input
        }
        self.gives = [port.name for port in model.graph.output]
        for each in model.graph.node:
            self._add(each)

    def _add(self, each: onnx.NodeProto) -> None:
        said = {attribute.name: _attribute(attribute) for attribute in each.attribute}
        node = Node(each.op_type, said, tuple(each.input), tuple(each.output))
        if node.kind == "Constant":
            self._known[node.gives[0]] = next(iter(said.values()))
        elif node.kind not in OPERATIONS:
            raise RuntimeError(f"torch has no {node.kind} here: models/runtime/interpreted.py does not know it")
        elif all(not name or name in self._known for name in node.takes):
            self._known |= self._compute(node, {}, 0)  # the same at every step
        else:
            self._nodes.append(node)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = len(next(iter(inputs.values())))
        values: dict[str, Any] = dict(inputs)
        for node in self._nodes:
            values |= self._compute(node, values, rows)
        return {name: self._tensor(name, values.get(name), rows) for name in self.gives}

    def _compute(self, node: Node, values: Mapping[str, Any], rows: int) -> dict[str, Any]:
        given: list[Any] = [values.get(name, self._known.get(name)) if name else None for name in node.takes]
        if node.kind == "Shape":
            return {node.gives[0]: np.array(given[0].shape[node.said.get("start", 0) : node.said.get("end")], np.int64)}
        known = not any(isinstance(value, Tensor) for value in given)
        plain = PARAMETERS.get(node.kind, ())
        ready: list[Any] = []
        for place, (name, value) in enumerate(zip(node.takes, given, strict=True)):
            if value is None or place in plain:
                ready.append(value)
            elif known:
                ready.append(_host(value))
            else:
                ready.append(self._tensor(name, value, rows))
        out = OPERATIONS[node.kind](node, *ready)
        outs = out if isinstance(out, tuple) else (out,)
        return {name: _known_of(one) if known else one for name, one in zip(node.gives, outs, strict=False) if name}

    def _tensor(self, name: str, value: Any, rows: int) -> Tensor:
        """On the device. What is known depends on the number of rows alone, so each is moved there once."""
        if isinstance(value, Tensor):
            return value
        if name in self._known:
            value, rows = self._known[name], 0
        if (name, rows) not in self._moved:
            self._moved[name, rows] = _host(value).to(self._device)
        return self._moved[name, rows]


def _constant(tensor: onnx.TensorProto) -> Any:
    if tensor.data_type == onnx.TensorProto.BFLOAT16:  # numpy has none: such constants stay torch's, on the host
        bits = np.frombuffer(tensor.raw_data, np.int16).copy()
        return Half(torch.from_numpy(bits).view(torch.bfloat16).reshape(tuple(tensor.dims)))
    return numpy_helper.to_array(tensor)


@dataclass(frozen=True, slots=True, eq=False)
class Half:
    """A constant in bf16."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)


def _host(value: Known | Half) -> Tensor:
    return value.tensor if isinstance(value, Half) else torch.from_numpy(np.array(value))


def _known_of(tensor: Tensor) -> Known | Half:
    return Half(tensor) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _constant(value)
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS) else value


def _ints(value: Any) -> list[int]:
    return [int(number) for number in np.asarray(value).reshape(-1)]


# Shapes


def _slice(node: Node, x: Tensor, starts: Known, ends: Known, axes: Known | None = None, steps: Any = None) -> Tensor:
    many = _ints(starts)
    for start, end, axis, step in zip(
        many,
        _ints(ends),
        range(len(many)) if axes is None else _ints(axes),
        [1] * len(many) if steps is None else _ints(steps),
        strict=True,
    ):
        first, last, stride = slice(start, end, step).indices(x.shape[axis])
        if stride < 0:
            x, size = x.flip(axis), x.shape[axis]
            first, last, stride = size - 1 - first, size - 1 - last, -stride
        x = x[(slice(None),) * (axis % x.dim()) + (slice(first, max(first, last), stride),)]
    return x


def _split(node: Node, x: Tensor, sizes: Known | None = None) -> tuple[Tensor, ...]:
    axis, parts = node.said.get("axis", 0), len(node.gives)
    return torch.split(x, _ints(sizes) if sizes is not None else -(-x.shape[axis] // parts), axis)


def _reshape(node: Node, x: Tensor, shape: Known) -> Tensor:
    wanted = _ints(shape)
    if not node.said.get("allowzero"):
        wanted = [x.shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    return x.reshape(wanted)


def _expand(node: Node, x: Tensor, shape: Known) -> Tensor:
    return x.expand(np.broadcast_shapes(tuple(x.shape), tuple(_ints(shape))))


def _squeeze(node: Node, x: Tensor, axes: Known | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(_ints(axes)))


def _unsqueeze(node: Node, x: Tensor, axes: Known) -> Tensor:
    rank = x.dim() + len(_ints(axes))
    for axis in sorted(axis % rank for axis in _ints(axes)):
        x = x.unsqueeze(axis)
    return x


def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = node.said.get("axis", 0) % x.dim()
    flat = x.index_select(axis, indices.reshape(-1).long() % x.shape[axis])
    return flat.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])  # none are left of a scalar


def _gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    if node.said.get("batch_dims", 0):
        raise RuntimeError("torch has no GatherND with batches here: models/runtime/interpreted.py does not know it")
    return x[tuple(one.long() for one in indices.unbind(-1))]


def _scatter_nd(node: Node, x: Tensor, indices: Tensor, y: Tensor) -> Tensor:
    if node.said.get("reduction", "none") != "none":
        raise RuntimeError("torch has no ScatterND with sums here: models/runtime/interpreted.py does not know it")
    return x.index_put(tuple(one.long() for one in indices.unbind(-1)), y)


def _is_inf(node: Node, x: Tensor) -> Tensor:
    wanted = x > 0 if not node.said.get("detect_negative", 1) else x == x
    wanted = wanted & (x < 0) if not node.said.get("detect_positive", 1) else wanted
    return x.isinf() & wanted


def _pad(node: Node, x: Tensor, pads: Known, value: Known | None = None, axes: Known | None = None) -> Tensor:
    sides = _ints(pads)
    which = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in _ints(axes)]
    before, after = [0] * x.dim(), [0] * x.dim()
    for place, axis in enumerate(which):
        before[axis], after[axis] = sides[place], sides[place + len(which)]
    first = next((axis for axis in range(x.dim()) if before[axis] or after[axis]), x.dim() - 1)
    around = [side for axis in range(x.dim() - 1, first - 1, -1) for side in (before[axis], after[axis])]
    mode = node.said.get("mode", "constant")
    if mode == "constant":
        return functional.pad(x, around, value=0.0 if value is None else float(np.asarray(value)))
    return functional.pad(x, around, mode={"edge": "replicate", "reflect": "reflect"}[mode])


def _to_depth(node: Node, x: Tensor) -> Tensor:
    size, (b, c, h, w) = node.said["blocksize"], x.shape
    blocks = x.reshape(b, c, h // size, size, w // size, size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(b, c * size * size, h // size, w // size)


def _to_space(node: Node, x: Tensor) -> Tensor:
    size, (b, c, h, w) = node.said["blocksize"], x.shape
    if node.said.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, size)
    blocks = x.reshape(b, size, size, c // (size * size), h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(b, c // (size * size), h * size, w * size)


# Numbers


def _divide(node: Node, x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _clip(node: Node, x: Tensor, least: Known | None = None, most: Known | None = None) -> Tensor:
    return x.clamp(*(None if bound is None else float(np.asarray(bound)) for bound in (least, most)))


def _reduce(how: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def over(node: Node, x: Tensor, axes: Known | None = None) -> Tensor:
        told = node.said.get("axes") if axes is None else _ints(axes)
        return how(x, told or list(range(x.dim())), bool(node.said.get("keepdims", 1)))

    return over


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    product = (a.t() if node.said.get("transA") else a) @ (b.t() if node.said.get("transB") else b)
    product = product * float(node.said.get("alpha", 1.0))
    return product if c is None else product + c * float(node.said.get("beta", 1.0))


def _trilu(node: Node, x: Tensor, k: Known | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return x.triu(diagonal) if node.said.get("upper", 1) else x.tril(diagonal)


# Networks


def _sides(node: Node, rank: int) -> list[int]:
    if node.said.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise RuntimeError(f"{node.kind} with auto_pad {node.said['auto_pad']} is not known here")
    return node.said.get("pads") or [0] * (2 * rank)


def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    sides = _sides(node, rank)
    if sides[:rank] != sides[rank:]:
        x = functional.pad(x, [side for at in range(rank - 1, -1, -1) for side in (sides[at], sides[at + rank])])
        sides = [0] * rank
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    strides, dilations = (node.said.get(name) or [1] * rank for name in ("strides", "dilations"))
    return _summed(run, x, weight, bias, strides, sides[:rank], dilations, node.said.get("group", 1))


def _summed(run: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor | None, *how: object) -> Tensor:
    """Halves are multiplied as a GPU does it, summed in f32 and rounded once; most CPUs take thirty times as long to
    multiply them in their own precision."""
    if x.device.type != "cpu" or x.dtype == torch.float32:
        return run(x, weight, bias, *how)
    return run(x.float(), weight.float(), None if bias is None else bias.float(), *how).to(x.dtype)


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = x.dim() - 2
    sides = _sides(node, rank)
    run = (functional.conv_transpose1d, functional.conv_transpose2d)[rank - 1]
    strides, dilations = (node.said.get(name) or [1] * rank for name in ("strides", "dilations"))
    more = node.said.get("output_padding") or [0] * rank
    return _summed(run, x, weight, bias, strides, sides[:rank], more, node.said.get("group", 1), dilations)


def _pool(node: Node, x: Tensor) -> Tensor:
    shape, sides = node.said["kernel_shape"], _sides(node, x.dim() - 2)
    strides = node.said.get("strides") or [1] * len(shape)
    if node.kind == "MaxPool":
        return functional.max_pool2d(x, shape, strides, sides[: len(shape)])
    return functional.avg_pool2d(
        x, shape, strides, sides[: len(shape)], count_include_pad=bool(node.said.get("count_include_pad", 0))
    )


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = node.said.get("axis", -1) % x.dim()
    return functional.layer_norm(x, x.shape[axis:], scale, bias, node.said.get("epsilon", 1e-5))


def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return functional.batch_norm(x, mean, variance, scale, bias, eps=node.said.get("epsilon", 1e-5))


def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.instance_norm(x, None, None, scale, bias, eps=node.said.get("epsilon", 1e-5))


def _resize(node: Node, x: Tensor, region: Any = None, scales: Known | None = None, sizes: Any = None) -> Tensor:
    how, where = node.said.get("mode", "nearest"), node.said.get("coordinate_transformation_mode", "half_pixel")
    if sizes is not None:
        size = _ints(sizes)[2:]
    else:
        grown = np.asarray(scales, np.float64).reshape(-1)[2:]
        size = [math.floor(side * scale) for side, scale in zip(x.shape[2:], grown, strict=True)]
    if how == "nearest" and where == "asymmetric" and node.said.get("nearest_mode") == "floor":
        return functional.interpolate(x, size, mode="nearest")
    if how in ("linear", "cubic") and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        name = {"linear": "bilinear", "cubic": "bicubic"}[how]
        return functional.interpolate(x, size, mode=name, align_corners=where == "align_corners")
    raise RuntimeError(f"Resize with mode {how} and {where} is not known here")


def _grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """In the grid's precision: half a number is too little to say where a pixel is."""
    how = {"linear": "bilinear", "cubic": "bicubic"}.get(name := node.said.get("mode", "bilinear"), name)
    padding, corners = node.said.get("padding_mode", "zeros"), bool(node.said.get("align_corners", 0))
    sampled = functional.grid_sample(x.to(grid.dtype), grid, how, padding, corners)
    return sampled.to(x.dtype)


def _only_forward(node: Node, *unknown: object) -> None:
    if node.said.get("direction", "forward") != "forward" or node.said.get("layout") or any(unknown):
        raise RuntimeError(f"{node.kind} that is not causal, or of a rare kind, is not known here")


def _gru(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: object = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """[T, B, I]; gates in ONNX's order: update, reset, new."""
    _only_forward(node, lengths, not node.said.get("linear_before_reset"))
    size = node.said["hidden_size"]
    inner, outer = (bias[0, 3 * size :], bias[0, : 3 * size]) if bias is not None else (None, None)
    now = x.new_zeros(x.shape[1], size) if hidden is None else hidden[0]
    steps = []
    for heard in functional.linear(x, weight[0], outer):
        update, reset, new = torch.split(heard, size, 1)
        update_before, reset_before, new_before = torch.split(functional.linear(now, recurrent[0], inner), size, 1)
        keep = torch.sigmoid(update + update_before)
        now = (1 - keep) * torch.tanh(new + torch.sigmoid(reset + reset_before) * new_before) + keep * now
        steps.append(now)
    return torch.stack(steps)[:, None], now[None]


def _lstm(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: object = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: object = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """[T, B, I]; gates in ONNX's order: in, out, forget, cell."""
    _only_forward(node, lengths, peepholes)
    size = node.said["hidden_size"]
    both = None if bias is None else bias[0, : 4 * size] + bias[0, 4 * size :]
    now = x.new_zeros(x.shape[1], size) if hidden is None else hidden[0]
    held = torch.zeros_like(now) if cell is None else cell[0]
    steps = []
    for heard in functional.linear(x, weight[0], both):
        enter, leave, forget, new = torch.split(heard + functional.linear(now, recurrent[0]), size, 1)
        held = torch.sigmoid(forget) * held + torch.sigmoid(enter) * torch.tanh(new)
        now = torch.sigmoid(leave) * torch.tanh(held)
        steps.append(now)
    return torch.stack(steps)[:, None], now[None], held[None]


def _of_one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, x: function(x)


def _of_two(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda node, x, y: function(x, y)


_OF_ONE: Final[dict[str, Any]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": functional.softplus,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}

_OF_TWO: Final[dict[str, Any]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Pow": lambda x, power: torch.pow(x, power.to(x.dtype)),
    "Sub": torch.sub,
}

_OVER_AXES: Final[dict[str, Any]] = {
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceSum": torch.sum,
}

OPERATIONS: Final[dict[str, Callable[..., Tensor | tuple[Tensor, ...]]]] = {
    **{name: _of_one(function) for name, function in _OF_ONE.items()},
    **{name: _of_two(function) for name, function in _OF_TWO.items()},
    **{name: _reduce(function) for name, function in _OVER_AXES.items()},
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda node, x: x.to(DTYPES[node.said["to"]]),
    "Clip": _clip,
    "Concat": lambda node, *parts: torch.cat(parts, node.said["axis"]),
    "ConstantOfShape": lambda node, shape: torch.full(_ints(shape), np.asarray(node.said.get("value", 0.0)).item()),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "CumSum": lambda node, x, axis: x.cumsum(int(axis)),
    "DepthToSpace": _to_space,
    "Div": _divide,
    "Elu": lambda node, x: functional.elu(x, node.said.get("alpha", 1.0)),
    "Expand": _expand,
    "Flatten": lambda node, x: x.reshape(math.prod(x.shape[: node.said.get("axis", 1)]), -1),
    "GRU": _gru,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": lambda node, x: functional.gelu(x, approximate=node.said.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: x.mean(tuple(range(2, x.dim())), keepdim=True),
    "GridSample": _grid_sample,
    "InstanceNormalization": _instance_norm,
    "IsInf": _is_inf,
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda node, x: functional.leaky_relu(x, node.said.get("alpha", 0.01)),
    "Max": lambda node, *xs: reduce(torch.maximum, xs),
    "MaxPool": _pool,
    "Min": lambda node, *xs: reduce(torch.minimum, xs),
    "Pad": _pad,
    "Range": lambda node, start, end, step: torch.arange(*(np.asarray(one).item() for one in (start, end, step))),
    "Reshape": _reshape,
    "Resize": _resize,
    "ScatterElements": lambda node, x, index, y: x.scatter(node.said.get("axis", 0), index, y),
    "ScatterND": _scatter_nd,
    "Shape": lambda node, x: torch.tensor(x.shape),
    "Slice": _slice,
    "Softmax": lambda node, x: x.softmax(node.said.get("axis", -1)),
    "SpaceToDepth": _to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda node, x, repeats: x.repeat(_ints(repeats)),
    "Transpose": lambda node, x: x.permute(node.said.get("perm") or list(range(x.dim()))[::-1]),
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": lambda node, chosen, x, y: torch.where(chosen, x, y),
}

PARAMETERS: Final[dict[str, Sequence[int]]] = {
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "Pad": (1, 2, 3),
    "Range": (0, 1, 2),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}
"""Places of inputs that say how, not what: they must be known without the device."""
