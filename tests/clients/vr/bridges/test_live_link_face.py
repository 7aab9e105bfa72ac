"""The Live Link Face bridge: a receiver reads out of its packets the pose that went in."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.vr.bridges import live_link_face
from engine.protocol.coords import head_in
from engine.websocket import Stream
from models.face import ARKIT_52
from tests.clients.streams import a_stream, write_speech
from tests.clients.vr.bridges.receivers import a_face, a_receiver, same_turn, wishes


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream() as stream:
        yield stream


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav")


def read_live_link(datagram: bytes) -> dict[str, Any]:
    """A receiver's reading, by the layout of design: version, device, subject, frame time, 61 floats."""
    (version,) = struct.unpack_from("<I", datagram)
    device = datagram[4:41].decode()
    (length,) = struct.unpack_from(">i", datagram, 41)
    subject = datagram[45 : 45 + length].decode()
    frame, _, fps, denominator = struct.unpack_from(">IfII", datagram, 45 + length)
    count, *numbers = struct.unpack(">B61f", datagram[61 + length :])
    assert (version, device[0], count, fps, denominator) == (6, "$", 61, 60, 1)
    return {"subject": subject, "frame": frame, "weights": numbers[:52], "head": numbers[52:55], "eyes": numbers[55:]}


def unreal_quaternion(yaw: float, pitch: float, roll: float) -> tuple[float, ...]:
    """Unreal's FRotator::Quaternion."""
    (sy, cy), (sp, cp), (sr, cr) = ((math.sin(a / 2), math.cos(a / 2)) for a in (yaw, pitch, roll))
    return (
        cr * sp * sy - sr * cp * cy,
        -cr * sp * cy - sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


@pytest.mark.parametrize("seed", range(5))
def test_live_link_face_carries_the_pose(seed: int) -> None:
    face = a_face(ARKIT_52, "unreal", seed)
    device = "01234567-89ab-cdef-0123-456789abcdef"
    read = read_live_link(live_link_face.packet(face, device, "Liveface", 7))
    assert (read["subject"], read["frame"]) == ("Liveface", 7)
    assert read["weights"] == pytest.approx(face.values, abs=1e-6)
    assert same_turn(unreal_quaternion(*read["head"]), face.rotation)
    assert [math.degrees(angle) for angle in read["eyes"][:2]] == pytest.approx(face.gaze, abs=1e-4)


def test_a_head_turned_left_is_a_negative_yaw_in_unreal() -> None:
    left = np.float32([0, math.sin(0.25), 0, math.cos(0.25), 0, 0, 0, 0, 0])  # glTF: +Y turns to the person's left
    yaw, pitch, roll = live_link_face.rotator(tuple(float(x) for x in head_in("unreal", left)[:4]))
    assert (yaw, pitch, roll) == pytest.approx((-0.5, 0, 0), abs=1e-6)


async def test_a_file_through_the_live_link_bridge(stream: Stream, speech: Path) -> None:
    async with a_receiver() as (heard, to):
        await live_link_face.bridge(wishes(stream, speech, "arkit52", "unreal", to=to, subject="Me"))
        await asyncio.sleep(0.01)
    packets = [read_live_link(datagram) for datagram in heard.datagrams]
    assert [packet["frame"] for packet in packets] == list(range(len(packets)))
    assert {packet["subject"] for packet in packets} == {"Me"}
    assert max(packet["weights"][ARKIT_52.index("jawOpen")] for packet in packets) > 0.05
