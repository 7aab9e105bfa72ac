"""Signed-distance building blocks. Points travel as three tensors [N], so that torch.compile can fuse everything.

A `Number` is a float or a tensor that broadcasts against the points: those of an identity or a pose are tensors.
"""

from typing import TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor
Number: TypeAlias = float | Tensor
Triple: TypeAlias = tuple[Number, Number, Number]


def length(*parts: Tensor) -> Tensor:
    total = parts[0] * parts[0] + 1e-12
    for part in parts[1:]:
        total = total + part * part
    return torch.sqrt(total)


def smoothstep(a: Number, b: Number, x: Tensor) -> Tensor:
    t = ((x - a) / (b - a)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return a + (b - a) * t


def smin(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Union whose seam is filleted over about k."""
    h = (k - (a - b).abs()).clamp(min=0)
    return torch.minimum(a, b) - h * h * (0.25 / k)


def smax(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Intersection whose edge is rounded over about k; smax(a, -b, k) carves b out of a."""
    return -smin(-a, -b, k)


def ellipsoid(x: Tensor, y: Tensor, z: Tensor, centre: Triple, radii: Triple) -> Tensor:
    x, y, z = x - centre[0], y - centre[1], z - centre[2]
    k0 = length(x / radii[0], y / radii[1], z / radii[2])
    k1 = length(x / (radii[0] * radii[0]), y / (radii[1] * radii[1]), z / (radii[2] * radii[2]))
    return k0 * (k0 - 1) / k1


def sphere(x: Tensor, y: Tensor, z: Tensor, centre: Triple, radius: Number) -> Tensor:
    return length(x - centre[0], y - centre[1], z - centre[2]) - radius


def cone(x: Tensor, y: Tensor, z: Tensor, a: Triple, b: Triple, radius_a: Number, radius_b: Number) -> Tensor:
    """A capsule from a to b whose radius goes from radius_a to radius_b."""
    bx, by, bz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    x, y, z = x - a[0], y - a[1], z - a[2]
    h = ((x * bx + y * by + z * bz) / (bx * bx + by * by + bz * bz)).clamp(0, 1)
    return length(x - h * bx, y - h * by, z - h * bz) - (radius_a + (radius_b - radius_a) * h)


def bump(x: Tensor, y: Tensor, z: Tensor, centre: Triple, spread: Triple) -> Tensor:
    """A Gaussian brush, 1 at its centre: the sculpting tool."""
    x, y, z = (x - centre[0]) / spread[0], (y - centre[1]) / spread[1], (z - centre[2]) / spread[2]
    return torch.exp(-(x * x + y * y + z * z))


def ridge(x: Tensor, spread: Number) -> Tensor:
    """A Gaussian of one variable."""
    return torch.exp(-((x / spread) ** 2))


def hash2(i: Tensor, j: Tensor) -> Tensor:
    h = torch.sin(i * 127.1 + j * 311.7) * 43758.5453
    return h - torch.floor(h)


def noise2(u: Tensor, v: Tensor) -> Tensor:
    """Value noise in 0…1."""
    i, j = torch.floor(u), torch.floor(v)
    f, g = u - i, v - j
    f, g = f * f * (3 - 2 * f), g * g * (3 - 2 * g)
    return mix(mix(hash2(i, j), hash2(i + 1, j), f), mix(hash2(i, j + 1), hash2(i + 1, j + 1), f), g)
