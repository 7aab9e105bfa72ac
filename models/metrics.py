"""Every figure that is ever quoted of a face in motion, defined here and nowhere else.

Truth and prediction are both taken into the pose-normal space: the similarity transform of the truth's rigid upper-face
points to the reference, the same transform for both. Distances are in percent of the reference's outer eye-corner
distance, so 100 is one eye-corner distance. Points are [frames, points, 3]; a frame is 40 ms. Scores over several clips
pool their frames: give the clips, not their averages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from . import face
from .rates import FRAME_RATE

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BILABIALS: Final = frozenset({"m", "b", "p"})
OPEN_VOWELS: Final = frozenset({"aa", "ae", "ah", "ao", "aw", "ay", "eh"})
PAUSES: Final = frozenset({"pau", "sil", "sp"})

SHUT: Final = 0.02
"""Of the mouth's width: an opening below is a closure."""
NEAR_SECONDS: Final = 0.04
"""Within which a closure belongs to its phone."""
PAUSE_SECONDS: Final = 0.3
"""From which a silence is long enough for the lips to rest."""
STILL: Final = 0.5
"""Percent: displacements shorter than this have no direction."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone and its time in seconds, from the start of the clip."""

    name: str
    start: float
    end: float

    @property
    def centre(self) -> float:
        return 0.5 * (self.start + self.end)


# --- The pose-normal space -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """x → scale · rotation · x + shift, one for each frame."""

    scale: Array  # [T]
    rotation: Array  # [T, 3, 3]
    shift: Array  # [T, 3]

    def __call__(self, points: npt.ArrayLike) -> Array:
        """[T, N, 3] → [T, N, 3]."""
        turned = np.asarray(points, np.float64) @ self.rotation.swapaxes(-1, -2)
        return cast(Array, self.scale[:, None, None] * turned + self.shift[:, None])

    def inverse(self) -> "Similarity":
        back = self.rotation.swapaxes(-1, -2)
        shift = -(back @ self.shift[..., None])[..., 0] / self.scale[:, None]
        return Similarity(1.0 / self.scale, back, shift)


def umeyama(source: npt.ArrayLike, target: npt.ArrayLike) -> Similarity:
    """The similarity without reflection that takes `source` [T, N, 3] nearest to `target` [N, 3] or [T, N, 3], in the
    least-squares sense (Umeyama 1991)."""
    x = np.asarray(source, np.float64)
    y = np.broadcast_to(np.asarray(target, np.float64), x.shape)
    x_middle, y_middle = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
    x, y = x - x_middle, y - y_middle
    u, strength, vt = np.linalg.svd(y.swapaxes(-1, -2) @ x)
    strength[:, -1] *= (sign := np.sign(np.linalg.det(u @ vt)))
    u[..., -1] *= sign[:, None]
    rotation = u @ vt
    scale = strength.sum(-1) / np.square(x).sum((-1, -2))
    shift = y_middle[:, 0] - scale[:, None] * (rotation @ x_middle.swapaxes(-1, -2))[..., 0]
    return Similarity(scale, rotation, shift)


def pose_normal(truth: npt.ArrayLike, reference: npt.ArrayLike) -> Similarity:
    """What takes each frame of the true mesh [T, 478, 3] onto the reference [478, 3] by its rigid points, in percent of
    the reference's eye-corner distance. Apply it to the truth and to the prediction."""
    mesh = np.asarray(reference, np.float64)
    unit = np.linalg.norm(mesh[face.EYE_CORNERS[0]] - mesh[face.EYE_CORNERS[1]])
    return umeyama(np.asarray(truth)[:, face.RIGID], mesh[face.RIGID] * (100.0 / unit))


# --- Landmarks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """One clip: what the landmarks should have done, and did; `face.HOUSE` points in the pose-normal space."""

    truth: Array  # [T, 131, 3]
    prediction: Array  # [T, 131, 3]
    speech: Mask | None = None  # [T]: frames in which someone speaks; None counts all
    phones: Sequence[Phone] = ()

    def __post_init__(self) -> None:
        if self.truth.shape != self.prediction.shape or self.truth.shape[1:] != (len(face.HOUSE), 3):
            raise ValueError(
                f"truth {self.truth.shape} and prediction {self.prediction.shape} must both be [T, 131, 3]"
            )


def _distances(clips: Iterable[Performance], points: npt.NDArray[np.int64]) -> Array:
    """[frames of all clips, points]"""
    return np.concatenate([np.linalg.norm((c.prediction - c.truth)[:, points], axis=-1) for c in clips])


def _velocity_distances(clips: Iterable[Performance], points: npt.NDArray[np.int64]) -> Array:
    errors = [np.diff((c.prediction - c.truth)[:, points], axis=0) for c in clips]
    return np.concatenate([np.linalg.norm(error, axis=-1) for error in errors])


def ld(clips: Sequence[Performance]) -> float:
    """Mean distance over the 40 lip points."""
    return float(_distances(clips, face.LIPS_IN_HOUSE).mean())


def lvd(clips: Sequence[Performance]) -> float:
    """The same of frame-to-frame differences."""
    return float(_velocity_distances(clips, face.LIPS_IN_HOUSE).mean())


def first_papers_four(clips: Sequence[Performance]) -> dict[str, float]:
    """M-LD, M-LVD, F-LD and F-LVD over the mouth and the face of the 68, in house units. The paper does not say how it
    normalises: its own figures may be quoted beside these, never compared with them."""
    mouth, whole = face.DLIB_IN_HOUSE[face.DLIB_LIPS], face.DLIB_IN_HOUSE
    return {
        "m_ld": float(_distances(clips, mouth).mean()),
        "m_lvd": float(_velocity_distances(clips, mouth).mean()),
        "f_ld": float(_distances(clips, whole).mean()),
        "f_lvd": float(_velocity_distances(clips, whole).mean()),
    }


def speech_to_landmarks_three(clips: Sequence[Performance], neutral: npt.ArrayLike) -> dict[str, float]:
    """S2L's LE, DE and DAE over the 68, against the neutral face [131, 3] in the pose-normal space; each a mean over
    frames: the greatest lip distance, the mean distance of displacements, the greatest angle in radians between
    displacements, of those that truly move."""
    rest = np.asarray(neutral, np.float64)[face.DLIB_IN_HOUSE]
    angles = []
    for clip in clips:
        true, said = (points[:, face.DLIB_IN_HOUSE] - rest for points in (clip.truth, clip.prediction))
        lengths = np.linalg.norm(true, axis=-1), np.linalg.norm(said, axis=-1)
        cosine = (true * said).sum(-1) / np.maximum(lengths[0] * lengths[1], 1e-9)
        angle = np.where(lengths[0] > STILL, np.arccos(np.clip(cosine, -1, 1)), 0.0)
        angles.append(angle.max(-1))
    return {
        "le": float(_distances(clips, face.DLIB_IN_HOUSE[face.DLIB_LIPS]).max(-1).mean()),
        "de": float(_distances(clips, face.DLIB_IN_HOUSE).mean()),
        "dae": float(np.concatenate(angles).mean()),
    }


# --- The opening of the mouth ----------------------------------------------------------------------------------------

_UPPER, _LOWER, _CORNER_RIGHT, _CORNER_LEFT = (
    int(np.flatnonzero(index == face.HOUSE)[0]) for index in (face.INNER_UPPER, face.INNER_LOWER, *face.MOUTH_CORNERS)
)


def opening(points: npt.ArrayLike) -> Array:
    """[T, 131, 3] → [T]: the distance of the inner lips at the middle."""
    house = np.asarray(points, np.float64)
    return cast(Array, np.linalg.norm(house[:, _UPPER] - house[:, _LOWER], axis=-1))


def relative_opening(points: npt.ArrayLike, width: float | None = None) -> Array:
    """The opening as a share of the mouth's width: of `width`, or of these frames' own median width."""
    return opening(points) / (mouth_width(points) if width is None else width)


def mouth_width(points: npt.ArrayLike) -> float:
    house = np.asarray(points, np.float64)
    return float(np.median(np.linalg.norm(house[:, _CORNER_RIGHT] - house[:, _CORNER_LEFT], axis=-1)))


def pearson(a: Array, b: Array) -> float:
    """0 where either does not move: a mouth that stays still says nothing."""
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def opening_r(clips: Sequence[Performance]) -> float:
    """Correlation of the opening with the truth's over all frames of speech."""
    spoken = [np.ones(len(c.truth), bool) if c.speech is None else c.speech for c in clips]
    true = np.concatenate([opening(c.truth)[mask] for c, mask in zip(clips, spoken, strict=True)])
    said = np.concatenate([opening(c.prediction)[mask] for c, mask in zip(clips, spoken, strict=True)])
    return pearson(true, said)


def sync_ms(clips: Sequence[Performance], most_frames: int = 12) -> float:
    """Lag of the greatest cross-correlation between the true and the predicted opening, pooled over clips, to a part of
    a frame. Positive: the picture comes late, so the audio is early."""
    return lag_ms([(opening(clip.truth), opening(clip.prediction)) for clip in clips], most_frames)


def lag_ms(pairs: Iterable[tuple[Array, Array]], most_frames: int = 12) -> float:
    """The same of any two series of frames: by how much the second of each pair is late. NaN if one does not move."""
    lags = np.arange(-most_frames, most_frames + 1)
    score = np.zeros(len(lags))
    for first, second in pairs:
        true, said = first - first.mean(), second - second.mean()
        for i, lag in enumerate(lags):
            early = true[: len(true) - lag] if lag >= 0 else true[-lag:]
            late = said[lag:] if lag >= 0 else said[: len(said) + lag]
            score[i] += float(early @ late)
    if score.max() <= 1e-9:
        return float("nan")
    best = int(score.argmax())
    part = 0.0
    if 0 < best < len(lags) - 1:
        before, peak, after = score[best - 1 : best + 2]
        part = 0.5 * (before - after) / (before - 2 * peak + after)
    return float((lags[best] + part) * 1000.0 / FRAME_RATE)


# --- Phones: does the mouth shut when it must, and only then ----------------------------------------------------------


def _frames_near(start: float, end: float, frames: int, near: float = NEAR_SECONDS) -> slice:
    """The frames, at i / 25 s, from `near` before the start to `near` after the end; the nearest frame if none is."""
    first = int(np.ceil((start - near) * FRAME_RATE - 1e-6))
    last = int(np.floor((end + near) * FRAME_RATE + 1e-6))
    if last < first:
        first = last = round(0.5 * (start + end) * FRAME_RATE)
    first, last = (min(max(i, 0), frames - 1) for i in (first, last))
    return slice(first, last + 1)


def closures(clips: Iterable[tuple[Array, Sequence[Phone]]]) -> dict[str, float]:
    """From relative openings [T] and phones: `closure_recall`, the share of m b p within 40 ms of which the lips meet;
    `closure_precision`, the share of meetings during speech within 40 ms of an m b p; lips that come to rest within
    40 ms of a pause are not wrong. NaN where there is none."""
    reached: list[bool] = []
    wanted: list[bool] = []
    for openings, phones in clips:
        near = np.zeros(len(openings), bool)
        pause = np.ones(len(openings), bool)
        for phone in phones:
            if phone.name in PAUSES:
                continue
            pause[round(phone.start * FRAME_RATE) : round(phone.end * FRAME_RATE)] = False
            if phone.name in BILABIALS:
                window = _frames_near(phone.start, phone.end, len(openings))
                near[window] = True
                reached.append(bool((openings[window] < SHUT).any()))
        rest = np.convolve(pause, np.ones(2 * round(NEAR_SECONDS * FRAME_RATE) + 1), "same") > 0
        wanted.extend(bool(near[run].any()) for run in _runs(openings < SHUT) if near[run].any() or not rest[run].all())
    return {
        "closure_recall": float(np.mean(reached)) if reached else float("nan"),
        "closure_precision": float(np.mean(wanted)) if wanted else float("nan"),
    }


def lip_auc(clips: Iterable[tuple[Array, Sequence[Phone]]]) -> dict[str, float]:
    """From relative openings [T] and phones: the probability that the lips are more open at the centre of an open vowel
    than at the centre of an m, b or p; `closures_reached` within 40 ms of those centres; `false_closures`, the share of
    open vowels whose centre is shut. The test for voices that nobody filmed."""
    vowels, stops, reached = [], [], []
    for openings, phones in clips:
        for phone in phones:
            window = _frames_near(phone.centre, phone.centre, len(openings), near=0.0)
            if phone.name in OPEN_VOWELS:
                vowels.append(openings[window].mean())
            elif phone.name in BILABIALS:
                stops.append(openings[window].mean())
                reached.append((openings[_frames_near(phone.centre, phone.centre, len(openings))] < SHUT).any())
    if not vowels or not stops:
        return {"lip_auc": float("nan"), "closures_reached": float("nan"), "false_closures": float("nan")}
    difference = np.array(vowels)[:, None] - np.array(stops)
    return {
        "lip_auc": float(((difference > 0) + 0.5 * (difference == 0)).mean()),
        "closures_reached": float(np.mean(reached)),
        "false_closures": float((np.array(vowels) < SHUT).mean()),
    }


def _runs(mask: Mask) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def silence_motion(predictions: Iterable[tuple[npt.ArrayLike, Mask]]) -> float:
    """Mean lip speed, percent of the eye-corner distance a frame, in silences longer than 300 ms. Takes pose-normal
    points [T, 131, 3] and the frames of silence [T]; NaN where no silence is long enough."""
    speeds = []
    for points, silent in predictions:
        lips = np.asarray(points, np.float64)[:, face.LIPS_IN_HOUSE]
        for run in _runs(silent):
            if run.stop - run.start > PAUSE_SECONDS * FRAME_RATE:
                speeds.append(np.linalg.norm(np.diff(lips[run], axis=0), axis=-1).mean(-1))
    return float(np.concatenate(speeds).mean()) if speeds else float("nan")


def landmark_scores(clips: Sequence[Performance], neutral: npt.ArrayLike) -> dict[str, float]:
    """The landmark table's row of these clips: every score that needs no phones."""
    spoken = [(c.prediction, ~c.speech) for c in clips if c.speech is not None]
    return {
        "ld": ld(clips),
        "lvd": lvd(clips),
        **first_papers_four(clips),
        **speech_to_landmarks_three(clips, neutral),
        "opening_r": opening_r(clips),
        "opening_r_always": opening_r([replace(clip, speech=None) for clip in clips]),
        "silence_motion": silence_motion(spoken),
        "sync_ms": sync_ms(clips),
    }


def static_mouth(truth: Sequence[Array], training: Sequence[Array]) -> list[Array]:
    """The trivial baseline: each clip's truth with lips and jaw at their mean over the training clips. All pose-normal
    [T, 131, 3]. Every table prints it beside the models."""
    mean = np.concatenate(list(training)).mean(0)
    still = []
    for points in truth:
        copy = points.copy()
        copy[:, face.HOUSE_SPOKEN] = mean[face.HOUSE_SPOKEN]
        still.append(copy)
    return still


# --- Pictures --------------------------------------------------------------------------------------------------------

Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB, or [H, W] luma."""

_INNER_IN_HOUSE = face.LIPS_IN_HOUSE[len(face.LIPS_OUTER) :]


@dataclass(frozen=True, slots=True)
class Box:
    """A region of a picture, in pixels; the right and lower edge are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, picture: Picture) -> Picture:
        return picture[self.top : self.bottom, self.left : self.right]

    @staticmethod
    def around(points: npt.ArrayLike, margin: float, width: int, height: int) -> "Box":
        """The box of points [N, 2 or 3], wider and higher by `margin` of its own size in all, cut to the picture."""
        flat = np.asarray(points, np.float64)[:, :2]
        low, high = flat.min(0), flat.max(0)
        grown = 0.5 * margin * (high - low)
        left, top = np.floor(np.maximum(low - grown, 0)).astype(int).tolist()
        right, bottom = np.ceil(np.minimum(high + grown + 1, (width, height))).astype(int).tolist()
        return Box(left, top, right, bottom)


def lips_box(house: npt.ArrayLike, width: int, height: int) -> Box:
    """The region that pictures are judged by: the true lips, 20 % larger. Most of a frame is untouched loop."""
    return Box.around(np.asarray(house)[face.LIPS_IN_HOUSE], 0.2, width, height)


def face_box(mesh: npt.ArrayLike, width: int, height: int) -> Box:
    """The oval of the true face [478, 3], 10 % larger."""
    return Box.around(np.asarray(mesh)[[10, 152, 234, 454, *face.JAW_LINE, *face.TEMPLES]], 0.1, width, height)


def inner_mask(house: npt.ArrayLike, width: int, height: int) -> Mask:
    """[H, W]: inside the true inner-lip ring, by the even-odd rule at the middles of pixels."""
    ring = np.asarray(house, np.float64)[_INNER_IN_HOUSE, :2]
    x, y = np.arange(width) + 0.5, (np.arange(height) + 0.5)[:, None]
    inside = np.zeros((height, width), bool)
    for (ax, ay), (bx, by) in zip(ring, np.roll(ring, -1, 0), strict=True):
        if ay != by:
            crossing = ax + (y - ay) * (bx - ax) / (by - ay)
            inside ^= ((ay > y) != (by > y)) & (x < crossing)
    return inside


def luma(picture: Picture) -> Array:
    """BT.601, 0…255."""
    if picture.ndim == 2:
        return picture.astype(np.float64)
    return cast(Array, picture.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))


def psnr(said: Picture, true: Picture) -> float:
    """Decibels over all given pixels and channels; infinite for equal pictures."""
    error = np.square(said.astype(np.float64) - true).mean()
    return float(10 * np.log10(255.0**2 / error)) if error else float("inf")


def ssim(said: Picture, true: Picture) -> float:
    """Wang et al. 2004 on luma: Gaussian window of 11 pixels and σ = 1.5, K = 0.01 and 0.03, where the window fits."""
    a, b = luma(said), luma(true)
    if min(a.shape) < _WINDOW:
        raise ValueError(f"a picture of {a.shape} is smaller than the window of {_WINDOW}")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


_WINDOW: Final = 11


def _blur(x: Array) -> Array:
    taps = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / 1.5) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        x = np.lib.stride_tricks.sliding_window_view(x, _WINDOW, axis) @ taps
    return x


def sharpness(said: Picture, true: Picture) -> float:
    """Variance of the Laplacian, output over truth: below 1 is blur, above 1 is noise."""
    return float(_laplacian(luma(said)).var() / max(_laplacian(luma(true)).var(), 1e-9))


def _laplacian(x: Array) -> Array:
    return cast(Array, x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1])


BLOCK: Final = 64
JUST_NOTICED: Final = 0.63
"""The probability at which blur is just noticed."""


def cpbd(picture: Picture) -> float:
    """Narvekar and Karam 2011: the share of edges whose blur one would not notice. An edge across a row is as wide as
    the luma about it rises or falls without a break; 5 pixels are just noticed where contrast is low (50 or less in a
    block of 64 pixels), 3 elsewhere; blocks with hardly an edge do not count. NaN when none counts."""
    grey = luma(picture)
    if min(grey.shape) < 3:
        raise ValueError(f"a picture of {grey.shape} has no edges")
    padded = np.pad(grey, 1, mode="edge")
    slope = (padded[:, 2:] - padded[:, :-2])[:-2] + 2 * (padded[:, 2:] - padded[:, :-2])[1:-1]
    slope = slope + (padded[:, 2:] - padded[:, :-2])[2:]
    steep = np.pad(slope**2, ((0, 0), (1, 1)))
    ridge = (steep[:, 1:-1] >= steep[:, :-2]) & (steep[:, 1:-1] > steep[:, 2:])
    edges = ridge & (slope**2 > 4 * np.mean(slope**2))
    widths = _edge_widths(grey, slope)
    shares = []
    rows, columns = (np.array_split(np.arange(side), max(1, round(side / BLOCK))) for side in grey.shape)
    for row in rows:
        for column in columns:
            block = (slice(row[0], row[-1] + 1), slice(column[0], column[-1] + 1))
            if edges[block].mean() > 0.002:
                noticed = 5.0 if np.ptp(grey[block]) <= 50 else 3.0
                shares.append(1 - np.exp(-((widths[block][edges[block]] / noticed) ** 3.6)))
    return float((np.concatenate(shares) <= JUST_NOTICED).mean()) if shares else float("nan")


def _edge_widths(grey: Array, slope: Array) -> Array:
    """[H, W]: from each pixel along its row, both ways, as far as the luma goes on as the slope says."""
    step = np.diff(grey, axis=1)
    runs = []
    for sign in (1, -1):
        goes = sign * step > 0
        after = np.zeros_like(grey)
        before = np.zeros_like(grey)
        for x in range(1, grey.shape[1]):
            before[:, x] = (before[:, x - 1] + 1) * goes[:, x - 1]
            after[:, -1 - x] = (after[:, -x] + 1) * goes[:, -x]
        runs.append(before + after)
    return np.where(slope > 0, runs[0], runs[1])


def flicker(said: npt.NDArray[np.uint8], true: npt.NDArray[np.uint8], static: Mask) -> float:
    """Mean absolute second difference in time over static pixels [H, W], output over truth; clips [T, H, W(, 3)]."""
    shaken = [np.abs(np.diff(clip[:, static].astype(np.float64), n=2, axis=0)).mean() for clip in (said, true)]
    return float(shaken[0] / max(shaken[1], 1e-9))


@dataclass(frozen=True, slots=True, eq=False)
class Complexion:
    """The colours of an avatar's shut mouth, lips and skin: what has none of them lies between parted lips.

    A table and no pair of bell curves: lips have highlights and a dark line, whose spread would swallow the teeth.
    """

    common: Mask  # [32, 32, 32]: eight levels of red, green and blue a cell

    @staticmethod
    def of(shut: Sequence[tuple[Picture, npt.ArrayLike]]) -> "Complexion":
        """From pictures of the shut mouth and their `house` points [131, 3]."""
        counts = np.zeros((_CELLS,) * 3)
        for picture, house in shut:
            np.add.at(counts, _cells(_middle_third(picture, house, 0.1)), 1.0)
        pixels = counts.sum()
        for axis in range(3):  # a cell and its neighbours: the same skin in a little more light
            wide = np.pad(counts, [(1, 1) if axis == each else (0, 0) for each in range(3)])
            counts = np.lib.stride_tricks.sliding_window_view(wide, 3, axis).sum(-1)
        return Complexion(counts > COMMON * pixels)

    def strange(self, picture: Picture) -> Mask:
        """[H, W]: pixels of colours that neither lips nor skin have."""
        return ~self.common[_cells(picture)]


COMMON: Final = 1e-3
"""Of a shut mouth's pixels: colours as rare as that are not of it."""
GAP_SHUT: Final = 0.1
"""A gap below is none: the studio's true gaps under 1 px read 0.00, those of 2 to 3 px 0.8."""
_CELLS: Final = 32


def _cells(picture: Picture) -> tuple[npt.NDArray[np.int64], ...]:
    cells = picture.astype(np.int64) * _CELLS // 256
    return cells[..., 0], cells[..., 1], cells[..., 2]


def _middle_third(picture: Picture, house: npt.ArrayLike, margin: float = 0.0) -> Picture:
    """The mouth between a third and two thirds of its width, from the lips' upper to their lower edge, and a `margin`
    of its width above and below."""
    points = np.asarray(house, np.float64)
    right, left = points[_CORNER_RIGHT, 0], points[_CORNER_LEFT, 0]
    outer = points[face.LIPS_IN_HOUSE[: len(face.LIPS_OUTER)], 1]
    beyond = margin * abs(left - right)
    rows = slice(max(0, int(outer.min() - beyond)), int(np.ceil(outer.max() + beyond)) + 1)
    return picture[rows, max(0, round(right + (left - right) / 3)) : max(0, round(left - (left - right) / 3))]


def gap(picture: Picture, complexion: Complexion, house: npt.ArrayLike) -> float:
    """The share of columns, over the middle third of the mouth, in which a run of two or more strange pixels lies
    between the edges of the lips; `house` [131, 3] are the lips of that picture. 0 when shut."""
    between = complexion.strange(_middle_third(picture, house))
    return float((between[1:] & between[:-1]).any(0).mean())


def gaps(clips: Iterable[tuple[Array, Sequence[Phone]]]) -> dict[str, float]:
    """From gaps [T] and phones: `gap_shut`, the share of m b p within 40 ms of which no gap is seen, and `gap_open`,
    the share of open vowels at whose centre there is one: a mouth that never moves has but one of them."""
    shut: list[bool] = []
    parted: list[bool] = []
    for seen, phones in clips:
        shown = seen < GAP_SHUT
        for phone in phones:
            if phone.name in BILABIALS:
                shut.append(bool(shown[_frames_near(phone.start, phone.end, len(seen))].any()))
            elif phone.name in OPEN_VOWELS:
                parted.append(not shown[_frames_near(phone.centre, phone.centre, len(seen), near=0.0)].any())
    return {
        "gap_shut": float(np.mean(shut)) if shut else float("nan"),
        "gap_open": float(np.mean(parted)) if parted else float("nan"),
    }
