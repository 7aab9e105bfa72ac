"""The face's vocabulary: which points travel, their places in other people's numberings, the names of expressions.

Points are MediaPipe's face mesh (478 with irises). "Right" and "left" are the person's own: her right eye is on the
left of the picture. Nothing here needs torch or mediapipe: the engine and the CPU runtime import this file.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# --- Points ----------------------------------------------------------------------------------------------------------


def _points(*indices: int) -> Indices:
    array = np.array(indices, np.int64)
    array.setflags(write=False)  # shared by everyone
    return array


def _joined(*sets: Indices) -> Indices:
    return _points(*np.concatenate(sets).tolist())


# Rings run from the person's right corner over the upper lip to the left corner, and back below.
LIPS_OUTER: Final = _points(
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
LIPS_INNER: Final = _points(
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415),
    *(308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
LIPS: Final = _joined(LIPS_OUTER, LIPS_INNER)
"""MediaPipe's 40 lip points: what every lip metric is taken over."""

INNER_UPPER: Final = 13
INNER_LOWER: Final = 14
"""The middle of the inner lips: their distance is the opening of the mouth."""
MOUTH_CORNERS: Final = (61, 291)

CHIN: Final = 152
JAW_LINE: Final = _points(132, 58, 172, 136, 150, 149, 176, 148, CHIN, 377, 400, 378, 379, 365, 397, 288, 361)
"""The lower face oval from the right ear to the left, chin in the middle, to be drawn as one line."""
JAW: Final = _points(*(int(i) for i in JAW_LINE if i != CHIN))
"""The same without the chin, which travels with the lips."""

TEMPLES: Final = _points(162, 127, 234, 93, 323, 454, 356, 389)
"""Where the face oval rises beside the eyes."""

BROW_RIGHT: Final = _points(70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
BROW_LEFT: Final = _points(336, 296, 334, 293, 300, 285, 295, 282, 283, 276)
"""Upper edge, then lower edge, each from the right of the face to its left as far as the picture shows it."""

# Eyes are rings from the right corner over the upper lid to the left corner, and back below.
EYE_RIGHT: Final = _points(33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
EYE_LEFT: Final = _points(362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382)
IRIS_RIGHT: Final = _points(468, 469, 470, 471, 472)
IRIS_LEFT: Final = _points(473, 474, 475, 476, 477)
"""Centre, then four points of the rim; only in the 478."""
EYE_CORNERS: Final = (33, 263)
"""The outer ones. Their distance is the unit of every metric."""

NOSE_RIDGE: Final = _points(168, 6, 197, 195, 5, 4, 1)
NOSE_BASE: Final = _points(64, 98, 97, 2, 326, 327, 294)

NOSE_POSE: Final = _points(168, 98, 327)
"""The first paper's pose is three nose points; it does not say which. These span the head's rotation, and speech moves
them least: the root between the eyes, and the outer end of each nostril."""

# IP-LAP divides 131 points into 41 lip, 16 jaw and 74 pose points and names none of them. Lips and jaw line are
# MediaPipe's 40 and 17 together, so one of the 17 counts with the lips: the chin, which follows the lower lip.
HOUSE_LIPS: Final = slice(0, 41)
HOUSE_JAW: Final = slice(41, 57)
HOUSE_SPOKEN: Final = slice(0, 57)
"""Lips and jaw: what a landmark network predicts."""
HOUSE_UPPER: Final = slice(57, 131)
"""The pose points: what a landmark network is told."""

HOUSE: Final = _joined(
    *(LIPS, _points(CHIN)),
    JAW,
    *(TEMPLES, BROW_RIGHT, BROW_LEFT, EYE_RIGHT, EYE_LEFT, NOSE_RIDGE, NOSE_BASE),
)
"""[131]: the landmarks that travel, as indices of the 478."""

RIGID: Final = _points(
    *(130, 243, 463, 359),
    *(168, 6, 197, 195, 5),
    *(122, 351, 193, 417, 196, 419, 174, 399),
    *(127, 356),
)
"""What the head's pose is fitted to: beside the eyes' corners, the nose's ridge and its sides, the temples.

All near the eyes' height, and so they see least of what a tracker does when a mouth opens: it tilts the whole mesh,
forehead back and nose tip forward, and takes part of the mouth's motion for the head's. On a studio's film, whose true
pose is known, a stiff mouth is laid a seventh nearer to its place than by points from the hairline down, a quarter
nearer than by the nose's tip and base as well.
"""

DLIB_JAW: Final = _points(127, 234, 93, 132, 58, 136, 150, 176, CHIN, 400, 379, 365, 288, 361, 323, 454, 356)
DLIB: Final = _joined(
    DLIB_JAW,
    _points(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    _points(168, 197, 5, 4, 98, 97, 2, 326, 327),
    _points(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    _points(61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178),
)
"""[68]: the points of the 478 that resemble dlib's, in dlib's order, as the first paper chose its own."""

DLIB_LIPS: Final = slice(48, 68)
"""The first paper's 20 lip points, its "mouth"; the other 48 are what it is told."""

# Zheng et al. generate 20 mouth and 9 jaw points of the 68, and are told the 8 of the jaw line above them: the cheeks.
CHEEKS: Final = _joined(DLIB_JAW[:4], DLIB_JAW[13:])
DLIB_LOWER_JAW: Final = slice(4, 13)


def _places(points: Indices, within: Indices) -> Indices:
    """Where each of `points` stands in `within`; each must be there."""
    at = {int(index): place for place, index in enumerate(within)}
    return _points(*(at[int(index)] for index in points))


DLIB_IN_HOUSE: Final = _places(DLIB, HOUSE)
"""[68]: HOUSE holds all of them, so that no lift is needed to measure in the first paper's set."""
LIPS_IN_HOUSE: Final = _places(LIPS, HOUSE)
JAW_LINE_IN_HOUSE: Final = _places(JAW_LINE, HOUSE)
NOSE_POSE_IN_HOUSE: Final = _places(NOSE_POSE, HOUSE)
CHEEKS_IN_HOUSE: Final = _places(CHEEKS, HOUSE)


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
