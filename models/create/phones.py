"""Do the lips meet when they must? Asked where it is known when which phone is said: in the studio's recordings.

Twice: of landmarks, against the phones' times; and of pixels, since a tracker calls lips shut that are 4 mm apart.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from models import face, metrics
from models.avatar import LOOP, Avatar, loop_frames
from models.create.film import Floats, Picture
from models.create.fit import Piece
from models.create.package import rgb_of
from models.rates import FRAME_RATE

SHUTTEST: Final = 12
"""Loop frames whose colours are those of a shut mouth; a loop is chosen where the mouth rests."""


def phones_of(piece: Piece) -> list[metrics.Phone]:
    """Of the studio's labels, where they lie beside the film; in seconds of the piece."""
    labels = piece.path.with_suffix(".labels.npz")
    if not labels.is_file():
        return []
    begin, end = piece.frames.start / FRAME_RATE, piece.frames.stop / FRAME_RATE
    with np.load(labels, allow_pickle=False) as file:
        if "phones" not in file:
            return []
        told = [(str(name), float(start), float(stop)) for start, stop, name in file["phones"].tolist()]
    within = [(name, start, stop) for name, start, stop in told if start >= begin and stop <= end]
    return [metrics.Phone(name, start - begin, stop - begin) for name, start, stop in within]


def complexion_of(avatar: Avatar) -> metrics.Complexion:
    """What its mouth looks like when it is shut."""
    points = avatar.tensors("loop.safetensors", LOOP)["points"].astype(np.float64)
    shut = set(np.argsort(metrics.opening(points), kind="stable")[:SHUTTEST].tolist())
    chosen = [(rgb_of(frame), points[at]) for at, frame in enumerate(loop_frames(avatar)) if at in shut]
    return metrics.Complexion.of(chosen)


def gaps_seen(pictures: Iterable[Picture], points: Floats, complexion: metrics.Complexion) -> npt.NDArray[np.float64]:
    """[T]: the gap between the lips in each picture, whose mesh is `points` [T, 478, 3]."""
    house = points[:, face.HOUSE]
    return np.array([metrics.gap(one, complexion, at) for one, at in zip(pictures, house, strict=False)], np.float64)


def closures(clips: Sequence[metrics.Performance]) -> dict[str, float]:
    """Of landmarks: how often the lips meet at m b p, and only there."""
    widths = [metrics.mouth_width(clip.truth) for clip in clips]
    told = [(metrics.relative_opening(c.prediction, w), c.phones) for c, w in zip(clips, widths, strict=True)]
    return {**metrics.closures(told), **metrics.lip_auc(told)}
