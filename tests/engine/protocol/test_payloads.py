"""Sound as it was declared; points as the picture is."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.protocol.closing import Close
from engine.protocol.frames import Kind, parse_frame
from engine.protocol.reader import Hear
from engine.protocol.wishes import (
    SessionStart,
)
from engine.protocol.writer import MomentWriter
from models.rates import DENSE_POINTS
from tests.engine.protocol.said import a_moment, a_reader, failure, sound_frame


def test_two_channels_stay_two() -> None:
    reader = a_reader(audio={"channels": 2})
    (heard,) = reader.receive(sound_frame(b"\1\0\2\0\3\0\4\0"), 0.0)
    assert isinstance(heard, Hear)
    assert heard.pcm.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(("form", "size"), [("pcm_s16le", 3), ("pcm_f32le", 6), ("pcm_s16le", 1)])
def test_m9_half_a_sample_is_a_wrong_declaration(form: str, size: int) -> None:
    assert failure(a_reader(audio={"format": form}), sound_frame(b"\0" * size)) is Close.BAD_MESSAGE


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=64))
@settings(max_examples=200, deadline=None)
def test_wild_floats_come_in_tame(numbers: list[float]) -> None:
    reader = a_reader(audio={"format": "pcm_f32le"})
    (heard,) = reader.receive(sound_frame(struct.pack(f"<{len(numbers)}f", *numbers)), 0.0)
    assert isinstance(heard, Hear)
    assert np.isfinite(heard.pcm).all()
    assert np.abs(heard.pcm).max() <= 1.0
    tame = [number for number in numbers if abs(number) <= 1.0]
    assert [x for x, number in zip(heard.pcm.tolist(), numbers, strict=True) if abs(number) <= 1.0] == tame


def test_points_are_normalised_to_the_picture() -> None:
    written = MomentWriter(SessionStart(landmarks=True, mesh=True), 64, 128).write(a_moment())
    for kind, n, xyz in [(Kind.LANDMARKS, 68, [0.5, 0.25, 0.5]), (Kind.MESH, DENSE_POINTS, [0.25, 0.125, 0.25])]:
        (message,) = written[kind]
        assert isinstance(message, bytes)
        payload = parse_frame(message).payload
        assert struct.unpack_from("<HH", payload) == (n, 3)
        points = np.frombuffer(payload, "<f4", offset=4).reshape(n, 3)
        np.testing.assert_allclose(points, np.tile(xyz, (n, 1)))
