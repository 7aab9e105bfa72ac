"""Who is in, who speaks for them, and what ends a session: on a clock that jumps, with peers that are stand-ins."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from engine.lobby import (
    JOIN_SECONDS,
    OUTCOMES,
    UTTERANCES_MOST,
    BusyError,
    JoinedError,
    Lobby,
    Speech,
    figures,
    lag_sampler,
    outcome,
)
from engine.media import Event
from engine.metrics import Metrics
from engine.session import House, Session, SessionClosedError
from engine.voices import VoiceError
from engine.webrtc import BadOffer, Role
from models.rates import HEARD_CHUNK, HEARD_RATE
from tests.fakes import JumpingClock, settle, vowel
from tests.seats import FakeWorker

CHUNK = (vowel(0.04, HEARD_RATE) * 32_000).astype(np.int16)


@dataclass(eq=False)
class Peer:
    session: Session
    role: Role
    id: str = "peer"
    reason: str | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def close(self, reason: str = "closed by the server") -> None:
        self.reason = self.reason or reason
        self.closed.set()

    def stats(self) -> dict[str, Any]:
        return {"encode_p50": 0.002, "round_trip_seconds": None}


class Peers:
    """Answers every offer but "bad"."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    async def answer(self, offer: str, session: Session, role: Role | None = None) -> tuple[str, Peer]:
        await asyncio.sleep(0)
        if offer == "bad":
            raise BadOffer(400, "it is bad")
        self.peers.append(Peer(session, role or Role.DUPLEX))
        return "answer", self.peers[-1]

    def of(self, session: Session) -> list[Peer]:
        return [peer for peer in self.peers if peer.session is session and not peer.closed.is_set()]


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def worker(clock: JumpingClock) -> FakeWorker:
    return FakeWorker(clock)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def lobby(clock: JumpingClock, worker: Any, metrics: Metrics) -> AsyncIterator[Lobby]:
    peers: Any = Peers()
    async with House(worker, clock) as house, Lobby(house, peers, metrics, clock) as lobby:
        yield lobby


async def chunks(count: int) -> Speech:
    for _ in range(count):
        yield CHUNK, HEARD_RATE


async def collect(session: Session, into: list[Event]) -> None:
    async with session.events() as events:
        async for event in events:
            into.append(event)


async def test_a_ticket_holds_a_seat_until_nobody_came(lobby: Lobby, worker: FakeWorker, clock: JumpingClock) -> None:
    guest = lobby.admit("demo")
    assert worker.free_slots == worker.slots - 1
    await clock.advance(JOIN_SECONDS - 0.1)
    assert not guest.session.closed.is_set()
    await clock.advance(0.2)
    assert guest.session.closed.is_set()
    assert worker.free_slots == worker.slots
    assert not lobby.guests


async def test_the_session_ends_with_its_owner_and_takes_the_viewers_along(
    lobby: Lobby, worker: FakeWorker, metrics: Metrics
) -> None:
    guest = lobby.admit("demo")
    _, name = await lobby.join(guest, "offer")
    _, viewer = await lobby.watch(guest.session.id, "offer")
    assert guest.owner is not None
    await lobby.leave(viewer)
    await settle()
    assert not guest.session.closed.is_set()
    assert lobby.resource(viewer) is None
    await lobby.watch(guest.session.id, "offer")
    guest.owner.reason = "silent"
    guest.owner.closed.set()
    await settle(60)
    assert guest.session.closed.is_set()
    assert worker.free_slots == worker.slots
    assert lobby.resource(name) is None
    assert metrics.sessions.value(transport="webrtc", outcome="silent") == 1


async def test_p8_one_session_one_owner(lobby: Lobby) -> None:
    guest = lobby.admit("demo")
    answers = await asyncio.gather(lobby.join(guest, "offer"), lobby.join(guest, "offer"), return_exceptions=True)
    assert [type(answer) for answer in answers] == [tuple, JoinedError]


async def test_a_bad_offer_ends_the_session_it_was_for(lobby: Lobby, worker: FakeWorker) -> None:
    guest = lobby.admit("demo")
    with pytest.raises(BadOffer):
        await lobby.join(guest, "bad")
    await settle(60)
    assert worker.free_slots == worker.slots


async def test_nobody_joins_what_has_ended(lobby: Lobby) -> None:
    guest = lobby.admit("demo")
    lobby.end(guest.session.id)
    with pytest.raises(SessionClosedError):
        await lobby.join(guest, "offer")


async def test_utterances_are_spoken_one_after_the_other(lobby: Lobby, clock: JumpingClock) -> None:
    guest = lobby.admit("demo")
    guest.taken = True
    events: list[Event] = []
    listening = asyncio.create_task(collect(guest.session, events))
    await settle()
    first, _ = lobby.say(guest.session.id, chunks(5))
    second, _ = lobby.say(guest.session.id, chunks(5))
    await clock.advance(2.0)
    told = [(event.type, event.fields.get("segment_id")) for event in events if event.type.startswith("speech.")]
    assert told == [
        ("speech.started", first),
        ("speech.stopped", first),
        ("speech.started", second),
        ("speech.stopped", second),
    ]
    listening.cancel()


async def test_an_interrupt_ends_what_was_asked_for_before_it_and_nothing_after(
    lobby: Lobby, clock: JumpingClock
) -> None:
    guest = lobby.admit("demo")
    guest.taken = True
    endless = 0

    async def for_ever() -> Speech:
        nonlocal endless
        while True:
            endless += 1
            yield CHUNK, HEARD_RATE

    _, speaking = lobby.say(guest.session.id, for_ever())
    _, waiting = lobby.say(guest.session.id, chunks(5))
    await clock.advance(0.2)
    assert endless * HEARD_CHUNK < 62 * HEARD_RATE  # the lane is full, and no more is made than it holds
    await guest.session.interrupt()
    after, said = lobby.say(guest.session.id, chunks(5))
    events: list[Event] = []
    listening = asyncio.create_task(collect(guest.session, events))
    await clock.advance(1.0)
    assert speaking.done()
    assert waiting.done()
    assert said.done()
    assert [event.fields["segment_id"] for event in events if event.type == "speech.started"] == [after]
    listening.cancel()


async def test_a_voice_that_fails_is_an_event_and_the_next_one_speaks(lobby: Lobby, clock: JumpingClock) -> None:
    guest = lobby.admit("demo")
    guest.taken = True

    async def broken() -> Speech:
        yield CHUNK, HEARD_RATE
        raise VoiceError("it lost its voice")

    events: list[Event] = []
    listening = asyncio.create_task(collect(guest.session, events))
    await settle()
    lobby.say(guest.session.id, broken())
    after, _ = lobby.say(guest.session.id, chunks(5))
    await clock.advance(1.0)
    (error,) = [event for event in events if event.type == "error"]
    assert error.fields == {"code": "say_failed", "message": "it lost its voice", "fatal": False}
    assert after in [event.fields["segment_id"] for event in events if event.type == "speech.stopped"]
    listening.cancel()


async def test_utterances_are_bounded(lobby: Lobby) -> None:
    guest = lobby.admit("demo")
    for _ in range(UTTERANCES_MOST):
        lobby.say(guest.session.id, chunks(10_000))
    with pytest.raises(BusyError, match="wait already"):
        lobby.say(guest.session.id, chunks(1))
    with pytest.raises(KeyError):
        lobby.say("nobody", chunks(1))


async def test_what_another_skin_opened_is_counted_and_left_to_it_to_tell_how_it_goes(
    lobby: Lobby, clock: JumpingClock, metrics: Metrics
) -> None:
    session = lobby.house.admit("demo", transport="websocket")
    events: list[Event] = []
    listening = asyncio.create_task(collect(session, events))
    await clock.advance(2 * JOIN_SECONDS)  # it never "joins" here, and that ends nothing
    assert not session.closed.is_set()
    assert not [event for event in events if event.type == "stats"]
    assert metrics.av_skew.count() > 25 * JOIN_SECONDS
    await session.aclose()
    await clock.advance(0.1)
    assert not lobby.guests
    assert metrics.sessions.value(transport="websocket", outcome="session ended") == 1
    listening.cancel()


async def test_moments_are_counted_by_their_fate(lobby: Lobby, clock: JumpingClock, metrics: Metrics) -> None:
    guest = lobby.admit("demo")
    guest.taken = True
    await clock.advance(2.0)
    assert metrics.frames.value(result="idle") + metrics.frames.value(result="late") > 20
    lobby.say(guest.session.id, chunks(20))
    await clock.advance(1.5)
    assert metrics.frames.value(result="sent") > 10


async def test_the_end_of_the_lobby_is_the_end_of_every_guest(clock: JumpingClock, worker: Any) -> None:
    peers: Any = Peers()
    tasks = len(asyncio.all_tasks())
    async with House(worker, clock) as house, Lobby(house, peers, Metrics(), clock) as lobby:
        guests = [lobby.admit("demo") for _ in range(3)]
        await lobby.join(guests[0], "offer")
        lobby.say(guests[1].session.id, chunks(10_000))
        await clock.advance(0.5)
    await settle(60)
    assert all(guest.session.closed.is_set() for guest in guests)
    assert worker.free_slots == worker.slots
    assert len(asyncio.all_tasks()) == tasks


async def test_l9_a_stall_of_the_loop_is_measured(clock: JumpingClock, metrics: Metrics) -> None:
    async with lag_sampler(clock, metrics):
        await clock.advance(1.0)
        assert metrics.loop_lag.count() == 20
        assert metrics.loop_lag.quantile(1.0) == 0.001
        await settle()
        clock.jump(0.23)  # everything that slept wakes 180 ms late
        await settle()
        assert metrics.loop_lag.quantile(1.0) == pytest.approx(0.2)
    await clock.advance(1.0)
    assert metrics.loop_lag.count() == 21


async def test_figures_are_in_milliseconds_and_finite(lobby: Lobby, clock: JumpingClock) -> None:
    guest = lobby.admit("demo")
    await lobby.join(guest, "offer")
    await clock.advance(1.0)
    peers: Any = lobby._peers
    said = figures(guest.session, peers)
    assert said["stages_ms"]["encode"] == 2.0
    assert said["fps"] == pytest.approx(25, abs=1)
    assert all(math.isfinite(value) for value in said["stages_ms"].values())


def test_reasons_become_labels_of_bounded_variety() -> None:
    assert outcome("left") == "left"
    assert outcome("whatever a stranger wrote") == "other"
    assert len(OUTCOMES) < 20
