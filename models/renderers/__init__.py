"""Landmarks and the reference loop's frame in, the finished picture out: what every renderer has in common.

`prepare(loop) → features`          once for each avatar: rows [N, …], one for each frame of the loop, by name
`paint(features, index, points, code, state) → (patch, mask, state)`
`place(features, index, patch, mask) → Placed`: the loop frame's rectangle with the patch laid into it

Batch first. `points` [B, 131, 3] are `face.HOUSE` in loop-frame pixels; `code` [B, C] is what was heard; a patch is
[B, 3, S, S] RGB in 0…1 in the pose-normal space of the mouth, its mask [B, 1, S, S]. Where the mask is 0 the loop
frame's own values come out, exactly. State is `()` but for renderers that look at what they painted last.

A renderer writes `draw`, which takes rows that are gathered already: that is what is exported, so that a runtime keeps
the features wherever it likes. Everything is in the graph: raster, network, warp, the blend into I420.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..streaming import State
from .placing import Placed, place_rows

Features = Mapping[str, Tensor]
"""Rows [N, …] by name. Of every renderer: `similarity` [N, 4], `corner` [N, 2], `luma` [N, h, w], `u`, `v`
[N, h / 2, w / 2]: where the patch goes, the rectangle's even corner, and the loop's own rectangle in 0…255."""


class Loop(NamedTuple):
    """The reference loop, as a renderer is shown it."""

    patches: Tensor  # [N, 3, S, S]: the frames' own mouths, RGB in 0…1
    similarity: Tensor  # [N, 4] a b tx ty: patch pixel → frame pixel
    corner: Tensor  # [N, 2]: x, y of the rectangle, even
    luma: Tensor  # [N, h, w]: what is in the rectangle, 0…255
    u: Tensor  # [N, h / 2, w / 2]
    v: Tensor


def at(features: Features, index: Tensor) -> dict[str, Tensor]:
    """The rows of the frames `index` [B]."""
    return {name: rows.index_select(0, index) for name, rows in features.items()}


class Renderer(nn.Module):
    """What a system owes: `look` and `draw`. Gives the seam."""

    lookahead = 0
    """Frames of future sketches that it needs, beyond what the landmarks heard."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def silence(self, batch: int) -> State:
        """The state of `batch` sessions that have not been painted yet."""
        return ()

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        """What it wants to know of loop frames [N, 3, S, S], as rows by name: `graphs/prepare.onnx`."""
        raise NotImplementedError

    def precisely(self, rows: Features, points: Tensor) -> dict[str, Tensor]:
        """What of the drawing is geometry, by name: joins the rows that `draw` is given, and leaves the graph beside
        the picture, since whoever computes in half precision keeps the whole of it on the way to an output."""
        return {}

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """(patch, mask, state) for rows of `prepare`'s features and of `precisely`."""
        raise NotImplementedError

    def prepare(self, loop: Loop) -> dict[str, Tensor]:
        under = {"similarity": loop.similarity, "corner": loop.corner, "luma": loop.luma, "u": loop.u, "v": loop.v}
        return {**under, **self.look(loop.patches)}

    def paint(
        self, features: Features, index: Tensor, points: Tensor, code: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        rows = at(features, index)
        return self.draw({**rows, **self.precisely(rows, points)}, points, code, state)

    def place(self, features: Features, index: Tensor, patch: Tensor, mask: Tensor) -> Placed:
        return place_rows(at(features, index), patch, mask)


def of_frame(rows: Features) -> Tensor:
    """A code [B, 0]: of renderers that are told landmarks alone."""
    return torch.zeros(len(rows["similarity"]), 0)
