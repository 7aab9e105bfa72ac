"""Light smoothing of tracked points that keeps what matters most: lips that meet.

The Savitzky–Golay filter, as the first paper has it, takes the tracker's jitter out of every point. On lips it also
fills the short dips of m, b and p; there the lips stay as they were tracked.
"""

from typing import Final, cast

import numpy as np
import numpy.typing as npt
from scipy.signal import savgol_filter

from models import face
from models.create.film import Floats

WINDOW: Final = 5
ORDER: Final = 2
"""Frames and degree: a fifth of a second, in which a head's motion is a parabola."""
NARROW, WIDE = 0.03, 0.08
"""Openings, in mouth widths: below the first the lips are as tracked, above the second as smoothed."""


def smoothed(points: Floats) -> Floats:
    """[T, 478, 3] of one unbroken take, no NaN → the same, calmer."""
    if len(points) < WINDOW:
        return points
    calm = savgol_filter(points.astype(np.float64), WINDOW, ORDER, axis=0, mode="interp")
    kept = _closing(points)[:, None, None]
    lips = face.LIPS
    # The lips' own motion is kept; where the mouth stands in the frame is the calm head's business.
    middle, calm_middle = points[:, lips].mean(1, keepdims=True), calm[:, lips].mean(1, keepdims=True)
    calm[:, lips] = kept * (points[:, lips] - middle + calm_middle) + (1 - kept) * calm[:, lips]
    return cast(Floats, calm.astype(np.float32))


def _closing(points: Floats) -> npt.NDArray[np.float64]:
    """[T]: 1 where lips are shut or next to it, 0 where the mouth is open; a shut frame's neighbours lean to it."""
    gap = np.linalg.norm(points[:, face.INNER_UPPER] - points[:, face.INNER_LOWER], axis=-1)
    corners = points[:, list(face.MOUTH_CORNERS)].astype(np.float64)
    width = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1)
    shut = np.clip((WIDE - gap / np.maximum(width, 1e-6)) / (WIDE - NARROW), 0, 1)
    beside = np.maximum(np.concatenate([shut[1:], shut[-1:]]), np.concatenate([shut[:1], shut[:-1]]))
    return cast(npt.NDArray[np.float64], np.maximum(shut, 0.5 * beside))
