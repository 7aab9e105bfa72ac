"""A moment, written down as it was asked for."""

import json

import numpy as np
import pytest

from engine.protocol.frames import Flag, Kind, parse_frame
from engine.protocol.outbox import Outbox
from engine.protocol.wishes import (
    FaceForm,
    Schema,
    SessionStart,
)
from engine.protocol.writer import MomentWriter
from models.face import OCULUS_15, VRM_EXPRESSIONS
from tests.engine.protocol.said import a_moment


@pytest.mark.parametrize("schema", ["arkit52", "vrm1", "oculus15"])
@pytest.mark.parametrize("visemes", [False, True])
def test_a_face_has_the_numbers_that_were_announced(schema: Schema, visemes: bool) -> None:
    form = FaceForm(schema=schema, visemes=visemes)
    (message,) = MomentWriter(SessionStart(face=form), 64, 64).write(a_moment(jaw=0.5))[Kind.FACE]
    assert isinstance(message, bytes)
    frame = parse_frame(message)
    assert len(frame.payload) == 4 * form.floats
    assert len(form.names) == {"arkit52": 52, "vrm1": len(VRM_EXPRESSIONS), "oculus15": len(OCULUS_15)}[schema]
    numbers = np.frombuffer(frame.payload, "<f4")
    assert numbers[len(form.names) : len(form.names) + 4].tolist() == [0, 0, 0, 1]
    assert ((numbers[: len(form.names)] >= 0) & (numbers[: len(form.names)] <= 1)).all()


def test_a_face_in_json_says_the_same() -> None:
    form = FaceForm(encoding="json", visemes=True)
    (text,) = MomentWriter(SessionStart(face=form), 64, 64).write(a_moment(position=2, jaw=0.5))[Kind.FACE]
    said = json.loads(text)
    assert said["type"] == "face"
    assert (said["pts_us"], said["seq"], said["speaking"]) == (80_000, 0, True)
    assert dict(zip(form.names, said["weights"], strict=True))["jawOpen"] == 0.5
    assert said["head"]["rotation"] == [0, 0, 0, 1]
    assert len(said["visemes"]) == 15


def test_flags_and_sequence_numbers() -> None:
    writer = MomentWriter(SessionStart(), 64, 64)
    frames = [
        parse_frame(message)
        for moment, end in [(a_moment(0), False), (a_moment(1), True), (a_moment(2, speaking=False), False)]
        for message in writer.write(moment, end)[Kind.FACE]
        if isinstance(message, bytes)
    ]
    assert [frame.seq for frame in frames] == [0, 1, 2]
    assert [frame.flags for frame in frames] == [Flag.SPEAKING, Flag.SPEAKING | Flag.SEGMENT_END, Flag.IDLE]
    assert [frame.pts_us for frame in frames] == [0, 40_000, 80_000]


def test_a_moment_that_never_came_leaves_a_gap_in_the_count() -> None:
    writer = MomentWriter(SessionStart(audio_out=16_000), 64, 64)
    seen = []
    for position in (0, 1, 4, 5):
        written = writer.write(a_moment(position))
        seen.append([parse_frame(written[kind][0]).seq for kind in (Kind.FACE, Kind.AUDIO_OUT)])
    assert seen == [[0, 0], [1, 1], [4, 4], [5, 5]]
    assert writer.lost == 2
    outbox = Outbox()
    outbox.miss(Kind.FACE, writer.lost)
    assert json.loads(outbox.take(0.0) or "") == {"type": "warning", "code": "frames_dropped", "count": 2}
