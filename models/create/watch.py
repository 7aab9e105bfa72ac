"""What MediaPipe sees in every picture of a film: 478 points, other faces, hands, dark eyes, and where a cut is.

Slower looks (other faces, hands) are taken every tenth picture and hold until the next.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models import face
from models.create.film import Film, Floats, FootageError, Picture, pictures
from models.rates import MESH_POINTS

MOST_SIDE: Final = 1280
"""Larger pictures are made smaller before anyone looks: a mesh is found in 192 pixels anyway."""
LOOK_EVERY: Final = 10
OTHER_FACE: Final = 0.35
"""Of the main face's width, from which another counts: pictures on a wall do not."""
THUMB: Final = 24
_HALF: Final = np.array([0.5, 0.5, 0.0], np.float32)
CUT: Final = 26.0
"""Mean grey levels by which two neighbouring thumbnails differ across a cut; heads that turn change 5."""


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """Per picture of the film; points in the film's own pixels, NaN where no face was found."""

    seconds: npt.NDArray[np.float64]  # [N]
    points: Floats  # [N, 478, 3]
    faces: npt.NDArray[np.int64]  # [N]
    covered: npt.NDArray[np.bool_]  # [N]: a hand before the mouth
    cut: npt.NDArray[np.bool_]  # [N]: the first picture after a cut
    eye_light: Floats  # [N]: brightness of the eyes over that of the cheeks


def watch(film: Film, told: Callable[[float], None] = lambda seconds: None) -> Watched:
    """`told` hears how many seconds have been seen."""
    seconds: list[float] = []
    points: list[Floats] = []
    looks: list[tuple[int, bool, float]] = []
    thumbs: list[Floats] = []
    first = next(pictures(film.path, MOST_SIDE), (0.0, None))[1]
    with _models(first) as (mesh, detector, hands):
        for number, (second, picture) in enumerate(pictures(film.path, MOST_SIDE)):
            seconds.append(second)
            found = _mesh(mesh, picture)
            if number % LOOK_EVERY == 0:
                looks.append(_look(picture, found, detector, hands))
            larger = film.width / picture.shape[1]
            points.append(found * larger + _HALF * (larger - 1))
            thumbs.append(_thumb(picture))
            told(second)
    if not seconds:
        raise FootageError(f"{film.path} holds no picture that can be decoded: export it again as MP4")
    held = np.minimum(np.arange(len(seconds)) // LOOK_EVERY, len(looks) - 1)
    near = np.array([seen[1] for seen in looks])
    near = near | np.roll(near, -1) & (np.arange(len(near)) < len(near) - 1)  # a hand arrives before it is looked at
    change = np.abs(np.diff(np.stack(thumbs), axis=0)).mean((1, 2))
    return Watched(
        np.array(seconds),
        np.stack(points),
        np.array([seen[0] for seen in looks])[held],
        near[held],
        np.concatenate([[False], change > CUT]),
        np.array([seen[2] for seen in looks], np.float32)[held],
    )


def mesh_of(sequence: Iterator[Picture]) -> Iterator[Floats]:
    """[478, 3] in pixels for each picture of one running sequence; NaN where no face is found."""
    first = next(sequence, None)
    if first is None:
        return
    with _models(first) as (mesh, _, _):
        yield _mesh(mesh, first)
        for picture in sequence:
            yield _mesh(mesh, picture)


def _mesh(mesh: Any, picture: Picture) -> Floats:
    height, width = picture.shape[:2]
    found = mesh.process(picture).multi_face_landmarks
    if not found:
        return np.full((MESH_POINTS, 3), np.nan, np.float32)
    marks = np.array([(mark.x, mark.y, mark.z) for mark in found[0].landmark], np.float32)
    # A pixel's middle is a whole number in this house; MediaPipe counts from the picture's edge.
    return marks * np.array([width, height, width], np.float32) - _HALF


def _look(picture: Picture, points: Floats, detector: Any, hands: Any) -> tuple[int, bool, float]:
    """Faces, a hand before the mouth, brightness of the eyes over that of the cheeks."""
    height, width = picture.shape[:2]
    boxes = [seen.location_data.relative_bounding_box for seen in detector.process(picture).detections or []]
    widths = sorted((box.width for box in boxes), reverse=True)
    faces = sum(each > OTHER_FACE * widths[0] for each in widths)
    if np.isnan(points).any():
        return faces, False, 1.0
    seen = hands.process(picture).multi_hand_landmarks or []
    lips = points[face.LIPS, :2]
    low, high = lips.min(0), lips.max(0)
    margin = 0.3 * (high - low).max()
    covered = False
    for hand in seen:
        marks = np.array([(mark.x * width, mark.y * height) for mark in hand.landmark])
        covered |= bool(((marks > low - margin) & (marks < high + margin)).all(1).any())
    return faces, covered, _eye_light(picture, points)


def _eye_light(picture: Picture, points: Floats) -> float:
    def brightness(indices: npt.NDArray[np.int64]) -> float:
        low = np.maximum(points[indices, :2].min(0), 0).astype(int)
        high = points[indices, :2].max(0).astype(int) + 1
        part = picture[low[1] : high[1], low[0] : high[0]]
        return float(part.mean()) if part.size else float("nan")

    cheeks = np.array([50, 101, 118, 280, 330, 347])
    eyes = 0.5 * (brightness(face.EYE_RIGHT) + brightness(face.EYE_LEFT))
    cheek = float(np.nanmean([brightness(cheeks[:3]), brightness(cheeks[3:])]))
    return eyes / cheek if np.isfinite(eyes) and cheek > 1 else 1.0


def _thumb(picture: Picture) -> Floats:
    rows = np.linspace(0, picture.shape[0] - 1, 4 * THUMB).astype(int)
    columns = np.linspace(0, picture.shape[1] - 1, 4 * THUMB).astype(int)
    colours = picture[rows[:, None], columns].reshape(THUMB, 4, THUMB, 12)
    return np.asarray(colours.sum((1, 3), np.int32) / np.float32(48), np.float32)


@contextmanager
def _models(first: Picture | None) -> Iterator[tuple[Any, Any, Any]]:
    """The mesh follows one face. MediaPipe's chatter, which comes with the first picture, is not for the terminal."""
    with hushed():
        from mediapipe.python.solutions import face_detection, face_mesh, hands  # slow, and only needed here

        models = (
            face_mesh.FaceMesh(refine_landmarks=True, max_num_faces=1),
            face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.6),
            hands.Hands(static_image_mode=True, max_num_hands=2, model_complexity=0),
        )
        for model in models:
            model.process(np.zeros((64, 64, 3), np.uint8) if first is None else first)
    try:
        yield models
    finally:
        for model in models:
            model.close()


@contextmanager
def hushed() -> Iterator[None]:
    """Nothing that is written to standard error in this block, by whichever library, is seen."""
    kept = os.dup(2)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(silent)
