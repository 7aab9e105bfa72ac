"""The VTube Studio bridge against a recorded studio: the user is asked once, and the pose comes out as it went in."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from clients.vr.bridges import vtube_studio
from engine.websocket import Stream
from models.face import ARKIT_52
from tests.clients.streams import a_stream, write_speech
from tests.clients.vr.bridges.receivers import a_face, same_turn, wishes


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream() as stream:
        yield stream


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav")


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
