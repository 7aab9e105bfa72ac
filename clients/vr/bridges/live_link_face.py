"""Unreal Engine's Live Link Face, as the iPhone app sends it: MetaHumans and anything else on Live Link.

    python -m clients.vr.bridges.live_link_face --wav speech.wav --to 127.0.0.1:11111

In Unreal: enable the plugins Live Link and Apple ARKit Face Support; the subject "Liveface" appears in Window → Live
Link; choose it as the face source of the character. The protocol has no place for the head's position.
"""

import argparse
import math
import struct
import sys
import uuid

from clients.python import Face
from clients.vr.bridges.feed import datagrams, feed, parser, run

VERSION = 6
FPS = 60


def rotator(rotation: tuple[float, ...]) -> tuple[float, float, float]:
    """Unreal's FQuat x y z w → FRotator yaw, pitch, roll in radians."""
    x, y, z, w = rotation
    lean = max(-0.5, min(0.5, z * x - w * y))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    roll = math.atan2(-2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    return yaw, math.asin(2 * lean), roll


def packet(face: Face, device: str, subject: str, frame: int) -> bytes:
    """One face in Unreal's coordinates and ARKit's order → one datagram. Angles travel in radians."""
    gaze = [math.radians(angle) for angle in face.gaze]
    numbers = [*face.values, *rotator(face.rotation), *gaze, 0.0, *gaze, 0.0]
    name = subject.encode()
    return (
        struct.pack("<I", VERSION)
        + f"${device}".encode()
        + struct.pack(">i", len(name))
        + name
        + struct.pack(">IfII", frame, 0.0, FPS, 1)
        + struct.pack(">B61f", len(numbers), *numbers)
    )


async def bridge(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.to.rpartition(":")
    transport = await datagrams(host, int(port))
    device = str(uuid.uuid4())
    frame = 0

    async def send(face: Face) -> None:
        nonlocal frame
        transport.sendto(packet(face, device, arguments.subject, frame))
        frame += 1

    try:
        await feed(arguments, send)
    finally:
        transport.close()


def main() -> int:
    parse = parser("live_link_face", "Faces as Unreal's Live Link Face packets (UDP).", "arkit52", "unreal")
    parse.add_argument("--to", default="127.0.0.1:11111", help="Unreal's HOST:PORT, default 127.0.0.1:11111")
    parse.add_argument("--subject", default="Liveface", help="the name in Unreal's Live Link window")
    return run(parse.parse_args(), bridge)


if __name__ == "__main__":
    sys.exit(main())
