"""From sparse to dense, and from dense to expressions; all per frame and in the pose-normal space.

The jaw of the first paper's limitation 1, for its own network that predicts lips alone: a linear rule and a small LSTM.
S2D (Nocentini et al. 2023): displacements of 68 landmarks to displacements of the 468 vertices, by five spiral
convolutions, each followed by an up-sampling, on MediaPipe's own topology. Blendshapes: a bounded fit of the 52 ARKit
weights to vertices, given what each weight moves, and a direct decoder.
"""

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from . import face
from .rates import BLENDSHAPES, DENSE_POINTS, POINTS
from .streaming import Chain, Pointwise, lstm
from .triangles import TRIANGLES

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

JAW = len(face.HOUSE[face.HOUSE_JAW]) + 1
"""16 of the jaw line, and the chin."""

JAW_IN_HOUSE: tuple[int, ...] = (face.HOUSE_LIPS.stop - 1, *range(face.HOUSE_JAW.start, face.HOUSE_JAW.stop))
"""The chin first."""


# --- The jaw that follows the lips -----------------------------------------------------------------------------------


class LinearJaw(nn.Module):
    """[B, T, 20, 3] lips of the 68 → [B, T, 17, 3] jaw."""

    def __init__(self) -> None:
        super().__init__()
        self.rule = nn.Linear(3 * 20, 3 * JAW)

    def forward(self, lips: Tensor) -> Tensor:
        jaw: Tensor = self.rule(lips.flatten(-2))
        return jaw.reshape(*lips.shape[:-2], JAW, 3)

    @torch.no_grad()
    def fit(self, lips: Tensor, jaw: Tensor, ridge: float = 1e-2) -> None:
        """Least squares on true frames [N, 20, 3] and [N, 17, 3]."""
        x, y = lips.flatten(1).double(), jaw.flatten(1).double()
        x_middle, y_middle = x.mean(0), y.mean(0)
        x = x - x_middle
        weight = torch.linalg.solve(x.mT @ x / len(x) + ridge * torch.eye(x.shape[1]), x.mT @ (y - y_middle) / len(x))
        self.rule.weight.copy_(weight.mT)
        self.rule.bias.copy_(y_middle - x_middle @ weight)


def jaw_lstm(hidden: int = 32) -> Chain:
    """[B, T, 60] lips, less their mean, in units of the eye-corner distance → [B, T, 51] jaw, likewise. A jaw has
    weight: it follows the lips' past too."""
    return Chain(lstm(3 * 20, hidden), Pointwise(nn.Linear(hidden, 3 * JAW)))


# --- Sparse to dense -------------------------------------------------------------------------------------------------


def neighbours(triangles: npt.NDArray[np.int32] = TRIANGLES, points: int = DENSE_POINTS) -> list[list[int]]:
    """Of each vertex, its neighbours in the order of the ring around it, starting with the smallest."""
    follows: list[dict[int, int]] = [{} for _ in range(points)]
    for a, b, c in triangles.tolist():
        follows[a][b] = c
        follows[b][c] = a
        follows[c][a] = b
    rings = []
    for links in follows:
        # On a border the ring is open: it starts where nothing leads to, or else at the smallest.
        starts = sorted(set(links) - set(links.values())) or sorted(links)[:1]
        ring: list[int] = []
        for start in starts:
            at: int | None = start
            while at is not None and at not in ring:
                ring.append(at)
                at = links.get(at)
        rings.append(ring)
    return rings


def spirals(length: int) -> Indices:
    """[468, length]: each vertex, then ring by ring around it, as the spiral operator walks; what is missing at the end
    repeats the vertex."""
    rings = neighbours()
    table = []
    for vertex in range(DENSE_POINTS):
        walk, ring = [vertex], rings[vertex]
        while ring and len(walk) < length:
            walk += [point for point in ring if point not in walk]
            ring = [further for point in ring for further in rings[point] if further not in walk]
            ring = list(dict.fromkeys(ring))
        walk = walk[:length]
        table.append(walk + [vertex] * (length - len(walk)))
    return np.array(table, np.int64)


def along_the_skin(mesh: Array) -> Array:
    """[468, 468]: distances along the mesh's edges. Upper and lower lip touch, and yet are far from each other."""
    distance = np.full((len(mesh), len(mesh)), np.inf)
    np.fill_diagonal(distance, 0.0)
    for vertex, ring in enumerate(neighbours()):
        distance[vertex, ring] = np.linalg.norm(mesh[ring] - mesh[vertex], axis=-1)
    for through in range(len(mesh)):  # Floyd and Warshall
        np.minimum(distance, distance[:, through, None] + distance[through], out=distance)
    return distance


def farthest_points(skin: Array, count: int, first: Indices) -> Indices:
    """`first`, then each time the vertex farthest from all chosen: an even coarse mesh that holds the landmarks."""
    chosen = [int(i) for i in first[:count]]
    distance = skin[:, chosen].min(1)
    while len(chosen) < count:
        distance[chosen] = -1.0
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, skin[:, chosen[-1]])
    return np.array(chosen, np.int64)


def upsampling(distance: Array) -> npt.NDArray[np.float32]:
    """From distances [fine, coarse]: each fine vertex from its three nearest coarse ones, by inverse distance."""
    nearest = distance.argsort(1)[:, :3]
    weight = 1.0 / np.maximum(np.take_along_axis(distance, nearest, 1), 1e-6)
    matrix = np.zeros(distance.shape, np.float32)
    np.put_along_axis(matrix, nearest, (weight / weight.sum(1, keepdims=True)).astype(np.float32), 1)
    return matrix


LEVELS = (68, 117, 176, 264, 352, DENSE_POINTS)
"""Vertices before the first and after each of the five up-samplings; the first are the landmarks."""
SPIRAL = 9
CHANNELS = (64, 64, 32, 32, 16)


class SpiralConv(nn.Module):
    """One linear layer over each vertex and its spiral: [B, N, C] → [B, N, D]."""

    def __init__(self, into: int, out: int, spiral: Indices) -> None:
        super().__init__()
        self.spiral: Tensor
        self.register_buffer("spiral", torch.from_numpy(spiral), persistent=False)
        self.linear = nn.Linear(into * spiral.shape[1], out)

    def forward(self, x: Tensor) -> Tensor:
        walked = x[:, self.spiral.flatten()].reshape(x.shape[0], *self.spiral.shape, x.shape[2])
        return cast(Tensor, self.linear(walked.flatten(2)))


class SparseToDense(nn.Module):
    """Displacements of the 68 [B, 68, 3] → displacements of the vertices [B, 468, 3], from the neutral `mesh` [468, 3].

    The paper's spirals on coarse levels come of its decimation; here a coarse level's spiral is its nearest vertices in
    order of distance, and on the full mesh the true spiral.
    """

    def __init__(self, mesh: Array) -> None:
        super().__init__()
        skin = along_the_skin(mesh)
        order = farthest_points(skin, DENSE_POINTS, face.DLIB)
        levels = [order[:count] for count in LEVELS[:-1]] + [np.arange(DENSE_POINTS)]
        into, convolutions = 3, []
        for index, out in enumerate(CHANNELS):
            convolutions.append(SpiralConv(into, out, _near(skin[np.ix_(levels[index], levels[index])])))
            up = upsampling(skin[np.ix_(levels[index + 1], levels[index])])
            self.register_buffer(f"up{index}", torch.from_numpy(up))
            into = out
        self.convolutions = nn.ModuleList(convolutions)
        self.out = SpiralConv(into, 3, spirals(SPIRAL))

    def forward(self, displacements: Tensor) -> Tensor:
        x = displacements
        for index, convolution in enumerate(self.convolutions):
            x = self.get_buffer(f"up{index}") @ nn.functional.elu(convolution(x))
        return cast(Tensor, self.out(x))


def _near(distance: Array) -> Indices:
    order: Indices = distance.argsort(1, kind="stable")[:, :SPIRAL].astype(np.int64)
    return order


def nearest_landmark(displacements: Array, mesh: Array) -> Array:
    """The baseline of S2D: each vertex moves as the nearest of the 68. [T, 68, 3] → [T, 468, 3]."""
    nearest = along_the_skin(mesh)[:, face.DLIB].argmin(1)
    return displacements[:, nearest]


# --- Blendshapes -----------------------------------------------------------------------------------------------------


def fit_weights(
    displacements: Array, basis: Array, ridge: float = 1e-3, previous: float = 0.0, rounds: int = 200
) -> npt.NDArray[np.float32]:
    """The ARKit weights in 0…1 that move a neutral face nearest to `displacements` [T, N, 3].

    `basis` [52, N, 3] is what each weight moves at full strength. Weights that move nothing stay 0. `ridge` prefers few
    and small ones; `previous` holds a frame near the one before it, both relative to the basis's own size. Projected
    gradients with momentum (Nesterov): the problem is convex, so that this is the one answer.
    """
    flat = basis.reshape(len(basis), -1)
    gram = flat @ flat.T
    size = float(np.trace(gram)) / len(gram)
    target = displacements.reshape(len(displacements), -1) @ flat.T
    hessian = gram + (ridge + previous) * size * np.eye(len(gram))
    step = 1.0 / float(np.linalg.eigvalsh(hessian)[-1])
    fitted = np.zeros((len(target), len(gram)))
    if not previous:
        return _descend(hessian, target, fitted, step, rounds)
    last = np.zeros(len(gram))
    for frame, wanted in enumerate(target):
        last = _descend(hessian, (wanted + previous * size * last)[None], last[None], step, rounds)[0].astype(
            np.float64
        )
        fitted[frame] = last
    return fitted.astype(np.float32)


def _descend(hessian: Array, target: Array, start: Array, step: float, rounds: int) -> npt.NDArray[np.float32]:
    weights, ahead, inertia = start, start, 1.0
    for _ in range(rounds):
        after = np.clip(ahead - step * (ahead @ hessian - target), 0.0, 1.0)
        grown = 0.5 * (1 + np.sqrt(1 + 4 * inertia**2))
        ahead = after + (inertia - 1) / grown * (after - weights)
        weights, inertia = after, grown
    return weights.astype(np.float32)


def residual(displacements: Array, basis: Array, weights: npt.NDArray[np.float32]) -> float:
    """Mean distance that the fit leaves, in the units of the displacements."""
    left = displacements - np.tensordot(weights.astype(np.float64), basis, 1)
    return float(np.linalg.norm(left, axis=-1).mean())


class BlendshapeDecoder(nn.Module):
    """The direct way: HOUSE displacements from neutral [B, 131, 3], in units of the eye-corner distance → [B, 52]."""

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3 * POINTS, hidden), nn.GELU(), nn.Linear(hidden, BLENDSHAPES))

    def forward(self, displacements: Tensor) -> Tensor:
        return torch.sigmoid(cast(Tensor, self.layers(displacements.flatten(1))) - 2.0)
