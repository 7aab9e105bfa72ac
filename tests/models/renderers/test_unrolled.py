"""A film unrolled: textures without light, and the way back to the frame."""

import numpy as np
import pytest
import torch

from models import face
from models.metrics import psnr
from models.renderers.atlas import Atlas, lit
from models.renderers.fit import Clip, Picture
from models.renderers.placing import Floats, canon, towards, warped
from models.renderers.unrolled import Unroller, joined
from models.renderers.unwrap import CROP
from tests.models.faces import turned

HIGH, WIDE = 200, 180
SIZE = 64
NAMED = {
    4: (0.0, 105.0),
    152: (0.0, 188.0),
    172: (-0.45, 170.0),
    397: (0.45, 170.0),
    33: (-0.35, 70.0),
    263: (0.35, 70.0),
    13: (0.0, 145.0),
    14: (0.0, 145.0),
}
"""Tip of the nose, chin, jaw, eyes and lips, where a face has them: how far round, how far down."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def person() -> tuple[Floats, Picture]:
    """A round face that turns a little, [2, 478, 3] in pixels, and a picture whose colours are smooth."""
    rng = np.random.default_rng(3)
    angle, y = rng.uniform(-0.5, 0.5, 478), rng.uniform(60, 190, 478)
    ring = np.linspace(0, 2 * np.pi, len(face.LIPS))
    angle[face.LIPS], y[face.LIPS] = 0.12 * np.cos(ring), 145 + 8 * np.sin(ring)
    for index, (turn, down) in NAMED.items():
        angle[index], y[index] = turn, down
    face_ = np.stack([90 + 110 * np.sin(angle), y, -110 * np.cos(angle)], 1)
    frames = turned(np.broadcast_to(face_, (2, 478, 3)), np.array([0.0, 3.0]))
    rows, columns = np.mgrid[:HIGH, :WIDE]
    skin = np.stack([170 + 30 * np.sin(columns / 9), 130 + 30 * np.cos(rows / 7), 110 + rows / 9 + columns / 9], -1)
    return frames.astype(np.float32), skin.clip(0, 255).astype(np.uint8)


def test_a_texture_goes_back_to_where_it_was_taken() -> None:
    points, picture = person()
    mean = canon([points], SIZE)
    seen = Unroller.of(picture, points[0], lights=False)(Clip([picture] * 2, points), mean, SIZE)
    assert seen.atlas.shape == (2, 3, CROP, CROP)
    back, within = Atlas(SIZE, None, 64).reprojected(lit(seen.atlas.float() / 255, seen.gain, seen.colour), seen.maps)
    for number, there in enumerate(towards(points, mean)):
        true = warped(picture, there, SIZE)
        inside = (within[number, 0] == 1).numpy()
        ours = (back[number] * 255).round().byte().permute(1, 2, 0).numpy()
        assert inside.mean() > 0.05
        assert psnr(ours[inside], true[inside]) > 24


def test_another_light_is_taken_off_and_put_on_again() -> None:
    points, picture = person()
    mean = canon([points], SIZE)
    dark = (picture * np.linspace(0.5, 0.9, WIDE)[None, :, None]).astype(np.uint8)
    unroller = Unroller.of(picture, points[0])
    bright, dim = (unroller(Clip([one], points[:1]), mean, SIZE) for one in (picture, dark))
    raw = Unroller.of(picture, points[0], lights=False)(Clip([dark], points[:1]), mean, SIZE)
    covered = bright.covered.expand(-1, 3, -1, -1)
    apart = [(one.atlas.float() - bright.atlas.float()).abs()[covered].mean() for one in (dim, raw)]
    assert apart[0] < 0.5 * apart[1]
    again = lit(dim.atlas.float() / 255, dim.gain, dim.colour) * 255
    assert (again - raw.atlas.float()).abs()[covered].mean() < 0.5 * apart[1]


def test_clips_are_joined_in_their_order() -> None:
    points, picture = person()
    mean = canon([points], SIZE)
    unroller = Unroller.of(picture, points[0], lights=False)
    parts = [unroller(Clip([picture], points[n : n + 1]), mean, SIZE) for n in (0, 1)]
    both = joined(parts)
    torch.testing.assert_close(both.maps, torch.cat([part.maps for part in parts]))
    np.testing.assert_array_equal(both.flat, np.concatenate([part.flat for part in parts]))
