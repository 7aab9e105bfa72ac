"""The served package, as fast as it goes."""

import numpy as np

from models.create.live import laid, opened, performed
from models.rates import CHUNK
from models.runtime import Out, Roi
from tests.models.create.filmed import hum


def test_a_picture_comes_for_every_frame_of_sound(small):
    runtime = opened(small.avatar.folder)
    shown = [picture for picture, _ in performed(runtime, hum(0.4))]
    assert len(shown) == 10
    assert shown[0].shape == (512, 512, 3)
    again = [picture for picture, _ in performed(runtime, hum(0.4))]
    assert all(np.array_equal(one, other) for one, other in zip(shown, again, strict=True))
    runtime.close()


def test_only_the_rectangle_changes():
    frame = np.full((96, 64), 50, np.uint8)
    roi = Roi(10, 20, np.full((8, 6), 200, np.uint8), np.full((4, 3), 90, np.uint8), np.full((4, 3), 91, np.uint8))
    shown = laid(frame, Out(0, 0, roi=roi))
    assert (shown[20:28, 10:16] == 200).all()
    assert (shown != frame).sum() == 8 * 6 + 2 * 12
    assert (frame == 50).all()
    assert np.array_equal(laid(frame, Out(0, 0)), frame)


def test_no_sound_no_pictures(small):
    runtime = opened(small.avatar.folder)
    assert not list(performed(runtime, np.zeros(CHUNK - 1, np.float32)))
    runtime.close()
