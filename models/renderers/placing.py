"""Where a mouth is, and how it gets there and back: the pose-normal space of patches, and the blend into I420.

The pose-normal space is the picture of the lower face as it would be if the head held still: a similarity, fitted to
points of the upper face and the nose that speech hardly moves, smoothed over time, takes a patch pixel to a frame
pixel. A pixel's middle is a whole number, in patches and in frames.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Floats = npt.NDArray[np.float32]

HOLDS: Final = (33, 133, 263, 362, 130, 359, 243, 463, 168, 6, 197, 195, 5, 4, 8, 9, 127, 356, 234, 454)
"""Of the 478: corners of the eyes, ridge and tip of the nose, between the brows, the face's edge beside the ears."""
NOSE_TIP: Final = 4
CHIN: Final = 152
CHEEKS: Final = (172, 397)
SMOOTH_FRAMES: Final = 1.5
"""Standard deviation of the smoothing in time: jitter of a tracker must not shake the patch."""

NOSE_AT: Final = 0.14
CHIN_AT: Final = 0.68
JAW_WIDE: Final = 0.80
"""Of a patch's side: where the tip of the nose and the chin at rest are, and how wide the jaw may be."""

ABSURD: Final = 1e6
"""Pixels: a landmark that is farther away is none."""

YUV: Final = torch.tensor(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], dtype=torch.float32
)
"""BT.601, limited range, of RGB in 0…1."""
YUV_OFFSET: Final = torch.tensor([16.0, 128.0, 128.0])
RGB: Final = torch.linalg.inv(YUV)


class Placed(NamedTuple):
    """A rectangle of loop frames, in 0…255, not yet rounded."""

    luma: Tensor  # [B, h, w]
    u: Tensor  # [B, h / 2, w / 2]
    v: Tensor


# --- Into the pose-normal space: numpy, when an avatar is made -------------------------------------------------------


def similarities(source: npt.ArrayLike, target: npt.ArrayLike) -> Floats:
    """Points [T, P, 2] and [P, 2] or [T, P, 2] → [T, 4] a b tx ty that take source to target with the least square
    error: x' = a·x − b·y + tx, y' = b·x + a·y + ty."""
    x = np.asarray(source, np.float64)
    y = np.broadcast_to(np.asarray(target, np.float64), x.shape)
    x_middle, y_middle = x.mean(1), y.mean(1)
    x, y = x - x_middle[:, None], y - y_middle[:, None]
    square = np.square(x).sum((1, 2))
    a = (x * y).sum((1, 2)) / square
    b = (x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]).sum(1) / square
    tx = y_middle[:, 0] - a * x_middle[:, 0] + b * x_middle[:, 1]
    ty = y_middle[:, 1] - b * x_middle[:, 0] - a * x_middle[:, 1]
    return np.asarray(np.stack([a, b, tx, ty], 1), np.float32)


def apply(similarity: npt.ArrayLike, points: npt.ArrayLike) -> Floats:
    """[T, 4] on points [T, N, 2 or 3]; only x and y move, z is scaled."""
    a, b, tx, ty = np.asarray(similarity, np.float64).T[..., None]
    moved = np.array(points, np.float64)
    x, y = moved[..., 0].copy(), moved[..., 1].copy()
    moved[..., 0], moved[..., 1] = a * x - b * y + tx, b * x + a * y + ty
    moved[..., 2:] *= np.hypot(a, b)[..., None]
    return moved.astype(np.float32)


def inverse(similarity: npt.ArrayLike) -> Floats:
    a, b, tx, ty = np.asarray(similarity, np.float64).T
    square = a * a + b * b
    a, b = a / square, -b / square
    return np.asarray(np.stack([a, b, -(a * tx - b * ty), -(b * tx + a * ty)], 1), np.float32)


def smoothed(points: npt.ArrayLike, frames: float = SMOOTH_FRAMES) -> Floats:
    """[T, …] of one clip, by a Gaussian in time; beyond its ends it goes on as it came."""
    x = np.asarray(points, np.float32)
    reach = int(np.ceil(3 * frames))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / frames) ** 2)
    taps /= taps.sum()
    back = np.minimum(np.arange(reach, 0, -1), len(x) - 1)
    wide = np.concatenate([2 * x[:1] - x[back], x, 2 * x[-1:] - x[len(x) - 1 - back[::-1]]])
    return np.asarray(sum(tap * wide[n : n + len(x)] for n, tap in enumerate(taps)), np.float32)


def canon(clips: list[Floats], size: int, rounds: int = 3) -> Floats:
    """A person's mean face [478, 2] in patch pixels, from clips [T, 478, 2 or 3]: upright as the first frame is, the
    nose at the top of the patch, the chin well above its end, the jaw within it."""
    every = max(1, sum(map(len, clips)) // 2000)
    seen = np.concatenate(clips)[::every, :, :2].astype(np.float64)
    mean = seen[0]
    for _ in range(rounds):
        mean = apply(similarities(seen[:, HOLDS], mean[list(HOLDS)]), seen).astype(np.float64).mean(0)
    wide = float(np.ptp(mean[list(CHEEKS), 0]))
    side = max((mean[CHIN, 1] - mean[NOSE_TIP, 1]) / (CHIN_AT - NOSE_AT), wide / JAW_WIDE)
    corner = np.array([mean[list(CHEEKS), 0].mean() - side / 2, mean[NOSE_TIP, 1] - NOSE_AT * side])
    return np.asarray((mean - corner) * (size / side) - 0.5, np.float32)


def towards(points: Floats, mean: Floats) -> Floats:
    """The similarities [T, 4] from patch to frame of one clip [T, 478, 2 or 3]; `mean` is from `canon`."""
    held = smoothed(points[:, HOLDS, :2])
    return inverse(similarities(held, mean[list(HOLDS)]))


# --- Rectangles: numpy, when an avatar is made or opened -------------------------------------------------------------


def rectangles(mask: Floats, similarity: Floats, width: int, height: int) -> tuple[int, int, npt.NDArray[np.int64]]:
    """Height and width, even, of one rectangle that holds the mask [S, S] in every frame; its corner in each [N, 2]."""
    ys, xs = np.nonzero(mask)
    box = np.array([[x, y] for x in (xs.min() - 1, xs.max() + 1) for y in (ys.min() - 1, ys.max() + 1)], np.float32)
    moved = apply(similarity, np.broadcast_to(box, (len(similarity), 4, 2)))
    low = np.floor(moved.min(1) / 2).astype(np.int64) * 2
    sides = np.minimum(-(-(moved.max(1) - low + 1).max(0) // 2).astype(np.int64) * 2, (width, height))
    return int(sides[1]), int(sides[0]), low.clip(0, np.array([width, height]) - sides)


# --- In the graph ----------------------------------------------------------------------------------------------------


def into_patch(points: Tensor, similarity: Tensor) -> Tensor:
    """Frame pixels [B, N, 2 or 3] → patch pixels [B, N, 2]; `similarity` [B, 4] is from patch to frame."""
    a, b, tx, ty = similarity[:, :, None].unbind(1)  # [B, 1]
    x, y = points[..., 0] - tx, points[..., 1] - ty
    square = a * a + b * b
    return torch.stack([(a * x + b * y) / square, (a * y - b * x) / square], -1)


def defined(places: Tensor, rest: Tensor) -> Tensor:
    """Places [B, N, 2] in patch pixels; what is not a number, or absurdly far away, is where it is at `rest` [N, 2]."""
    known = places.abs() < ABSURD  # no comparison with what is not a number holds
    return torch.where(known, places, rest)


def place_rows(rows: dict[str, Tensor], patch: Tensor, mask: Tensor) -> Placed:
    """Warp a patch [B, 3, S, S] into its rectangles and blend it with what is there, in I420. Colours are converted in
    the patch, where there are fewest pixels; chroma is sampled between the pixels that share it."""
    luma, u, v = (rows[name] for name in ("luma", "u", "v"))
    yuv = _mixed(patch, YUV, YUV_OFFSET.tolist())
    fine = _sampled(torch.cat([yuv[0], mask], 1), rows, luma.shape[1], luma.shape[2], 1)
    half = _sampled(torch.cat([*yuv[1:], mask], 1), rows, u.shape[1], u.shape[2], 2)
    return Placed(
        luma + fine[:, 1] * (fine[:, 0] - luma),
        u + half[:, 2] * (half[:, 0] - u),
        v + half[:, 2] * (half[:, 1] - v),
    )


def _sampled(planes: Tensor, rows: dict[str, Tensor], height: int, width: int, step: int) -> Tensor:
    """[B, C, S, S] → [B, C, height, width]: bilinear; nothing beyond the patch's edge."""
    size = planes.shape[-1]
    a, b, tx, ty = rows["similarity"][:, :, None].unbind(1)  # [B, 1]
    left, top = rows["corner"][:, :, None].unbind(1)
    middle = (step - 1) / 2
    x = torch.arange(width, dtype=planes.dtype, device=planes.device) * step + middle + (left - tx)  # [B, w]
    y = torch.arange(height, dtype=planes.dtype, device=planes.device) * step + middle + (top - ty)
    unit = 2 / (size - 1) / (a * a + b * b)
    a, b = a * unit, b * unit
    # x and y of a place in the patch lie side by side: sums of what spreads along rows and along columns
    grid = x[:, None, :, None] * torch.cat([a, -b], 1)[:, None, None] - 1
    grid = grid + y[:, :, None, None] * torch.cat([b, a], 1)[:, None, None]
    return F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def taken(luma: Tensor, u: Tensor, v: Tensor, similarity: Tensor, size: int, finer: int = 1) -> Tensor:
    """Patches [B, 3, S, S], RGB in 0…1, out of whole frames in I420 (0…255): `warped`, in the graph. `finer` is from
    `fineness`."""
    planes = torch.stack([luma, *(_doubled(half) for half in (u, v))], 1)
    if finer > 1:
        planes = F.avg_pool2d(planes, finer)
    a, b, tx, ty = similarity.unbind(1)
    shift = (finer - 1) / 2
    a, b, tx, ty = (
        value[:, None, None] for value in (a / finer, b / finer, (tx - shift) / finer, (ty - shift) / finer)
    )
    x = torch.arange(size, dtype=planes.dtype, device=planes.device)
    y = x[:, None]
    wide, high = 2 / planes.shape[3], 2 / planes.shape[2]
    across = (a * x - b * y + tx + 0.5) * wide - 1
    down = (b * x + a * y + ty + 0.5) * high - 1
    grid = torch.stack([across, down], -1)
    yuv = F.grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return torch.cat(_mixed(yuv, RGB, (-RGB @ YUV_OFFSET).tolist()), 1).clamp(0, 1)


def _mixed(planes: Tensor, matrix: Tensor, offset: list[float]) -> list[Tensor]:
    """Three planes [B, 1, H, W] each of which mixes the three of `planes`: no product of matrices, which whoever
    computes in half precision would make of that."""
    parts = [planes[:, n : n + 1] for n in range(3)]
    return [
        row[0] * parts[0] + row[1] * parts[1] + row[2] * parts[2] + more
        for row, more in zip(matrix.tolist(), offset, strict=True)
    ]


def _doubled(half: Tensor) -> Tensor:
    return F.interpolate(half[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]


def fineness(similarity: npt.ArrayLike) -> int:
    """How many frame pixels are averaged before a patch is taken, where a patch pixel spans more than 1.5."""
    a, b = np.asarray(similarity, np.float64).reshape(-1, 4)[:, :2].mean(0)
    return max(1, int(np.hypot(a, b) / 1.5 + 0.5))


def warped(picture: npt.NDArray[np.uint8], similarity: Floats, size: int) -> npt.NDArray[np.uint8]:
    """A frame [H, W, 3] as a patch [S, S, 3]: bicubic, from a frame that is first averaged where it is finer."""
    a, b, tx, ty = (float(value) for value in similarity)
    planes = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    finer = fineness(similarity)
    if finer > 1:
        planes = F.avg_pool2d(planes, finer)
        shift = (finer - 1) / 2
        a, b, tx, ty = a / finer, b / finer, (tx - shift) / finer, (ty - shift) / finer
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    grid = torch.stack([a * x - b * y + tx, b * x + a * y + ty], -1)
    grid = (grid + 0.5) * 2 / torch.tensor([planes.shape[3], planes.shape[2]]) - 1
    moved = F.grid_sample(planes, grid[None], mode="bicubic", padding_mode="border", align_corners=False)
    return np.asarray(moved[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())
