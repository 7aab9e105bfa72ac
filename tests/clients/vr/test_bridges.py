"""clients/vr/bridges: what a receiver of each protocol gets, and that the pose it reads out is the one that went in."""

import argparse
import asyncio
import json
import math
import struct
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve

from clients.python import Face
from clients.vr.bridges import live_link_face, vmc, vtube_studio
from engine.clock import RealClock
from engine.protocol import head_in
from engine.session import House
from engine.websocket import Stream, serve_websocket
from models.face import ARKIT_52, VRM_EXPRESSIONS
from tests.fakes import vowel
from tests.seats import FakeWorker


def a_face(names: tuple[str, ...], coords: str, seed: int = 3) -> Face:
    """A pose of every axis at once, as the server would send it in `coords`."""
    dice = np.random.default_rng(seed)
    q = np.array([*dice.uniform(-0.3, 0.3, 3), 1.0])
    canonical = np.concatenate([q / np.linalg.norm(q), dice.uniform(-0.1, 0.1, 3), [12.0, -7.0]]).astype(np.float32)
    head = tuple(float(x) for x in head_in(coords, canonical))  # type: ignore[arg-type]  # one of the three
    weights = tuple(float(np.float32(x)) for x in dice.uniform(0, 1, len(names)))
    return Face(1_234_567, 0, 5, True, names, weights, head[:4], head[4:7], (head[7], head[8]))


def same_turn(a: Any, b: Any) -> bool:
    return abs(abs(float(np.dot(a, b))) - 1.0) < 1e-7


# VMC


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


# Live Link Face


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


# VTube Studio


def test_vtube_studio_parameters_carry_the_pose() -> None:
    face = a_face(ARKIT_52, "gltf")
    sent = vtube_studio.parameters(face)
    yaw, pitch, roll = (math.radians(a) for a in (sent["FaceAngleX"], -sent["FaceAngleY"], -sent["FaceAngleZ"]))
    (sy, cy), (sp, cp), (sr, cr) = ((math.sin(a / 2), math.cos(a / 2)) for a in (yaw, pitch, roll))
    # Y (yaw) after X (pitch) after Z (roll)
    back = (
        cy * sp * cr + sy * cp * sr,
        sy * cp * cr - cy * sp * sr,
        cy * cp * sr - sy * sp * cr,
        cy * cp * cr + sy * sp * sr,
    )
    assert same_turn(back, face.rotation)
    position = [sent[f"FacePosition{axis}"] / 100 for axis in "XYZ"]
    assert position == pytest.approx(face.position, abs=1e-6)
    assert [30 * sent["EyeLeftX"], -30 * sent["EyeLeftY"]] == pytest.approx(face.gaze, abs=1e-4)
    for name, weight in face.weights.items():
        assert sent[vtube_studio.custom(name)] == pytest.approx(weight, abs=1e-6)
        assert 4 <= len(vtube_studio.custom(name)) <= 32
        assert vtube_studio.custom(name).isalnum()


class RecordedStudio:
    """VTube Studio's side of its API: one user who says yes, a token that lasts, a record of what was injected."""

    def __init__(self, user_says: bool = True) -> None:
        self.user_says = user_says
        self.asked_user = 0
        self.made: set[str] = set()
        self.injected: list[dict[str, float]] = []

    async def attend(self, socket: ServerConnection) -> None:
        known = False
        async for text in socket:
            request = json.loads(text)
            assert (request["apiName"], request["apiVersion"]) == ("VTubeStudioPublicAPI", "1.0")
            assert len(request["requestID"]) <= 64
            kind, fields = request["messageType"], request["data"]
            answer: dict[str, Any] = {}
            error: tuple[int, str] | None = None
            if kind == "AuthenticationTokenRequest":
                self.asked_user += 1
                error = None if self.user_says else (50, "User has denied API access for your plugin.")
                answer = {"authenticationToken": "the-token"}
            elif kind == "AuthenticationRequest":
                known = fields["authenticationToken"] == "the-token"
                answer = {"authenticated": known, "reason": "" if known else "Token invalid."}
            elif not known:
                error = (8, "Request requires authentication.")
            elif kind == "ParameterCreationRequest":
                self.made.add(fields["parameterName"])
            elif kind == "InjectParameterDataRequest":
                assert (fields["faceFound"], fields["mode"]) == (True, "set")
                values = {one["id"]: one["value"] for one in fields["parameterValues"]}
                unknown = {name for name in values if name.startswith("Liveface")} - self.made
                error = (453, f"Parameters do not exist: {unknown}") if unknown else None
                assert all(-1_000_000 <= value <= 1_000_000 for value in values.values())
                self.injected.append(values)
            reply = {
                "requestID": request["requestID"],
                "messageType": kind.replace("Request", "Response"),
                "data": answer,
            }
            if error is not None:
                reply |= {"messageType": "APIError", "data": {"errorID": error[0], "message": error[1]}}
            await socket.send(json.dumps(reply))


@asynccontextmanager
async def a_studio(user_says: bool = True) -> AsyncIterator[tuple[RecordedStudio, str]]:
    studio = RecordedStudio(user_says)
    async with serve(studio.attend, "127.0.0.1", 0) as listening:
        yield studio, f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


# Whole bridges: a WAV file, a server, a receiver


class Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.datagrams: list[bytes] = []

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        self.datagrams.append(datagram)


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    clock = RealClock()
    worker = FakeWorker(clock)  # type: ignore[arg-type]  # it needs now and sleep_until
    async with (
        House(worker, clock) as house,  # type: ignore[arg-type]  # the fake has the worker's shape
        serve_websocket(house, clock, port=0, avatar="demo") as stream,
    ):
        yield stream


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    pcm = np.concatenate([np.zeros(3_200), vowel(0.5, amplitude=0.8)])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((pcm * 32_000).astype("<i2").tobytes())
    return path


def wishes(stream: Stream, speech: Path, schema: str, coords: str, **more: Any) -> argparse.Namespace:
    shared = {"url": stream.url, "avatar": None, "token": None, "wav": speech, "mic": False, "watch": None, "fps": 60.0}
    return argparse.Namespace(schema=schema, coords=coords, **shared, **more)


@asynccontextmanager
async def a_receiver() -> AsyncIterator[tuple[Heard, str]]:
    loop = asyncio.get_running_loop()
    transport, heard = await loop.create_datagram_endpoint(Heard, local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    yield heard, f"{host}:{port}"
    transport.close()


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


async def test_a_file_through_the_live_link_bridge(stream: Stream, speech: Path) -> None:
    async with a_receiver() as (heard, to):
        await live_link_face.bridge(wishes(stream, speech, "arkit52", "unreal", to=to, subject="Me"))
        await asyncio.sleep(0.01)
    packets = [read_live_link(datagram) for datagram in heard.datagrams]
    assert [packet["frame"] for packet in packets] == list(range(len(packets)))
    assert {packet["subject"] for packet in packets} == {"Me"}
    assert max(packet["weights"][ARKIT_52.index("jawOpen")] for packet in packets) > 0.05


async def test_a_file_through_the_vtube_studio_bridge(stream: Stream, speech: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "kept" / "token"
    async with a_studio() as (studio, url):
        for _ in range(2):
            await vtube_studio.bridge(wishes(stream, speech, "arkit52", "gltf", studio=url, token_file=token_file))
    assert studio.asked_user == 1  # the second time the token was kept
    assert token_file.stat().st_mode & 0o077 == 0
    assert len(studio.made) == 52
    assert max(values["LivefaceJawOpen"] for values in studio.injected) > 0.05


async def test_a_studio_whose_user_says_no(stream: Stream, speech: Path, tmp_path: Path) -> None:
    async with a_studio(user_says=False) as (_, url):
        with pytest.raises(vtube_studio.RefusedError, match="denied API access"):
            await vtube_studio.bridge(
                wishes(stream, speech, "arkit52", "gltf", studio=url, token_file=tmp_path / "token")
            )


async def test_no_studio_is_one_clear_line(stream: Stream, speech: Path, tmp_path: Path) -> None:
    nowhere = wishes(stream, speech, "arkit52", "gltf", studio="ws://127.0.0.1:9", token_file=tmp_path / "token")
    with pytest.raises(vtube_studio.RefusedError, match="start it and allow plugins"):
        await vtube_studio.bridge(nowhere)
