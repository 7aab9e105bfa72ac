"""The VMC bridge: a receiver reads out of its OSC the pose that went in."""

import asyncio
import math
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from clients.vr.bridges import vmc
from engine.websocket import Stream
from models.face import VRM_EXPRESSIONS
from tests.clients.streams import a_stream, write_speech
from tests.clients.vr.bridges.receivers import a_face, a_receiver, same_turn, wishes


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream() as stream:
        yield stream


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav")


def osc(datagram: bytes) -> Iterator[tuple[str, list[Any]]]:
    """A receiver's reading of OSC 1.0."""

    def string(at: int) -> tuple[str, int]:
        end = datagram.index(b"\0", at)
        return datagram[at:end].decode(), (end + 4) // 4 * 4

    assert datagram[:8] == b"#bundle\0"
    assert struct.unpack_from(">Q", datagram, 8) == (1,)
    at = 16
    while at < len(datagram):
        (size,) = struct.unpack_from(">i", datagram, at)
        address, cursor = string(at + 4)
        tags, cursor = string(cursor)
        values: list[Any] = []
        for tag in tags[1:]:
            if tag == "s":
                value, cursor = string(cursor)
                values.append(value)
            else:
                values.append(struct.unpack_from(">" + tag, datagram, cursor)[0])
                cursor += 4
        assert cursor == at + 4 + size
        at = cursor
        yield address, values


@pytest.mark.parametrize("vrm0", [True, False])
def test_vmc_carries_the_pose(vrm0: bool) -> None:
    face = a_face(VRM_EXPRESSIONS, "unity")
    bundles = vmc.osc_bundles(vmc.vmc_messages(face, vrm0))
    assert max(map(len, bundles)) <= 1_400
    heard = [message for bundle in bundles for message in osc(bundle)]
    assert heard[0] == ("/VMC/Ext/OK", [1])
    assert heard[-1] == ("/VMC/Ext/Blend/Apply", [])
    bones = {values[0]: values[1:] for address, values in heard if address.endswith("/Pos")}
    assert bones["root"][:3] == pytest.approx(face.position, abs=1e-6)
    assert same_turn(bones["Head"][3:], face.rotation)
    # Unity's Euler(pitch, yaw, 0) turns +Z to where the eyes look.
    x, y, z, w = bones["LeftEye"][3:]
    ahead = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    assert math.degrees(math.atan2(ahead[0], ahead[2])) == pytest.approx(face.gaze[0], abs=1e-4)
    assert -math.degrees(math.asin(ahead[1])) == pytest.approx(face.gaze[1], abs=1e-4)
    blends = {values[0]: values[1] for address, values in heard if address == "/VMC/Ext/Blend/Val"}
    name = "A" if vrm0 else "aa"
    assert blends[name] == pytest.approx(face.weights["aa"], abs=1e-6)
    assert ("Blink_L" in blends, "blinkLeft" in blends, "Blink" in blends) == (vrm0, not vrm0, False)


async def test_a_file_through_the_vmc_bridge(stream: Stream, speech: Path) -> None:
    async with a_receiver() as (heard, to):
        await vmc.bridge(wishes(stream, speech, "vrm1", "unity", to=to, names="vrm0"))
        await asyncio.sleep(0.01)
    messages = [message for datagram in heard.datagrams for message in osc(datagram)]
    vowels = [values[1] for address, values in messages if address == "/VMC/Ext/Blend/Val" and values[0] in "AIUEO"]
    assert max(vowels) > 0.05
    dates = [values[0] for address, values in messages if address == "/VMC/Ext/T"]
    assert dates == sorted(dates)
    assert len(dates) > 15
