"""A plain package with a painter that has learned nothing, for the tests of painters."""

from pathlib import Path

import numpy as np
import torch

from models.avatar import decode_loop, read_avatar
from models.rates import POINTS
from models.renderers.patch import Patch
from models.renderers.placing import apply
from models.runtime import Floats
from models.runtime.compiled import Compiled
from models.runtime.packing import golden_frames, pack_painter
from models.runtime.painting import GraphPainter
from models.runtime.stages import on_host
from tests.models.renderers.people import patch
from tests.models.renderers.test_raster import mouth
from tests.models.runtime.drawn import draw_package

FRAMES = 8


def similarity() -> Floats:
    """[8, 4]: a patch of 128 over the middle of a picture of 128, swaying."""
    phase = np.arange(FRAMES) / FRAMES * 2 * np.pi
    return np.stack([0.75 + 0 * phase, 0.03 * np.sin(phase), 14 + np.cos(phase), 24 + 0 * phase], 1).astype(np.float32)


def points(count: int) -> Floats:
    """[count, 131, 3]: mouths that open wider and wider, in frames spread over the loop."""
    index = golden_frames(FRAMES, count)
    spoken = torch.cat([mouth(1.0 + 4 * n) for n in range(count)]).numpy()
    found = np.zeros((count, POINTS, 3), np.float32)
    found[:, :57, :2] = apply(similarity()[index], spoken)
    return found


def renderer() -> Patch:
    one = patch(128)
    one.sharpen.fill_(0.2)
    return one


def pack(folder: Path, name: str = "ellipse") -> Path:
    draw_package(folder, name, frames=FRAMES)
    one = renderer()
    pack_painter(folder, one, one.mask.numpy(), similarity(), points(4), by="tracing")
    return folder


def painter(package: Path, precisions: tuple[str, ...] = ("f32",)) -> GraphPainter:
    avatar = read_avatar(package)
    return GraphPainter(avatar, decode_loop(avatar), on_host(Compiled), precisions)
