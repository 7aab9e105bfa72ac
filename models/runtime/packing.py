"""A renderer into a package: its graphs, what they need of the loop, and the proof that travels with them.

`pack_painter(folder, renderer, similarity, points)` adds `graphs/prepare.onnx`, `paint.onnx`, `frames.safetensors` and
`golden.safetensors` to a package whose card and loop are there, and seals it again. Weights are stored in 16 bits: the
graphs compute what a renderer whose weights were rounded so computes, and that is the reference.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from models.avatar import decode_loop, read_avatar, seal, write_atomically
from models.renderers import Renderer
from models.renderers.placing import fineness, place_rows, rectangles, taken
from models.runtime import Bytes, Floats
from models.runtime.graphs import By, export_named, rounded
from models.runtime.painting import planes_of
from models.runtime.stages import PLANES
from models.streaming import leaves, rebuild

GOLDEN_PICTURES: Final = 6


class Looking(nn.Module):
    """Whole frames in I420 → what a renderer wants to know of them."""

    def __init__(self, renderer: Renderer, finer: int) -> None:
        super().__init__()
        self.renderer, self.finer = renderer, finer

    def forward(self, luma: Tensor, u: Tensor, v: Tensor, similarity: Tensor) -> tuple[Tensor, ...]:
        patches = taken(luma, u, v, similarity, self.renderer.size, self.finer)
        return tuple(self.renderer.look(patches).values())


class Painting(nn.Module):
    """Points, a code and a frame's rows → the rectangle in I420, what must stay precise, and the state after."""

    def __init__(self, renderer: Renderer, names: tuple[str, ...]) -> None:
        super().__init__()
        self.renderer, self.names = renderer, names

    def forward(self, points: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        rows = dict(zip(self.names, given, strict=False))
        state = rebuild(self.renderer.silence(1), given[len(self.names) :])
        precise = self.renderer.precisely(rows, points)
        patch, mask, after = self.renderer.draw({**rows, **precise}, points, points.new_zeros(0), state)
        return (*place_rows(rows, patch, mask), *precise.values(), *leaves(after))


class Painter:
    """A renderer over one loop: what is exported, and what it is compared with."""

    def __init__(self, renderer: Renderer, loop: Bytes, similarity: Floats, mask: Floats) -> None:
        """`loop` in I420; `similarity` [N, 4] takes patch pixels to its frames; `mask` [S, S]: what is ever painted."""
        self.renderer = rounded(renderer.eval())
        self.loop, self.similarity = loop, np.asarray(similarity, np.float32)
        height, width = loop.shape[1] * 2 // 3, loop.shape[2]
        self.height, self.width, self.corner = rectangles(mask, self.similarity, width, height)
        self._looking = Looking(renderer, fineness(self.similarity)).eval()

    @torch.no_grad()
    def rows(self, index: list[int]) -> dict[str, Tensor]:
        """Everything a painter is given of these frames, as the runtime gives it: features in 16 bits."""
        whole = [torch.stack(plane) for plane in zip(*(self._whole(one) for one in index), strict=True)]
        similarity = torch.from_numpy(self.similarity[index])
        looked = [row.half().float() for row in self._looking(*whole, similarity)]
        rows = {"similarity": similarity, "corner": torch.from_numpy(self.corner[index]).float()}
        for name, plane, step in zip(PLANES, whole, (1, 2, 2), strict=True):
            cut = []
            for one, (x, y) in zip(plane, (self.corner[index] // step).tolist(), strict=True):
                cut.append(one[y : y + self.height // step, x : x + self.width // step])
            rows[name] = torch.stack(cut)
        return rows | dict(zip(self.looks(), looked, strict=True))

    def looks(self) -> tuple[str, ...]:
        size = self.renderer.size
        with torch.no_grad():
            return tuple(self.renderer.look(torch.zeros(1, 3, size, size)))

    def _whole(self, index: int) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(plane.astype(np.float32)) for plane in planes_of(self.loop[index]))

    def prepare_graph(self, by: By = "dynamo") -> bytes:
        whole = [torch.stack(plane) for plane in zip(self._whole(0), self._whole(-1), strict=True)]
        similarity = torch.from_numpy(self.similarity[[0, -1]])
        inputs = {**dict(zip(PLANES, whole, strict=True)), "frame_similarity": similarity}
        return export_named(self._looking, inputs, self.looks(), by=by)

    def paint_graph(self, points: Tensor, by: By = "dynamo") -> bytes:
        """`points` [2, 131, 3]: any."""
        rows = self.rows([0, len(self.loop) - 1])
        state = leaves(self.renderer.silence(2))
        inputs = {"points": points, **{f"frame_{name}": row for name, row in rows.items()}}
        inputs |= {f"state_{n}": leaf for n, leaf in enumerate(state)}
        precise = self.renderer.precisely(rows, points)
        outputs = (*PLANES, *precise, *(f"after_{n}" for n in range(len(state))))
        return export_named(Painting(self.renderer, tuple(rows)), inputs, outputs, by=by)

    @torch.no_grad()
    def painted(self, points: Floats, index: int) -> Floats:
        """The luma of the rectangle that the reference paints, [h, w]."""
        rows = self.rows([index])
        said = Painting(self.renderer, tuple(rows))(
            torch.from_numpy(points)[None], *rows.values(), *leaves(self.renderer.silence(1))
        )
        return np.asarray(said[0][0].clamp(0, 255).numpy())

    def frames(self) -> dict[str, Floats]:
        count = len(self.loop)
        extent = np.repeat(np.array([[self.height, self.width]], np.float32), count, 0)
        return {"similarity": self.similarity, "corner": self.corner.astype(np.float32), "extent": extent}


def pack_painter(
    folder: Path, renderer: Renderer, mask: Floats, similarity: Floats, points: Floats, by: By = "dynamo"
) -> Painter:
    """`points` [n, 131, 3] are in the pixels of frames spread evenly over the loop: mouths that the proof paints."""
    if not (folder / "manifest.json").is_file():
        seal(folder)
    loop = decode_loop(read_avatar(folder))
    painter = Painter(renderer, loop, similarity, mask)
    index = golden_frames(len(loop), len(points))
    golden: Mapping[str, Floats] = {
        "points": np.asarray(points, np.float32),
        "index": np.array(index, np.float32),
        "luma": np.stack([painter.painted(one, at) for one, at in zip(points, index, strict=True)]),
    }
    graphs = folder / "graphs"
    graphs.mkdir(exist_ok=True)
    write_atomically(graphs / "prepare.onnx", painter.prepare_graph(by))
    write_atomically(graphs / "paint.onnx", painter.paint_graph(torch.from_numpy(points[[0, -1]]), by))
    write_atomically(graphs / "frames.safetensors", _saved(painter.frames()))
    write_atomically(graphs / "golden.safetensors", _saved(golden))
    seal(folder)
    return painter


def _saved(arrays: Mapping[str, Floats]) -> bytes:
    """safetensors writes memory as it lies, whatever the order of the axes."""
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def golden_frames(frames: int, count: int = GOLDEN_PICTURES) -> list[int]:
    """Frames of a loop that a proof is painted on."""
    return [round(n * (frames - 1) / max(1, count - 1)) for n in range(count)]
