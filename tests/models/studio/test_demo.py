"""The recipe of the shipped avatars, and what lies in `models/shipped`, without rendering any of it."""

import hashlib
import json
import math
import tomllib

import av
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from models import face
from models.studio import demo
from models.studio.presenter import PRESENTERS
from models.studio.presenter.rig import rotation

SHIPPED = sorted(path for path in demo.SHIPPED.iterdir() if (path / "avatar.toml").exists())


def test_a_similarity_is_found_again():
    random = np.random.default_rng(1)
    points = random.normal(size=(40, 2)).astype(np.float32) * 50
    a, b, tx, ty = 1.02 * math.cos(0.05), 1.02 * math.sin(0.05), 7.0, -3.0
    x, y = points.T
    moved = np.stack([a * x - b * y + tx, b * x + a * y + ty], 1).astype(np.float32)
    assert demo.similarity(points, moved) == pytest.approx([a, b, tx, ty], abs=1e-4)


def test_quaternions_turn_as_their_matrices_do():
    matrix = rotation(torch.tensor([[20.0, -7.0, 4.0]]))[0].double().numpy()
    x, y, z, w = demo.quaternion(matrix)
    v, axis = np.array([0.3, -0.2, 0.9]), np.array([x, y, z])
    turned = v + 2 * np.cross(axis, np.cross(axis, v) + w * v)
    assert turned == pytest.approx(matrix @ v, abs=1e-6)


def test_the_loop_ends_where_it_begins():
    loop = demo.perform(225)
    for track in (loop.angles, loop.breath[:, None]):
        steps = (track - track.roll(1, 0)).abs().amax(1)
        assert steps[0] <= 1.5 * steps[1:].max()
    assert loop.angles[:, 0].abs().max() < 3
    assert loop.stage[0] == 0
    starts = [i for i in range(1, 225) if loop.stage[i] and not loop.stage[i - 1]]
    assert 3 <= len(starts) <= 5
    assert max(loop.stage) == len(demo.LIDS), "a blink shuts the eyes"
    blink = loop.weights()[:, face.ARKIT_52.index("eyeBlinkLeft")]
    assert blink.max() == 1.0
    assert blink.min() == pytest.approx(demo.REST["eyeBlink"])


def test_mouths_go_from_shut_to_wide_in_every_shape():
    w = torch.stack([demo.weights(one)[0] for one in demo.mouth_faces()])
    jaw = w[: len(demo.SHAPES) * len(demo.OPENINGS), face.ARKIT_52.index("jawOpen")].view(len(demo.SHAPES), -1)
    assert (jaw[:, 1:] > jaw[:, :-1]).all()
    assert len(w) == len(demo.SHAPES) * len(demo.OPENINGS) + len(demo.SPECIAL)


def test_every_avatar_has_somebody_to_play_it():
    for name, avatar in demo.AVATARS.items():
        assert avatar.name == name
        assert avatar.presenter in PRESENTERS
        assert not any(side % 4 for side in avatar.crop)


def test_the_shipped_ones_are_those_of_the_recipe():
    assert {path.name for path in SHIPPED} <= set(demo.AVATARS)
    assert any(path.name == "demo" for path in SHIPPED)


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_avatar_is_whole(folder):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert {path.name for path in folder.iterdir()} == {*files, "manifest.json"}
    for name, digest in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000

    card = tomllib.loads((folder / "avatar.toml").read_text())
    assert card["synthetic"] is True
    assert card["name"] == folder.name
    loop, mouths = load_file(folder / "loop.safetensors"), load_file(folder / "mouths.safetensors")
    with av.open(str(folder / "loop.mp4")) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 25)
        frames = sum(1 for _ in video.decode(stream))
    assert all(len(array) == frames for array in loop.values())
    m, height, width, _ = mouths["patches"].shape
    assert mouths["points"].shape == (m, 131, 3)
    assert mouths["mask"].shape == (height, width)
    assert mouths["lip_gap"].min() == pytest.approx(0, abs=1e-4)
    a, b, tx, ty = loop["mouth_similarity"].T
    assert np.abs(np.hypot(a, b) - 1).max() < 0.05
    for x, y in ((0, 0), (width - 1, height - 1)):
        assert (a * x - b * y + tx >= 0).all()
        assert (b * x + a * y + ty < 512).all()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_mesh_is_of_the_face_that_the_landmarks_are_of(folder):
    mesh, loop, mouths = (load_file(folder / f"{name}.safetensors") for name in ("mesh", "loop", "mouths"))
    house = face.HOUSE
    np.testing.assert_allclose(mesh["loop"][:, house], loop["points"], atol=0.05)
    np.testing.assert_allclose(mesh["mouths"][:, house], mouths["points"], atol=0.05)
    jaw, brow = mesh["mouths"][:, face.CHIN, 1], mesh["mouths"][:, face.BROW_LEFT, 1]
    assert np.ptp(jaw) > 10  # the chin goes down with the jaw
    assert np.ptp(brow, axis=0).max() < 0.5  # and the brows do not


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_mouth_at_rest_is_the_loop_s_own(folder):
    """Laid into the loop, the patch at rest must not show: its colours match what it covers."""
    loop, mouths = load_file(folder / "loop.safetensors"), load_file(folder / "mouths.safetensors")
    with av.open(str(folder / "loop.mp4")) as video:
        frame = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(np.float32)
    a, b, tx, ty = loop["mouth_similarity"][0]
    height, width = mouths["mask"].shape
    y, x = np.mgrid[:height, :width]
    column = np.rint(a * x - b * y + tx).astype(int)
    row = np.rint(b * x + a * y + ty).astype(int)
    under = frame[row.clip(0, 511), column.clip(0, 511)]
    ring = (mouths["mask"] > 0.02) & (mouths["mask"] < 0.5)
    assert np.abs(under - mouths["patches"][0])[ring].mean() < 8
