"""The asyncio client.

    async with connect("ws://127.0.0.1:8801/v1/stream", sample_rate=16_000) as avatar:
        await avatar.push(pcm)
        async for message in avatar: ...

Read while you push: a client that does not read is slow first and closed after ten seconds.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from clients.python.wire import (
    AFTER_THE_LAST,
    SUBPROTOCOL,
    Event,
    Face,
    Message,
    Reading,
    hello,
    pack_sound,
)

URL: Final = "ws://127.0.0.1:8801/v1/stream"
PIECE_BYTES: Final = 32_000
"""Long sound is cut into messages of this size: a second at 16 kHz, half of what the server takes."""


class AvatarClosedError(ConnectionError):
    """The server ended the conversation, or would not begin it: `code`, `reason` and a sentence."""

    def __init__(self, code: int, reason: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(f"{message or reason or 'closed'} ({code} {reason})".strip())
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_ms = retry_after_ms


class Avatar:
    """One conversation. Made by `connect`."""

    def __init__(self, socket: ClientConnection, started: Mapping[str, Any]) -> None:
        self.started = started
        """The server's answer to the hello, whole."""
        self._socket = socket
        self._reading = Reading(started)
        self._seq = 0
        self._error: Event | None = None

    @property
    def session_id(self) -> str:
        return str(self.started["session_id"])

    @property
    def names(self) -> tuple[str, ...]:
        """Of the weights, in their order."""
        return self._reading.names

    @property
    def lookahead_ms(self) -> int:
        return int(self.started["timing"]["lookahead_ms"])

    @property
    def epoch(self) -> int:
        """Grows with every interrupt, ours and the server's."""
        return self._reading.epoch

    async def push(self, pcm: bytes, pts_us: int = AFTER_THE_LAST, end: bool = False) -> None:
        """Sound as declared in the hello, any length of whole samples. `end` ends the segment."""
        pieces = [pcm[i : i + PIECE_BYTES] for i in range(0, len(pcm), PIECE_BYTES)] or [b""]
        for i, piece in enumerate(pieces):
            last = i == len(pieces) - 1
            at = pts_us if i == 0 else AFTER_THE_LAST
            await self._send(pack_sound(piece, self._seq, self.epoch, at, end and last))
            self._seq += 1

    async def end_segment(self, segment_id: str | None = None) -> None:
        await self.say("audio.end", segment_id=segment_id)

    async def interrupt(self) -> None:
        """Whatever is queued or on its way is void from now on."""
        self._reading.epoch += 1
        await self.say("interrupt")

    async def update(self, **changes: Any) -> None:
        """`face={"rate": 60}`, `landmarks=True` …: see session.update."""
        await self.say("session.update", **changes)

    async def ping(self, t: float) -> None:
        await self.say("ping", t=t)

    async def say(self, kind: str, **fields: Any) -> None:
        """Any JSON event."""
        said = {name: value for name, value in fields.items() if value is not None}
        await self._send(json.dumps({"type": kind, **said}))

    async def __aiter__(self) -> AsyncIterator[Message]:
        """Everything the server sends, until either side closes; AvatarClosedError when that was an error."""
        while True:
            try:
                message = self._reading.read(await self._socket.recv())
            except ConnectionClosed as closed:
                if closed.rcvd is not None and closed.rcvd.code == 1000:
                    return
                raise self._closed(closed) from closed
            if isinstance(message, Event) and message.type == "error" and message.fields.get("fatal"):
                self._error = message
            elif message is not None:
                yield message

    async def faces(self) -> AsyncIterator[Face]:
        async for message in self:
            if isinstance(message, Face):
                yield message

    async def aclose(self) -> None:
        await self._socket.close()

    async def _send(self, message: str | bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionClosed as closed:
            raise self._closed(closed) from closed

    def _closed(self, closed: ConnectionClosed) -> AvatarClosedError:
        fields = self._error.fields if self._error else {}
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "connection lost")
        return AvatarClosedError(code, reason, fields.get("message", ""), fields.get("retry_after_ms"))


@asynccontextmanager
async def connect(url: str = URL, *, token: str | None = None, **wishes: Any) -> AsyncIterator[Avatar]:
    """One conversation, as a block. `wishes` are those of `wire.hello`: avatar, sample_rate, channels, audio_format,
    pacing, face, landmarks, mesh, video, audio_out, resume, view. Raises AvatarClosedError with its sentence."""
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        socket = await connect_websocket(
            url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            additional_headers=headers,
            compression=None,
            max_size=None,  # a picture may be large; the server is one that we chose
        )
    except InvalidURI as wrong:
        what = f"{url} is no websocket's address: it begins with ws:// or wss://, as {URL}"
        raise AvatarClosedError(0, "no connection", what) from wrong
    except (OSError, InvalidHandshake, TimeoutError) as failed:
        raise AvatarClosedError(0, "no connection", f"cannot speak avatar.v1 with {url}: {failed}") from failed
    async with socket:
        avatar = Avatar(socket, await _start(socket, hello(token=token, **wishes)))
        yield avatar


async def _start(socket: ClientConnection, first: str) -> Mapping[str, Any]:
    error: Mapping[str, Any] = {}
    try:
        await socket.send(first)
        while True:
            message = await socket.recv()
            said = json.loads(message) if isinstance(message, str) else {}
            if said.get("type") == "session.started":
                return dict(said)
            if said.get("type") == "error":
                error = said
    except ConnectionClosed as closed:
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "connection lost")
        raise AvatarClosedError(code, reason, error.get("message", ""), error.get("retry_after_ms")) from closed
