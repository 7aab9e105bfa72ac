"""A house with an open websocket door, in a hurry, and those who come to it: well-mannered, and raw."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from engine.protocol.frames import Frame, Kind, pack_frame, parse_frame
from engine.session import House
from engine.websocket import Patience, Stream, serve_websocket
from models.rates import CHUNK
from tests.fakes import vowel
from tests.seats import FakeWorker

VOICE = (vowel(4, 16_000, amplitude=0.8) * 32_000).astype("<i2")


HURRY = 5.0
"""How much faster than real time the engine runs here."""


QUICK = Patience(handshake=0.5, hello=0.4, stall=0.5 * HURRY, ping=0.1 * HURRY, farewell=0.2)
"""Stalls are measured on the engine's clock, the rest on asyncio's."""


class HurriedClock:
    """Real time, five times faster unless told otherwise."""

    def __init__(self, speed: float = HURRY) -> None:
        self._speed = speed

    def now(self) -> float:
        return time.monotonic() * self._speed

    def wall(self) -> float:
        return time.time()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, (when - self.now()) / self._speed))

    def call_at(self, when: float, what: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(max(0.0, (when - self.now()) / self._speed), what)


class Place:
    """A house with an open websocket door."""

    def __init__(self, house: House, worker: FakeWorker, stream: Stream) -> None:
        self.house, self.worker, self.stream = house, worker, stream

    @asynccontextmanager
    async def visit(self, **how: Any) -> AsyncIterator[ClientConnection]:
        async with connect(
            self.stream.url,
            subprotocols=[Subprotocol("avatar.v1")],
            compression=None,
            max_size=None,
            max_queue=None,
            close_timeout=1,
            open_timeout=60,
            **how,
        ) as client:
            yield client

    @asynccontextmanager
    async def talk(self, **wishes: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
        """A client that has had its session.started."""
        async with self.visit() as client:
            await client.send(hello(**wishes))
            yield client, json.loads(await client.recv())

    async def gone(self) -> None:
        """All guests have left, and their sessions and slots with them."""
        await until(lambda: self.stream.guests == 0 and not self.house.sessions)
        assert self.worker.free_slots == self.worker.slots


@asynccontextmanager
async def a_place(
    patience: Patience = QUICK, slots: int = 4, lookahead: int = 0, speed: float = HURRY, **how: Any
) -> AsyncIterator[Place]:
    clock = HurriedClock(speed)
    worker = FakeWorker(clock, lookahead=lookahead, slots=slots)  # type: ignore[arg-type]  # it needs now and sleep_until
    async with (
        House(worker, clock) as house,  # type: ignore[arg-type]  # the fake has the worker's shape
        serve_websocket(house, clock, port=0, avatar="demo", patience=patience, **how) as stream,
    ):
        yield Place(house, worker, stream)


def hello(**wishes: Any) -> str:
    return json.dumps({"type": "session.start", "protocol": "1.0", **wishes})


def sound(pcm: np.ndarray | bytes = VOICE[:CHUNK], epoch: int = 0, flags: int = 0) -> bytes:
    return pack_frame(Kind.AUDIO_IN, flags, 0, epoch, -1, bytes(pcm))


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


async def frames(client: ClientConnection, kind: Kind, count: int) -> list[Frame]:
    """The next `count` frames of a kind."""
    found: list[Frame] = []
    while len(found) < count:
        message = await asyncio.wait_for(client.recv(), 10)
        if isinstance(message, bytes) and message[1] == kind:
            found.append(parse_frame(message))
    return found


async def event(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    while True:
        message = await asyncio.wait_for(client.recv(), 10)
        if isinstance(message, str) and (said := json.loads(message))["type"] == kind:
            return dict(said)


async def end(client: ClientConnection, seconds: float = 30) -> tuple[int, str, dict[str, Any]]:
    """Close code and reason, and the error that was told before."""
    error: dict[str, Any] = {}
    async with asyncio.timeout(seconds):
        async for message in until_closed(client):
            if isinstance(message, str) and (said := json.loads(message))["type"] == "error":
                error = said
    assert client.close_code is not None
    return client.close_code, client.close_reason or "", error


async def until_closed(client: ClientConnection) -> AsyncIterator[str | bytes]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await client.recv()


class Raw:
    """A client that knows no library: bytes on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, place: Place, small_buffers: bool = False) -> "Raw":
        plug = socket.socket()
        if small_buffers:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", place.stream.port))
        return cls(*await asyncio.open_connection(sock=plug, limit=1024))

    async def greeting(self, origin: str | None = None, host: str = "127.0.0.1") -> int:
        """The handshake; the HTTP status of its answer. Compression is offered and must not be taken."""
        ours = f"Origin: {origin}\r\n" if origin else ""
        self.writer.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\n{ours}Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: avatar.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
        )
        answer = await self.reader.readuntil(b"\r\n\r\n")
        assert b"permessage-deflate" not in answer
        return int(answer.split()[1])

    async def greet(self, **wishes: Any) -> None:
        assert await self.greeting() == 101
        if wishes:
            self.frame(0x81, hello(**wishes).encode())

    def frame(self, first: int, payload: bytes) -> None:
        """One websocket frame, masked with zeros."""
        n = len(payload)
        length = bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n)
        self.writer.write(bytes([first]) + length + bytes(4) + payload)

    async def close_code(self) -> int:
        """Of the close frame, reading whole frames until it comes."""
        while True:
            first, second = await asyncio.wait_for(self.reader.readexactly(2), 3)
            n = second & 0x7F
            if n == 126:
                (n,) = struct.unpack(">H", await self.reader.readexactly(2))
            payload = await self.reader.readexactly(n)
            if first & 0x0F == 8:
                return int.from_bytes(payload[:2], "big")

    def hang_up(self) -> None:
        self.writer.transport.abort()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
