"""The reference loop: the best stretch of footage to live in for ever, and how well its end meets its beginning.

A listener is wanted: head to the camera, mouth at rest, no hurry, and a still moment at both ends. The stretch is
played forth and back, so that the picture never jumps; only the motion turns, where the head stands still. Where the
end happens to look like the beginning, a cross-fade is used instead, and time runs forward only.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from models import face
from models.create.film import Floats, FootageError
from models.create.track import Track
from models.rates import FRAME_RATE

SECONDS_LEAST, SECONDS_MOST = 10.0, 40.0
SECONDS_USUAL: Final = 12.0
STEP: Final = 5
"""Frames between the beginnings that are tried."""
FADE_FRAMES: Final = 8
FADES_BELOW: Final = 1.0
"""Percent of the eye-corner distance by which the two ends may differ to be faded into each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Stretch:
    """Frames [start, stop) of a track, in the order in which they are played."""

    track: int
    start: int
    stop: int
    fades: bool
    """Cross-faded from end to beginning; else forth and back."""
    seam: float
    """Percent of the eye-corner distance that points jump at the join, beyond what they move from frame to frame."""

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """The frames of the loop, counted from `start`."""
        count = self.stop - self.start
        if self.fades:
            return np.arange(count - FADE_FRAMES)
        return np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)])

    @property
    def seconds(self) -> float:
        return len(self.order) / FRAME_RATE


def choose(tracks: Sequence[Track], given: tuple[float, float] | None = None) -> Stretch:
    """The best stretch, or the one `given` in seconds of the first film."""
    if given is not None:
        return _given(tracks[0], *given)
    best: tuple[float, Stretch] | None = None
    for number, track in enumerate(tracks):
        unease, takes = _unease(track), track.takes
        for take in takes:
            length = min(take.stop - take.start, round(SECONDS_USUAL * FRAME_RATE))
            for start in range(take.start, take.stop - length + 1, STEP):
                cost = _cost(unease, start, start + length)
                # A short stretch repeats itself: one that is only as long as a sentence must be much calmer.
                cost += 4.0 * max(0.0, 1 - length / (SECONDS_LEAST * FRAME_RATE))
                if best is None or cost < best[0]:
                    best = cost, Stretch(number, start, start + length, False, 0.0)
    if best is None:
        raise FootageError("no stretch of footage is good enough for a loop: film ten calm seconds, facing the camera")
    return _joined(tracks, best[1])


def cross_faded(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """[N, …] pictures → [N - FADE_FRAMES, …]: the end has become the beginning."""
    faded = pictures[: len(pictures) - FADE_FRAMES].copy()
    for step in range(FADE_FRAMES):
        share = (step + 1) / (FADE_FRAMES + 1)
        end = pictures[len(pictures) - FADE_FRAMES + step]
        faded[step] = np.rint(share * faded[step] + (1 - share) * end).astype(np.uint8)
    return faded


def faded_points(points: Floats) -> Floats:
    """The same of points [N, 478, 3]."""
    faded = points[: len(points) - FADE_FRAMES].copy()
    for step in range(FADE_FRAMES):
        share = (step + 1) / (FADE_FRAMES + 1)
        faded[step] = share * faded[step] + (1 - share) * points[len(points) - FADE_FRAMES + step]
    return faded


def _given(track: Track, begin: float, end: float) -> Stretch:
    start, stop = round(begin * FRAME_RATE), round(end * FRAME_RATE)
    if not 0 <= start < stop <= len(track.points):
        raise FootageError(f"--loop {begin:g}:{end:g} is not within the film's {len(track.points) / FRAME_RATE:.1f} s")
    if not SECONDS_LEAST <= end - begin <= SECONDS_MOST:
        raise FootageError(f"--loop must be {SECONDS_LEAST:g} to {SECONDS_MOST:g} seconds long, not {end - begin:g}")
    if not track.usable[start:stop].all() or track.cut[start + 1 : stop].any():
        raise FootageError(
            f"--loop {begin:g}:{end:g} has a cut in it, or frames where the face is lost: choose another"
        )
    return _joined([track], Stretch(0, start, stop, False, 0.0))


def _unease(track: Track) -> npt.NDArray[np.float64]:
    """[T]: how unlike a calm listener each frame is. Two degrees, a hundredth of the eyes' distance a frame, a mouth
    open by a thirtieth of it: about 1 each."""
    points = track.points.astype(np.float64)
    unit = np.linalg.norm(points[:, 33] - points[:, 263], axis=-1)
    gap = np.linalg.norm(points[:, face.INNER_UPPER] - points[:, face.INNER_LOWER], axis=-1) / unit
    head = points[:, face.RIGID].mean(1)
    speed = np.concatenate([[0.0], np.linalg.norm(np.diff(head, axis=0), axis=-1)]) / unit
    away = np.abs(track.pose - np.nanmedian(track.pose, axis=0))
    calm = away[:, 0] / 8 + away[:, 1] / 8 + away[:, 2] / 8 + np.abs(track.pose[:, 0]) / 20 + 30 * speed + 15 * gap
    return np.asarray(np.where(np.isfinite(calm), calm, 100.0) + 0.5 * track.speech)


def _cost(unease: npt.NDArray[np.float64], start: int, stop: int) -> float:
    ends = 0.5 * (unease[start] + unease[stop - 1])
    return float(unease[start:stop].mean() + 0.5 * ends)


def _joined(tracks: Sequence[Track], stretch: Stretch) -> Stretch:
    points = tracks[stretch.track].points[stretch.start : stretch.stop].astype(np.float64)
    unit = np.linalg.norm(points[:, 33] - points[:, 263], axis=-1).mean() / 100
    upper = points[:, face.HOUSE[face.HOUSE_UPPER], :2] / unit
    usual = float(np.median(np.linalg.norm(np.diff(upper, axis=0), axis=-1).mean(-1)))
    pairs = zip(upper[:FADE_FRAMES], upper[-FADE_FRAMES:], strict=True)
    apart = max(float(np.linalg.norm(a - b, axis=-1).mean()) for a, b in pairs)
    fades = apart < FADES_BELOW
    if fades:
        joins = apart / FADE_FRAMES
    else:  # the motion's turn at either end: by how much a frame's motion changes
        turns = [np.linalg.norm(upper[1] - upper[0], axis=-1), np.linalg.norm(upper[-1] - upper[-2], axis=-1)]
        joins = max(float(turn.mean()) for turn in turns)
    return Stretch(stretch.track, stretch.start, stretch.stop, fades, max(0.0, joins - usual))


def pieces(tracks: Sequence[Track], seconds: float = 10.0) -> list[tuple[int, slice]]:
    """Takes cut into pieces no longer than about `seconds`: what is learned from, and what is held out."""
    cut: list[tuple[int, slice]] = []
    for number, track in enumerate(tracks):
        for take in track.takes:
            count = max(1, round((take.stop - take.start) / (seconds * FRAME_RATE)))
            edges = np.linspace(take.start, take.stop, count + 1).astype(int).tolist()
            cut += [(number, slice(a, b)) for a, b in itertools.pairwise(edges)]
    return cut


def held_out(pieces: Sequence[tuple[int, slice]], tracks: Sequence[Track]) -> tuple[list[int], list[int]]:
    """Places of the pieces to learn from and of those to measure by: spread over the footage, at least one of each.

    Of each stretch that one is held out in which as much is said as in the whole: silence says nothing of lips.
    """
    if len(pieces) < 2:
        raise FootageError(f"there are not two pieces of usable footage to learn from and to measure by: {MORE}")
    spoken = np.array([tracks[number].speech[frames].mean() for number, frames in pieces])
    lengths = np.array([frames.stop - frames.start for _, frames in pieces])
    unlike = np.abs(spoken - np.average(spoken, weights=lengths))
    count = max(1, round(HELD_SHARE * len(pieces)))
    stretches = np.array_split(np.arange(len(pieces)), count)
    held = [min(stretch.tolist(), key=lambda n: (unlike[n], abs(n - stretch.mean()))) for stretch in stretches]
    return [n for n in range(len(pieces)) if n not in held], held


HELD_SHARE: Final = 0.12

MORE: Final = "film at least a minute of one person speaking, without cuts"
