"""VTube Studio's plugin API: Live2D models follow the voice.

    python -m clients.vr.bridges.vtube_studio --wav speech.wav

The first time, VTube Studio asks whether to allow "Liveface"; the token that it gives is kept in `--token-file`, so it
asks once. The usual tracking parameters are set, and all 52 ARKit weights as custom parameters `Liveface…`.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from clients.python import Face
from clients.vr.bridges.feed import feed, parser, run

PLUGIN: Final = {"pluginName": "Liveface", "pluginDeveloper": "The Liveface authors"}
GAZE_MOST: Final = 30.0
"""Degrees that VTube Studio's ±1 of an eye stands for here."""


class RefusedError(ValueError):
    """VTube Studio said no, in its own words."""


class Studio:
    """One authenticated connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._count = 0

    async def ask(self, kind: str, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request, wait for its answer; RefusedError for an APIError."""
        self._count += 1
        request = {
            "apiName": "VTubeStudioPublicAPI",
            "apiVersion": "1.0",
            "requestID": f"liveface-{self._count}",
            "messageType": kind,
            "data": dict(fields or {}),
        }
        try:
            await self._socket.send(json.dumps(request))
            while True:
                answer = json.loads(await self._socket.recv())
                if answer.get("requestID") == request["requestID"]:
                    break
        except ConnectionClosed as closed:
            raise RefusedError("VTube Studio closed the connection") from closed
        if answer["messageType"] == "APIError":
            raise RefusedError(f"VTube Studio says: {answer['data']['message']} ({answer['data']['errorID']})")
        return dict(answer["data"])

    async def log_in(self, token_file: Path) -> None:
        """With the token of last time, or by asking the user in VTube Studio's window."""
        token = read_token(token_file)
        if not token or not (await self._authenticate(token))["authenticated"]:
            print("VTube Studio asks whether to allow Liveface: please answer there", file=sys.stderr)
            token = (await self.ask("AuthenticationTokenRequest", PLUGIN))["authenticationToken"]
            write_token(token_file, token)
            told = await self._authenticate(token)
            if not told["authenticated"]:
                raise RefusedError(f"VTube Studio does not accept its own token: {told.get('reason')}")

    async def _authenticate(self, token: str) -> dict[str, Any]:
        return await self.ask("AuthenticationRequest", {**PLUGIN, "authenticationToken": token})

    async def make_parameters(self, names: tuple[str, ...]) -> None:
        for name in names:
            described = {"explanation": f"ARKit {name}", "min": 0, "max": 1, "defaultValue": 0}
            await self.ask("ParameterCreationRequest", {"parameterName": custom(name), **described})

    async def show(self, face: Face) -> None:
        values = [{"id": name, "value": round(value, 6)} for name, value in parameters(face).items()]
        await self.ask("InjectParameterDataRequest", {"faceFound": True, "mode": "set", "parameterValues": values})


def read_token(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def write_token(file: Path, token: str) -> None:
    """For its owner's eyes only."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(token)


def custom(name: str) -> str:
    """VTube Studio allows letters and digits, 4 to 32 of them."""
    return f"Liveface{name[0].upper()}{name[1:]}"


def parameters(face: Face) -> dict[str, float]:
    """One face in glTF's coordinates → tracking parameters. Angles in degrees, in Live2D's sense: + is to the right of
    the screen, which is the person's left; + is up; + leans to the right of the screen."""
    x, y, z, w = face.rotation
    yaw = math.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * x - y * z))))
    roll = math.atan2(2 * (x * y + w * z), 1 - 2 * (x * x + z * z))
    of = face.weights
    eye_x = max(-1.0, min(1.0, face.gaze[0] / GAZE_MOST))
    eye_y = max(-1.0, min(1.0, -face.gaze[1] / GAZE_MOST))
    smile = (of["mouthSmileLeft"] + of["mouthSmileRight"] - of["mouthFrownLeft"] - of["mouthFrownRight"]) / 2
    brows = {
        side: 0.5 + (of["browInnerUp"] + of[f"browOuterUp{side}"]) / 4 - of[f"browDown{side}"] / 2
        for side in ("Left", "Right")
    }
    return {
        "FaceAngleX": math.degrees(yaw),
        "FaceAngleY": -math.degrees(pitch),
        "FaceAngleZ": -math.degrees(roll),
        "FacePositionX": 100 * face.position[0],
        "FacePositionY": 100 * face.position[1],
        "FacePositionZ": 100 * face.position[2],
        "MouthOpen": max(0.0, min(1.0, 1.6 * (of["jawOpen"] - of["mouthClose"]))),
        "MouthSmile": max(0.0, min(1.0, 0.5 + smile / 2)),
        "MouthX": of["mouthLeft"] - of["mouthRight"],
        "TongueOut": of["tongueOut"],
        "CheekPuff": of["cheekPuff"],
        "EyeOpenLeft": max(0.0, 1 - of["eyeBlinkLeft"]),
        "EyeOpenRight": max(0.0, 1 - of["eyeBlinkRight"]),
        "EyeLeftX": eye_x,
        "EyeLeftY": eye_y,
        "EyeRightX": eye_x,
        "EyeRightY": eye_y,
        "BrowLeftY": brows["Left"],
        "BrowRightY": brows["Right"],
        "Brows": (brows["Left"] + brows["Right"]) / 2,
        **{custom(name): value for name, value in of.items()},
    }


async def bridge(arguments: argparse.Namespace) -> None:
    try:
        socket = await connect(arguments.studio, max_size=None)
    except OSError as failed:
        raise RefusedError(
            f"no VTube Studio at {arguments.studio}: start it and allow plugins in its settings ({failed})"
        ) from failed
    async with socket:
        studio = Studio(socket)
        await studio.log_in(arguments.token_file)
        made = False

        async def send(face: Face) -> None:
            nonlocal made
            if not made:
                await studio.make_parameters(face.names)
                made = True
            await studio.show(face)

        await feed(arguments, send)


def main() -> int:
    parse = parser("vtube_studio", "Faces as VTube Studio tracking parameters.", "arkit52", "gltf")
    parse.add_argument(
        "--studio", default="ws://127.0.0.1:8001", help="VTube Studio's API, default ws://127.0.0.1:8001"
    )
    parse.add_argument(
        "--token-file",
        type=Path,
        default=Path.home() / ".config" / "liveface" / "vtube-studio-token",
        help="where the token is kept that VTube Studio gives",
    )
    return run(parse.parse_args(), bridge)


if __name__ == "__main__":
    sys.exit(main())
