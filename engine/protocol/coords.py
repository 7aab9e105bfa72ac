"""Coordinate systems: glTF, Unity, Unreal."""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from models.rates import BLENDSHAPES

Floats = npt.NDArray[np.float32]


Coords = Literal["gltf", "unity", "unreal"]

HEAD: Final = BLENDSHAPES
"""Where the head's 4 + 3 + 2 numbers begin in a face of the engine."""

SYSTEMS: Final[dict[Coords, tuple[npt.NDArray[np.intp], Floats]]] = {
    # Of the nine head numbers qx qy qz qw px py pz yaw pitch: which canonical one goes where, times what.
    "gltf": (np.arange(9), np.ones(9, np.float32)),
    "unity": (np.arange(9), np.array([1, -1, -1, 1, -1, 1, 1, -1, 1], np.float32)),
    "unreal": (
        np.array([2, 0, 1, 3, 6, 4, 5, 7, 8], np.intp),
        np.array([-1, 1, -1, 1, 100, -100, 100, -1, -1], np.float32),
    ),
}


def head_in(coords: Coords, head: Floats) -> Floats:
    """[9] canonical (glTF: right-handed, +Y up, +Z forward, metres) → [9] in another system.

    Unity is left-handed, +Y up, +Z forward, metres; Unreal is left-handed, +X forward, +Z up, centimetres. Gaze angles
    follow the system's own rotations: canonical yaw grows to the person's left and pitch downwards; Unity's yaw grows
    to the right; Unreal's yaw grows to the right and its pitch upwards.
    """
    order, sign = SYSTEMS[coords]
    return np.asarray(head, np.float32)[order] * sign
