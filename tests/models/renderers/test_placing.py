"""The pose-normal space, and the way back into the loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rates import MESH_POINTS
from models.renderers import placing
from models.renderers.placing import CHIN, HOLDS, NOSE_TIP

SIZE = 128


def face_points(seed: int = 0) -> np.ndarray:
    """[478, 2]: the points that a patch is laid by are where they are in a face; the others lie about them."""
    points = np.random.default_rng(seed).uniform((120, 60), (240, 240), (MESH_POINTS, 2))
    points[NOSE_TIP], points[CHIN] = (180, 150), (180, 215)
    points[172], points[397] = (140, 190), (220, 190)
    for place, index in enumerate(HOLDS):
        if index != NOSE_TIP:
            points[index] = (120 + 120 * (place % 7) / 6, 90 + 50 * (place % 3) / 2)
    return points.astype(np.float32)


def moved(points: np.ndarray, frames: int, sway: float = 0.1) -> np.ndarray:
    """[frames, 478, 2]: the head sways."""
    phase = np.arange(frames) / frames * 2 * np.pi
    a, b = 1 + 0.05 * np.cos(phase), sway * np.sin(phase)
    similarity = np.stack([a, b, 5 * np.sin(phase), 3 * np.cos(phase)], 1)
    return placing.apply(similarity, np.broadcast_to(points, (frames, *points.shape)))


@settings(max_examples=30, deadline=None)
@given(angle=st.floats(-1, 1), scale=st.floats(0.2, 4), x=st.floats(-200, 200), y=st.floats(-200, 200))
def test_a_similarity_is_found_applied_and_undone(angle: float, scale: float, x: float, y: float) -> None:
    there = np.array([[scale * np.cos(angle), scale * np.sin(angle), x, y]], np.float32)
    points = face_points()[None]
    found = placing.similarities(points, placing.apply(there, points))
    np.testing.assert_allclose(found, there, atol=2e-3)
    np.testing.assert_allclose(placing.apply(placing.inverse(there), placing.apply(there, points)), points, atol=2e-2)
    back = placing.into_patch(torch.from_numpy(placing.apply(there, points)), torch.from_numpy(there))
    np.testing.assert_allclose(back.numpy(), points, atol=2e-2)


@pytest.mark.parametrize("size", [128, 192])
def test_the_canon_puts_nose_chin_and_jaw_where_a_patch_wants_them(size: int) -> None:
    mean = placing.canon([moved(face_points(), 50)], size)
    assert mean[NOSE_TIP, 1] / size == pytest.approx(placing.NOSE_AT, abs=0.02)
    assert mean[CHIN, 1] / size <= placing.CHIN_AT + 0.02
    assert np.ptp(mean[[172, 397], 0]) / size <= placing.JAW_WIDE + 0.02


def test_a_head_that_sways_stands_still_in_the_pose_normal_space() -> None:
    clip = moved(face_points(), 100)
    mean = placing.canon([clip], SIZE)
    there = placing.towards(clip, mean)
    normal = placing.apply(placing.inverse(there), clip)
    assert np.abs(normal - mean).max() < 0.6


def test_a_trackers_jitter_does_not_shake_the_patch() -> None:
    still = np.broadcast_to(face_points(), (60, MESH_POINTS, 2))
    shaken = (still + np.random.default_rng(0).normal(0, 1.0, still.shape)).astype(np.float32)
    mean = placing.canon([np.array(still)], SIZE)
    assert placing.towards(shaken, mean)[:, 2:].std(0).max() < 0.35


def test_the_rectangle_is_even_within_the_frame_and_holds_the_mask() -> None:
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[20:100, 10:110] = 1
    clip = moved(face_points(), 40)
    there = placing.towards(clip, placing.canon([clip], SIZE))
    height, width, corner = placing.rectangles(mask, there, 360, 288)
    assert not (corner % 2).any()
    assert height % 2 == width % 2 == 0
    assert (corner >= 0).all()
    assert (corner + np.array([width, height]) <= (360, 288)).all()
    edge = np.array([[x, y] for x in (10, 109) for y in (20, 99)], np.float32)
    at = placing.apply(there, np.broadcast_to(edge, (len(there), 4, 2)))
    assert (at.min(1) >= corner).all()
    assert (at.max(1) <= corner + np.array([width - 1, height - 1])).all()


def rows(count: int, height: int = 60, width: int = 80, scale: float = 0.7) -> dict[str, torch.Tensor]:
    under = torch.Generator().manual_seed(1)
    similarity = torch.tensor([[scale, 0.02 * n, 100.0 + n, 80.0] for n in range(count)])
    whole = {"luma": (height, width), "u": (height // 2, width // 2), "v": (height // 2, width // 2)}
    planes = {name: torch.randint(16, 235, (count, *shape), generator=under).float() for name, shape in whole.items()}
    return {"similarity": similarity, "corner": torch.tensor([[104.0, 84.0]] * count), **planes}


def test_where_the_mask_is_nothing_the_loop_comes_out_bit_for_bit() -> None:
    under = rows(2)
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[:, :, 40:60, 40:60] = 1
    placed = placing.place_rows(under, torch.rand(2, 3, SIZE, SIZE), mask)
    for name, plane in placed._asdict().items():
        same = plane == under[name]
        assert 0.75 < same.float().mean() < 1
        assert bool(same[:, :8].all())


def test_a_grey_patch_is_grey_in_the_frame() -> None:
    under = rows(1)
    placed = placing.place_rows(under, torch.full((1, 3, SIZE, SIZE), 0.5), torch.ones(1, 1, SIZE, SIZE))
    assert placed.luma[0, 30, 40] == pytest.approx(16 + 219 / 2, abs=1e-3)
    assert placed.u[0, 15, 20] == pytest.approx(128, abs=1e-3)


def test_a_picture_taken_into_a_patch_and_laid_back_is_the_picture() -> None:
    y, x = np.mgrid[:200, :240]
    picture = np.stack([128 + 60 * np.sin(x / 9), 128 + 60 * np.cos(y / 7), 128 + 40 * np.sin((x + y) / 11)], -1)
    picture = np.rint(picture).astype(np.uint8)
    there = np.array([0.9, 0.05, 60.0, 40.0], np.float32)
    patch = placing.warped(picture, there, SIZE)
    yuv = picture / 255 @ placing.YUV.numpy().T + placing.YUV_OFFSET.numpy()
    luma = torch.from_numpy(yuv[..., 0]).float()
    window = np.s_[60:120, 80:140]
    under = {
        "similarity": torch.from_numpy(there)[None],
        "corner": torch.tensor([[80.0, 60.0]]),
        "luma": torch.zeros(1, 60, 60),
        "u": torch.zeros(1, 30, 30),
        "v": torch.zeros(1, 30, 30),
    }
    placed = placing.place_rows(
        under, torch.from_numpy(patch).permute(2, 0, 1)[None].float() / 255, torch.ones(1, 1, SIZE, SIZE)
    )
    assert float((placed.luma[0] - luma[window]).abs().mean()) < 1.0
    half = torch.from_numpy(yuv[window][..., 1].reshape(30, 2, 30, 2).mean((1, 3))).float()
    assert float((placed.u[0] - half).abs().mean()) < 1.0


def test_a_frame_much_finer_than_the_patch_is_averaged_not_picked() -> None:
    checks = np.indices((400, 400)).sum(0) % 2 * 255
    patch = placing.warped(np.repeat(checks[..., None], 3, -1).astype(np.uint8), np.array([4.0, 0, -50, -50]), 64)
    assert (
        np.abs(patch[16:-16, 16:-16].astype(int) - 128).max() < 30
    )  # three by three hold five of one colour, four of the other
