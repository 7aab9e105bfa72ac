"""The sessions that HTTP opened: who joined them, what they are told to say, when they end.

A session of this server begins with a ticket (`admit`), belongs to the first connection that joins it, and ends with
that connection, by `end`, or when nobody joins in time. Viewers come and go. Each session has one task that lives as
long as it does and owns everything that happens around it.
"""

import asyncio
import contextlib
import logging
import math
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from engine.clock import Clock
from engine.logs import about
from engine.media import Event, Moment
from engine.metrics import Metrics
from engine.session import House, Session, SessionClosedError
from engine.voices import VoiceError
from engine.webrtc import Peer, Peers, Role

log = logging.getLogger(__name__)

JOIN_SECONDS: Final = 20.0
"""From a ticket to the first connection; the seat is held meanwhile."""

UTTERANCES_MOST: Final = 8
"""Texts and files that may wait for one session."""

STATS_SECONDS: Final = 1.0
VIEWERS_MOST: Final = 32

OUTCOMES: Final = frozenset(
    [
        "left",
        "ended",
        "failed",
        "silent",
        "never connected",
        "no sound came",
        "events not read",
        "nobody joined",
        "session ended",
        "closed by the server",
    ]
)

Pcm = npt.NDArray[np.int16]
Speech = AsyncGenerator[tuple[Pcm, int], None]
"""Pieces of sound, each with its rate."""


class BusyError(RuntimeError):
    """The session has all that it can take of this; the message says of what."""


class JoinedError(RuntimeError):
    """Somebody has joined this session already."""


@dataclass(slots=True, eq=False)
class Tally:
    """What was measured of a session's moments and has not been counted yet: to count each at once would cost a
    hundred faces a tenth of a core."""

    fates: Counter[str] = field(default_factory=Counter)
    behind: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    missing: float = 0.0
    """Seconds of sound that had never come when it was last counted."""

    def clear(self, missing: float) -> None:
        self.fates.clear()
        self.behind.clear()
        self.latencies.clear()
        self.missing = missing


@dataclass(eq=False)
class Guest:
    """One session as this server owns it."""

    session: Session
    voice_only: bool = False
    """Its owner sends a voice and looks at nothing: strict WHIP."""
    owner: Peer | None = None
    taken: bool = False
    """An offer is being answered, or has been."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: str = "ended"
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Utterances are spoken one after the other."""
    utterances: set[asyncio.Task[None]] = field(default_factory=set)
    turns: int = 0
    tally: Tally = field(default_factory=Tally)
    life: asyncio.Task[None] | None = None


class Lobby:
    """All guests of a server; leaving the block ends them."""

    def __init__(
        self, house: House, peers: Peers, metrics: Metrics, clock: Clock, join_seconds: float = JOIN_SECONDS
    ) -> None:
        self.house = house
        self.guests: dict[str, Guest] = {}
        self.departed = asyncio.Event()
        """Set when a session has ended; whoever waits for it clears it."""
        self._peers = peers
        self._metrics = metrics
        self._clock = clock
        self._join_seconds = join_seconds
        self._resources: dict[str, tuple[Guest, Peer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._census = self._start(self._take_census(), "census")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._census.cancel()
        for guest in tuple(self.guests.values()):
            self._finish(guest, "closed by the server")
        await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    # Coming and going

    def admit(self, avatar: str, lookahead: int | None = None, transport: str = "webrtc") -> Guest:
        """A session with its seat. Raises what `House.admit` raises. It ends when nobody joins in time."""
        session = self.house.admit(avatar, lookahead=lookahead, transport=transport)
        return self._adopt(session, taken=False)

    def guest(self, session_id: str) -> Guest | None:
        return self.guests.get(session_id)

    async def join(self, guest: Guest, offer: str, role: Role | None = None) -> tuple[str, str]:
        """Answer the offer of the session's owner: (answer, name of the connection's resource).

        Raises JoinedError, SessionClosedError, `BadOffer`; a bad offer ends the session: one ticket, one offer.
        """
        if guest.taken:
            raise JoinedError("this session has its connection already; ask for a new session")
        if guest.ended.is_set():
            raise SessionClosedError("the session has ended; ask for a new one")
        guest.taken = True
        began = self._clock.now()
        try:
            answer, peer = await self._peers.answer(offer, guest.session, role)
        except BaseException:
            self._finish(guest, "failed")
            raise
        self._metrics.negotiation.observe(self._clock.now() - began)
        guest.owner = peer
        guest.voice_only = peer.role is Role.WHIP
        self._start(self._follow_owner(guest, peer), f"owner {peer.id}")
        return answer, self._resource(guest, peer)

    async def watch(self, session_id: str, offer: str) -> tuple[str, str]:
        """Answer a viewer's offer. Raises KeyError for an unknown session, BusyError, `BadOffer`."""
        session = self.house.sessions[session_id]
        if len(self._peers.of(session)) > VIEWERS_MOST:
            raise BusyError(f"{VIEWERS_MOST} viewers look on already")
        guest = self._adopt(session)
        began = self._clock.now()
        answer, peer = await self._peers.answer(offer, session, Role.WHEP)
        self._metrics.negotiation.observe(self._clock.now() - began)
        return answer, self._resource(guest, peer)

    def resource(self, name: str) -> tuple[Guest, Peer] | None:
        return self._resources.get(name)

    async def leave(self, name: str) -> None:
        """The owner's resource ends its session, a viewer's only itself."""
        guest, peer = self._resources[name]
        if peer is guest.owner:
            self._finish(guest, "left")
        await peer.close("left")

    def end(self, session_id: str) -> None:
        """End a session, whoever opened it. KeyError when there is none."""
        self._finish(self._adopt(self.house.sessions[session_id]), "ended")

    # Speaking

    def say(self, session_id: str, speech: Speech) -> tuple[str, asyncio.Task[None]]:
        """Have it spoken after what is being spoken: the segment's id and the task, which ends when all of it has been
        taken over, or an interrupt or the session's end has cut it off.

        Raises KeyError for an unknown session, BusyError when `UTTERANCES_MOST` wait.
        """
        session = self.house.sessions[session_id]
        guest = self._adopt(session)
        if len(guest.utterances) >= UTTERANCES_MOST:
            raise BusyError(f"{UTTERANCES_MOST} utterances wait already; try again when one has been spoken")
        guest.turns += 1
        segment_id = f"say-{guest.turns}"
        task = self._start(self._say(guest, segment_id, session.epoch, speech), f"say {session_id}")
        guest.utterances.add(task)
        task.add_done_callback(guest.utterances.discard)
        return segment_id, task

    async def _say(self, guest: Guest, segment_id: str, epoch: int, speech: Speech) -> None:
        session = guest.session
        with contextlib.suppress(SessionClosedError):
            try:
                async with aclosing(speech), guest.turn:
                    async for pcm, rate in speech:
                        if session.epoch != epoch:
                            return
                        await session.push_audio(pcm, rate, segment_id=segment_id)
                    if session.epoch == epoch:
                        await session.flush(segment_id)
            except (VoiceError, ValueError) as failed:
                log.warning("an utterance failed: %s", failed)
                if session.epoch == epoch:
                    await session.flush(segment_id)
                session.tell(Event("error", {"code": "say_failed", "message": str(failed), "fatal": False}))

    # Inside

    def _adopt(self, session: Session, taken: bool = True) -> Guest:
        """The guest of a session; one that another skin opened is joined by that skin's client."""
        guest = self.guests.get(session.id)
        if guest is None:
            guest = self.guests[session.id] = Guest(session, taken=taken)
            with about(session_id=session.id, avatar_id=session.card.name):
                guest.life = self._start(self._live(guest), f"guest {session.id}")
        return guest

    async def _take_census(self) -> None:
        """Adopts what other skins opened, so that it is counted and told how it goes."""
        due = self._clock.now()
        while True:
            due += STATS_SECONDS
            await self._clock.sleep_until(due)
            for session in tuple(self.house.sessions.values()):
                if not session.closed.is_set():
                    self._adopt(session)

    def _start(self, what: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(what, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _resource(self, guest: Guest, peer: Peer) -> str:
        name = secrets.token_urlsafe(16)  # 128 bits: whoever knows it may end the connection (RFC 9725, section 4.2)
        self._resources[name] = (guest, peer)
        self._start(self._forget(name, peer), f"resource of {peer.id}")
        return name

    async def _forget(self, name: str, peer: Peer) -> None:
        await peer.closed.wait()
        self._resources.pop(name, None)

    async def _follow_owner(self, guest: Guest, peer: Peer) -> None:
        await peer.closed.wait()
        self._finish(guest, peer.reason or "left")

    def _finish(self, guest: Guest, outcome: str) -> None:
        if not guest.ended.is_set():
            guest.outcome = outcome
            guest.ended.set()

    async def _live(self, guest: Guest) -> None:
        session = guest.session
        began = self._clock.now()
        log.info("a session begins", extra={"event": "session.opened", "transport": session.transport})
        try:
            with session.watch(self._measure(guest, began), listens=False):
                async with asyncio.TaskGroup() as parts:
                    watching = [
                        parts.create_task(self._report(guest)),
                        parts.create_task(self._expect(guest)),
                        parts.create_task(self._until_closed(guest)),
                    ]
                    await guest.ended.wait()
                    for part in watching:
                        part.cancel()
        finally:
            self._count(guest)
            self.guests.pop(session.id, None)
            for utterance in tuple(guest.utterances):
                utterance.cancel()
            await session.aclose()
            for peer in self._peers.of(session):
                await peer.close("session ended")
            seconds = self._clock.now() - began
            self._metrics.session_duration.observe(seconds)
            self._metrics.sessions.add(transport=session.transport, outcome=outcome(guest.outcome))
            self.departed.set()
            log.info(
                "a session ended: %s",
                guest.outcome,
                extra={"event": "session.closed", "outcome": guest.outcome, "duration_s": round(seconds, 1)},
            )

    async def _expect(self, guest: Guest) -> None:
        await self._clock.sleep_until(self._clock.now() + self._join_seconds)
        if not guest.taken:
            self._finish(guest, "nobody joined")

    async def _until_closed(self, guest: Guest) -> None:
        await guest.session.closed.wait()
        self._finish(guest, "session ended")

    def _measure(self, guest: Guest, began: float) -> Callable[[Moment], None]:
        """What counts every moment as it leaves."""
        tally, first, clock = guest.tally, True, self._clock

        def look(moment: Moment) -> None:
            nonlocal first
            tally.fates["late" if moment.repeated else "sent" if moment.speaking else "idle"] += 1
            tally.behind.append(moment.behind)
            if moment.arrived > 0:
                tally.latencies.append(clock.now() - moment.arrived)
            if first and guest.owner is not None and guest.owner.connected.is_set():
                first = False
                self._metrics.first_frame.observe(clock.now() - began)

        return look

    def _count(self, guest: Guest) -> None:
        """What has been measured of a session since the last time."""
        metrics, session, tally = self._metrics, guest.session, guest.tally
        for result, number in tally.fates.items():
            metrics.frames.add(number, result=result)
        metrics.deadline_misses.add(tally.fates["late"])
        for behind in tally.behind:
            metrics.av_skew.observe(behind)
        for latency in tally.latencies:
            metrics.latency.observe(latency)
        metrics.audio_gap.add(session.missing_seconds - tally.missing)
        tally.clear(session.missing_seconds)

    async def _report(self, guest: Guest) -> None:
        """Once a second: counts what was measured, and tells the clients how it goes, unless they are all of avatar.v1,
        which tells them itself."""
        due = self._clock.now()
        while True:
            due += STATS_SECONDS
            await self._clock.sleep_until(due)
            self._count(guest)
            for stage, seconds in stages(guest.session, self._peers).items():
                self._metrics.stage.observe(seconds, stage=stage)
            if guest.session.transport != "websocket" or self._peers.of(guest.session):
                guest.session.tell(Event("stats", figures(guest.session, self._peers)))


def stages(session: Session, peers: Peers) -> dict[str, float]:
    """What each stage of a picture takes, in seconds, its encoding among them."""
    spent = session.stage_seconds()
    encodes = [peer.stats().get("encode_p50") for peer in peers.of(session)]
    if encodes and encodes[0] is not None:
        spent["encode"] = encodes[0]
    return {stage: seconds for stage, seconds in spent.items() if math.isfinite(seconds) and seconds > 0}


def figures(session: Session, peers: Peers) -> dict[str, Any]:
    """The `stats` event: what a client is told of its session, in milliseconds."""
    said = session.stats()
    return {
        "fps": round(said["fps"], 2),
        "latency_ms": {"p50": _milliseconds(said["latency_p50"]), "p95": _milliseconds(said["latency_p95"])},
        "stages_ms": {stage: round(1000 * seconds, 2) for stage, seconds in stages(session, peers).items()},
        "late": said["repeated"],
        "repeated": said["repeated"],
        "queued_seconds": round(said["queued_seconds"], 2),
        "viewers": len(peers.of(session)),
    }


def outcome(reason: str) -> str:
    """A reason as a label of bounded variety."""
    return reason if reason in OUTCOMES else "other"


@asynccontextmanager
async def lag_sampler(clock: Clock, metrics: Metrics, every: float = 0.05) -> AsyncIterator[None]:
    """While the block runs, measures every 50 ms how late the event loop wakes."""

    async def sample() -> None:
        while True:
            due = clock.now() + every
            await clock.sleep_until(due)
            metrics.loop_lag.observe(max(0.0, clock.now() - due))

    task = asyncio.create_task(sample(), name="loop lag")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 1)
