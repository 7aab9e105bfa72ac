"""A shelf of painted mouths: mixed, and laid into the loop frame where its head is, one at a time, in numpy.

Mouths are mixed by shape first, then by colour: each is bent so that its lips and jaw lie where the mixture has them.
Everything is in the loop's own colours (I420, BT.601, limited range), so that only the mouth is ever converted, once.
Shapes: patches [M, H, W], a region of interest [h, w], both in pixels; h, w and the corner even.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from models import face
from models.avatar import Array
from models.runtime import Bytes, Floats, Pictures, Roi
from models.runtime.stages import PLANES

Taps = tuple[npt.NDArray[np.int32], Floats, Floats]

MOST_MIXED: Final = 3
"""Mouths in one mixture: each costs as much as painting."""

KNOT_PIXELS: Final = 6
NEAR_PIXELS: Final = 2.0
FAR_PIXELS: Final = 28.0
"""How the bend of a mouth is reckoned: at every sixth pixel, exact near a point, nothing far from all."""

TOLERANCE: Final = 2
"""Grey levels that a pixel may differ from the reference's."""

PROVEN_ON: Final = 4
"""Frames of the loop."""

RGB_TO_YUV: Final = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32
) / np.float32(255)
YUV_OFFSET: Final = np.array([16, 128, 128], np.float32)


class PaintsMouths(Protocol):
    """A shelf, wherever it is mixed."""

    def paint(self, slots: Sequence[int], weights: Floats, index: Sequence[int]) -> list[Roi]:
        """The mouths mixed by `weights` [B, M], in the loop frames `index`, for the sessions in `slots`."""
        ...


NewShelf = Callable[[Mapping[str, Array], Floats, Pictures], PaintsMouths]
"""(the arrays of mouths.safetensors, similarity [N, 4] of patch to frame, the loop) → a shelf."""


class Shelf:
    """Implements `PaintsMouths`: mixes mouths and lays them into the frames of one loop."""

    def __init__(self, mouths: Mapping[str, Array], similarity: Floats, loop: Pictures) -> None:
        yuv = mouths["patches"].astype(np.float32) @ RGB_TO_YUV.T + YUV_OFFSET
        self.planes: Floats = np.ascontiguousarray(np.moveaxis(yuv, 3, 1))
        """[M, 3, H, W]"""
        self._loop = loop
        self._frame_height = loop.shape[1] * 2 // 3
        a, b, tx, ty = similarity.T.astype(np.float64)
        square = a * a + b * b
        self.back: npt.NDArray[np.float64] = np.stack([a / square, b / square, tx, ty], 1)
        """[N, 4]: frame → patch."""
        self.height, self.width, self.corners = self._rectangles(mouths["mask"], similarity)
        self.points: Floats = np.ascontiguousarray(mouths["points"][:, face.HOUSE_SPOKEN, :2])
        """[M, 57, 2]"""
        self.up, self.along = between_knots(self.height), np.ascontiguousarray(between_knots(self.width).T)
        self.mask: Floats = np.ascontiguousarray(mouths["mask"])
        self.masks = [self._warped_masks(index) for index in range(len(loop))]
        """For luma and chroma, of 255: kept small, since there are as many as frames."""

    def mixtures(self) -> Floats:
        """[n, M]: a mouth alone, two mixed, and so on."""
        count = min(MOST_MIXED, len(self.planes))
        return np.tri(count, len(self.planes), dtype=np.float32)

    def under(self, index: int) -> tuple[Bytes, Bytes, Bytes]:
        """What the loop has in the rectangle: luma, u, v."""
        left, top = self.corners[index]
        frame, width = self._loop[index], self._loop.shape[2]
        chroma = frame[self._frame_height :].reshape(2, self._frame_height // 2, width // 2)
        rectangle = np.s_[top : top + self.height, left : left + self.width]
        quarter = np.s_[top // 2 : (top + self.height) // 2, left // 2 : (left + self.width) // 2]
        return frame[rectangle], chroma[0][quarter], chroma[1][quarter]

    def _rectangles(self, mask: Floats, similarity: Floats) -> tuple[int, int, list[tuple[int, int]]]:
        """One even size that holds the mask in every frame, and its even corner in each."""
        ys, xs = np.nonzero(mask)
        x = np.array([xs.min(), xs.max(), xs.min(), xs.max()], np.float64)
        y = np.array([ys.min(), ys.min(), ys.max(), ys.max()], np.float64)
        a, b, tx, ty = similarity.T.astype(np.float64)[:, :, None]
        across, down = a * x - b * y + tx, b * x + a * y + ty
        frame_height, frame_width = self._frame_height, self._loop.shape[2]
        lefts, tops = (np.floor(edge.min(1) / 2).astype(int) * 2 for edge in (across, down))
        width = min(frame_width, int(-(-(across.max(1) - lefts + 1).max() // 2)) * 2)
        height = min(frame_height, int(-(-(down.max(1) - tops + 1).max() // 2)) * 2)
        lefts, tops = lefts.clip(0, frame_width - width), tops.clip(0, frame_height - height)
        return height, width, list(zip(lefts.tolist(), tops.tolist(), strict=True))

    def _warped_masks(self, index: int) -> tuple[Bytes, Bytes]:
        fine, coarse = (_taps(self.mask, *self._grid(index, step)) for step in (1, 2))
        return _in_bytes(_sample(self.mask, fine)), _in_bytes(_sample(self.mask, coarse))

    def _grid(self, index: int, step: int) -> tuple[Floats, Floats]:
        """Where in a patch every `step`th pixel of the rectangle lies, across and down; for chroma, between two."""
        left, top = self.corners[index]
        a, b, tx, ty = self.back[index]
        middle = 0.5 if step == 2 else 0.0
        x = np.arange(0, self.width, step, dtype=np.float32) + np.float32(left + middle - tx)
        y = np.arange(0, self.height, step, dtype=np.float32)[:, None] + np.float32(top + middle - ty)
        return np.float32(a) * x + np.float32(b) * y, np.float32(a) * y - np.float32(b) * x

    def paint(self, slots: Sequence[int], weights: Floats, index: Sequence[int]) -> list[Roi]:
        """One after another: a processor gains nothing by mixing them together."""
        chosen = zip(*shares_of(weights), index, strict=True)
        return [self._painted(places[shares > 0], shares[shares > 0], at) for places, shares, at in chosen]

    def _painted(self, places: npt.NDArray[np.int64], shares: Floats, index: int) -> Roi:
        across, down = self._grid(index, 1)
        half_across, half_down = self._grid(index, 2)
        fine: tuple[list[Floats], list[Floats]] = [across] * len(places), [down] * len(places)
        coarse: tuple[list[Floats], list[Floats]] = [half_across] * len(places), [half_down] * len(places)
        if len(places) > 1:
            bends = self._bends(places, shares, index)
            fine = [across + bend for bend, _ in bends], [down + bend for _, bend in bends]
            coarse = (
                [half_across + bend[::2, ::2] for bend, _ in bends],
                [half_down + bend[::2, ::2] for _, bend in bends],
            )
        planes = self.planes[places]
        (luma,) = mixed(planes[:, :1], *fine, shares)
        u, v = mixed(planes[:, 1:], *coarse, shares)
        fine_mask, coarse_mask = self.masks[index]
        masks = (fine_mask, coarse_mask, coarse_mask)
        laid = (_laid(*each) for each in zip((luma, u, v), masks, self.under(index), strict=True))
        return Roi(*self.corners[index], *laid)

    def _bends(self, places: Any, shares: Floats, index: int) -> list[tuple[Floats, Floats]]:
        """For each mouth, how far from where the mixture shows a pixel the mouth has it: [h, w] across and down.

        Known at the lips and the jaw, where each mouth's points say it; elsewhere the mean of what is near (Shepard's
        interpolation), fading to nothing far away. Reckoned at knots, and straight in between.
        """
        points = self.points[places]
        target = (shares[:, None, None] * points).sum(0)  # [57, 2]
        across, down = self._grid(index, KNOT_PIXELS)
        squares = np.square(across.reshape(-1, 1) - target[:, 0])
        squares += np.square(down.reshape(-1, 1) - target[:, 1])
        squares += np.float32(NEAR_PIXELS**2)
        pull = 1 / np.square(squares)
        pull /= pull.sum(1, keepdims=True) + np.float32(FAR_PIXELS**-4)
        bends = []
        for mouth in points:
            knots = (mouth - target).T @ pull.T
            sideways, downwards = (self.up @ along.reshape(across.shape) @ self.along for along in knots)
            bends.append((sideways, downwards))
        return bends


def require_likeness(ours: PaintsMouths, reference: Shelf, frames: int) -> None:
    """Raises `RuntimeError` when it does not paint as the reference does."""
    for index in np.linspace(0, frames - 1, PROVEN_ON).astype(int).tolist():
        for weights in reference.mixtures():
            (one,), (other,) = (shelf.paint([0], weights[None], [index]) for shelf in (ours, reference))
            for name in PLANES:
                worst = int(np.abs(getattr(one, name).astype(int) - getattr(other, name)).max())
                if worst > TOLERANCE:
                    raise RuntimeError(
                        f"its painted mouths differ from the reference by {worst}, where {TOLERANCE} is allowed"
                    )


def shares_of(weights: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """[B, M] → the places of the mouths that are mixed, the largest first, and their shares [B, `MOST_MIXED`].

    Where fewer are mixed, the first mouth comes again with no share. Raises `ValueError` when no mouth has any weight.
    """
    if not (weights > 0).any(1).all():
        raise ValueError("no mouth has any weight")
    places = np.argsort(-weights, 1, "stable")[:, :MOST_MIXED]
    if len(weights[0]) < MOST_MIXED:
        places = np.pad(places, ((0, 0), (0, MOST_MIXED - places.shape[1])))
    shares = np.take_along_axis(weights, places, 1)
    shares[:, len(weights[0]) :] = 0
    return np.where(shares > 0, places, places[:, :1]), shares / shares.sum(1, keepdims=True)


def mixed(planes: Floats, across: Sequence[Floats], down: Sequence[Floats], shares: Floats) -> Floats:
    """planes [M, C, H, W] at M times across, down [h, w] in pixels → [C, h, w]."""
    mixture = np.zeros((planes.shape[1], *across[0].shape), np.float32)
    for mouth, share, *places in zip(planes, shares, across, down, strict=True):
        taps = _taps(mouth[0], *(place.copy() for place in places))
        for plane, whole in zip(mouth, mixture, strict=True):
            part = _sample(plane, taps)
            part *= share
            whole += part
    return mixture


def _taps(plane: Floats, across: Floats, down: Floats) -> Taps:
    """The top left of the four pixels around each place, and the way to the others. Takes what it is given."""
    height, width = plane.shape
    np.clip(across, 0, width - 1.001, out=across)
    np.clip(down, 0, height - 1.001, out=down)
    column, row = across.astype(np.int32), down.astype(np.int32)
    beyond = across - column, down - row
    row *= width
    row += column
    return row, *beyond


def between_knots(pixels: int) -> Floats:
    """[pixels, knots]: the shares of the knots around each pixel."""
    knots = len(range(0, pixels, KNOT_PIXELS))
    at = np.minimum(np.arange(pixels) / KNOT_PIXELS, knots - 1)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(knots))), np.float32)


def _in_bytes(share: Floats) -> Bytes:
    return np.asarray(np.rint(255 * share), np.uint8)


def _sample(plane: Floats, taps: Taps) -> Floats:
    """Bilinear."""
    at, across, down = taps
    flat = plane.reshape(-1)
    stride = plane.shape[1]
    upper, lower = _between(flat, at, across), _between(flat[stride:], at, across)
    lower -= upper
    lower *= down
    upper += lower
    return upper


def _between(flat: Floats, at: npt.NDArray[np.int32], across: Floats) -> Floats:
    left: Floats = flat.take(at)
    right: Any = flat[1:].take(at, mode="clip")
    right -= left
    right *= across
    left += right
    return left


def _laid(painted: Floats, mask: Bytes, under: Bytes) -> Bytes:
    painted -= under
    painted *= mask
    painted *= np.float32(1 / 255)
    painted += under
    painted += np.float32(0.5)
    return np.clip(painted, 0, 255, out=painted).astype(np.uint8)
