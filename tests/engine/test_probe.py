"""The number in the picture survives what happens to pictures."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.media import Moment, Picture
from engine.probe import BLOCK, COLUMNS, LOUD, NUMBERS, ROWS, Mark, read, stamp
from models.rates import HEARD_CHUNK


def picture(width: int = 96, height: int = 64, seed: int = 0) -> Picture:
    rng = np.random.default_rng(seed)
    planes = [
        rng.integers(0, 256, shape, dtype=np.uint8)
        for shape in ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    ]
    return Picture(width, height, *planes)


def moment(number: int, level: int = 0, of: Picture | None = None) -> Moment:
    return Moment(number * HEARD_CHUNK, 0, np.full(HEARD_CHUNK, level, np.int16), False, picture=of or picture())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**7), st.booleans(), st.booleans())
def test_what_is_stamped_is_read(number, loud, repeated):
    stamped = stamp(replace(moment(number, LOUD + 1 if loud else LOUD - 1), repeated=repeated))
    assert read(stamped.picture.y) == Mark(number % NUMBERS, loud, repeated)


def test_nothing_but_the_corner_of_a_copy_changes():
    plain = moment(7)
    before = [plane.copy() for plane in (plain.picture.y, plain.picture.u, plain.picture.v)]
    stamped = stamp(plain)
    for old, plane, kept in zip(
        before,
        (stamped.picture.y, stamped.picture.u, stamped.picture.v),
        (plain.picture.y, plain.picture.u, plain.picture.v),
        strict=True,
    ):
        assert np.array_equal(kept, old)
        changed = np.argwhere(plane != old)
        assert (changed < (ROWS * BLOCK, COLUMNS * BLOCK)).all()
    assert stamped.heard is plain.heard
    assert stamped.pts == plain.pts


def test_a_moment_without_room_or_picture_goes_through():
    bare = Moment(0, 0, np.zeros(HEARD_CHUNK, np.int16), False)
    assert stamp(bare) is bare
    small = moment(1, of=picture(32, 16))
    assert stamp(small) is small
    assert read(small.picture.y) is None


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_a_picture_without_a_mark_says_nothing(seed):
    rng = np.random.default_rng(seed)
    assert read(rng.integers(0, 256, (24, 64), dtype=np.uint8)) is None
    assert read(np.full((24, 64), rng.integers(0, 256), np.uint8)) is None


def test_a_flipped_block_is_noticed_nearly_always():
    wrong = 0
    for number in range(0, NUMBERS, 997):
        luma = stamp(moment(number)).picture.y
        for bit in range(ROWS * COLUMNS):
            row, column = divmod(bit, COLUMNS)
            broken = luma.copy()
            block = broken[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK]
            block[:] = 251 - block
            wrong += read(broken) is not None
    assert wrong == 0


@pytest.mark.parametrize("size", [256, 512])
def test_it_survives_vp8_at_250_kbit_s(size):
    """A face-like picture that moves under camera noise, one second, as the default encoder is set."""
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width = encoder.height = size
    encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 25), 25
    encoder.bit_rate = 250_000
    encoder.options = {
        "deadline": "realtime", "cpu-used": "-6", "minrate": "250000", "maxrate": "250000", "bufsize": "250000",
        "undershoot-pct": "100", "lag-in-frames": "0", "error-resilient": "1",
    }  # fmt: skip
    decoder = av.CodecContext.create("libvpx", "r")
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:size, :size] / size
    readable, bits = [], 0
    for number in range(1_000, 1_025):
        sway = 0.03 * np.sin(number / 5)
        face = 90 + 80 * np.exp(-(((columns - 0.5 - sway) / 0.22) ** 2 + ((rows - 0.5) / 0.3) ** 2))
        mouth = 60 * abs(np.sin(number / 2)) * (((columns - 0.5 - sway) / 0.08) ** 2 + ((rows - 0.65) / 0.03) ** 2 < 1)
        luma = np.clip(face - mouth + rng.normal(0, 3, (size, size)), 0, 255).astype(np.uint8)
        grey = np.full((size // 2, size // 2), 120, np.uint8)
        stamped = stamp(moment(number, 9_000 * (number % 3 == 0), Picture(size, size, luma, grey, grey))).picture
        frame = av.VideoFrame.from_ndarray(
            np.concatenate([stamped.y.ravel(), stamped.u.ravel(), stamped.v.ravel()]).reshape(size * 3 // 2, size),
            "yuv420p",
        )
        frame.pts, frame.time_base = number - 1_000, Fraction(1, 25)
        for packet in encoder.encode(frame):
            bits += 8 * packet.size
            for decoded in decoder.decode(av.Packet(bytes(packet))):
                readable.append(read(decoded.to_ndarray()[:size, :size]) == Mark(number, number % 3 == 0))
    assert len(readable) == 25
    assert all(readable)
    assert bits < 400_000
