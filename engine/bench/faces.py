"""Websocket clients that want faces only, many in one process: `python -m engine.bench.faces PLAN`.

Each sends 40 ms of sound every 40 ms, all at different phases. A few ask for their sound back: what comes back is,
byte for byte, a piece that was sent, so its date tells which face answers which piece, and the time from the sending of
a piece to the arrival of its face is the latency. PLAN is a `FacesPlan` as JSON; a list of `Heard` goes to standard
output as JSON.
"""

import asyncio
import json
import resource
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from engine.clock import Clock, RealClock
from engine.protocol import PROTOCOL, SUBPROTOCOL, Kind, pack_frame, parse_frame
from models.rates import CHUNK_SECONDS, FRAME_RATE, HEARD_RATE, SAMPLE_RATE

SETTLE_SECONDS = 3.0
"""Not counted at the beginning: everybody connects at once."""

APART_SECONDS = 0.02
"""Between one client's connecting and the next one's."""

PROBES = 3
AFTER_THE_LAST = -1
"""The date of sound that follows what was sent before."""


@dataclass(frozen=True, slots=True)
class FacesPlan:
    """What a process of clients does. `url` is the websocket's."""

    url: str
    sessions: int
    seconds: float
    avatar: str | None = None
    token: str | None = None


@dataclass(slots=True)
class Heard:
    """What one client found. Times in seconds."""

    latencies: list[float] = field(default_factory=list)
    faces: int = 0
    seconds: float = 0.0
    spared: int = 0
    """Faces that the server threw away because a newer one was there."""
    closed: str = ""
    cpu_seconds: float = 0.0
    """Of the whole process, in its first client."""


def pieces(rate: int, count: int, seed: int) -> list[bytes]:
    """Syllables of a hummed 150 Hz and a little noise, in pieces of 40 ms, no two alike."""
    axis = np.arange(count * rate // FRAME_RATE) / rate
    tone = sum(np.sin(2 * np.pi * 150 * k * axis) / k for k in range(1, 10))
    syllables = np.clip(1.5 * np.sin(2 * np.pi * 2.1 * axis), 0, 1)
    noise = np.random.default_rng(seed).normal(0, 0.002, len(axis))
    pcm = (np.clip(0.3 * tone * syllables + noise, -1, 1) * 32_000).astype("<i2")
    return [piece.tobytes() for piece in pcm.reshape(count, -1)]


class Matches:
    """Pairs a piece of sound that came back with the face of the same date, whichever comes first."""

    def __init__(self) -> None:
        self._sent: dict[bytes, float] = {}
        self._dated: dict[int, float] = {}
        self._faces: dict[int, float] = {}

    def send(self, piece: bytes, now: float) -> None:
        self._sent[piece] = now

    def face(self, pts_us: int, now: float) -> tuple[float, float] | None:
        """When the piece of this face was sent, and when the face came; None while that is not known."""
        sent = self._dated.pop(pts_us, None)
        if sent is None:
            self._faces[pts_us] = now
            return None
        return sent, now

    def sound(self, pts_us: int, piece: bytes) -> tuple[float, float] | None:
        """The same, when the piece comes back after its face."""
        sent = self._sent.pop(piece, None)
        if sent is None:
            return None
        face = self._faces.pop(pts_us, None)
        if face is None:
            self._dated[pts_us] = sent
            return None
        return sent, face


async def converse(plan: FacesPlan, number: int, clock: Clock) -> Heard:
    """One client, from its hello to its leaving."""
    probe = number % max(1, plan.sessions // PROBES) == 0
    rate = HEARD_RATE if probe else SAMPLE_RATE
    heard, matches = Heard(), Matches()
    await clock.sleep_until(clock.now() + number * APART_SECONDS + number / plan.sessions * CHUNK_SECONDS)
    try:
        protocols = [Subprotocol(SUBPROTOCOL)]
        async with connect(plan.url, subprotocols=protocols, compression=None, max_size=None) as socket:
            await socket.send(_hello(plan, rate, probe))
            await socket.recv()
            began = clock.now()
            said = pieces(rate, round(plan.seconds / CHUNK_SECONDS), number)
            talking = asyncio.create_task(_talk(socket, said, matches if probe else None, clock))
            try:
                await _listen(socket, plan, heard, matches if probe else None, began, clock)
            finally:
                heard.seconds = clock.now() - began - SETTLE_SECONDS
                talking.cancel()
                with suppress(asyncio.CancelledError, WebSocketException):
                    await talking
    except (WebSocketException, InvalidHandshake, OSError, TimeoutError) as error:
        heard.closed = " ".join(str(error).split()) or type(error).__name__
    return heard


async def _talk(socket: ClientConnection, said: list[bytes], matches: Matches | None, clock: Clock) -> None:
    due = clock.now()
    for seq, piece in enumerate(said):
        await clock.sleep_until(due)
        if matches is not None:
            matches.send(piece, clock.now())
        await socket.send(pack_frame(Kind.AUDIO_IN, 0, seq, 0, AFTER_THE_LAST, piece))
        due += CHUNK_SECONDS


async def _listen(
    socket: ClientConnection, plan: FacesPlan, heard: Heard, matches: Matches | None, began: float, clock: Clock
) -> None:
    last = -1
    while clock.now() < began + plan.seconds:
        message = await asyncio.wait_for(socket.recv(), 5)
        now = clock.now()
        if isinstance(message, str):
            continue
        frame = parse_frame(message)
        found = None
        if frame.kind == Kind.FACE:
            if now - began > SETTLE_SECONDS:
                heard.faces += 1
                heard.spared += max(0, frame.seq - last - 1) if last >= 0 else 0
            last = frame.seq
            found = matches.face(frame.pts_us, now) if matches is not None else None
        elif frame.kind == Kind.AUDIO_OUT and matches is not None:
            found = matches.sound(frame.pts_us, frame.payload)
        if found is not None and found[0] - began > SETTLE_SECONDS:
            heard.latencies.append(found[1] - found[0])


def _hello(plan: FacesPlan, rate: int, probe: bool) -> str:
    said: dict[str, Any] = {
        "type": "session.start",
        "protocol": PROTOCOL,
        "client": {"name": "liveface-bench", "version": PROTOCOL, "engine": "python"},
        "avatar_id": plan.avatar,
        "audio": {"format": "pcm_s16le", "sample_rate": rate, "channels": 1},
        "pacing": "realtime",
        "face": {},
        "audio_out": {"sample_rate": rate} if probe else None,
    }
    if plan.token is not None:
        said["auth"] = {"token": plan.token}
    return json.dumps(said)


async def crowd(plan: FacesPlan, clock: Clock) -> list[Heard]:
    """All clients of a plan at once."""
    heard = await asyncio.gather(*(converse(plan, number, clock) for number in range(plan.sessions)))
    used = resource.getrusage(resource.RUSAGE_SELF)
    heard[0].cpu_seconds = used.ru_utime + used.ru_stime
    return heard


def main() -> int:
    heard = asyncio.run(crowd(FacesPlan(**json.loads(sys.argv[1])), RealClock()))
    json.dump([asdict(each) for each in heard], sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
