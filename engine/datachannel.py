"""The data channel of a WebRTC connection: the session's events out, commands in, points beside the picture.

What comes in is bounded in size and rate, and ignored when it is no command, as the protocol says; what goes out is
dropped (points) or ends the connection (events) where nobody reads it.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from engine.broadcast import Source
from engine.clock import Clock
from engine.media import Event, Moment
from engine.session import SessionClosedError
from models.rates import HEARD_RATE
from models.runtime import Wants

LABEL: Final = "avatar-events"

COMMAND_BYTES_MOST: Final = 16_384
COMMANDS_PER_SECOND: Final = 50
EVENT_BYTES_MOST: Final = 256 * 1_024
"""Unsent events of a peer that does not read them; beyond it the connection is closed."""

POINT_BYTES_MOST: Final = 16 * 1_024
"""Unsent bytes at which points are left out: they are worth something only with their picture."""


class Conversation(Source, Protocol):
    """What a connection needs of `engine.session.Session`."""

    @property
    def closed(self) -> asyncio.Event: ...

    async def push_audio(
        self,
        pcm: npt.NDArray[np.int16],
        rate: int,
        pts: int | None = None,
        segment_id: str | None = None,
        arrived: float | None = None,
        speech: bool | None = None,
    ) -> None: ...

    async def flush(self, segment_id: str | None = None) -> None: ...

    async def interrupt(self) -> int: ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...


class Wire(Protocol):
    """What this needs of `aiortc.RTCDataChannel`."""

    label: str
    readyState: str  # noqa: N815 - aiortc calls it so
    bufferedAmount: int  # noqa: N815 - this too

    def on(self, event: str, listener: Callable[..., None]) -> Any: ...

    def send(self, data: str) -> None: ...


class EventChannel:
    """Of one connection. `leave` ends that connection, with the reason."""

    def __init__(self, session: Conversation, clock: Clock, commands: bool, leave: Callable[[str], None]) -> None:
        self.ignored = 0
        """Messages that were no commands, too many, too long, or a viewer's."""
        self._session = session
        self._clock = clock
        self._may_command = commands
        self._leave = leave
        self._wire: Wire | None = None
        self._open = asyncio.Event()
        self._points_wanted = asyncio.Event()
        self._arrived: deque[float] = deque(maxlen=COMMANDS_PER_SECOND)
        self._commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=COMMANDS_PER_SECOND)

    def opened(self, wire: Wire) -> None:
        """The first channel of our name is ours; others are nobody's."""
        if wire.label != LABEL or self._wire is not None:
            return
        self._wire = wire
        wire.on("message", self._on_message)
        self._open.set()

    def parts(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What runs for as long as the connection does."""
        yield self._tell()
        yield self._obey()
        yield self._point()

    async def _tell(self) -> None:
        """Every event of the session, as one JSON text message."""
        try:
            async with self._session.events() as events:
                await self._open.wait()
                async for event in events:
                    self._write({"type": event.type, **event.fields})
        except SessionClosedError:
            self._leave("session ended")

    async def _obey(self) -> None:
        while True:
            await self._command(await self._commands.get())

    async def _point(self) -> None:
        """The points behind each picture, for as long as the client asks for them: it draws them over the picture."""
        with suppress(SessionClosedError):
            while True:
                await self._points_wanted.wait()
                async with self._session.outlet(wants=Wants.POINTS, capacity=1) as outlet:
                    async for moment in outlet:
                        if not self._points_wanted.is_set():
                            break
                        self._write_points(moment)
                    else:
                        return

    def _write_points(self, moment: Moment) -> None:
        if moment.points is None or moment.picture is None:
            return
        if self._wire is None or self._wire.bufferedAmount > POINT_BYTES_MOST:
            return  # the next ones are newer
        size = (moment.picture.width, moment.picture.height)
        points = (moment.points[:, :2] / size).round(4).tolist()
        self._write({"type": "landmarks", "pts_us": moment.pts * 1_000_000 // HEARD_RATE, "points": points})

    def _write(self, message: dict[str, Any]) -> None:
        if self._wire is None or self._wire.readyState != "open":
            return
        if self._wire.bufferedAmount > EVENT_BYTES_MOST:
            self._leave("events not read")
            return
        self._wire.send(json.dumps(message, separators=(",", ":")))

    def _on_message(self, message: str | bytes) -> None:
        now = self._clock.now()
        flood = len(self._arrived) == COMMANDS_PER_SECOND and now - self._arrived[0] < 1.0
        if flood or not isinstance(message, str) or len(message) > COMMAND_BYTES_MOST:
            self.ignored += 1
            return
        self._arrived.append(now)
        try:
            command = json.loads(message)
        except (ValueError, RecursionError):
            command = None
        if not isinstance(command, dict) or self._commands.full():
            self.ignored += 1
            return
        self._commands.put_nowait(command)

    async def _command(self, command: dict[str, Any]) -> None:
        kind = command.get("type")
        if kind == "ping":
            stamp = command.get("t")
            known = stamp if isinstance(stamp, int | float | str) and len(str(stamp)) <= 64 else None
            self._write({"type": "pong", "t": known, "server_t_us": round(self._clock.wall() * 1e6)})
            return
        if not self._may_command:
            self.ignored += 1
            return
        segment = command.get("segment_id")
        try:
            if kind == "interrupt":
                await self._session.interrupt()
            elif kind == "audio.end":
                await self._session.flush(segment if isinstance(segment, str) else None)
            elif kind == "session.end":
                self._leave("left")
            elif kind == "session.update" and isinstance(command.get("landmarks"), bool):
                (self._points_wanted.set if command["landmarks"] else self._points_wanted.clear)()
            else:
                self.ignored += 1
        except SessionClosedError:
            self._leave("session ended")
