"""A shelf of painted mouths: which of them a face needs, mixed, and laid into the loop frame where its head is.

Mouths are mixed by shape first, then by colour: each is bent so that its lips and jaw lie where the mixture has them.
Everything is in the loop's own colours (I420, BT.601, limited range), so that only the mouth is ever converted, once.
Shapes: patches [M, H, W], a region of interest [h, w], both in pixels; h, w and the corner even.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import face
from models.avatar import Array
from models.runtime import Bytes, Floats, Pictures, Roi
from models.runtime.articulation import BITE, FUNNEL, OPENING, PRESS, REST, ROUNDING, TEETH, WIDTH

Taps = tuple[npt.NDArray[np.int32], Floats, Floats]

_AT: Final = {name: place for place, name in enumerate(face.ARKIT_52)}
_SHAPE: Final = ("mouthPucker", "mouthFunnel", "mouthStretchLeft", "mouthRollLower", "mouthPressLeft", "tongueOut")
"""What tells one column of mouths from another; within a column only the opening differs."""

WIDEST_GAP: Final = 0.8
"""Of the widest mouth: what speech at its loudest opens to."""

FAINT: Final = np.array([0.09, 0.1, 0.08, 0.08, 0.05, 0.05, 0.15], np.float32)
"""Of an articulation: what a network says of silence."""

MOST_MIXED: Final = 3
"""Mouths in one mixture: each costs as much as painting."""

KNOT_PIXELS: Final = 6
NEAR_PIXELS: Final = 2.0
FAR_PIXELS: Final = 28.0
"""How the bend of a mouth is reckoned: at every sixth pixel, exact near a point, nothing far from all."""

RGB_TO_YUV: Final = np.array(
    [[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32
) / np.float32(255)
YUV_OFFSET: Final = np.array([16, 128, 128], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Mouths of one shape, from shut to wide open."""

    places: tuple[int, ...]
    gaps: Floats  # rising

    def weigh(self, gap: float, share: float, weights: Floats) -> None:
        """Add `share` to the two mouths next to `gap`."""
        at = float(np.interp(gap, self.gaps, np.arange(len(self.places))))
        lower = min(int(at), len(self.places) - 1)
        upper = min(lower + 1, len(self.places) - 1)
        weights[self.places[lower]] += share * (1 - (at - lower))
        weights[self.places[upper]] += share * (at - lower)


class Choice:
    """Which mouths an articulation [7] needs, as weights [M] that sum to 1."""

    def __init__(self, weights: Floats, lip_gap: Floats) -> None:
        self._count = len(weights)
        named = partial(_named, weights)
        shapes: dict[tuple[float, ...], list[int]] = {}
        for place in range(self._count):
            shape = tuple(round(float(named(name)[place]), 2) for name in _SHAPE)
            shapes.setdefault(shape, []).append(place)
        families = [sorted(places, key=lambda place: float(lip_gap[place])) for places in shapes.values()]
        columns = [places for places in families if len(places) > 2]
        singles = [places[0] for places in families if len(places) <= 2]
        if not columns:
            raise ValueError("mouths.safetensors holds no three mouths of one shape")
        roundness = named("mouthPucker") + named("mouthFunnel")
        width = named("mouthStretchLeft")
        self._plain, self._rounded, self._wide = (
            self._column(min(columns, key=lambda places: float(key[places].mean())), lip_gap)
            for key in (roundness + width, width - roundness, roundness - width)
        )
        self._widest = WIDEST_GAP * float(self._plain.gaps[-1])
        pressed = named("mouthPressLeft")
        self._press = _most(singles, pressed)
        self._bite = _most(singles, named("mouthRollLower") - 2 * pressed)
        self._funnel = _most(singles, named("mouthFunnel"))
        self._teeth = _most(singles, width)
        jaw = named("jawOpen")[list(self._plain.places)]
        self._jaws: Floats = np.maximum.accumulate(jaw + 1e-6 * np.arange(len(jaw)))
        self._most_rounded = float(roundness[self._rounded.places[-1]]) or 1.0
        self._most_wide = float(width[self._wide.places[-1]]) or 1.0

    @staticmethod
    def _column(places: list[int], lip_gap: Floats) -> Column:
        return Column(tuple(places), np.maximum.accumulate(lip_gap[places] + 1e-6 * np.arange(len(places))))

    def weigh(self, articulation: Floats) -> Floats:
        weights = np.zeros(self._count, np.float32)
        left = 1.0
        gap = float(articulation[OPENING]) * self._widest
        singles = ((self._press, PRESS), (self._bite, BITE), (self._funnel, FUNNEL), (self._teeth, TEETH))
        for place, kind in singles:
            share = left * float(articulation[kind]) if place is not None else 0.0
            if place is not None:
                weights[place] += share
            left -= share
        rounded = float(articulation[ROUNDING])
        wide = float(articulation[WIDTH]) * (1 - rounded)
        self._rounded.weigh(0.75 * gap, left * rounded, weights)
        self._wide.weigh(gap, left * wide, weights)
        self._plain.weigh(gap, left * (1 - rounded - wide), weights)
        weights[weights < 0.08] = 0
        return np.asarray(weights / weights.sum(), np.float32)

    def articulate(self, weights: Floats) -> Floats:
        """ARKit weights [52] → the articulation that shows them best on this avatar's mouths.

        What a network says of silence is small but not nothing, and what it says of extremes is less than they are:
        `FAINT` is taken for nothing, and the rest stretched.
        """
        value = {name: float(weight) for name, weight in zip(face.ARKIT_52, weights, strict=True)}
        jaw = max(0.0, value["jawOpen"] - value["mouthClose"])
        parted = jaw + 0.2 * value["mouthLowerDownLeft"] + 0.1 * value["mouthUpperUpLeft"]
        articulation = REST.copy()
        articulation[OPENING] = np.interp(parted, self._jaws, self._plain.gaps) / self._widest
        articulation[ROUNDING] = 1.5 * (value["mouthPucker"] + 0.5 * value["mouthFunnel"]) / self._most_rounded
        articulation[WIDTH] = (value["mouthStretchLeft"] + 0.5 * value["mouthSmileLeft"]) / self._most_wide
        articulation[TEETH] = (value["mouthLowerDownLeft"] - jaw) / 0.35
        articulation[FUNNEL] = (value["mouthFunnel"] - value["mouthPucker"]) / 0.5
        articulation[PRESS] = value["mouthPressLeft"] / 0.5
        articulation[BITE] = (value["mouthRollLower"] - value["mouthPressLeft"]) / 0.6
        return np.clip((articulation - FAINT) / (1 - FAINT), 0, 1)


def _named(weights: Floats, name: str) -> Floats:
    return weights[:, _AT[name]]


def _most(places: list[int], key: Floats) -> int | None:
    best = max(places, key=lambda place: float(key[place]), default=None)
    return best if best is not None and key[best] > 0.05 else None


class Painter:
    """Mixes mouths and lays them into the frames of one loop."""

    def __init__(self, mouths: dict[str, Array], similarity: Floats, loop: Pictures, mix: "Mix | None" = None) -> None:
        self._mix = mix or mixed
        patches = mouths["patches"]
        self._height, self._width = patches.shape[1:3]
        yuv = patches.astype(np.float32) @ RGB_TO_YUV.T + YUV_OFFSET
        self._planes: Floats = np.ascontiguousarray(np.moveaxis(yuv, 3, 1))  # [M, 3, H, W]
        self._loop = loop
        self._frame_height = loop.shape[1] * 2 // 3
        a, b, tx, ty = similarity.T.astype(np.float64)
        square = a * a + b * b
        self._back: npt.NDArray[np.float64] = np.stack([a / square, b / square, tx, ty], 1)  # frame → patch
        self.height, self.width, self.corners = self._rectangles(mouths["mask"], similarity)
        self._points: Floats = np.ascontiguousarray(mouths["points"][:, face.HOUSE_SPOKEN, :2])  # [M, 57, 2]
        self._up = _between_knots(self.height)
        self._along = np.ascontiguousarray(_between_knots(self.width).T)
        mask = np.ascontiguousarray(mouths["mask"])
        self._masks = [self._warped_masks(index, mask) for index in range(len(loop))]
        for count in range(1, min(MOST_MIXED, len(self._planes)) + 1):  # so that whatever is compiled is compiled now
            self.paint(np.asarray(np.arange(len(self._planes)) < count, np.float32), 0)

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

    def _warped_masks(self, index: int, mask: Floats) -> tuple[Bytes, Bytes]:
        """For luma and chroma, of 255: kept small, since there are as many as frames."""
        fine, coarse = (_taps(mask, *self._grid(index, step)) for step in (1, 2))
        return _in_bytes(_sample(mask, fine)), _in_bytes(_sample(mask, coarse))

    def _grid(self, index: int, step: int) -> tuple[Floats, Floats]:
        """Where in a patch every `step`th pixel of the rectangle lies, across and down; for chroma, between two."""
        left, top = self.corners[index]
        a, b, tx, ty = self._back[index]
        middle = 0.5 if step == 2 else 0.0
        x = np.arange(0, self.width, step, dtype=np.float32) + np.float32(left + middle - tx)
        y = np.arange(0, self.height, step, dtype=np.float32)[:, None] + np.float32(top + middle - ty)
        return np.float32(a) * x + np.float32(b) * y, np.float32(a) * y - np.float32(b) * x

    def paint(self, weights: Floats, index: int) -> Roi:
        """The mouths mixed by `weights` [M], in the loop frame `index`."""
        places = np.flatnonzero(weights)
        if not len(places):
            raise ValueError("no mouth has any weight")
        places = places[np.argsort(-weights[places], kind="stable")[:MOST_MIXED]]
        shares = weights[places] / weights[places].sum()
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
        planes = self._planes[places]
        (luma,) = self._mix(planes[:, :1], *fine, shares)
        u, v = self._mix(planes[:, 1:], *coarse, shares)
        left, top = self.corners[index]
        frame, width = self._loop[index], self._loop.shape[2]
        chroma = frame[self._frame_height :].reshape(2, self._frame_height // 2, width // 2)
        fine_mask, coarse_mask = self._masks[index]
        rectangle = np.s_[top : top + self.height, left : left + self.width]
        quarter = np.s_[top // 2 : (top + self.height) // 2, left // 2 : (left + self.width) // 2]
        return Roi(
            left,
            top,
            _laid(luma, fine_mask, frame[rectangle]),
            _laid(u, coarse_mask, chroma[0][quarter]),
            _laid(v, coarse_mask, chroma[1][quarter]),
        )

    def _bends(self, places: Any, shares: Floats, index: int) -> list[tuple[Floats, Floats]]:
        """For each mouth, how far from where the mixture shows a pixel the mouth has it: [h, w] across and down.

        Known at the lips and the jaw, where each mouth's points say it; elsewhere the mean of what is near (Shepard's
        interpolation), fading to nothing far away. Reckoned at knots, and straight in between.
        """
        points = self._points[places]
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
            sideways, downwards = (self._up @ along.reshape(across.shape) @ self._along for along in knots)
            bends.append((sideways, downwards))
        return bends


Mix = Callable[[Floats, Sequence[Floats], Sequence[Floats], Floats], Floats]
"""(planes [M, C, H, W], M times where each pixel lies across and down in its mouth [h, w], shares [M]) → [C, h, w]."""


def mixed(planes: Floats, across: Sequence[Floats], down: Sequence[Floats], shares: Floats) -> Floats:
    """Mouths mixed, in numpy. `mixing.Mixing` does the same."""
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


def _between_knots(pixels: int) -> Floats:
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
