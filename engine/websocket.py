"""Faces over websockets: `avatar.v1` on a port of its own. A thin skin: what is said is in engine/protocol.py.

    async with House(worker, clock) as house, serve_websocket(house, clock, avatar="demo") as stream:
        print(stream.url)  # ws://127.0.0.1:8801/v1/stream

Per client: one task reads, one takes events, one makes sure that somebody is there, one writes what the kernel did not
take at once; a face goes from the session to the socket in one go. A client that is slow loses pictures and faces,
never events; one that stalls is closed. Nobody else notices either.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConcurrencyError, ConnectionClosed, NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from engine import encoder
from engine.clock import Clock
from engine.limits import Limits, retry_after
from engine.media import Event, Moment, Picture, Plane
from engine.protocol import MESSAGE_BYTES_MOST, PATH, SUBPROTOCOL
from engine.protocol.closing import Close, ProtocolError
from engine.protocol.events import event_to_json
from engine.protocol.frames import Kind
from engine.protocol.outbox import Outbox
from engine.protocol.reader import Action, Change, ClientReader, EndSegment, Fail, Hear, Hush, Leave, Open, Say
from engine.protocol.wishes import SessionStart, SessionUpdate
from engine.protocol.writer import MomentWriter, started_event
from engine.session import DrainingError, House, Pacing, Session, SessionClosedError, SpeechFullError
from engine.tokens import TokenError
from engine.worker import NoFreeSlot, UnknownAvatar
from models.rates import CHUNK_SECONDS, FRAME_RATE, HEARD_RATE
from models.runtime import AvatarCard, Wants

log = logging.getLogger(__name__)
library_log = logging.getLogger(f"{__name__}.library")
library_log.setLevel(logging.ERROR)  # a line for every stranger who connects would bury ours

FRAMES_QUEUED: Final = 8
FRAGMENTS_MOST: Final = 64
"""Pieces of one message. A train of empty ones would cost memory and never a byte of the size limit."""

WRITE_LIMIT: Final = 4096
"""Bytes that may wait in this process. What waits is old; the newest face should be next."""

UNSENT_BYTES: Final = 8192
"""Bytes that the kernel may hold unsent, for the same reason."""

STATS_SECONDS: Final = 10.0

KIND_NAMES: Final = {kind.value: kind.name.lower() for kind in Kind}

SOURCE_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for, in seconds."""

    handshake: float = 5.0
    hello: float = 5.0
    stall: float = 10.0
    """One message may take so long to be written, one ping to be answered."""
    ping: float = 5.0
    farewell: float = 1.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What whoever guards the door says about a client."""

    session_id: str | None = None
    """The session its token was made for; None: a new one, or one that it names itself."""
    avatar: str | None = None
    """The only avatar it may have; None: any."""
    may_speak: bool = True
    """False: it may only look on."""


Authorise = Callable[[str | None, str | None, str | None], Admission]
"""(token, session id it wants to resume, origin) → an Admission; raises TokenError."""


def everybody(token: str | None, session_id: str | None, origin: str | None) -> Admission:
    """The door of a server that listens on this machine only."""
    return Admission()


class Stream:
    """The websocket server: who is here, and what has been counted."""

    def __init__(
        self,
        house: House,
        clock: Clock,
        avatar: str | None,
        authorise: Authorise,
        origins: Collection[str],
        limits: Limits | None,
        guests_most: int,
        server: Mapping[str, str],
        patience: Patience,
        jpeg_threads: ThreadPoolExecutor,
    ) -> None:
        self.house = house
        self.clock = clock
        self.avatar = avatar
        self.authorise = authorise
        self.server = dict(server)
        self.patience = patience
        self.threads = jpeg_threads
        self.host, self.port = "", 0
        self.closed: Counter[str] = Counter()
        """How connections ended, by the string of their close code."""
        self.sent: Counter[str] = Counter()
        """Messages sent, by kind."""
        self.frames_dropped = 0
        self.owners: dict[str, Guest] = {}
        """Which guest speaks for a session that was opened here."""
        self._guests: set[Guest] = set()
        self._origins = set(origins)
        self._limits = limits
        self._guests_most = guests_most

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}{PATH}"

    @property
    def guests(self) -> int:
        return len(self._guests)

    def stats(self) -> dict[str, Any]:
        return {
            "guests": len(self._guests),
            "closed": dict(self.closed),
            "sent": dict(self.sent),
            "frames_dropped": self.frames_dropped + sum(guest.outbox.frames_dropped for guest in self._guests),
        }

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """The HTTP answer to a handshake that goes no further, or None."""
        path = urlsplit(request.path).path
        if path in ("/healthz", "/livez"):
            return connection.respond(HTTPStatus.OK, "alive\n")
        if path != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"faces are at {PATH}\n")
        address = connection.remote_address[0] if connection.remote_address else ""
        if self._limits is not None and (wait := self._limits.wait(self.clock.now(), address)) > 0.0:
            return self._later(connection, HTTPStatus.TOO_MANY_REQUESTS, wait)
        if len(self._guests) >= self._guests_most:
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE, 5.0)
        origin = request.headers.get("Origin")
        if origin is not None and not self._welcome(origin, request.headers.get("Host", "")):
            return connection.respond(
                HTTPStatus.FORBIDDEN, f"pages of {origin} are not allowed here: see --access-origins\n"
            )
        return None

    async def attend(self, connection: ServerConnection) -> None:
        """One client, from its hello to its end."""
        unhurried(connection)
        guest = Guest(self, connection)
        self._guests.add(guest)
        try:
            await guest.stay()
        finally:
            self._guests.discard(guest)
            self.closed[guest.ended.string] += 1
            self.frames_dropped += guest.outbox.frames_dropped

    def _welcome(self, origin: str, host: str) -> bool:
        """Pages of other sites may not speak in their visitor's name (cross-site websocket hijack). Allowed are those
        that were named, this machine's own when the server is on loopback, and those of the server's own host."""
        if "*" in self._origins or origin in self._origins:
            return True
        page, asked = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
        if _loopback(self.host):
            return _loopback(page) and _loopback(asked)
        return page is not None and page == asked

    def _later(self, connection: ServerConnection, status: HTTPStatus, seconds: float) -> Response:
        response = connection.respond(status, "too many; try again later\n")
        response.headers["Retry-After"] = retry_after(seconds)
        return response


class Guest:
    """One client of the stream."""

    def __init__(self, stream: Stream, connection: ServerConnection) -> None:
        self.outbox = Outbox()
        self.ended = Close.OK
        self._stream = stream
        self._clock = stream.clock
        self._patience = stream.patience
        self._connection = connection
        self._reader = ClientReader(self._clock.now())
        self._something = asyncio.Event()
        self._ending: asyncio.Future[ProtocolError | Close] = asyncio.get_running_loop().create_future()
        self._may_speak = True
        self._segment_ended = False
        self._meshless = 0
        """Moments since the last with a mesh."""
        self._rewanted = asyncio.Event()
        self._sending_since: float | None = None
        self._ponged: asyncio.Future[float] | None = None
        self._pinged_at = 0.0

    def end(self, how: ProtocolError | Close) -> None:
        """Say goodbye; the first reason counts."""
        if not self._ending.done():
            self._ending.set_result(how)

    async def stay(self) -> None:
        how: ProtocolError | Close = Close.INTERNAL
        try:
            how = await self._hosted()
        except ProtocolError as error:
            how = error
        except ConnectionClosed:
            how = Close.GOING_AWAY
        finally:
            await self._farewell(how)

    async def _hosted(self) -> ProtocolError | Close:
        start = await self._hello()
        session, admitted = self._admit(start)
        try:
            return await self._converse(session, start)
        finally:
            if admitted and self._stream.owners.get(session.id) is self:
                del self._stream.owners[session.id]
                await session.aclose()

    async def _hello(self) -> SessionStart:
        try:
            async with asyncio.timeout(self._patience.hello):
                while True:
                    for action in self._reader.receive(await self._receive(), self._clock.now()):
                        if isinstance(action, Open):
                            return action.start
                        if isinstance(action, Fail):
                            raise action.error
        except TimeoutError:
            raise ProtocolError(
                Close.TIMEOUT, f"no session.start within {self._patience.hello:g} s of connecting"
            ) from None

    def _admit(self, start: SessionStart) -> tuple[Session, bool]:
        """The session this client gets, and whether it speaks for it. Nothing is opened for whom the door refuses."""
        headers = self._connection.request.headers if self._connection.request else {}
        bearer = headers.get("Authorization", "")
        token = start.token or (bearer[7:].strip() if bearer[:7].lower() == "bearer " else None)
        try:
            admission = self._stream.authorise(token, start.resume, headers.get("Origin"))
        except TokenError as refused:
            raise ProtocolError(Close.UNAUTHORISED, str(refused)) from refused
        self._may_speak = admission.may_speak and not start.view
        session_id = admission.session_id or start.resume
        running = self._stream.house.sessions.get(session_id) if session_id else None
        if running is not None and not running.closed.is_set():
            return running, self._take_over(running)
        if not self._may_speak:
            raise ProtocolError(Close.BAD_HELLO, "the session to look on at is not open")
        avatar = start.avatar or admission.avatar or self._stream.avatar
        if avatar is None:
            raise ProtocolError(Close.UNKNOWN_AVATAR, 'there is no default avatar here: name one in "avatar_id"')
        if admission.avatar is not None and avatar != admission.avatar:
            raise ProtocolError(Close.AVATAR_NOT_ALLOWED, f"the token is for another avatar than {avatar}")
        session = self._open(avatar, start, admission.session_id)
        self._stream.owners[session.id] = self
        return session, True

    def _take_over(self, session: Session) -> bool:
        """A second client of a session that was opened here replaces the first; of others (WebRTC) it is a viewer."""
        other = self._stream.owners.get(session.id)
        if other is None or not self._may_speak:
            return False
        self._stream.owners[session.id] = self
        other.end(ProtocolError(Close.REPLACED, "another client has taken this session over"))
        return True

    def _open(self, avatar: str, start: SessionStart, session_id: str | None) -> Session:
        house = self._stream.house
        try:
            return house.admit(avatar, pacing=Pacing(start.pacing), session_id=session_id, transport="websocket")
        except NoFreeSlot as full:
            raise ProtocolError(Close.TRY_LATER, str(full), round(full.retry_after * 1000)) from full
        except UnknownAvatar as unknown:
            raise ProtocolError(Close.UNKNOWN_AVATAR, str(unknown)) from unknown
        except DrainingError as draining:
            raise ProtocolError(Close.RESTART, str(draining), 60_000) from draining
        except ValueError as wrong:
            raise ProtocolError(Close.BAD_HELLO, str(wrong)) from wrong

    async def _converse(self, session: Session, start: SessionStart) -> ProtocolError | Close:
        writer = MomentWriter(start, session.card.width, session.card.height)
        self._reader.epoch = session.epoch
        lookahead_ms = round(session.card.lookahead * CHUNK_SECONDS * 1000)
        self._tell(
            started_event(start, session.id, self._stream.server, session.epoch, lookahead_ms, disclosure(session.card))
        )
        parts: list[Callable[[], Awaitable[Close]]] = [
            lambda: self._listen(session, writer),
            self._write,
            lambda: self._follow(session, writer),
            lambda: self._report(session),
            lambda: self._pulse(session),
        ]
        if start.video != "none":
            camera = Jpeg() if start.video == "jpeg" else H264()
            parts.append(lambda: self._film(session, writer, camera))
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._until_end(part), name=f"websocket {session.id}") for part in parts]
            how = await self._ending
            for task in running:
                task.cancel()
        return how

    async def _until_end(self, part: Callable[[], Awaitable[Close]]) -> None:
        """A part of the conversation: when it cannot go on, neither can the others."""
        try:
            self.end(await part())
        except ProtocolError as error:
            self.end(error)
        except ConnectionClosed:
            self.end(Close.GOING_AWAY)
        except SessionClosedError:
            self.end(self._over())

    def _over(self) -> Close:
        """Why the session has ended."""
        return Close.RESTART if self._stream.house.draining else Close.OK

    # The parts

    async def _listen(self, session: Session, writer: MomentWriter) -> Close:
        while True:
            for action in self._reader.receive(await self._receive(), self._clock.now()):
                if isinstance(action, Leave):
                    return Close.OK
                await self._act(action, session, writer)

    async def _act(self, action: Action, session: Session, writer: MomentWriter) -> None:
        if isinstance(action, Fail):
            raise action.error
        if isinstance(action, Say):
            return self._tell(action.event)
        if isinstance(action, Change):
            return self._change(action.update, writer)
        if not self._may_speak:
            raise ProtocolError(Close.POLICY, "this token may look on, not speak")
        if isinstance(action, Hear):
            await self._hear(action, session)
        elif isinstance(action, EndSegment):
            await session.flush(action.segment_id)
        elif isinstance(action, Hush):
            self._reader.epoch = await session.interrupt()

    async def _hear(self, sound: Hear, session: Session) -> None:
        assert self._reader.audio is not None
        rate = self._reader.audio.sample_rate
        try:
            await session.push_audio(sound.pcm, rate, sound.pts, sound.segment_id, self._clock.now())
        except SpeechFullError as full:
            self._tell(Event("error", {"code": "audio_buffer_overflow", "message": str(full), "fatal": False}))
        except ValueError as wrong:
            raise ProtocolError(Close.BAD_MESSAGE, str(wrong)) from wrong

    def _change(self, update: SessionUpdate, writer: MomentWriter) -> None:
        before = wants_of(writer)
        writer.update(update)
        if wants_of(writer) != before:
            self._rewanted.set()

    async def _follow(self, session: Session, writer: MomentWriter) -> Close:
        """Write every moment down as it leaves. When something else is wanted, say so to the session."""

        def look(moment: Moment) -> None:
            lost = writer.lost
            written = writer.write(moment, self._segment_ended)
            self.outbox.miss(Kind.FACE, writer.lost - lost)
            self._segment_ended = False
            for kind, messages in written.items():
                self.outbox.put(kind, messages)
            self._hurry()
            if writer.wants_mesh:
                self._miss_mesh(moment)

        while True:
            self._rewanted.clear()
            with session.watch(look, wants_of(writer), listens=writer.wants_sound):
                await self._rewanted.wait()

    def _miss_mesh(self, moment: Moment) -> None:
        """Who waits for a mesh that this avatar has not is told, once a second of it has been waited for."""
        self._meshless = 0 if moment.mesh is not None else self._meshless + 1
        if self._meshless == FRAME_RATE:
            message = "this avatar has no dense mesh; its landmarks can be had, 68 points"
            self._tell(Event("warning", {"code": "no_mesh", "message": message}))

    async def _film(self, session: Session, writer: MomentWriter, camera: "Jpeg | H264") -> Close:
        """Pictures, through an outlet of their own: an encoder that takes its time holds up no face."""
        loop = asyncio.get_running_loop()
        async with session.outlet(Wants.PICTURE, capacity=1) as moments:
            async for moment in moments:
                if moment.picture is None or moment.epoch != session.epoch:
                    continue
                if Kind.VIDEO in self.outbox.dropped:
                    camera.lost(self.outbox.dropped[Kind.VIDEO])
                made = await loop.run_in_executor(self._stream.threads, camera.encode, moment.picture, moment.pts)
                if made is not None:
                    unit, keyframe = made
                    self.outbox.put(Kind.VIDEO, [writer.video(moment.pts, moment.epoch, unit, keyframe)])
                    self._hurry()
        return self._over()

    async def _report(self, session: Session) -> Close:
        """Pass the session's events on."""
        async with session.events() as events:
            async for event in events:
                if event.type == "cleared":
                    self._reader.epoch = event.fields["epoch"]
                    self.outbox.void()
                elif event.type == "speech.stopped" and not event.fields.get("interrupted"):
                    self._segment_ended = True
                self._tell(event)
        return self._over()

    def _hurry(self) -> None:
        """Send what the kernel takes at once; only when it does not take it all is the writer woken."""
        connection = self._connection
        while self._sending_since is None and connection.transport.get_write_buffer_size() == 0:
            message = self.outbox.take(self._clock.now())
            if message is None:
                return
            broadcast((connection,), message)
            self._count(message)
        self._something.set()

    async def _write(self) -> Close:
        """What could not be sent in a hurry."""
        while True:
            message = self.outbox.take(self._clock.now())
            if message is None:
                self._something.clear()
                await self._something.wait()
                continue
            self._sending_since = self._clock.now()
            await self._connection.send(message)
            self._sending_since = None
            self._count(message)

    def _count(self, message: str | bytes) -> None:
        self._stream.sent["event" if isinstance(message, str) else KIND_NAMES[message[1]]] += 1

    async def _pulse(self, session: Session) -> Close:
        """A client that vanished without a word, or writes one byte a second, answers no ping; one that stopped reading
        lets a message stand unsent. Both are looked for here: a timer for every message would cost more than it."""
        patience = self._patience
        ping_at = self._clock.now() + patience.ping
        stats_at = self._clock.now() + STATS_SECONDS
        while True:
            await self._clock.sleep_until(self._clock.now() + min(patience.ping, patience.stall / 4))
            now = self._clock.now()
            if now >= stats_at:
                stats_at = now + STATS_SECONDS
                self._tell(Event("stats", {**session.stats(), "frames_dropped": self.outbox.frames_dropped}))
            if self._sending_since is not None and now - self._sending_since > patience.stall:
                raise ProtocolError(Close.TIMEOUT, f"nothing was read for {patience.stall:g} s")
            if self._ponged is not None and self._ponged.done():
                self._ponged = None
            if self._ponged is None and now >= ping_at and self._sending_since is None:
                self._pinged_at, ping_at = now, now + patience.ping
                self._ponged = asyncio.ensure_future(await self._ping())
            elif self._ponged is not None and now - self._pinged_at > patience.stall:
                raise ProtocolError(Close.TIMEOUT, f"no answer to a ping for {patience.stall:g} s")

    async def _ping(self) -> Awaitable[float]:
        """Even a ping cannot be written to who reads nothing."""
        try:
            async with asyncio.timeout(self._patience.stall):
                return await self._connection.ping()
        except TimeoutError:
            raise ProtocolError(Close.TIMEOUT, f"nothing was read for {self._patience.stall:g} s") from None

    # The connection

    def _tell(self, event: Event) -> None:
        self.outbox.tell(event_to_json(event))
        self._hurry()

    async def _receive(self) -> str | bytes:
        """One whole message, of a bounded number of fragments."""
        text: list[str] = []
        binary: list[bytes] = []
        async for piece in self._connection.recv_streaming():
            if isinstance(piece, str):
                text.append(piece)
            else:
                binary.append(bytes(piece))
            if len(text) + len(binary) > FRAGMENTS_MOST:
                raise ProtocolError(Close.POLICY, f"a message may come in {FRAGMENTS_MOST} fragments at most")
        return b"".join(binary) if binary else "".join(text)

    async def _discard(self) -> None:
        """Read on while closing: behind what a client was still sending its own close frame would never be found."""
        with contextlib.suppress(ConnectionClosed, ConcurrencyError):
            while True:
                await self._connection.recv()

    async def _farewell(self, how: ProtocolError | Close) -> None:
        """Tell why, close, and let go even of a client that no longer listens."""
        self.ended = close = how.close if isinstance(how, ProtocolError) else how
        try:
            async with asyncio.timeout(self._patience.farewell):
                discarding = asyncio.create_task(self._discard())
                try:
                    if isinstance(how, ProtocolError):
                        await self._connection.send(event_to_json(how.event()))
                    await self._connection.close(close.code, close.string)
                except ConnectionClosed:
                    log.debug("the connection was gone before it was closed with %s", close.string)
                finally:
                    discarding.cancel()
        except TimeoutError:
            # It reads nothing, so it will not read this either; the library alone would wait for it without end.
            self._connection.transport.abort()
        code = self._connection.close_code
        if close is Close.GOING_AWAY and code is not None:
            # The connection ended first, by the client or by a rule of the websocket layer: its code says how.
            self.ended = next((known for known in Close if known.code == code), close)


def _stretched(least: int, most: int, centre: float, target: float) -> Plane:
    levels = (np.arange(256) - centre) * (255 / (most - least)) + target
    return levels.round().clip(0, 255).astype(np.uint8)


FULL_RANGE: Final = (_stretched(16, 235, 16, 0), *(_stretched(16, 240, 128, 128),) * 2)
"""Video's levels (16 to 235, 16 to 240) → JPEG's (0 to 255), for each plane."""


class Jpeg:
    """Pictures one by one. `encode` runs in a thread, one at a time."""

    def __init__(self) -> None:
        self._context: VideoCodecContext | None = None

    def lost(self, count: int) -> None:
        """Every picture stands alone: nothing to mend."""

    def encode(self, picture: Picture, pts: int) -> tuple[bytes, bool] | None:
        """A JPEG file, and True: it needs no other."""
        frame = av.VideoFrame(picture.width, picture.height, "yuvj420p")
        for plane, pixels, full in zip(frame.planes, (picture.y, picture.u, picture.v), FULL_RANGE, strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # rows are padded
            rows[: pixels.shape[0], : pixels.shape[1]] = full[pixels]
        frame.pts = pts
        context = self._context or self._open(picture)
        return b"".join(bytes(packet) for packet in context.encode(frame)), True

    def _open(self, picture: Picture) -> VideoCodecContext:
        context = av.CodecContext.create("mjpeg", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuvj420p"
        context.time_base = Fraction(1, HEARD_RATE)
        context.thread_count = 1
        context.options = {"qmin": "3", "qmax": "6"}
        self._context = context
        return context


class H264:
    """One stream in Annex B. A picture that was dropped unsent makes the next one a key frame."""

    def __init__(self) -> None:
        self._encoder = encoder.VideoEncoder(encoder.open_x264, 1_000_000)
        self._lost = 0

    def lost(self, count: int) -> None:
        if count > self._lost:
            self._lost = count
            self._encoder.ask_keyframe()

    def encode(self, picture: Picture, pts: int) -> tuple[bytes, bool] | None:
        made = self._encoder.encode(picture, pts)
        return None if made is None else (made.data, made.keyframe)


def wants_of(writer: MomentWriter) -> Wants:
    """What the runtime has to compute for this client; no picture, so that nothing is rendered for faces."""
    wants = Wants.NOTHING
    if writer.wants_face:
        wants |= Wants.FACE
    if writer.wants_points:
        wants |= Wants.POINTS
    if writer.wants_mesh:
        wants |= Wants.MESH
    return wants


def disclosure(card: AvatarCard) -> dict[str, Any]:
    """Article 50(1) of the EU's AI Act: who talks to a machine is told so at the first interaction."""
    kind = "trainedAlgorithmicMedia" if card.synthetic else "compositeWithTrainedAlgorithmicMedia"
    return {"ai_generated": True, "label": card.label, "digital_source_type": SOURCE_TYPES + kind}


def unhurried(connection: ServerConnection) -> None:
    """Keep the kernel's queue short, so that a slow reader gets new faces late instead of old ones later."""
    plug = connection.transport.get_extra_info("socket")
    if plug is not None:
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _subprotocol(connection: ServerConnection, offered: Any) -> Subprotocol:
    if SUBPROTOCOL not in offered:
        raise NegotiationError(f"this server speaks {SUBPROTOCOL} only; offer it as the websocket subprotocol")
    return Subprotocol(SUBPROTOCOL)


@asynccontextmanager
async def serve_websocket(
    house: House,
    clock: Clock,
    *,
    host: str = "127.0.0.1",
    port: int = 8801,
    avatar: str | None = None,
    authorise: Authorise = everybody,
    origins: Collection[str] = (),
    limits: Limits | None = None,
    guests_most: int = 512,
    server: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Stream]:
    """`avatar.v1` at `ws://host:port/v1/stream` until the block ends; then every client is closed with 1012.

    `port=0` takes a free one (see `Stream.port`). `avatar` is for clients that name none. Raises OSError when the port
    is taken.
    """
    patience = patience or Patience()
    with ThreadPoolExecutor(1, "websocket pictures") as threads:
        stream = Stream(
            house,
            clock,
            avatar,
            authorise,
            origins,
            limits,
            guests_most,
            server or {"name": "liveface"},
            patience,
            threads,
        )
        listener = await serve(
            stream.attend,
            host,
            port,
            select_subprotocol=_subprotocol,
            process_request=stream.refuse,
            compression=None,
            max_size=MESSAGE_BYTES_MOST,
            max_queue=FRAMES_QUEUED,
            write_limit=WRITE_LIMIT,
            open_timeout=patience.handshake,
            close_timeout=patience.farewell,
            ping_interval=None,  # see Guest._pulse: a silent client is 4408 here, not 1011
            server_header=None,
            logger=library_log,
        )
        stream.host, stream.port = listener.sockets[0].getsockname()[:2]
        log.info("faces at %s", stream.url)
        try:
            yield stream
        finally:
            for guest in tuple(stream._guests):
                guest.end(ProtocolError(Close.RESTART, "the server is closing"))
            listener.close(code=Close.RESTART.code, reason=Close.RESTART.string)
            await listener.wait_closed()
