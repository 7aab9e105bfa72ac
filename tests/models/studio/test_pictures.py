"""Pictures that are rendered once: laid over each other without an edge, swayed with the head, found again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.studio import pictures
from models.studio.demo import EYES
from models.studio.presenter import PRESENTERS, Crop, Presenter, groom, weights
from models.studio.presenter.rig import rotation


def test_the_mask_replaces_the_middle_and_fades_out_before_the_border():
    mask = pictures.feathered(Crop(0, 0, 216, 196))
    assert mask[98, 108] == 1
    assert mask[[0, -1]].max() == mask[:, [0, -1]].max() == 0
    assert np.abs(np.diff(mask, axis=0)).max() < 0.13, "eight pixels or more of feather"


def test_a_still_head_is_left_as_it_was_and_a_turned_one_turns_back():
    at = torch.rand(50, 2, generator=torch.Generator().manual_seed(3)) * 200 + 156
    assert torch.allclose(pictures.turned(at, torch.eye(3)), at, atol=1e-3)
    turn = rotation(torch.tensor([[2.0, -1.0, 1.0]]))[0]
    there = pictures.turned(at, turn)
    assert 1 < (there - at).norm(dim=1).max() < 20
    assert torch.allclose(pictures.turned(there, turn.T), at, atol=0.3)
    picture = np.random.default_rng(1).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    assert np.abs(pictures.swayed(picture, torch.eye(3), 0.5).astype(int) - picture).max() <= 1


def test_the_sway_fades_out_before_the_picture_s_corners():
    picture = np.random.default_rng(1).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    moved = pictures.swayed(picture, rotation(torch.tensor([[2.0, 1.0, 1.0]]))[0], 0.5)
    assert np.abs(moved[:6, :6].astype(int) - picture[:6, :6]).max() <= 1
    assert np.abs(moved[200:300, 200:300].astype(int) - picture[200:300, 200:300]).mean() > 10


def test_lids_are_laid_over_the_eyes_without_an_edge():
    grey, strip = np.full((512, 512, 3), 100, np.uint8), np.full((EYES.height, EYES.width, 3), 140, np.uint8)
    laid = pictures.laid(grey, strip, EYES).astype(int)
    assert laid[220, 256, 0] == 140
    assert np.abs(np.diff(laid, axis=0)).max() <= 8
    assert laid[100, 100, 0] == 100


def test_points_go_where_their_pixels_go() -> None:
    """A bright spot of the still picture is found where its point was taken to."""
    turn = rotation(torch.tensor([[4.0, -2.0, 1.5]]))[0]
    for x, y in ((200, 220), (300, 330), (256, 390)):
        still = np.zeros((512, 512, 3), np.uint8)
        still[y - 2 : y + 3, x - 2 : x + 3] = 255
        moved = pictures.swayed(still, turn, 1.0)[..., 0].astype(float)
        rows, columns = np.mgrid[:512, :512]
        found = [float((axis * moved).sum() / moved.sum()) for axis in (columns, rows)]
        point = pictures.swayed_points(torch.tensor([[float(x), float(y)]]), turn, 1.0)[0]
        assert point.tolist() == pytest.approx(found, abs=0.15)


def test_a_picture_of_another_size_sways_alike() -> None:
    turn, at = rotation(torch.tensor([[3.0, 1.0, 0.0]]))[0], torch.tensor([[240.0, 300.0], [300.0, 200.0]])
    half = pictures.swayed_points((at + 0.5) / 2 - 0.5, turn, 0.2, 256)
    assert torch.allclose((half + 0.5) * 2 - 0.5, pictures.swayed_points(at, turn, 0.2), atol=0.01)


def test_a_picture_drawn_before_is_found_and_a_half_written_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groom, "HAIRS", 50)
    presenter = Presenter(PRESENTERS["mira"], compiled=False)
    frames = pictures.Frames(presenter, tmp_path, 64)
    pose, crop = presenter.pose(weights({})), Crop(24, 24, 16, 16)
    drawn = frames.get(pose, crop)
    (frames.folder / "killed.partial").write_bytes(b"half a pict")
    monkeypatch.setattr(Presenter, "pictures", lambda *_: pytest.fail("drawn twice"))
    assert np.array_equal(pictures.Frames(presenter, tmp_path, 64).get(pose, crop), drawn)
