"""The shelf of painted mouths on a processor: mixed and laid by one graph that OpenVINO compiles. No torch.

The same as `shelf.Shelf`, line for line, in less than half of its time, and held to it when it opens. There is a graph
for each number of mouths. Mouths and masks are read where they lie: handing arrays over costs OpenVINO's Python more
than copying them does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import openvino
from openvino import opset13 as operations

from models.runtime import Floats, Roi
from models.runtime.compiled import on_one_thread
from models.runtime.shelf import FAR_PIXELS, KNOT_PIXELS, NEAR_PIXELS, Shelf, require_likeness, shares_of

BILINEAR: Final = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}


class CompiledShelf:
    """Implements `shelf.PaintsMouths`. Raises `RuntimeError` when it does not paint as the reference does."""

    def __init__(self, reference: Shelf) -> None:
        self._reference = reference
        self._places = frame_to_patch(reference)
        self._lumas = [_shared(plane[None, :1]) for plane in reference.planes]
        self._chromas = [_shared(plane[None, 1:]) for plane in reference.planes]
        self._masks = [tuple(_shared(mask) for mask in masks) for masks in reference.masks]
        most = int((reference.mixtures() > 0).sum(1).max())
        self._graphs = {count: _Graph(reference, count) for count in range(1, most + 1)}
        require_likeness(self, reference, len(self._masks))

    def paint(self, slots: Sequence[int], weights: Floats, index: Sequence[int]) -> list[Roi]:
        """One after another: a processor gains nothing by mixing them together."""
        chosen = zip(*shares_of(weights), index, strict=True)
        return [self._painted(places[shares > 0].tolist(), shares[shares > 0], at) for places, shares, at in chosen]

    def _painted(self, places: list[int], shares: Floats, index: int) -> Roi:
        graph = self._graphs[len(places)]
        for at, place in enumerate(places):
            graph.set(f"luma_{at}", self._lumas[place])
            graph.set(f"chroma_{at}", self._chromas[place])
        for name, mask in zip(("mask", "half_mask"), self._masks[index], strict=True):
            graph.set(name, mask)
        graph.given["place"][:] = self._places[index]
        graph.given["shares"][:] = shares
        graph.given["points"][:] = self._reference.points[places]
        luma, u, v = self._reference.under(index)
        graph.given["under"][0], graph.given["half_under"][0], graph.given["half_under"][1] = luma, u, v
        (luma,), (u, v) = graph.run()
        return Roi(*self._reference.corners[index], luma, u, v)


def frame_to_patch(shelf: Shelf) -> Floats:
    """[N, 4]: a, b, c, d, where pixel x, y of a frame's rectangle lies in a patch at a x + b y + c, a y - b x + d."""
    a, b, tx, ty = shelf.back.T
    left, top = np.array(shelf.corners, np.float64).T - (tx, ty)
    places: Floats = np.stack([a, b, a * left + b * top, a * top - b * left], 1).astype(np.float32)
    return places


class _Graph:
    """A mixture of so many mouths, compiled. What is `given` is written in place; the rest is set, and stays."""

    def __init__(self, shelf: Shelf, mouths: int) -> None:
        model = _model(shelf, mouths)
        self._request = openvino.Core().compile_model(model, "CPU", on_one_thread()).create_infer_request()
        self._ports = {port.get_any_name(): port for port in self._request.model_inputs}
        self.given: Mapping[str, Any] = {
            name: self._request.get_tensor(port).data
            for name, port in self._ports.items()
            if name in ("place", "shares", "points", "under", "half_under")
        }
        self._outputs = [self._request.get_tensor(port).data for port in self._request.model_outputs]

    def set(self, name: str, tensor: Any) -> None:
        self._request.set_tensor(self._ports[name], tensor)

    def run(self) -> list[Any]:
        """Luma [1, h, w] and chroma [2, h / 2, w / 2], the caller's for good."""
        self._request.infer()
        return [output.copy() for output in self._outputs]


def _model(shelf: Shelf, mouths: int) -> Any:
    """Pairs across and down lie side by side in rows of 2 w, as sampling asks for them: no axis is ever swapped."""
    channels, *size = shelf.planes.shape[1:]
    height, width = shelf.height, shelf.width
    ends = np.array([size[1] - 1, size[0] - 1])
    lumas = [_given(f"luma_{at}", [1, 1, *size]) for at in range(mouths)]
    chromas = [_given(f"chroma_{at}", [1, channels - 1, *size]) for at in range(mouths)]
    place, shares = _given("place", [4]), _given("shares", [mouths])
    points = _given("points", [mouths, *shelf.points.shape[1:]])
    masks = [_given("mask", [height, width], np.uint8), _given("half_mask", [height // 2, width // 2], np.uint8)]
    unders = [
        _given("under", [1, height, width], np.uint8),
        _given("half_under", [channels - 1, height // 2, width // 2], np.uint8),
    ]
    a, b, c, d = (operations.gather(place, _whole(at), _whole(0)) for at in range(4))

    def lies(step: int, scale: Any, shift: float) -> Any:
        """[rows, 2 columns]: where every `step`th pixel lies in a patch, times `scale`, plus `shift`."""
        middle = 0.5 if step == 2 else 0.0  # chroma lies between two
        x = np.repeat(np.arange(0, width, step) + middle, 2)
        y = (np.arange(0, height, step) + middle)[:, None]
        even, odd = np.tile([scale[0], 0], len(x) // 2), np.tile([0, scale[1]], len(x) // 2)
        along = a * _real(x * even) - b * _real(x * odd) + c * _real(even) + d * _real(odd) + _real(shift)
        return along + _real(y) * (b * _real(even) + a * _real(odd))

    def bent(up: Floats, along: Floats) -> Any:
        """[mouths, rows, 2 columns] from the knots: along the rows first, which are few."""
        rows = operations.matmul(knots, _real(np.kron(along, np.eye(2))), False, False)
        rows = _shaped(rows, mouths, up.shape[1], 2 * along.shape[1])
        return operations.matmul(_real(up[None]), rows, False, False)

    fine, coarse = lies(1, 2 / ends, -1), lies(2, 2 / ends, -1)
    if mouths > 1:
        knots = _knots(lies(KNOT_PIXELS, np.ones(2), 0), points, shares, ends)
        fine = fine + bent(shelf.up, shelf.along)
        coarse = coarse + bent(shelf.up[::2], shelf.along[:, ::2])

    def mixed(planes: Sequence[Any], at: Any, rows: int, columns: int) -> Any:
        grids = operations.split(
            _shaped(at, mouths, rows, columns, 2), operations.constant(np.int64(0)), mouths
        ).outputs()
        sampled = (operations.grid_sample(plane, grid, BILINEAR) for plane, grid in zip(planes, grids, strict=True))
        parts = [
            part * _shaped(operations.gather(shares, _whole(one), _whole(0)), 1, 1, 1, 1)
            for one, part in enumerate(sampled)
        ]
        return operations.squeeze(sum(parts[1:], parts[0]), _whole(0))

    painted = (mixed(lumas, fine, height, width), mixed(chromas, coarse, height // 2, width // 2))
    laid = [_laid(*each) for each in zip(painted, masks, unders, strict=True)]
    inputs = [*lumas, *chromas, place, shares, points, *masks, *unders]
    return openvino.Model(laid, inputs)


def _knots(at: Any, points: Any, shares: Any, ends: Any) -> Any:
    """[mouths * rows, 2 * columns] of knots: how far from where the mixture shows it each mouth has it (Shepard)."""
    mouths, known, _ = points.get_output_shape(0)
    rows, columns = at.get_output_shape(0)
    target = operations.reduce_sum(points * operations.unsqueeze(shares, _whole(1, 2)), _whole(0), False)
    squares = _real(NEAR_PIXELS**2)
    for axis in (0, 1):
        there = operations.gather(_shaped(at, rows * columns // 2, 2), _whole(axis), _whole(1))
        way = there - _shaped(operations.gather(target, _whole(axis), _whole(1)), 1, known)
        squares = squares + way * way
    pull = _real(1.0) / (squares * squares)
    pull = pull / (operations.reduce_sum(pull, _whole(1), True) + _real(FAR_PIXELS**-4))
    away = (points - operations.unsqueeze(target, _whole(0))) * _real(2 / ends)
    knots = operations.matmul(operations.unsqueeze(pull, _whole(0)), away, False, False)
    return _shaped(knots, mouths * rows, columns)


def _laid(painted: Any, mask: Any, under: Any) -> Any:
    under = operations.convert(under, np.float32)
    mixture = under + (painted - under) * (operations.convert(mask, np.float32) * _real(1 / 255))
    return operations.convert(operations.clamp(operations.floor(mixture + _real(0.5)), 0.0, 255.0), np.uint8)


def _given(name: str, shape: Sequence[int], kind: Any = np.float32) -> Any:
    made = operations.parameter(list(shape), kind, name)
    made.output(0).set_names({name})
    return made


def _real(values: Any) -> Any:
    return operations.constant(np.asarray(values, np.float32))


def _whole(*values: int) -> Any:
    return operations.constant(np.array(values, np.int64))


def _shaped(values: Any, *shape: int) -> Any:
    return operations.reshape(values, operations.constant(np.array(shape, np.int64)), False)


def _shared(array: Any) -> Any:
    return openvino.Tensor(array, shared_memory=True)
