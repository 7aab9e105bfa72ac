"""What a learned painter is given of each frame of a loop, and the painter of avatars whose mouths are chosen.

Beside `paint.onnx` (see `networks`) a package's `graphs/` may hold

    prepare.onnx           looks: luma [B, H, W], u and v [B, H / 2, W / 2] of whole frames in 0…255, similarity [B, 4]
                           → what the painter wants to know of them, by name
    frames.safetensors     with `extent` [N, 2], height and width of the painted rectangle, the same in each row

Then `frame_luma`, `frame_u`, `frame_v` are what the loop has in the rectangle, cut out when they are asked for, and
`frame_NAME` what `prepare` said of each frame, when the avatar was opened; it is kept in 16 bits. No torch.

An avatar of kind "plain" may have a painter too. Its mouths are chosen as ever, and painted where their points are:
`golden.safetensors` in `graphs/` holds points, the frames they are painted on, and the luma that the reference painted.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.avatar import Avatar, PackageError
from models.runtime import Floats, Pictures, Roi, loops
from models.runtime.plain import NewPainter
from models.runtime.slots import batches
from models.runtime.stages import PLANES, TOLERANCE, MakeStage, Part, arrays, in_bytes

_log = logging.getLogger(__name__)

FRAMES: Final = "graphs/frames.safetensors"
PREPARE: Final = "graphs/prepare.onnx"
PAINT: Final = "graphs/paint.onnx"
GOLDEN: Final = "graphs/golden.safetensors"


class Under:
    """One plane of the loop's rectangle, as rows [N, h, w] that are cut out when they are asked for."""

    dtype = np.dtype(np.uint8)

    def __init__(self, loop: Pictures, corners: npt.NDArray[np.int64], extent: tuple[int, int], plane: int) -> None:
        half = plane > 0
        self._loop, self._plane = loop, plane
        self._corners = corners // 2 if half else corners
        self.shape = (len(loop), *(side // 2 if half else side for side in extent))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        return np.stack([self._cut(int(one)) for one in index])

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[np.arange(len(self))].astype(dtype or self.dtype)

    def _cut(self, index: int) -> npt.NDArray[np.uint8]:
        x, y = self._corners[index].tolist()
        return planes_of(self._loop[index])[self._plane][y : y + self.shape[1], x : x + self.shape[2]]


def planes_of(picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], ...]:
    """I420 [H * 3 / 2, W] → luma [H, W], u and v [H / 2, W / 2]."""
    height, width = picture.shape[0] * 2 // 3, picture.shape[1]
    chroma = picture[height:].reshape(2, height // 2, width // 2)
    return picture[:height], chroma[0], chroma[1]


def frames_of(avatar: Avatar, loop: Pictures, make: MakeStage) -> dict[str, Any]:
    """A row for each frame of the loop, by name, `corner` among them."""
    frames: dict[str, Any] = dict(arrays(avatar, FRAMES))
    if any(len(rows) != len(loop) for rows in frames.values()):
        raise PackageError(f"{avatar.name}: {FRAMES} has not one row for each of {len(loop)} frames")
    if "extent" in frames:
        height, width = (int(side) for side in frames.pop("extent")[0])
        corners = frames["corner"].astype(np.int64)
        _require_within(avatar, loop, corners, height, width)
        for plane, name in enumerate(PLANES):
            frames[name] = Under(loop, corners, (height, width), plane)
    if PREPARE in avatar.files:
        frames |= _looked_at(avatar, loop, make, {"similarity": frames["similarity"]})
    return frames


def _require_within(avatar: Avatar, loop: Pictures, corners: npt.NDArray[np.int64], height: int, width: int) -> None:
    frame_height, frame_width = loop.shape[1] * 2 // 3, loop.shape[2]
    odd = height % 2 or width % 2 or height < 2 or width < 2
    beyond = (corners < 0).any() or (corners + (width, height) > (frame_width, frame_height)).any()  # noqa: RUF005
    if odd or beyond:
        raise PackageError(f"{avatar.name}: {FRAMES}: the rectangle is odd or outside of the frame")


class Looks:
    """One of the things that `prepare` said of each frame, as rows [N, …]; all of a frame lie together in `said`."""

    dtype = np.dtype(np.float16)

    def __init__(self, said: Pictures, begin: int, shape: tuple[int, ...]) -> None:
        self._said, self._begin, self._end = said, begin, begin + math.prod(shape) * self.dtype.itemsize
        self.shape = (len(said), *shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        rows = [self._said[int(one)][self._begin : self._end].view(self.dtype) for one in index]
        return np.stack(rows).reshape(len(index), *self.shape[1:])

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[np.arange(len(self))].astype(dtype or self.dtype)


def _looked_at(avatar: Avatar, loop: Pictures, make: MakeStage, frames: Mapping[str, Floats]) -> dict[str, Any]:
    """A frame's looks are a third of a megabyte: those of a long loop are kept as its pictures are, on disk."""
    stage = make(Part("prepare", avatar.read(PREPARE), "f32", {}, frames), 1)
    shapes: dict[str, tuple[int, ...]] = {}

    def said() -> Iterator[npt.NDArray[np.uint8]]:
        for index in range(len(loop)):
            planes = zip(PLANES, planes_of(loop[index]), strict=True)
            whole = {name: plane[None].astype(np.float32) for name, plane in planes}
            rows = stage.fetch(stage.run([0], [False], [index], whole))
            shapes.update({name: row.shape[1:] for name, row in rows.items()})
            yield np.concatenate([rows[name].astype(np.float16).ravel() for name in shapes]).view(np.uint8)

    everything, begin = loops.kept(said()), 0
    looks: dict[str, Any] = {}
    for name, shape in shapes.items():
        looks[name] = Looks(everything, begin, shape)
        begin += math.prod(shape) * Looks.dtype.itemsize
    return looks


class GraphPainter:
    """Implements `plain.PaintsPoints`: paints mouths of a plain avatar from their points, for `slots` sessions."""

    def __init__(
        self, avatar: Avatar, loop: Pictures, make: MakeStage, precisions: Sequence[str], slots: int = 1
    ) -> None:
        """Raises `PackageError` when no precision, the best first, paints what the reference painted."""
        frames = frames_of(avatar, loop, make)
        self._corners = frames["corner"].astype(int)
        golden = arrays(avatar, GOLDEN)
        refusal = ""
        for self.precision in precisions:
            part = Part("paint", avatar.read(PAINT), self.precision, {}, frames, PLANES, large=True)
            self._stage = make(part, slots)
            worst = self._worst(golden)
            allowed = TOLERANCE[self.precision]["luma"]
            if worst <= allowed:
                return
            refusal = f"in {self.precision} it differs from the reference by {worst:.3g}, where {allowed:g} is allowed"
        raise PackageError(f"{avatar.name}: {PAINT}: {refusal}")

    def paint(self, slots: Sequence[int], points: Floats, index: Sequence[int]) -> list[Roi]:
        """The mouths whose lips and jaws are at `points` [B, 131, 3], in the loop frames `index`."""
        return [
            roi for part in batches(len(slots)) for roi in self._painted(slots[part], points[part], list(index[part]))
        ]

    def _painted(self, slots: Sequence[int], points: Floats, index: list[int]) -> list[Roi]:
        said = self._stage.run(slots, [False] * len(slots), index, {"points": points})
        fetched = self._stage.fetch({name: said[name] for name in PLANES})
        planes = [in_bytes(fetched[name]) for name in PLANES]
        corners = self._corners[index].tolist()
        return [Roi(x, y, *painted) for (x, y), *painted in zip(corners, *planes, strict=True)]

    def _worst(self, golden: Mapping[str, Floats]) -> float:
        worst = 0.0
        for points, index, luma in zip(golden["points"], golden["index"], golden["luma"], strict=True):
            (painted,) = self.paint([0], points[None], [int(index)])
            difference = np.abs(painted.luma - luma)
            worst = max(worst, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
        return worst


def painters(make: MakeStage, precisions: Sequence[str], slots: int) -> NewPainter:
    """The learned painters of plain avatars. One that cannot be proved here is told of, and the shelf paints."""

    def painter(avatar: Avatar, loop: Pictures) -> GraphPainter | None:
        if PAINT not in avatar.files:
            return None
        try:
            return GraphPainter(avatar, loop, make, precisions, slots)
        except (PackageError, RuntimeError) as refusal:
            _log.warning("%s; its mouths are mixed from the shelf instead", refusal)
            return None

    return painter
