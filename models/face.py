"""The face's vocabulary: which points travel, their places in other people's numberings, the names of expressions.

Points are MediaPipe's face mesh (478 with irises). "Right" and "left" are the person's own: her right eye is on the
left of the picture. Nothing here needs torch or mediapipe: the engine and the CPU runtime import this file.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# --- Expressions -----------------------------------------------------------------------------------------------------

ARKIT_52: Final[tuple[str, ...]] = (
    *("eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft"),
    *("eyeSquintLeft", "eyeWideLeft"),
    *("eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight"),
    *("eyeSquintRight", "eyeWideRight"),
    *("jawForward", "jawLeft", "jawRight", "jawOpen"),
    *("mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft", "mouthFrownRight"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthLowerDownLeft", "mouthLowerDownRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight"),
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut"),
)
"""ARKit's blendshapes in Live Link order: the order of every weight vector in this project and on its wire."""

MEDIAPIPE_52: Final[tuple[str, ...]] = ("_neutral", *sorted(name for name in ARKIT_52 if name != "tongueOut"))
"""What MediaPipe's face landmarker calls its 52 scores: ARKit's without the tongue, alphabetical, after `_neutral`."""

OCULUS_15: Final[tuple[str, ...]] = (
    *("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou"),
)
"""Meta's visemes in the order of XrFaceTrackingVisemeMETA."""

VRM_EXPRESSIONS: Final[tuple[str, ...]] = (
    *("happy", "angry", "sad", "relaxed", "surprised"),
    *("aa", "ih", "ou", "ee", "oh"),
    *("blink", "blinkLeft", "blinkRight"),
    *("lookUp", "lookDown", "lookLeft", "lookRight"),
    "neutral",
)
"""VRM 1.0's preset expressions."""

_AT: Final = {name: i for i, name in enumerate(ARKIT_52)}

_VISEME_FACES: Final[dict[str, dict[str, float]]] = {
    # What each viseme looks like in ARKit's terms, at full strength. "mouthSmile" stands for both sides.
    "PP": {"mouthPress": 0.6, "mouthRollLower": 0.4, "mouthRollUpper": 0.4, "mouthClose": 0.1},
    "FF": {"mouthRollLower": 0.7, "mouthUpperUp": 0.35, "jawOpen": 0.05},
    "TH": {"tongueOut": 0.6, "jawOpen": 0.2, "mouthLowerDown": 0.25},
    "DD": {"jawOpen": 0.15, "mouthLowerDown": 0.4, "mouthShrugUpper": 0.15},
    "kk": {"jawOpen": 0.25, "mouthUpperUp": 0.25, "mouthShrugLower": 0.1},
    "CH": {"mouthFunnel": 0.7, "jawOpen": 0.1, "mouthShrugLower": 0.2},
    "SS": {"mouthStretch": 0.45, "mouthLowerDown": 0.2, "mouthDimple": 0.2},
    "nn": {"jawOpen": 0.15, "mouthShrugUpper": 0.3, "mouthLowerDown": 0.15},
    "RR": {"mouthFunnel": 0.25, "mouthPucker": 0.4, "mouthUpperUp": 0.3, "jawOpen": 0.1},
    "aa": {"jawOpen": 0.65, "mouthLowerDown": 0.2, "mouthUpperUp": 0.1},
    "E": {"jawOpen": 0.35, "mouthStretch": 0.3, "mouthSmile": 0.15},
    "ih": {"jawOpen": 0.2, "mouthSmile": 0.4, "mouthDimple": 0.15},
    "oh": {"jawOpen": 0.4, "mouthFunnel": 0.5, "mouthPucker": 0.25},
    "ou": {"mouthPucker": 0.85, "mouthFunnel": 0.2, "jawOpen": 0.1},
}

_VOWEL_FACES: Final[dict[str, dict[str, float]]] = {
    "aa": {"jawOpen": 0.7, "mouthLowerDown": 0.2},
    "ih": {"jawOpen": 0.2, "mouthStretch": 0.5, "mouthSmile": 0.15},
    "ou": {"mouthPucker": 0.85, "mouthFunnel": 0.2, "jawOpen": 0.1},
    "ee": {"jawOpen": 0.3, "mouthSmile": 0.45, "mouthLowerDown": 0.3},
    "oh": {"jawOpen": 0.4, "mouthFunnel": 0.55, "mouthPucker": 0.2},
}


def _both_sides(name: str) -> tuple[str, ...]:
    return (name,) if name in _AT else (name + "Left", name + "Right")


def _faces(table: dict[str, dict[str, float]]) -> Floats:
    """[len(table), 52]: a row for each face of the table."""
    faces = np.zeros((len(table), len(ARKIT_52)), np.float32)
    for row, weights in zip(faces, table.values(), strict=True):
        for name, weight in weights.items():
            row[[_AT[side] for side in _both_sides(name)]] = weight
    return faces


def _inverse(faces: Floats, ridge: float = 0.01) -> Floats:
    """[n, 52] → [52, n]: weights → strengths of the faces that explain them, damped since faces resemble each other."""
    wide = faces.astype(np.float64)
    return np.asarray(wide.T @ np.linalg.inv(wide @ wide.T + ridge * np.eye(len(wide))), np.float32)


def _oculus_table() -> Floats:
    table = np.zeros((len(ARKIT_52), len(OCULUS_15)), np.float32)
    table[:, 1:] = _inverse(_faces(_VISEME_FACES))
    return table


def _vrm_table() -> Floats:
    table = np.zeros((len(ARKIT_52), len(VRM_EXPRESSIONS)), np.float32)
    table[:, VRM_EXPRESSIONS.index("aa") : VRM_EXPRESSIONS.index("oh") + 1] = _inverse(_faces(_VOWEL_FACES))
    for expression, sources in {
        "happy": {"mouthSmile": 0.5},
        "angry": {"browDown": 0.5},
        "sad": {"mouthFrown": 0.5},
        "surprised": {"eyeWide": 0.25, "browOuterUp": 0.25},
        "blink": {"eyeBlink": 0.5},
        "blinkLeft": {"eyeBlinkLeft": 1.0},
        "blinkRight": {"eyeBlinkRight": 1.0},
        "lookUp": {"eyeLookUp": 0.5},
        "lookDown": {"eyeLookDown": 0.5},
        "lookLeft": {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5},
        "lookRight": {"eyeLookOutRight": 0.5, "eyeLookInLeft": 0.5},
    }.items():
        for name, weight in sources.items():
            for side in _both_sides(name):
                table[_AT[side], VRM_EXPRESSIONS.index(expression)] = weight
    return table


ARKIT_TO_OCULUS: Final[Floats] = _oculus_table()
"""[52, 15], without silence, which is what the others leave over."""

ARKIT_TO_VRM: Final[Floats] = _vrm_table()
"""[52, 18]. `relaxed` and `neutral` stay 0: nothing in a face says them."""

ARKIT_TO_MEDIAPIPE: Final[Floats] = np.array([[a == m for m in MEDIAPIPE_52] for a in ARKIT_52], np.float32)
"""[52, 52]: a permutation, but for the tongue, which MediaPipe has not, and `_neutral`, which ARKit has not."""


def oculus_from_arkit(weights: Floats) -> Floats:
    """[..., 52] in 0…1 → [..., 15] in 0…1, summing to at most 1 with `sil` taking what is left."""
    visemes = np.clip(np.asarray(weights, np.float32) @ ARKIT_TO_OCULUS, 0.0, 1.0)
    visemes /= np.maximum(visemes.sum(-1, keepdims=True), 1.0)
    visemes[..., 0] = 1.0 - visemes.sum(-1)
    return np.clip(visemes, 0.0, 1.0)


def arkit_from_oculus(visemes: Floats) -> Floats:
    """[..., 15] in 0…1 → [..., 52] in 0…1: the faces of `oculus_from_arkit`, mixed."""
    return np.clip(np.asarray(visemes, np.float32)[..., 1:] @ _faces(_VISEME_FACES), 0.0, 1.0)


def vrm_from_arkit(weights: Floats) -> Floats:
    """[..., 52] in 0…1 → [..., 18] in 0…1.

    A viewer that sets `blink` as well as `blinkLeft` and `blinkRight` shuts the eyes twice: set the one or the two.
    """
    return np.clip(np.asarray(weights, np.float32) @ ARKIT_TO_VRM, 0.0, 1.0)


def arkit_from_mediapipe(scores: Floats) -> Floats:
    """[..., 52] of `MEDIAPIPE_52` → [..., 52] of `ARKIT_52`; the tongue is 0."""
    return np.asarray(scores, np.float32) @ ARKIT_TO_MEDIAPIPE.T


def mediapipe_from_arkit(weights: Floats) -> Floats:
    """[..., 52] of `ARKIT_52` → [..., 52] of `MEDIAPIPE_52`; `_neutral` is 0."""
    return np.asarray(weights, np.float32) @ ARKIT_TO_MEDIAPIPE
