"""The loop's pictures: the chosen stretch, cut to head and shoulders and made no larger than it need be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn import functional as F

from models import face
from models.create.film import Floats, FootageError, Picture, pictures
from models.create.loop import Stretch, cross_faded, faded_points
from models.create.package import Scene
from models.create.track import Track

WHOLE_BELOW: Final = 720
"""A film whose height is no larger is shown whole; others are cut to a square about the head."""
HEADS: Final = 2.6
"""Side of that square, in heights of the face from brow to chin."""
FACE_LEAST: Final = 24.0
"""Pixels between the eye corners below which there is nothing to paint."""


@dataclass(frozen=True, slots=True)
class Framing:
    """What of a film is shown: a square or all, and how large it becomes. Sizes of pictures are even."""

    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int

    @staticmethod
    def of(track: Track, points: Floats, most: int) -> "Framing":
        """`points` [N, 478, 3] of the stretch; `most` pixels a side, where it is cut."""
        wide, high = track.width, track.height
        if high <= WHOLE_BELOW and wide <= 16 / 9 * high + 1:
            return Framing(0, 0, wide // 2 * 2, high // 2 * 2, wide // 2 * 2, high // 2 * 2)
        oval = points[:, [10, face.CHIN], :2].mean(0)
        side = int(min(wide, high, max(HEADS * float(np.linalg.norm(oval[0] - oval[1])), most / 2))) // 2 * 2
        middle = oval.mean(0)
        left = int(np.clip(middle[0] - side / 2, 0, wide - side)) // 2 * 2
        top = int(np.clip(middle[1] - 0.47 * side, 0, high - side)) // 2 * 2
        small = min(side, most) // 2 * 2
        return Framing(left, top, left + side, top + side, small, small)

    @property
    def scale(self) -> float:
        return self.width / (self.right - self.left)

    def points(self, points: Floats) -> Floats:
        """Pixels of the film → pixels of the picture; the middle of a pixel is a whole number."""
        moved = (points - np.array([self.left, self.top, 0], np.float32)) * self.scale
        moved[..., :2] += 0.5 * self.scale - 0.5
        return np.asarray(moved, np.float32)

    def picture(self, picture: Picture) -> Picture:
        cut = picture[self.top : self.bottom, self.left : self.right]
        if cut.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(cut)
        planes = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)[None].float()
        small = F.interpolate(planes, (self.height, self.width), mode="bilinear", antialias=True, align_corners=False)
        return np.asarray(small[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())


def scene_of(path: Path, track: Track, stretch: Stretch, most: int = 512) -> Scene:
    """The loop, in the order in which it is played."""
    part = slice(stretch.start, stretch.stop)
    framing = Framing.of(track, track.points[part], most)
    points = framing.points(track.points[part])
    eyes = float(np.linalg.norm(points[:, 33] - points[:, 263], axis=-1).mean())
    if eyes < FACE_LEAST:
        raise FootageError(f"{path.name}: the face is {eyes:.0f} pixels from eye to eye; film it twice as large")
    wanted = track.picture[part].tolist()
    kept: dict[int, Picture] = {}
    for number, (_, picture) in enumerate(pictures(path)):
        if number > wanted[-1]:
            break
        if number >= wanted[0]:
            kept[number] = framing.picture(picture)
    frames = np.stack([kept[number] for number in wanted])
    blink = track.blink[part]
    if stretch.fades:
        return Scene(cross_faded(frames), faded_points(points), blink[stretch.order])
    order = stretch.order
    return Scene(frames[order], points[order], blink[order])
