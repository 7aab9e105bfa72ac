"""The whole face after the few points that speech moves: how far each of MediaPipe's vertices goes along with each.

Shares and no directions, so that they hold however the head is turned: a vertex moves by a weighted sum of how the lips
and the jaw move. Found by ridge regression over the person's own footage, in the pose-normal space.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from models import face, metrics
from models.rates import DENSE_POINTS, POINTS

RIDGE: Final = 0.02
"""Of the mean square motion: lips move alike, and no single one of them should count for much."""
FRAMES_MOST: Final = 1500
NOSE_TIP: Final = 1
"""What lies above does not follow speech: there it is the tracker that moves."""


def follows(takes: Sequence[npt.NDArray[np.float32]], mesh: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """[468, 131] from tracked points [T, 478, 3]; `mesh` [478, 3] is the person's mean face."""
    normal = np.concatenate([metrics.pose_normal(points, mesh)(points) for points in takes])
    normal = normal[:: max(1, len(normal) // FRAMES_MOST)]
    moved = normal - normal.mean(0)
    spoken = face.HOUSE[face.HOUSE_SPOKEN]
    x = moved[:, spoken].swapaxes(1, 2).reshape(-1, len(spoken))  # [3 T, 57]
    y = moved[:, :DENSE_POINTS].swapaxes(1, 2).reshape(-1, DENSE_POINTS)
    square = x.T @ x
    shares = np.linalg.solve(square + RIDGE * np.trace(square) / len(square) * np.eye(len(square)), x.T @ y).T
    shares[normal[:, :DENSE_POINTS, 1].mean(0) < normal[:, NOSE_TIP, 1].mean()] = 0.0
    told = np.zeros((DENSE_POINTS, POINTS), np.float32)
    told[:, face.HOUSE_SPOKEN] = shares
    told[face.HOUSE] = np.eye(POINTS, dtype=np.float32)  # these are given
    return told
