"""A made face in motion, for tests of scores, losses and networks: no person, no camera, no ../shared."""

import numpy as np
import numpy.typing as npt

from models import face

Array = npt.NDArray[np.float64]


def rest_mesh() -> Array:
    """[478, 3] in pixels: an oval mask of points, the named ones where a face has them, eye corners 100 apart."""
    rng = np.random.default_rng(7)
    mesh = rng.uniform(-1, 1, (478, 3)) * [80, 110, 10] + [250, 250, 0]
    mesh[:, 2] += 0.004 * ((mesh[:, 0] - 250) ** 2)
    mesh[face.EYE_CORNERS[0]], mesh[face.EYE_CORNERS[1]] = [200, 210, 10], [300, 210, 10]
    around = np.linspace(np.pi, -np.pi, 20, endpoint=False)
    for ring, width, height in ((face.LIPS_OUTER, 35, 14), (face.LIPS_INNER, 28, 0.0)):
        mesh[ring] = np.stack([250 + width * np.cos(around), 310 - height * np.sin(around), -5 + 0 * around], -1)
    jaw = np.linspace(-1, 1, 17)
    mesh[face.JAW_LINE] = np.stack([250 + 75 * jaw, 370 - 70 * jaw**2, 20 * jaw**2], -1)
    return mesh


def speaking(openings: npt.ArrayLike, mesh: Array | None = None) -> Array:
    """[T, 478, 3]: the mask with its inner lips `openings` [T] pixels apart, and the jaw half as far down."""
    opened = np.asarray(openings, np.float64)
    mesh = rest_mesh() if mesh is None else mesh
    points = np.repeat(mesh[None], len(opened), 0)
    lower = np.sin(np.linspace(np.pi, -np.pi, 20, endpoint=False))
    for ring in (face.LIPS_INNER, face.LIPS_OUTER):
        points[:, ring, 1] += np.where(lower < 0, -lower, 0) * opened[:, None]
    points[:, face.JAW_LINE, 1] += 0.5 * opened[:, None] * (1 - np.linspace(-1, 1, 17) ** 2)
    return points


def turned(points: Array, degrees: npt.ArrayLike, scale: float = 1.0, shift: tuple[float, float] = (0, 0)) -> Array:
    """The same under another camera: turned about the vertical and the line of sight, scaled, moved."""
    angle = np.radians(np.broadcast_to(np.asarray(degrees, np.float64), len(points)))
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros(len(points)), np.ones(len(points))
    yaw = np.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(-1, 3, 3)
    roll = np.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    middle = points.mean(1, keepdims=True)
    moved = (points - middle) @ (yaw @ roll).swapaxes(-1, -2) * scale + middle
    return moved + np.array([*shift, 0.0])
