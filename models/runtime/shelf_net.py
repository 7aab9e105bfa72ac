"""The shelf of painted mouths on a device: a batch of sessions mixed and laid in one recorded step. Needs torch.

The same as `shelf.Shelf`, line for line, and held to it when it opens. Mouths and loop frames stay on the device; a
step sends three places, three shares and a frame's number for each session, and fetches its rectangle in I420.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.avatar import Array
from models.runtime import Floats, Pictures, Roi
from models.runtime.devices import Device, moved
from models.runtime.resident import ResidentStage
from models.runtime.shelf import (
    FAR_PIXELS,
    KNOT_PIXELS,
    MOST_MIXED,
    NEAR_PIXELS,
    NewShelf,
    Shelf,
    require_likeness,
    shares_of,
)
from models.runtime.slots import batches
from models.runtime.stages import PLANES, Part


class ShelfNet:
    """Implements `resident.Net`."""

    asks = ("places", "shares", "frame_back", "frame_corner", "frame_luma", "frame_u", "frame_v")
    shapes: Final[Mapping[str, tuple[int, ...]]] = {"places": (MOST_MIXED,), "shares": (MOST_MIXED,)}

    def __init__(self, shelf: Shelf, device: Device) -> None:
        self._height, self._width = shelf.height, shelf.width
        self._planes = moved(device, shelf.planes)  # [M, 3, H, W]
        self._points = moved(device, shelf.points)  # [M, 57, 2]
        self._mask = moved(device, shelf.mask)[None, None]
        self._up, self._along = moved(device, shelf.up), moved(device, shelf.along)
        self._ends = torch.tensor([shelf.planes.shape[3] - 1, shelf.planes.shape[2] - 1], device=device.where)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        places, shares = inputs["places"].long(), inputs["shares"]
        back, corner = inputs["frame_back"], inputs["frame_corner"]
        fine, coarse = self._grid(back, corner, 1), self._grid(back, corner, 2)
        bends = self._bends(places, shares, self._grid(back, corner, KNOT_PIXELS))
        planes = self._planes[places]  # [B, 3, 3, H, W]
        luma = self._mixed(planes[:, :, :1], fine[:, None] + bends, shares)
        chroma = self._mixed(planes[:, :, 1:], coarse[:, None] + bends[:, :, ::2, ::2], shares)
        fine_mask, coarse_mask = self._masked(fine), self._masked(coarse)
        painted = ((luma[:, 0], fine_mask), (chroma[:, 0], coarse_mask), (chroma[:, 1], coarse_mask))
        laid = {}
        for name, (plane, mask) in zip(PLANES, painted, strict=True):
            under = inputs[f"frame_{name}"]
            laid[name] = under + (plane - under) * mask
        return laid

    def _grid(self, back: Tensor, corner: Tensor, step: int) -> Tensor:
        """[B, h, w, 2]: where in a patch every `step`th pixel of the rectangle lies; for chroma, between two."""
        middle = 0.5 if step == 2 else 0.0
        a, b, tx, ty = back.T[:, :, None, None]
        left, top = corner.T[:, :, None, None]
        x = torch.arange(0, self._width, step, device=back.device)[None, None] + (left + middle - tx)
        y = torch.arange(0, self._height, step, device=back.device)[None, :, None] + (top + middle - ty)
        return torch.stack([a * x + b * y, a * y - b * x], 3)

    def _bends(self, places: Tensor, shares: Tensor, grid: Tensor) -> Tensor:
        """[B, 3, h, w, 2]: how far from where the mixture shows a pixel each of its mouths has it (Shepard)."""
        points = self._points[places]  # [B, 3, 57, 2]
        target = (shares[:, :, None, None] * points).sum(1)
        knots = grid.flatten(1, 2)
        squares = (knots[:, :, None] - target[:, None]).square().sum(3) + NEAR_PIXELS**2
        pull = squares.square().reciprocal()
        pull = pull / (pull.sum(2, keepdim=True) + FAR_PIXELS**-4)
        bent = (points - target[:, None]).transpose(2, 3) @ pull[:, None].transpose(2, 3)  # [B, 3, 2, knots]
        bends: Tensor = self._up @ bent.reshape(*bent.shape[:3], *grid.shape[1:3]) @ self._along
        return bends.movedim(2, 4)

    def _mixed(self, planes: Tensor, at: Tensor, shares: Tensor) -> Tensor:
        """[B, 3, C, H, W] sampled at [B, 3, h, w, 2], summed by their shares: [B, C, h, w]."""
        sampled = self._sampled(planes.flatten(0, 1), at.flatten(0, 1))
        return (sampled.reshape(*shares.shape, *sampled.shape[1:]) * shares[:, :, None, None, None]).sum(1)

    def _masked(self, at: Tensor) -> Tensor:
        """The mask in 255 steps, as the shelf keeps it."""
        sampled = self._sampled(self._mask.expand(len(at), -1, -1, -1), at)
        return (255 * sampled[:, 0]).round() / 255

    def _sampled(self, planes: Tensor, at: Tensor) -> Tensor:
        where = 2 * at / self._ends - 1
        return functional.grid_sample(planes, where, "bilinear", "border", align_corners=True)


class ResidentShelf:
    """Implements `shelf.PaintsMouths`. Raises `RuntimeError` when it does not paint as the reference does."""

    def __init__(self, reference: Shelf, frames: int, slots: int, device: Device) -> None:
        net = ShelfNet(reference, device)
        under = [np.stack(plane) for plane in zip(*(reference.under(index) for index in range(frames)), strict=True)]
        rows = {
            "back": reference.back.astype(np.float32),
            "corner": np.array(reference.corners, np.float32),
            **dict(zip(PLANES, under, strict=True)),
        }
        part = Part("shelf", b"", "f32", {}, rows, PLANES)
        self._stage = ResidentStage(part, slots, device, lambda *_: net)
        self._corners = reference.corners
        require_likeness(self, reference, frames)

    def paint(self, slots: Sequence[int], weights: Floats, index: Sequence[int]) -> list[Roi]:
        cut = batches(len(slots))
        return [roi for part in cut for roi in self._painted(slots[part], weights[part], index[part])]

    def _painted(self, slots: Sequence[int], weights: Floats, index: Sequence[int]) -> list[Roi]:
        places, shares = shares_of(weights)
        given = {"places": places.astype(np.float32), "shares": shares}
        painted = self._stage.run(slots, [False] * len(slots), index, given)
        home = self._stage.fetch({name: painted[name] for name in PLANES})
        planes = zip(*(home[name] for name in PLANES), strict=True)
        return [Roi(*self._corners[at], *each) for at, each in zip(index, planes, strict=True)]


def shelves_on(device: Device, slots: int) -> NewShelf:
    def shelf(mouths: Mapping[str, Array], similarity: Floats, loop: Pictures) -> ResidentShelf:
        return ResidentShelf(Shelf(mouths, similarity, loop), len(loop), slots, device)

    return shelf
