"""The loop's frame with the painted part over it, in I420, and nothing else touched."""

import numpy as np
import pytest

from engine.picture import lay, loop_index, planes, towards_loop
from models.runtime import AvatarCard, Roi

WIDTH, HEIGHT = 16, 8


@pytest.fixture
def card() -> AvatarCard:
    loop = np.arange(3 * HEIGHT * 3 // 2 * WIDTH, dtype=np.uint32).reshape(3, HEIGHT * 3 // 2, WIDTH) % 251
    frames = loop.astype(np.uint8)
    frames.setflags(write=False)
    return AvatarCard("test", "0" * 64, WIDTH, HEIGHT, 2, frames)


def painted(value: int) -> Roi:
    return Roi(
        4, 2, np.full((4, 6), value, np.uint8), np.full((2, 3), value, np.uint8), np.full((2, 3), value, np.uint8)
    )


def test_the_loop_goes_there_and_back_without_a_jump() -> None:
    walk = [loop_index(n, 5) for n in range(20)]
    assert walk == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]
    assert loop_index(1_000, 1) == 0


def test_planes_are_views_of_the_frame(card: AvatarCard) -> None:
    y, u, v = planes(card.loop[1], WIDTH, HEIGHT)
    assert (y.shape, u.shape, v.shape) == ((8, 16), (4, 8), (4, 8))
    assert all(np.shares_memory(plane, card.loop) for plane in (y, u, v))
    np.testing.assert_array_equal(np.concatenate([u.ravel(), v.ravel()]), card.loop[1][HEIGHT:].ravel())


def test_outside_the_painted_part_the_frame_is_untouched(card: AvatarCard) -> None:
    picture = lay(card, 1, painted(200))
    bare = lay(card, 1, None)
    inside_y, inside_c = np.zeros((8, 16), bool), np.zeros((4, 8), bool)
    inside_y[2:6, 4:10] = True
    inside_c[1:3, 2:5] = True
    for ours, loops, inside in (
        (picture.y, bare.y, inside_y),
        (picture.u, bare.u, inside_c),
        (picture.v, bare.v, inside_c),
    ):
        assert (ours[inside] == 200).all()
        np.testing.assert_array_equal(ours[~inside], loops[~inside])


def test_with_nothing_painted_the_loop_frame_is_not_copied(card: AvatarCard) -> None:
    assert np.shares_memory(lay(card, 2, None).y, card.loop)


def test_a_mouth_that_closes_is_mixed_towards_the_loop(card: AvatarCard) -> None:
    y, _, _ = planes(card.loop[0], WIDTH, HEIGHT)
    assert (towards_loop(card, 0, painted(200), 0.0).luma == 200).all()
    np.testing.assert_array_equal(towards_loop(card, 0, painted(200), 1.0).luma, y[2:6, 4:10])
    half = towards_loop(card, 0, painted(200), 0.5).luma
    np.testing.assert_allclose(half, (200 + y[2:6, 4:10].astype(float)) / 2, atol=1)
