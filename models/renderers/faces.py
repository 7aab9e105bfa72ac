"""A film as Zheng et al. and IP-LAP see it: whole faces in the pose-normal space, and all that can be drawn of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import face
from .fit import Clip, hole_and_mask
from .placing import CHIN, NOSE_TIP, Floats, apply, canon, inverse, similarities, towards, warped

WHOLE_NOSE: Final = 0.42
WHOLE_CHIN: Final = 0.84
"""Of a patch's height: where the tip of the nose and the chin at rest are, so that the lower half begins between nose
and lip, and the brow is at the top."""
MOUTH_SIZE: Final = 128


@dataclass(frozen=True, eq=False)
class Faces:
    patches: Tensor  # uint8 [N, 3, S, S]
    house: Tensor  # [N, 131, 2] in patch pixels
    code: Tensor  # [N, C]: what was heard, if anything
    clip: npt.NDArray[np.int64]  # [N]
    similarity: Floats  # [N, 4]: patch pixel → frame pixel

    def __len__(self) -> int:
        return len(self.clip)

    def near(self, rows: npt.NDArray[np.int64], by: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """The rows so many frames on, but never out of the clip."""
        starts = np.searchsorted(self.clip, self.clip[rows])
        ends = np.searchsorted(self.clip, self.clip[rows], side="right") - 1
        return np.asarray(np.clip(rows + np.asarray(by), starts, ends), np.int64)


def whole_face(clips: Sequence[Floats], size: int) -> Floats:
    """A person's mean face [478, 2] in pixels of a patch that shows all of it."""
    mean = canon(list(clips), size)
    side = (mean[CHIN, 1] - mean[NOSE_TIP, 1]) / (WHOLE_CHIN - WHOLE_NOSE)
    corner = np.array([(size - 1) / 2 - side / 2, mean[NOSE_TIP, 1] - WHOLE_NOSE * side])
    return np.asarray((mean - corner) * (size / side) - 0.5, np.float32)


def faces(clips: Sequence[Clip], mean: Floats, size: int, codes: Sequence[Tensor] | None = None) -> Faces:
    """Reads the clips. `codes`: of each, what is heard [T, C]."""
    patches, house, clip, similarity, heard = [], [], [], [], []
    for number, one in enumerate(clips):
        if not np.isfinite(one.points).all():
            raise ValueError(f"the face was lost in clip {number}: cut it there or track it again")
        to_frame = towards(one.points, mean)
        pictures = [warped(picture, there, size) for picture, there in zip(one.pictures, to_frame, strict=False)]
        count = len(pictures)
        patches += pictures
        house.append(apply(inverse(to_frame[:count]), one.points[:count][:, face.HOUSE, :2]))
        clip += [number] * count
        similarity.append(to_frame[:count])
        heard.append(codes[number][:count] if codes else torch.zeros(count, 0))
    return Faces(
        torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate(house)),
        torch.cat(heard),
        np.array(clip),
        np.concatenate(similarity),
    )


def lower_face(clips: Sequence[Floats], mean: Floats, size: int) -> tuple[Tensor, Tensor]:
    """`fit.hole_and_mask` for any patch: [S, S] each, where the old mouth and jaw are hidden, and the share of what is
    painted in the picture. One law for all renderers, so that one table can hold them."""
    near = canon(list(clips), MOUTH_SIZE)
    places = face.HOUSE[face.HOUSE_SPOKEN]
    spoken = np.concatenate([apply(inverse(towards(points, near)), points[:, places, :2]) for points in clips])
    both = torch.stack(hole_and_mask(near, spoken, MOUTH_SIZE))[None]
    a, b, tx, ty = similarities(mean[None], near)[0].tolist()
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    grid = torch.stack([a * x - b * y + tx, b * x + a * y + ty], -1)[None] * (2 / (MOUTH_SIZE - 1)) - 1
    hole, mask = F.grid_sample(both, grid, padding_mode="zeros", align_corners=True)[0]
    edge = torch.arange(size).minimum(size - 1 - torch.arange(size)).float() / (0.05 * size)
    return (hole > 0).float(), mask * edge[:, None].minimum(edge).clamp(0, 1)


def lips_boxes(lips: Tensor, size: int) -> Tensor:
    """Lips [B, 40, 2] → [B, 1, S, S]: 1 in the box about them, a fifth larger, as `metrics.lips_box`."""
    low, high = lips.amin(1), lips.amax(1)
    grown = 0.1 * (high - low)
    (left, top), (right, bottom) = (low - grown).unbind(-1), (high + grown).unbind(-1)
    at = torch.arange(size, dtype=lips.dtype)
    across = (at >= left[:, None].floor()) & (at <= right[:, None].ceil())
    down = (at >= top[:, None].floor()) & (at <= bottom[:, None].ceil())
    return (down[:, None, :, None] & across[:, None, None]).float()
