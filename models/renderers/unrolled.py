"""A film as LipSync3D sees it: of each frame the texture round the lips, in no light, and the way back to the frame.

    unroller = Unroller.of(picture, points)         # the reference: facing the camera, the mouth at rest
    seen = unroller(clip, mean, size)

The steps are the paper's (section 3.1): vertices are brought to the reference's pose by the rigid ones among them, the
triangles put on its cylinder, highlights removed, the light brought to the reference's, which was made even first. The
same gives the light of a frame for what is painted into it (`Unrolled.gain`, `colour`). Light is smooth: it is looked
for where the texture is coarse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import face, metrics
from .fit import Clip, Picture
from .lighting import evened, filled, light, matt
from .placing import HOLDS, Floats, apply, inverse, smoothed, towards
from .unwrap import CROP, VERTICES, corner_of_crop, cylinder, gathered, moved, smooth_map, sources_of

COARSER: Final = 4
LIGHTS: Final = 16
"""As many places a side are kept of a light's gain."""


class Unrolled(NamedTuple):
    atlas: Tensor  # uint8 [N, 3, 128, 128], in no light
    covered: Tensor  # bool [N, 1, 128, 128]: what the mesh shows; the rest is the reference's
    flat: Floats  # [N, 468, 2]: the vertices, in pixels of that crop
    maps: Tensor  # [N, 2, 10]: patch pixel → atlas pixel, see `smooth_map`
    gain: Tensor  # [N, 1, 16, 16]: the frame's light, on the even texture
    colour: Tensor  # [N, 2, 3]: scale, offset


def joined(parts: Sequence[Unrolled]) -> Unrolled:
    """Of several clips."""
    flat = np.concatenate([part.flat for part in parts])
    atlas, covered, maps, gain, colour = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("atlas", "covered", "maps", "gain", "colour")
    )
    return Unrolled(atlas, covered, flat, maps, gain, colour)


@dataclass(frozen=True, eq=False)
class Unroller:
    vertices: Floats  # [468, 3] of the reference, in pixels of its picture
    texture: Picture  # [128, 128, 3]: its own, made even, whole
    lights: bool = True
    """False: nothing is done about light, which is what the paper's figure 6 compares with."""
    shines: bool = True
    """False: highlights stay."""

    @staticmethod
    def of(picture: Picture, points: npt.ArrayLike, lights: bool = True, shines: bool = True) -> "Unroller":
        vertices = np.asarray(points, np.float32)[:VERTICES]
        flat = cylinder(vertices).unrolled(vertices) - np.array(corner_of_crop(), np.float32)
        raw, covered = moved(picture, vertices, flat, CROP)
        known = torch.from_numpy(covered)[None, None]
        texture = torch.from_numpy(raw).permute(2, 0, 1)[None]
        if lights:
            texture = matt(texture, _skin(flat, covered)) if shines else texture
            texture = evened(filled(texture, known))
        texture = filled(texture, known)
        return Unroller(vertices, _bytes(texture)[0].permute(1, 2, 0).numpy(), lights, shines)

    @property
    def flat(self) -> Floats:
        """The reference's vertices [468, 2], in pixels of the crop."""
        return cylinder(self.vertices).unrolled(self.vertices) - np.array(corner_of_crop(), np.float32)

    @property
    def reference(self) -> Tensor:
        """[3, 128, 128] in 0…1."""
        return torch.from_numpy(self.texture).permute(2, 0, 1).float() / 255

    def __call__(self, clip: Clip, mean: Floats, size: int) -> Unrolled:
        """`mean` [478, 2] is the person's face in patch pixels."""
        to_frame = towards(clip.points, mean)
        turned = self._turned(clip.points)
        at = np.array(corner_of_crop(), np.float32)
        flats = cylinder(self.vertices).unrolled(turned) - at
        reference, home = self.texture, self.flat
        raws, likes, covers, skins, maps = [], [], [], [], []
        for picture, points, flat, similarity in zip(clip.pictures, clip.points, flats, to_frame, strict=False):
            both = np.concatenate([points[:VERTICES, :2], home], 1)
            sources, covered = sources_of(both.astype(np.float64), flat.astype(np.float64), CROP)
            raws.append(gathered(picture, sources[..., :2]))
            likes.append(gathered(reference, sources[..., 2:]))
            covers.append(covered)
            skins.append(_skin(flat, covered))
            there = apply(inverse(similarity[None]), points[None, :VERTICES, :2])[0]
            maps.append(smooth_map(there, flat + at, size))
        shown = torch.from_numpy(np.stack(covers))[:, None]
        raw, like = (torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2) for some in (raws, likes))
        whole = self.reference[None]
        raw, like = torch.where(shown, raw, whole), torch.where(shown, like, whole)
        even, gain, colour = self._in_no_light(raw, like, torch.cat(skins))
        even = torch.where(shown, even, whole)
        return Unrolled(_bytes(even), shown, flats[: len(raws)], torch.from_numpy(np.stack(maps)), gain, colour)

    def _turned(self, points: Floats) -> Floats:
        """[T, 478, 3] → the vertices [T, 468, 3] in the reference's pose."""
        held = list(HOLDS)
        there = np.broadcast_to(self.vertices[held], (len(points), len(held), 3))
        pose = metrics.umeyama(smoothed(points[:, held]), there)
        return np.asarray(pose(points[:, :VERTICES]), np.float32)

    def _in_no_light(self, raw: Tensor, like: Tensor, skin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = len(raw)
        one, still = torch.ones(count, 1, LIGHTS, LIGHTS), torch.tensor([[1.0] * 3, [0.0] * 3]).expand(count, -1, -1)
        if not self.lights:
            return raw, one, still
        clean = raw
        if self.shines:
            clean = torch.cat([matt(raw[n : n + 8], skin[n : n + 8]) for n in range(0, count, 8)])
        coarse, coarse_like = F.avg_pool2d(clean, COARSER), F.avg_pool2d(like, COARSER)
        off = light(coarse, coarse_like)
        wide = F.interpolate(off.gain, (CROP, CROP), mode="bilinear", align_corners=False)
        even = off._replace(gain=wide).on(clean)
        # The way back: what makes the even texture as the frame is.
        on = light(F.avg_pool2d(even.clamp(0, 1), COARSER), F.avg_pool2d(raw, COARSER))
        gain = F.adaptive_avg_pool2d(on.gain, LIGHTS)
        return even, gain, torch.stack([on.scale.flatten(1), on.offset.flatten(1)], 1).expand(count, -1, -1)


def _skin(flat: Floats, covered: npt.NDArray[np.bool_]) -> Tensor:
    """[1, 1, 128, 128]: covered, and no lips nor what is between them."""
    house = np.zeros((len(face.HOUSE), 3), np.float32)
    inside = np.isin(face.HOUSE, np.arange(VERTICES))
    house[inside, :2] = flat[face.HOUSE[inside]]
    box = metrics.lips_box(house, CROP, CROP)
    skin = torch.from_numpy(covered).float()[None, None].clone()
    skin[..., box.top : box.bottom, box.left : box.right] = 0
    return skin


def _bytes(texture: Tensor) -> Tensor:
    return (texture.clamp(0, 1) * 255).round().to(torch.uint8)
