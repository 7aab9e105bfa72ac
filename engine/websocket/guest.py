"""One client of `avatar.v1`, from its hello to its end.

One task reads, one takes events, one makes sure that somebody is there, one writes what the kernel did not take at
once; a face goes from the session to the socket in one go.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConcurrencyError, ConnectionClosed

from engine.clock import Clock
from engine.media import Event, Moment
from engine.protocol.closing import Close, ProtocolError
from engine.protocol.events import event_to_json
from engine.protocol.frames import Kind
from engine.protocol.outbox import Outbox
from engine.protocol.reader import Action, Change, ClientReader, EndSegment, Fail, Hear, Hush, Leave, Open, Say
from engine.protocol.wishes import SessionStart, SessionUpdate
from engine.protocol.writer import MomentWriter, started_event
from engine.session import DrainingError, House, Pacing, Session, SessionClosedError, SpeechFullError
from engine.tokens import TokenError
from engine.websocket.admission import Authorise, Patience, disclosure
from engine.websocket.camera import H264, Jpeg
from engine.worker import NoFreeSlot, UnknownAvatar
from models.rates import CHUNK_SECONDS, FRAME_RATE
from models.runtime import Wants

log = logging.getLogger(__name__)

FRAGMENTS_MOST: Final = 64
"""Pieces of one message. A train of empty ones would cost memory and never a byte of the size limit."""


STATS_SECONDS: Final = 10.0


KIND_NAMES: Final = {kind.value: kind.name.lower() for kind in Kind}


class Hall(Protocol):
    """Where guests are: what they need of the server that let them in."""

    house: House
    clock: Clock
    avatar: str | None
    """Of guests that name none."""
    authorise: Authorise
    server: Mapping[str, str]
    patience: Patience
    threads: ThreadPoolExecutor
    """Where pictures are encoded."""
    owners: "dict[str, Guest]"
    """Which guest speaks for a session that was opened here."""
    sent: Counter[str]
    """Messages sent, by kind."""


class Guest:
    """One client of the stream."""

    def __init__(self, hall: Hall, connection: ServerConnection) -> None:
        self.outbox = Outbox()
        self.ended = Close.OK
        self._hall = hall
        self._clock = hall.clock
        self._patience = hall.patience
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
            if admitted and self._hall.owners.get(session.id) is self:
                del self._hall.owners[session.id]
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
            admission = self._hall.authorise(token, start.resume, headers.get("Origin"))
        except TokenError as refused:
            raise ProtocolError(Close.UNAUTHORISED, str(refused)) from refused
        self._may_speak = admission.may_speak and not start.view
        session_id = admission.session_id or start.resume
        running = self._hall.house.sessions.get(session_id) if session_id else None
        if running is not None and not running.closed.is_set():
            return running, self._take_over(running)
        if not self._may_speak:
            raise ProtocolError(Close.BAD_HELLO, "the session to look on at is not open")
        avatar = start.avatar or admission.avatar or self._hall.avatar
        if avatar is None:
            raise ProtocolError(Close.UNKNOWN_AVATAR, 'there is no default avatar here: name one in "avatar_id"')
        if admission.avatar is not None and avatar != admission.avatar:
            raise ProtocolError(Close.AVATAR_NOT_ALLOWED, f"the token is for another avatar than {avatar}")
        session = self._open(avatar, start, admission.session_id)
        self._hall.owners[session.id] = self
        return session, True

    def _take_over(self, session: Session) -> bool:
        """A second client of a session that was opened here replaces the first; of others (WebRTC) it is a viewer."""
        other = self._hall.owners.get(session.id)
        if other is None or not self._may_speak:
            return False
        self._hall.owners[session.id] = self
        other.end(ProtocolError(Close.REPLACED, "another client has taken this session over"))
        return True

    def _open(self, avatar: str, start: SessionStart, session_id: str | None) -> Session:
        house = self._hall.house
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
            started_event(start, session.id, self._hall.server, session.epoch, lookahead_ms, disclosure(session.card))
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
        return Close.RESTART if self._hall.house.draining else Close.OK

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
                made = await loop.run_in_executor(self._hall.threads, camera.encode, moment.picture, moment.pts)
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
        if connection.transport.is_closing():  # the client is gone, and its task will be told so
            return
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
        self._hall.sent["event" if isinstance(message, str) else KIND_NAMES[message[1]]] += 1

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
