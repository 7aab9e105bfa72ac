"""VMC (Virtual Motion Capture) over OSC: VSeeFace, Warudo, VNyan, Virtual Motion Capture, Blender and Unity receivers.

    python -m clients.vr.bridges.vmc --wav speech.wav --to 127.0.0.1:39539

The head bone turns, the eyes look, the root carries the few centimetres that a head moves; all in Unity's coordinates,
which the server sends as such.
"""

import argparse
import asyncio
import math
import struct
import sys
from collections.abc import Sequence

from clients.python import Face
from clients.vr.bridges.feed import datagrams, feed, parser, run

DATAGRAM_BYTES = 1_400
NO_TURN = (0.0, 0.0, 0.0, 1.0)

VRM0_NAMES = {
    "happy": "Joy",
    "angry": "Angry",
    "sad": "Sorrow",
    "relaxed": "Fun",
    "surprised": "Surprised",
    "aa": "A",
    "ih": "I",
    "ou": "U",
    "ee": "E",
    "oh": "O",
    "blink": "Blink",
    "blinkLeft": "Blink_L",
    "blinkRight": "Blink_R",
    "lookUp": "LookUp",
    "lookDown": "LookDown",
    "lookLeft": "LookLeft",
    "lookRight": "LookRight",
    "neutral": "Neutral",
}
TOGETHER = frozenset({"blink", "lookUp", "lookDown", "lookLeft", "lookRight"})
"""What the single eyelids and the eye bones say already: sent as well, it would count twice."""


def osc_message(address: str, *arguments: str | int | float) -> bytes:
    """OSC 1.0: strings end with zeros up to four bytes, numbers are big-endian."""
    tags, body = ",", b""
    for argument in arguments:
        if isinstance(argument, str):
            tags, body = tags + "s", body + _padded(argument)
        elif isinstance(argument, int):
            tags, body = tags + "i", body + struct.pack(">i", argument)
        else:
            tags, body = tags + "f", body + struct.pack(">f", argument)
    return _padded(address) + _padded(tags) + body


def osc_bundles(messages: Sequence[bytes]) -> list[bytes]:
    """Bundles for "now", in order, none larger than a datagram should be."""
    head = _padded("#bundle") + struct.pack(">Q", 1)
    bundles, bundle = [], head
    for message in messages:
        element = struct.pack(">i", len(message)) + message
        if len(bundle) + len(element) > DATAGRAM_BYTES and bundle != head:
            bundles.append(bundle)
            bundle = head
        bundle += element
    return [*bundles, bundle]


def _padded(text: str) -> bytes:
    raw = text.encode()
    return raw + b"\0" * (4 - len(raw) % 4)


def vmc_messages(face: Face, vrm0: bool) -> list[bytes]:
    """One face, in Unity's coordinates, as the VMC protocol's performer sends it."""
    eye = look(*face.gaze)
    messages = [
        osc_message("/VMC/Ext/OK", 1),
        osc_message("/VMC/Ext/T", face.pts_us / 1e6),
        osc_message("/VMC/Ext/Root/Pos", "root", *face.position, *NO_TURN),
        osc_message("/VMC/Ext/Bone/Pos", "Head", 0.0, 0.0, 0.0, *face.rotation),
        osc_message("/VMC/Ext/Bone/Pos", "LeftEye", 0.0, 0.0, 0.0, *eye),
        osc_message("/VMC/Ext/Bone/Pos", "RightEye", 0.0, 0.0, 0.0, *eye),
    ]
    for name, weight in face.weights.items():
        if name not in TOGETHER:
            messages.append(osc_message("/VMC/Ext/Blend/Val", VRM0_NAMES.get(name, name) if vrm0 else name, weight))
    return [*messages, osc_message("/VMC/Ext/Blend/Apply")]


def look(yaw: float, pitch: float) -> tuple[float, float, float, float]:
    """Unity's Euler(pitch, yaw, 0) as a quaternion: yaw about +Y after pitch about +X."""
    (sy, cy), (sp, cp) = ((math.sin(a), math.cos(a)) for a in (math.radians(yaw) / 2, math.radians(pitch) / 2))
    return cy * sp, sy * cp, -sy * sp, cy * cp


async def bridge(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.to.rpartition(":")
    arguments.schema = "arkit52" if arguments.names == "arkit" else "vrm1"
    transport = await datagrams(host, int(port))

    async def send(face: Face) -> None:
        for bundle in osc_bundles(vmc_messages(face, arguments.names == "vrm0")):
            transport.sendto(bundle)

    try:
        await feed(arguments, send)
        await asyncio.sleep(0)  # the last datagrams leave
    finally:
        transport.close()


def main() -> int:
    parse = parser("vmc", "Faces as VMC protocol messages (OSC over UDP).", "vrm1", "unity")
    parse.add_argument("--to", default="127.0.0.1:39539", help="the receiver's HOST:PORT, default 127.0.0.1:39539")
    parse.add_argument(
        "--names",
        default="vrm0",
        choices=("vrm0", "vrm1", "arkit"),
        help="expressions' names: vrm0 (A, I, U, Joy …, what most receivers expect), vrm1, or arkit for perfect sync",
    )
    return run(parse.parse_args(), bridge)


if __name__ == "__main__":
    sys.exit(main())
