"""One conversation: five verbs, one timeline, any number of outlets.

    async with House(worker, clock) as house:
        async with house.open("demo") as session:
            await session.push_audio(pcm, 48_000)
            async for moment in session: ...

The verbs are `push_audio`, `flush`, `interrupt`, `async for moment`, `aclose`. Every skin is thin over them. A session
belongs to the block that opened it: when that ends, its slot, tasks and outlets are gone.
"""

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import reduce
from operator import or_
from types import TracebackType
from typing import Any, Self

from engine.channel import Channel, ChannelClosedError, ChannelFullError, Full
from engine.clock import Clock
from engine.listener import Listened, Listener, Pacing, Sound, SpeechFullError
from engine.media import Event, Moment
from engine.pipeline import Pipeline
from engine.worker import Seat, Worker
from models.rates import CHUNK_SECONDS, HEARD_CHUNK, HEARD_RATE
from models.runtime import AvatarCard, Wants

log = logging.getLogger(__name__)

EVENTS_MOST = 256
STATS_MOMENTS = 250
"""Moments that `stats` looks back on: ten seconds."""

PIECE_SECONDS = 1.0
"""Long speech goes into the lane in pieces of this length, so that a sender can be slowed down."""


class SessionClosedError(RuntimeError):
    """The session has ended."""


class Session:
    """One conversation. Made by `House.open` or `open_session`."""

    def __init__(
        self,
        seat: Seat,
        clock: Clock,
        session_id: str,
        pacing: Pacing,
        transport: str,
        retouch: Callable[[Moment], Moment] | None = None,
    ) -> None:
        self.id = session_id
        self.card: AvatarCard = seat.card
        self.transport = transport
        self.pacing = pacing
        self.opened_at = clock.now()
        self.closed = asyncio.Event()
        self._clock = clock
        self._seat = seat
        self._retouch = retouch
        self._listener = Listener(pacing)
        self._pipeline = Pipeline(
            seat, clock, self._listener, self._deliver, lambda: self._wanted, lambda: self._listened
        )
        self._outlets: dict[Channel[Moment], Wants] = {}
        self._watchers: dict[Callable[[Moment], None], tuple[Wants, bool]] = {}
        self._wanted = Wants.NOTHING
        self._listened = False
        self._events: set[Channel[Event]] = set()
        self._default: Channel[Moment] | None = None
        self._room = asyncio.Event()
        self._played: dict[str, int] = {}
        self._latencies: deque[float] = deque(maxlen=STATS_MOMENTS)
        self._leaving: deque[float] = deque(maxlen=STATS_MOMENTS)
        self._moments = 0
        self._pts = 0
        self._turn = 0
        self._task: asyncio.Task[None] | None = None
        self._warned_full = False

    # The five verbs

    async def push_audio(
        self,
        pcm: Sound,
        rate: int,
        pts: int | None = None,
        segment_id: str | None = None,
        arrived: float | None = None,
        speech: bool | None = None,
    ) -> None:
        """Sound in: s16 or float, `[n]` or `[n, channels]`, 8 to 48 kHz. What is heard next is this.

        Live sound (`speech=False`, the default of a real-time session) is heard as it comes; `pts` is the place of its
        first sample in the source, in samples of `rate`, None for "right after the last". Speech (`speech=True`, or any
        `segment_id`, or a burst session) is queued and comes first; when more than 60 s wait, this waits for room.
        Raises ValueError for sound that is none, SessionClosedError when it is too late.
        """
        self._check_open()
        if speech is None:
            speech = segment_id is not None or self.pacing is not Pacing.REALTIME
        if not speech:
            self._listener.push_live(pcm, rate, pts, self._clock.now() if arrived is None else arrived)
            self._pipeline.notice()
            return
        epoch = self.epoch
        segment_id = segment_id or self._open_segment()
        piece = max(1, int(PIECE_SECONDS * rate))
        for begin in range(0, max(1, len(pcm)), piece):
            await self._wait_for_room(PIECE_SECONDS)
            if self.epoch != epoch:
                return  # interrupted while it waited: the rest belongs to what was cut off
            self._listener.push_speech(segment_id, pcm[begin : begin + piece], rate)
            self._pipeline.notice()

    def push_speech_nowait(self, pcm: Sound, rate: int, segment_id: str | None = None) -> None:
        """Queue speech or raise SpeechFullError: for senders that are told instead of slowed down."""
        self._check_open()
        self._listener.push_speech(segment_id or self._open_segment(), pcm, rate)
        self._pipeline.notice()

    async def flush(self, segment_id: str | None = None) -> None:
        """The end of a segment: its last samples are padded and said. A file session ends when all is said."""
        self._check_open()
        self._listener.end_speech(segment_id)
        self._pipeline.notice()
        if self.pacing is Pacing.FILE:
            self._pipeline.finish()

    async def interrupt(self) -> int:
        """Stop speaking, now: nothing that was on its way is heard or seen any more. Returns the new epoch."""
        self._check_open()
        cut = self._pipeline.interrupt()
        for segment_id in cut:
            if segment_id in self._played:
                self._stopped(segment_id, interrupted=True)
        self._played.clear()
        self._room.set()
        self._tell("cleared", epoch=self.epoch)
        return self.epoch

    def __aiter__(self) -> AsyncIterator[Moment]:
        """Moments of the default outlet, from the first call on."""
        if self._default is None:
            self._default = self._add_outlet(Wants.PICTURE | Wants.FACE, capacity=8)
        return self._default.__aiter__()

    async def aclose(self) -> None:
        """End the session; returns when its slot, task and outlets are gone. Twice is once."""
        task, self._task = self._task, None
        try:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        finally:
            self._end()

    # What skins need besides

    @property
    def epoch(self) -> int:
        return self._listener.epoch

    @property
    def pts(self) -> int:
        """Of the next moment to leave."""
        return self._pts

    @property
    def queued_seconds(self) -> float:
        """Speech that waits to be said."""
        return self._listener.queued

    @property
    def missing_seconds(self) -> float:
        """Sound that never came, or that nobody was there to take, so far."""
        return (self._listener.starved + self._listener.leapt) * CHUNK_SECONDS

    @asynccontextmanager
    async def outlet(self, wants: Wants = Wants.PICTURE, capacity: int = 4) -> AsyncIterator[AsyncIterator[Moment]]:
        """One more taker of the moments. A slow one loses the oldest, and nobody else notices."""
        self._check_open()
        channel = self._add_outlet(wants, capacity)
        try:
            yield channel.__aiter__()
        finally:
            self._outlets.pop(channel, None)
            self._reckon()
            channel.close(discard=True)

    @contextmanager
    def watch(
        self, look: Callable[[Moment], None], wants: Wants = Wants.NOTHING, listens: bool = True
    ) -> Iterator[None]:
        """`look` is called with every moment as it leaves. Cheaper than an outlet, since nobody has to be woken; but it
        is the session's own turn: look quickly, and raise nothing. When nobody `listens`, moments are silent."""
        self._watchers[look] = wants, listens
        self._reckon()
        try:
            yield
        finally:
            self._watchers.pop(look, None)
            self._reckon()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Event]]:
        """What clients are told. Nothing is dropped: a taker that lets 256 events pile up is closed."""
        self._check_open()
        channel: Channel[Event] = Channel(EVENTS_MOST, "refuse", f"events of {self.id}")
        self._events.add(channel)
        try:
            yield channel.__aiter__()
        finally:
            self._events.discard(channel)
            channel.close(discard=True)

    def tell(self, event: Event) -> None:
        """Tell every taker of events."""
        for channel in tuple(self._events):
            try:
                channel.put_nowait(event)
            except ChannelFullError:
                self._events.discard(channel)
                channel.close()

    def stats(self) -> dict[str, Any]:
        """How the last ten seconds went; seconds and counts."""
        playout, listener = self._pipeline.playout, self._listener
        leaving = list(self._leaving)
        span = leaving[-1] - leaving[0] if len(leaving) > 1 else 0.0
        return {
            "session_id": self.id,
            "avatar_id": self.card.name,
            "transport": self.transport,
            "seconds": self._clock.now() - self.opened_at,
            "epoch": self.epoch,
            "pts": self._pts,
            "fps": (len(leaving) - 1) / span if span > 0 else 0.0,
            **dict(zip(("latency_p50", "latency_p95", "latency_p99"), _quantiles(self._latencies), strict=True)),
            "moments": self._moments,
            "repeated": playout.repeated,
            "starved": listener.starved,
            "dropped": listener.dropped,
            "skipped": listener.skipped,
            "leapt": listener.leapt,
            "queued_seconds": listener.queued,
            "outlets": len(self._outlets),
            "stage_seconds": self.stage_seconds(),
        }

    def stage_seconds(self) -> dict[str, float]:
        """What each stage of the model took, on the mean of the last ten seconds."""
        return {stage: sum(seconds) / len(seconds) for stage, seconds in self._pipeline.stage_seconds.items()}

    # Inside

    def _start(self) -> None:
        self._task = asyncio.create_task(self._pipeline.run(), name=f"session {self.id}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Called also for a task that was cancelled before it began."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("session %s failed", self.id, exc_info=error)
        self._end()

    def _end(self) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        self._seat.release()
        self._room.set()
        for outlet in tuple(self._outlets):
            outlet.close()
        for channel in tuple(self._events):
            channel.close()

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise SessionClosedError(f"session {self.id} has ended; open a new one")

    def _add_outlet(self, wants: Wants, capacity: int) -> Channel[Moment]:
        full: Full = "wait" if self.pacing is Pacing.FILE else "drop_oldest"
        channel: Channel[Moment] = Channel(capacity, full, f"outlet of {self.id}")
        self._outlets[channel] = wants
        self._reckon()
        return channel

    def _reckon(self) -> None:
        """What anybody wants, reckoned when somebody comes or goes and not with every moment."""
        watching = self._watchers.values()
        self._wanted = reduce(or_, [*self._outlets.values(), *(wants for wants, _ in watching)], Wants.NOTHING)
        self._listened = bool(self._outlets) or any(listens for _, listens in watching)

    def _open_segment(self) -> str:
        """The segment that sound without a name belongs to: the open one, or a new one."""
        current = self._listener.open_segment
        if current is None:
            self._turn += 1
            return f"speech-{self._turn}"
        return current

    async def _wait_for_room(self, seconds: float) -> None:
        while self._listener.room < seconds:
            if not self._warned_full:
                self._warned_full = True
                self._tell("warning", code="buffer_high")
            self._room.clear()
            await self._room.wait()
            self._check_open()
        self._warned_full = False

    async def _deliver(self, moment: Moment, listened: Listened) -> None:
        now = self._clock.now()
        self._pts = moment.pts + HEARD_CHUNK
        self._moments += 1
        self._leaving.append(now)
        if moment.arrived > 0:
            self._latencies.append(now - moment.arrived)
        voided = moment.epoch != listened.chunk.epoch
        if listened.started is not None and not voided:
            self._played[listened.started] = 0
            self._tell(
                "speech.started", segment_id=listened.started, pts_us=_microseconds(moment.pts), epoch=self.epoch
            )
        if listened.segment_id in self._played and not voided:
            self._played[listened.segment_id] += HEARD_CHUNK
        for segment_id in () if voided else listened.ended:
            self._stopped(segment_id, interrupted=False)
        if self._listener.room >= PIECE_SECONDS:
            self._room.set()
        if self._retouch is not None:
            moment = self._retouch(moment)
        for look in tuple(self._watchers):
            look(moment)
        for outlet in tuple(self._outlets):
            if not outlet.closed:
                with contextlib.suppress(ChannelClosedError):  # its taker left while this waited for room
                    await outlet.put(moment)

    def _stopped(self, segment_id: str, interrupted: bool) -> None:
        played = self._played.pop(segment_id, 0) / HEARD_RATE
        self._tell("speech.stopped", segment_id=segment_id, playback_position=round(played, 3), interrupted=interrupted)

    def _tell(self, kind: str, **fields: Any) -> None:
        self.tell(Event(kind, fields))


class House:
    """The sessions of one server, and the doors: who may still come in, and how it empties."""

    def __init__(self, worker: Worker, clock: Clock, retouch: Callable[[Moment], Moment] | None = None) -> None:
        """`retouch` is done to every moment as it leaves: `probe.stamp`, for measuring."""
        self.worker = worker
        self._retouch = retouch
        self.clock = clock
        self.sessions: dict[str, Session] = {}
        self.draining = False
        self._emptied = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.draining = True
        await asyncio.gather(*(session.aclose() for session in tuple(self.sessions.values())))

    def admit(
        self,
        avatar: str,
        *,
        pacing: Pacing = Pacing.REALTIME,
        lookahead: int | None = None,
        session_id: str | None = None,
        transport: str = "python",
    ) -> Session:
        """A session that lives until its `aclose()`. Raises NoFreeSlot, UnknownAvatar, DrainingError, ValueError."""
        if self.draining:
            raise DrainingError("the server is closing and takes no new sessions; try again in a minute")
        card = self.worker.cards.get(avatar)
        if card is not None and lookahead not in (None, card.lookahead):
            raise ValueError(
                f"avatar {avatar!r} is served with a look-ahead of {card.lookahead} frames, not {lookahead}: "
                f"leave it out, or serve with --lookahead {lookahead}"
            )
        session_id = session_id or secrets.token_urlsafe(16)
        if session_id in self.sessions:
            raise ValueError(f"session {session_id} is open already")
        session = Session(self.worker.seat(avatar), self.clock, session_id, pacing, transport, self._retouch)
        self.sessions[session_id] = session
        session._start()
        assert session._task is not None
        session._task.add_done_callback(lambda _: self._left(session_id))
        return session

    @asynccontextmanager
    async def open(self, avatar: str, **how: Any) -> AsyncIterator[Session]:
        """`admit`, as a block."""
        session = self.admit(avatar, **how)
        try:
            yield session
        finally:
            await session.aclose()

    async def drain(self, deadline_seconds: float) -> None:
        """Let nobody in any more, tell everyone, and return when all have left or the deadline has passed."""
        self.draining = True
        for session in self.sessions.values():
            session.tell(Event("session.draining", {"deadline_ms": round(deadline_seconds * 1000)}))
        until = self.clock.now() + deadline_seconds
        while self.sessions and self.clock.now() < until:
            self._emptied.clear()
            emptied = asyncio.ensure_future(self._emptied.wait())
            alarm = asyncio.ensure_future(self.clock.sleep_until(until))
            try:
                await asyncio.wait([emptied, alarm], return_when=asyncio.FIRST_COMPLETED)
            finally:
                emptied.cancel()
                alarm.cancel()
        await asyncio.gather(*(session.aclose() for session in tuple(self.sessions.values())))

    def _left(self, session_id: str) -> None:
        self.sessions.pop(session_id, None)
        if not self.sessions:
            self._emptied.set()


class DrainingError(RuntimeError):
    """The server is on its way out."""


@asynccontextmanager
async def open_session(worker: Worker, clock: Clock, avatar: str, **how: Any) -> AsyncIterator[Session]:
    """One session without a house, for programs that need no server."""
    async with House(worker, clock) as house, house.open(avatar, **how) as session:
        yield session


def _microseconds(pts: int) -> int:
    return pts * 1_000_000 // HEARD_RATE


def _quantiles(values: deque[float]) -> list[float | None]:
    """Of 0.50, 0.95 and 0.99."""
    if not values:
        return [None] * 3
    ranked, last = sorted(values), len(values) - 1
    quantiles: list[float | None] = []
    for share in (0.50, 0.95, 0.99):  # by hand: numpy's takes ten times as long over so few
        below, part = divmod(share * last, 1)
        quantiles.append(ranked[int(below)] * (1 - part) + ranked[min(int(below) + 1, last)] * part)
    return quantiles


__all__ = [
    "DrainingError",
    "House",
    "Pacing",
    "Session",
    "SessionClosedError",
    "SpeechFullError",
    "open_session",
]
