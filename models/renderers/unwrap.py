"""A face unrolled: vertices on a cylinder, triangles of a picture on a texture atlas, and back into a patch.

LipSync3D's pose normalisation (Lahiri et al. 2021, section 3.1.1). The cylinder stands upright, its axis where most
vertices of the reference are equally far from it; eyes and nose come to fixed places of a 256 × 256 atlas, so that
atlases of all frames, and of all people, lie on each other.

Training unrolls triangle by triangle, as published. A patch of the pose-normal space is so nearly a smooth picture of
the cylinder that one polynomial of the third degree for each loop frame leads back (`smooth_map`): no triangle is
searched while serving, and beyond the chin it goes on.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import face
from ..triangles import TRIANGLES

Floats = npt.NDArray[np.float32]

ATLAS: Final = 256
CROP: Final = 128
"""The part that is predicted: round the lips."""
EYES_AT: Final = 0.32
LIPS_AT: Final = 0.66
"""Of an atlas' height: where the line of the eyes and the middle of the lips at rest are."""
POWERS: Final = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))
VERTICES: Final = 468


def _mouth() -> list[tuple[int, int, int]]:
    """MediaPipe's mesh leaves the mouth open; what shows in it belongs to the texture. A strip between the lips."""
    half = len(face.LIPS_INNER) // 2
    upper = [int(p) for p in face.LIPS_INNER[: half + 1]]
    lower = [upper[0], *(int(p) for p in face.LIPS_INNER[:half:-1]), upper[-1]]
    strip = [(upper[n], upper[n + 1], lower[n + 1]) for n in range(half - 1)]
    return strip + [(upper[n], lower[n + 1], lower[n]) for n in range(1, half)]


UNROLLED: Final = np.concatenate([TRIANGLES, np.array(_mouth(), TRIANGLES.dtype)])


@dataclass(frozen=True, slots=True)
class Cylinder:
    """Of one person, in the units of the pose-normal vertices: x right, y down, z away."""

    x: float
    z: float
    radius: float
    top: float
    scale: float
    """Atlas pixels to a unit, upright and round the cylinder alike."""

    def unrolled(self, vertices: npt.ArrayLike) -> Floats:
        """[…, V, 3] → […, V, 2], atlas pixels."""
        v = np.asarray(vertices, np.float64)
        angle = np.arctan2(v[..., 0] - self.x, self.z - v[..., 2])
        across = ATLAS / 2 + angle * self.radius * self.scale
        return np.asarray(np.stack([across, (v[..., 1] - self.top) * self.scale], -1), np.float32)


def cylinder(reference: npt.ArrayLike) -> Cylinder:
    """From the reference's vertices [478 or 468, 3], facing the camera with the mouth at rest."""
    v = np.asarray(reference, np.float64)[:VERTICES]
    # x² + z² = 2 x x₀ + 2 z z₀ + c: the circle, from above, of least square error, among those as wide as a head.
    middle = v[list(face.EYE_CORNERS), 0].mean()
    half = np.ptp(v[:, 0]) / 2
    design = np.stack([2 * v[:, 2], np.ones(len(v))], 1)
    target = (v[:, 0] - middle) ** 2 + v[:, 2] ** 2
    z, rest = np.linalg.lstsq(design, target, rcond=None)[0]
    radius = float(np.clip(np.sqrt(max(rest + z * z, 0)), half, 3 * half))
    # Most vertices lie on it: not the nose, which stands out so far that the lips behind it would be drawn wide.
    depth = float(np.median(v[:, 2] + np.sqrt(np.maximum(radius**2 - (v[:, 0] - middle) ** 2, 0))))
    eyes = v[list(face.EYE_CORNERS), 1].mean()
    lips = v[[face.INNER_UPPER, face.INNER_LOWER], 1].mean()
    scale = (LIPS_AT - EYES_AT) * ATLAS / (lips - eyes)
    return Cylinder(float(middle), depth, radius, float(eyes - EYES_AT * ATLAS / scale), float(scale))


def corner_of_crop() -> tuple[int, int]:
    """x, y of the predicted part within the atlas."""
    return ATLAS // 2 - CROP // 2, min(round(LIPS_AT * ATLAS) - CROP // 2, ATLAS - CROP)


def moved(
    picture: npt.NDArray[np.uint8], source: npt.ArrayLike, target: npt.ArrayLike, size: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The triangles of a picture [H, W, 3], its vertices at `source` [V, 2], put where `target` [V, 2] says, in
    [size, size, 3], 0…1; and which of its pixels are covered."""
    source, target = (np.asarray(points, np.float64)[:VERTICES, :2] for points in (source, target))
    sources, covered = sources_of(source, target, size)
    return gathered(picture, sources) * covered[..., None], covered


def gathered(picture: npt.NDArray[np.uint8], sources: npt.NDArray[np.float64]) -> Floats:
    """What a picture [H, W, 3] shows at places [size, size, 2], in 0…1."""
    height, width = picture.shape[:2]
    planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
    grid = torch.from_numpy((sources + 0.5) * 2 / np.array([width, height]) - 1).float()
    warped = F.grid_sample(planes, grid[None], padding_mode="border", align_corners=False)[0]
    return np.asarray(warped.permute(1, 2, 0).numpy(), np.float32)


def sources_of(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64], size: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """For each pixel of the target [468, 2], what lies there of what is said of each vertex: `source` [468, any], such
    as its places in one or two pictures; and whether it is covered. Triangles of like extent are looked at together: a
    face has hundreds, of a few pixels each."""
    sources = np.zeros((size, size, source.shape[1]))
    covered = np.zeros((size, size), bool)
    corners = target[UNROLLED]  # [T, 3, 2]
    low = np.maximum(np.ceil(corners.min(1)).astype(int), 0)
    high = np.minimum(np.floor(corners.max(1)).astype(int) + 1, size)
    a, across, down = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    twice = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    seen = (np.abs(twice) >= 1e-9) & (low < high).all(1)
    extent = (high - low).max(1)
    widest = int(extent[seen].max(initial=0))
    for wide in (4, 8, 16, 32, 64, widest):
        those = np.flatnonzero(seen & (extent <= wide))
        seen[those] = False
        x, y = (low[those, None, side] + np.arange(wide) for side in (0, 1))  # [t, wide]
        far_x, far_y = (x - a[those, :1])[:, None], (y - a[those, 1:])[..., None]
        (ux, uy), (vx, vy) = ((edge[those] / twice[those, None]).T[..., None, None] for edge in (across, down))
        of_b, of_c = far_x * vy - far_y * vx, far_y * ux - far_x * uy
        inside = (of_b >= -1e-9) & (of_c >= -1e-9) & (of_b + of_c <= 1 + 1e-9)
        inside &= (x < high[those, :1])[:, None] & (y < high[those, 1:])[..., None]
        which, row, column = np.nonzero(inside)
        p, q, r = source[UNROLLED[those[which]]].swapaxes(0, 1)
        here = p + of_b[inside][:, None] * (q - p) + of_c[inside][:, None] * (r - p)
        sources[y[which, row], x[which, column]] = here
        covered[y[which, row], x[which, column]] = True
    return sources, covered


def smooth_map(patch: npt.ArrayLike, atlas: npt.ArrayLike, size: int) -> Floats:
    """The polynomials [2, 10] from patch pixels of a patch of `size` to atlas pixels that fit a frame's vertices
    [V, 2] each: those of the crop, and a little those about it, so that they go on beyond its edges."""
    p, q = np.asarray(patch, np.float64)[:VERTICES, :2], np.asarray(atlas, np.float64)[:VERTICES]
    far = np.abs(q - corner_of_crop() - CROP / 2).max(1, keepdims=True) / CROP  # 0.5 on the crop's edge
    trust = np.where(far < 0.5, 1.0, 0.1) * (far < 0.75)
    terms = _terms(torch.from_numpy(p), size).numpy()
    return np.asarray(np.linalg.lstsq(terms * trust, q * trust, rcond=None)[0].T, np.float32)


def mapped(coefficients: Tensor, points: Tensor, size: int) -> Tensor:
    """Polynomials [B, 2, 10] of patch pixels [P, 2] → atlas pixels [B, P, 2]."""
    return (_terms(points, size) @ coefficients.transpose(1, 2)).to(coefficients)


def _terms(points: Tensor, size: int) -> Tensor:
    """[P, 2] → [P, 10], of coordinates in −1…1."""
    x, y = (2 * points / size - 1).unbind(-1)
    return torch.stack([x**right * y**down for right, down in POWERS], -1)
