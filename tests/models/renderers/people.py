"""A drawn person for the renderers' tests: an ellipse of a mouth in a face, its landmarks exact."""

from collections.abc import Iterator

import numpy as np
import torch

from models import face
from models.rates import MESH_POINTS, POINTS
from models.renderers import Loop
from models.renderers.fit import Clip, Picture
from models.renderers.patch import Patch
from models.renderers.placing import HOLDS, apply
from tests.models.renderers.test_raster import mouth

HEIGHT, WIDTH = 160, 176


def patch(size: int, seed: int = 0) -> Patch:
    """A renderer that has learned nothing, but whose person is known."""
    torch.manual_seed(seed)
    renderer = Patch(size).eval()
    for layer in renderer.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
            layer.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    torch.nn.init.normal_(renderer.writer.weight, std=0.05)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    far = torch.hypot(x - size / 2, y - 0.55 * size)
    renderer.hole.copy_((far < 0.35 * size).float())
    renderer.mask.copy_(((0.33 * size - far) / (0.05 * size)).clamp(0, 1))
    renderer.mean.copy_(torch.rand(3, 1, 1).expand(3, size, size))
    renderer.rest.copy_(mouth(4.0)[0] * size / 128)
    renderer.face.copy_(torch.from_numpy(mesh(4.0)) * size / 128)
    return renderer


def loop(renderer: Patch, frames: int = 3) -> Loop:
    draw = torch.Generator().manual_seed(2)
    similarity = torch.tensor([[128 / renderer.size * 0.8, 0.03 * n, 40.0 + n, 30.0] for n in range(frames)])
    return Loop(
        torch.rand(frames, 3, renderer.size, renderer.size, generator=draw),
        similarity,
        torch.tensor([[52.0, 44.0]] * frames),
        torch.randint(16, 235, (frames, 96, 88), generator=draw).float(),
        torch.randint(16, 235, (frames, 48, 44), generator=draw).float(),
        torch.randint(16, 235, (frames, 48, 44), generator=draw).float(),
    )


def points(renderer: Patch, count: int) -> torch.Tensor:
    """[count, 131, 3] in the frames of `loop`: mouths that open wider and wider."""
    similarity = loop(renderer, count).similarity.numpy()
    spoken = torch.cat([mouth(2.0 + 6 * n) for n in range(count)]).numpy() * renderer.size / 128
    found = torch.zeros(count, POINTS, 3)
    found[:, face.HOUSE_SPOKEN, :2] = torch.from_numpy(apply(similarity, spoken))
    return found


def mesh(opening: float) -> np.ndarray:
    """[478, 2] in a canonical picture of 128 pixels: lips and jaw about an opening, what holds the patch above."""
    points = np.full((MESH_POINTS, 2), 40.0, np.float32)
    points[face.HOUSE[face.HOUSE_SPOKEN]] = mouth(opening)[0].numpy()
    for place, index in enumerate(HOLDS):
        points[index] = (14 + 100 * (place % 7) / 6, -30 + 40 * (place % 3) / 2)
    points[4] = (64, 18)
    points[[280, 50]] = (104, 30), (24, 30)
    return points


def speaks(frames: int = 40, seed: int = 0) -> Clip:
    """The person speaks and sways, filmed at 176x160."""
    rng = np.random.default_rng(seed)
    openings = 6 + 6 * np.sin(np.cumsum(rng.uniform(0.3, 0.9, frames)))
    phase = np.arange(frames) / 20 + seed
    there = np.stack(
        [1 + 0.02 * np.sin(phase), 0.03 * np.cos(phase), 24 + 3 * np.sin(phase), 28 + 2 * np.cos(phase)], 1
    ).astype(np.float32)
    points = apply(there, np.stack([mesh(opening) for opening in openings]))
    return Clip(pictures(points), points)


def pictures(points: np.ndarray) -> Iterator[Picture]:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    skin = np.stack([200 - y / 4, 150 - y / 5, 130 + x / 20], -1)
    for one in points:
        picture = skin.copy()
        for ring, colour in ((face.LIPS_OUTER, (170, 80, 85)), (face.LIPS_INNER, (60, 20, 25))):
            middle, radii = one[ring].mean(0), np.maximum(np.ptp(one[ring], 0) / 2, 0.4)
            far = np.hypot((x - middle[0]) / radii[0], (y - middle[1]) / radii[1])
            cover = np.clip((1 - far) * radii[1] + 0.5, 0, 1)[..., None]
            picture = picture * (1 - cover) + np.array(colour) * cover
        yield np.rint(picture).clip(0, 255).astype(np.uint8)
