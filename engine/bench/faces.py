"""Websocket clients that want faces only, many in one process: `python -m engine.bench.faces PLAN`.

Each sends 40 ms of sound every 40 ms, all at different phases. A few ask for their sound back: what comes back is,
byte for byte, a piece that was sent, so its date tells which face answers which piece, and the time from the sending of
a piece to the arrival of its face is the latency. PLAN is a `FacesPlan` as JSON; a list of `Heard` goes to standard
output as JSON.

Clients share the machine with what they measure, so they are lean: one thread, one selector, and websocket frames by
hand. What they still cost is measured and said.
"""

import heapq
import json
import resource
import selectors
import socket
import struct
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from engine.clock import Clock, RealClock
from engine.protocol import PROTOCOL, SUBPROTOCOL
from engine.protocol.frames import HEADER, Kind, pack_frame
from models.rates import CHUNK_SECONDS, FRAME_RATE, HEARD_RATE, SAMPLE_RATE

SETTLE_SECONDS = 3.0
"""Not counted after the last one has connected."""

APART_SECONDS = 0.02
"""Between one client's connecting and the next one's."""

SILENT_SECONDS = 5.0
"""Without a word from the server for so long, a client hangs up."""

PROBES = 3
AFTER_THE_LAST = -1
"""The date of sound that follows what was sent before."""

POOL_SECONDS = 10.0
"""Sound that those share who do not ask for it back; each begins at another place."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
READ_BYTES = 1 << 16
_KEY: Final = b64encode(b"liveface's bench").decode()


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
    """Of the whole process from the first connection on, in its first client."""


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


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's websocket frame, whole. The mask is four zeros: the server takes it off as any other."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack(">BH", 0x80 | 126, size)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


def unmasked(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """The server's frames that are whole, opcode and payload, taken out of `buffer`."""
    while len(buffer) >= 2:
        size, begin = buffer[1] & 0x7F, 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:begin], "big")
        if len(buffer) < begin + size:
            return
        frame = buffer[0] & 0x0F, bytes(buffer[begin : begin + size])
        del buffer[: begin + size]
        yield frame


class Hung(ConnectionError):
    """The conversation is over; the message says why."""


class Caller:
    """One client. The crowd says when to speak and when there is something to read."""

    def __init__(self, plan: FacesPlan, number: int, pool: list[bytes]) -> None:
        self.heard = Heard()
        self.socket: socket.socket | None = None
        self._plan = plan
        self._probe = number % max(1, plan.sessions // PROBES) == 0
        self._matches = Matches()
        self._said: Iterator[bytes]
        if self._probe:
            seconds = plan.seconds + plan.sessions * APART_SECONDS
            self._said = iter(pieces(HEARD_RATE, round(seconds / CHUNK_SECONDS) + 1, number))
        else:
            self._said = islice(cycle(pool), number * 7 % len(pool), None)
        self._buffer = bytearray()
        self._unsent = b""
        self._answered = self._started = False
        self._seq = 0
        self._last_seq = -1
        self._last_word = 0.0

    def connect(self, now: float) -> socket.socket:
        """Dial and say hello; what comes back is read when it comes."""
        where = urlsplit(self._plan.url)
        self._last_word = now
        self.socket = socket.create_connection((where.hostname or "", where.port or 80), SILENT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        lines = [
            f"GET {where.path} HTTP/1.1",
            f"Host: {where.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {_KEY}",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        ]
        self._send("\r\n".join([*lines, "", ""]).encode() + masked(TEXT, self._hello().encode()))
        return self.socket

    def speak(self, now: float) -> None:
        """Send the next 40 ms, once the server has begun."""
        if now - self._last_word > SILENT_SECONDS:
            raise Hung(f"nothing came for {SILENT_SECONDS:g} s")
        if not self._started:
            return
        piece = next(self._said)
        if self._probe:
            self._matches.send(piece, now)
        self._send(masked(BINARY, pack_frame(Kind.AUDIO_IN, 0, self._seq, 0, AFTER_THE_LAST, piece)))
        self._seq += 1

    def read(self, now: float, counts: bool) -> None:
        """Take what has come. `counts` when the beginning is over."""
        assert self.socket is not None
        came = self.socket.recv(READ_BYTES)
        if not came:
            raise Hung("the server hung up")
        self._last_word = now
        self._buffer += came
        if not self._answered:
            head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            status = head.split(b"\r\n")[0].decode("latin-1")
            if " 101 " not in status:
                raise Hung(f"the server answered {status}")
            self._answered, self._buffer = True, bytearray(rest)
        for opcode, payload in unmasked(self._buffer):
            if opcode == BINARY:
                self._frame(payload, now, counts)
            elif opcode == TEXT:
                self._started = True
            elif opcode == PING:
                self._send(masked(PONG, payload))
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")
                raise Hung(f"closed with {code} {payload[2:].decode(errors='replace')}".strip())

    def _frame(self, message: bytes, now: float, counts: bool) -> None:
        _, kind, _, _, seq, _, _, pts_us = HEADER.unpack_from(message)
        found = None
        if kind == Kind.FACE:
            if counts:
                self.heard.faces += 1
                self.heard.spared += max(0, seq - self._last_seq - 1) if self._last_seq >= 0 else 0
            self._last_seq = seq
            found = self._matches.face(pts_us, now) if self._probe else None
        elif kind == Kind.AUDIO_OUT:
            found = self._matches.sound(pts_us, message[HEADER.size :])
        if found is not None and counts:
            self.heard.latencies.append(found[1] - found[0])

    def _send(self, message: bytes) -> None:
        assert self.socket is not None
        self._unsent += message
        with suppress(BlockingIOError):
            self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def _hello(self) -> str:
        rate = HEARD_RATE if self._probe else SAMPLE_RATE
        said: dict[str, Any] = {
            "type": "session.start",
            "protocol": PROTOCOL,
            "client": {"name": "liveface-bench", "version": PROTOCOL, "engine": "python"},
            "avatar_id": self._plan.avatar,
            "audio": {"format": "pcm_s16le", "sample_rate": rate, "channels": 1},
            "pacing": "realtime",
            "face": {},
            "audio_out": {"sample_rate": rate} if self._probe else None,
        }
        if self._plan.token is not None:
            said["auth"] = {"token": self._plan.token}
        return json.dumps(said)


def crowd(plan: FacesPlan, clock: Clock) -> list[Heard]:
    """All clients of a plan at once, on this thread, until the plan's seconds are over since the last one came."""
    pool = pieces(SAMPLE_RATE, round(POOL_SECONDS / CHUNK_SECONDS), 0)
    callers = [Caller(plan, number, pool) for number in range(plan.sessions)]
    began, used = clock.now(), _cpu_seconds()
    counted = began + plan.sessions * APART_SECONDS + SETTLE_SECONDS
    end = began + plan.sessions * APART_SECONDS + plan.seconds
    phase = CHUNK_SECONDS / plan.sessions
    turns = [(began + number * (APART_SECONDS + phase), number) for number in range(plan.sessions)]
    with selectors.DefaultSelector() as ready:
        while turns and turns[0][0] < end:
            for key, _ in ready.select(max(0.0, turns[0][0] - clock.now())):
                now = clock.now()
                with _while_it_lasts(key.data, ready):
                    key.data.read(now, now >= counted)
            while turns and turns[0][0] <= clock.now():
                due, number = heapq.heappop(turns)
                caller = callers[number]
                with _while_it_lasts(caller, ready):
                    if caller.socket is None:
                        ready.register(caller.connect(clock.now()), selectors.EVENT_READ, caller)
                    else:
                        caller.speak(clock.now())
                if not caller.heard.closed:
                    heapq.heappush(turns, (due + CHUNK_SECONDS, number))
        for caller in callers:
            caller.heard.seconds = clock.now() - counted
            if caller.socket is not None:
                caller.socket.close()
    callers[0].heard.cpu_seconds = _cpu_seconds() - used
    return [caller.heard for caller in callers]


@contextmanager
def _while_it_lasts(caller: Caller, ready: selectors.BaseSelector) -> Iterator[None]:
    """A client that cannot go on says why, and the others go on."""
    try:
        yield
    except OSError as error:
        caller.heard.closed = " ".join(str(error).split()) or type(error).__name__
        if caller.socket is not None:
            with suppress(KeyError):
                ready.unregister(caller.socket)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    heard = crowd(FacesPlan(**json.loads(sys.argv[1])), RealClock())
    json.dump([asdict(each) for each in heard], sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
