"""Heads as they come: small and large in pictures of any height, turned, moving; the default renderer's way through."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from models import face
from models.avatar import SHIPPED
from models.renderers import Loop, placing
from models.renderers.fit import hole_and_mask
from models.renderers.patch import Patch
from tests.models.renderers.people import patch

FRAMES = 2
DENSE = load_file(str(SHIPPED / "demo" / "mesh.safetensors"))
"""A presenter's mesh of 468 points: as near to a head's depth as a drawn person comes."""
WIDE = (234, 454)
"""Edges of the face beside the ears."""


def head(width: float, height: int, yaw: float, opening: float = 0.0) -> np.ndarray:
    """[FRAMES, 478, 3] in pixels of a picture: a face `width` pixels wide in its upper half, turned by `yaw` degrees
    and a little more from frame to frame, the lower lip and the jaw `opening` of that width lower."""
    rest = np.zeros((478, 3))
    rest[:468] = DENSE["loop"][0]
    rest[468:] = rest[[159] * 5 + [386] * 5]  # irises, which no patch asks for
    rest -= rest[list(WIDE)].mean(0)
    rest /= np.ptp(rest[list(WIDE), 0])
    low = np.clip((rest[:, 1] - rest[face.INNER_UPPER, 1]) / (rest[face.CHIN, 1] - rest[face.INNER_UPPER, 1]), 0, 1)
    rest[:, 1] += opening * (low > 0.02)
    turns = np.radians(yaw + np.arange(FRAMES))
    matrices = [[[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]] for a in turns]
    turned = np.einsum("tij,nj->tni", np.array(matrices), rest) * width
    return (turned + np.array([0.7 * height, 0.35 * height, 0])).astype(np.float32)


def shown(renderer: Patch, points: np.ndarray, height: int) -> tuple[Loop, torch.Tensor]:
    """The loop of that head in a picture four thirds as wide as high, and the mask that it is painted through."""
    wide = height * 4 // 3
    mean = placing.canon([points], renderer.size)
    similarity = placing.towards(points, mean)
    spoken = placing.apply(placing.inverse(similarity), points[:, face.HOUSE[face.HOUSE_SPOKEN], :2])
    hole, mask = hole_and_mask(mean, spoken, renderer.size)
    renderer.hole.copy_(hole)
    renderer.mask.copy_(mask)
    high, across, corner = placing.rectangles(mask.numpy(), similarity, wide, height)
    assert (corner >= 0).all()
    assert (corner + np.array([across, high]) <= (wide, height)).all()
    draw = torch.Generator().manual_seed(0)
    planes = [(high, across), (high // 2, across // 2), (high // 2, across // 2)]
    luma, u, v = (torch.randint(16, 235, (FRAMES, *one), generator=draw).float() for one in planes)
    patches = torch.rand(FRAMES, 3, renderer.size, renderer.size, generator=draw)
    return Loop(patches, torch.from_numpy(similarity), torch.from_numpy(corner).float(), luma, u, v), mask


@settings(max_examples=6, deadline=None)
@given(
    height=st.sampled_from([360, 480, 720, 1080]),
    share=st.floats(0.28, 0.55),
    yaw=st.floats(-25, 25),
    size=st.sampled_from([128, 192, 256]),
    opening=st.floats(0, 0.12),
)
@torch.no_grad()
def test_any_head_is_painted_where_its_mouth_is(
    height: int, share: float, yaw: float, size: int, opening: float
) -> None:
    """Faces of 100 to 600 pixels, in pictures 360 to 1080 high, turned to either side."""
    renderer = patch(size)
    points = head(share * height, height, yaw, opening)
    loop, mask = shown(renderer, points, height)
    index = torch.arange(FRAMES)
    house = torch.from_numpy(points[:, face.HOUSE])
    features = renderer.prepare(loop)
    made, given_mask, _ = renderer.paint(features, index, house, torch.zeros(FRAMES, 0), ())
    placed = renderer.place(features, index, made, mask.expand(FRAMES, 1, -1, -1))
    assert bool(made.isfinite().all())
    assert given_mask.shape == (FRAMES, 1, size, size)
    lips = placing.into_patch(house[:, face.HOUSE_SPOKEN], loop.similarity)[:, :40]
    within = lips.round().long().clamp(0, size - 1)
    assert float(mask[within[..., 1], within[..., 0]].min()) > 0.9  # lips are painted, all of them
    changed = (placed.luma != loop.luma).float().mean()
    assert 0.1 < float(changed) < 1
    edge = torch.ones_like(placed.luma, dtype=torch.bool)
    edge[:, 1:-1, 1:-1] = False
    assert bool((placed.luma == loop.luma)[edge].all())  # nothing ends where its rectangle does


@pytest.mark.parametrize("yaw", [-25, -12, 12, 25])
def test_a_turned_head_is_the_same_size_in_its_patch(yaw: float) -> None:
    """Between the tip of the nose and the chin, which a turn to the side leaves as far apart as they were."""
    down = []
    for angle in (0, yaw):
        mean = placing.canon([head(200, 480, angle)], 128)
        down.append(mean[placing.CHIN, 1] - mean[placing.NOSE_TIP, 1])
    assert down[1] == pytest.approx(down[0], rel=0.12)


def test_a_head_that_leaves_the_picture_has_its_rectangle_within() -> None:
    renderer = patch(128)
    points = head(300, 480, 10) + np.array([260, 180, 0], np.float32)
    loop, mask = shown(renderer, points, 480)
    features = renderer.prepare(loop)
    made, _, _ = renderer.paint(
        features, torch.arange(FRAMES), torch.from_numpy(points[:, face.HOUSE]), torch.zeros(FRAMES, 0), ()
    )
    placed = renderer.place(features, torch.arange(FRAMES), made, mask.expand(FRAMES, 1, -1, -1))
    assert bool(placed.luma.isfinite().all())
