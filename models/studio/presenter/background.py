"""A defocused room. Everything in it is a soft stain: sharpness would draw the eye away from the face."""

import torch

from models.studio.presenter.sdf import Tensor, length, mix, smoothstep


def _colour(rgb: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(rgb, dtype=like.dtype, device=like.device)[:, None]


def _box(a: Tensor, b: Tensor, soft: float) -> Tensor:
    return smoothstep(-soft, soft, a) * smoothstep(-soft, soft, b)


def room(u: Tensor, v: Tensor) -> Tensor:
    """u, v [N] in -1…1 across the picture, v up → linear RGB [3, N]."""
    wall = mix(_colour((0.30, 0.27, 0.24), u), _colour((0.13, 0.15, 0.17), u), smoothstep(-0.9, 1.0, u + 0.25 * v))
    lamp = torch.exp(-((u + 0.85) ** 2 + (v - 0.45) ** 2) / 0.22)
    wall = wall + _colour((0.55, 0.42, 0.28), u) * lamp * 0.75
    frame = _box(0.20 - (u - 0.78).abs(), 0.30 - (v - 0.42).abs(), 0.05)
    wall = mix(wall, _colour((0.20, 0.26, 0.28), u), frame * 0.55)
    plant = torch.zeros_like(u)
    for a, b, size in ((-0.86, -0.42, 0.13), (-0.70, -0.30, 0.10), (-0.97, -0.20, 0.11), (-0.78, -0.62, 0.15)):
        plant = plant + torch.exp(-(((u - a) / size) ** 2 + ((v - b) / (1.7 * size)) ** 2) * 1.6)
    wall = mix(wall, _colour((0.05, 0.085, 0.05), u), plant.clamp(0, 1) * 0.75)
    shelf = _box(0.022 - (v + 0.28).abs(), u - 0.48, 0.03)
    wall = mix(wall, _colour((0.16, 0.10, 0.06), u), shelf * 0.8)
    for a, b, radius, rgb in (
        (0.62, -0.18, 0.06, (0.40, 0.16, 0.08)),
        (0.74, -0.16, 0.07, (0.10, 0.18, 0.20)),
        (0.88, -0.17, 0.065, (0.36, 0.30, 0.20)),
    ):
        vase = smoothstep(radius * 1.5, radius * 0.6, length(u - a, (v - b) * 0.7))
        wall = mix(wall, _colour(rgb, u), vase * 0.6)
    return wall * (1 - 0.132 * (u * u + v * v))
