"""The five verbs, the outlets, the events, and the house that sessions live in."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from engine.media import Event, Moment
from engine.session import DrainingError, House, Pacing, Session, SessionClosedError, SpeechFullError, open_session
from engine.worker import NoFreeSlot, UnknownAvatar
from models.rates import HEARD_CHUNK, HEARD_RATE
from models.runtime import Wants
from tests.fakes import JumpingClock, settle, vowel
from tests.seats import FakeWorker

VOICE = vowel(20, HEARD_RATE)


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock()


@pytest.fixture
def worker(clock: JumpingClock) -> FakeWorker:
    return FakeWorker(clock)


@pytest.fixture
async def house(worker: FakeWorker, clock: JumpingClock) -> AsyncIterator[House]:
    async with House(worker, clock) as house:  # type: ignore[arg-type]  # the fake has the worker's shape
        yield house


async def collect(session: Session, into: list[Event]) -> None:
    async with session.events() as events:
        async for event in events:
            into.append(event)


async def gather(session: Session, into: list[Moment], wants: Wants = Wants.PICTURE) -> None:
    async with session.outlet(wants) as outlet:
        async for moment in outlet:
            into.append(moment)


async def test_push_and_iterate(house: House, clock: JumpingClock) -> None:
    async with house.open("demo", pacing=Pacing.BURST) as session:
        moments = session.__aiter__()
        await session.push_audio(VOICE[:HEARD_RATE], HEARD_RATE)
        await session.flush()
        await clock.advance(0.5)
        moment = await anext(moments)
        assert moment.heard.shape == (HEARD_CHUNK,)
        assert moment.picture is not None


async def test_closing_frees_slot_task_and_outlets(house: House, worker: FakeWorker, clock: JumpingClock) -> None:
    tasks = len(asyncio.all_tasks())
    session = house.admit("demo")
    got: list[Moment] = []
    taker = asyncio.create_task(gather(session, got))
    await clock.advance(1.0)
    assert worker.free_slots == worker.slots - 1
    await session.aclose()
    await session.aclose()
    await asyncio.wait_for(taker, 1)
    await clock.advance(0.1)  # the fake's own answers still on their way
    assert worker.free_slots == worker.slots
    assert not house.sessions
    assert len(asyncio.all_tasks()) == tasks
    assert got
    with pytest.raises(SessionClosedError, match="open a new one"):
        await session.push_audio(VOICE[:960], HEARD_RATE)


async def test_closing_can_be_cancelled_and_the_session_ends_all_the_same(house: House, clock: JumpingClock) -> None:
    session = house.admit("demo")
    await clock.advance(0.1)
    closing = asyncio.create_task(session.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert session.closed.is_set()
    await settle()
    assert not house.sessions


async def test_what_no_outlet_wants_is_not_asked_for(house: House, worker: FakeWorker, clock: JumpingClock) -> None:
    async with house.open("demo") as session:
        await clock.advance(0.4)
        assert {wants for _, wants, _ in worker.seats[0].calls} == {Wants.NOTHING}
        async with session.outlet(Wants.FACE):
            await clock.advance(0.4)
            assert worker.seats[0].calls[-1][1] == Wants.FACE
            async with session.outlet(Wants.PICTURE):
                await clock.advance(0.4)
                assert worker.seats[0].calls[-1][1] == Wants.FACE | Wants.PICTURE
        await clock.advance(0.4)
        assert worker.seats[0].calls[-1][1] == Wants.NOTHING


async def test_a_watcher_sees_what_an_outlet_takes(house: House, worker: FakeWorker, clock: JumpingClock) -> None:
    async with house.open("demo") as session:
        seen: list[Moment] = []
        with session.watch(seen.append, Wants.FACE):
            assert worker.seats[0].calls == []
            got: list[Moment] = []
            taker = asyncio.create_task(gather(session, got, Wants.FACE))
            await clock.advance(1.0)
            assert worker.seats[0].calls[-1][1] == Wants.FACE
            assert [moment.pts for moment in seen] == [moment.pts for moment in got]
            taker.cancel()
        count = len(seen)
        await clock.advance(1.0)
        assert len(seen) == count
        assert worker.seats[0].calls[-1][1] == Wants.NOTHING


async def test_sound_is_made_for_those_who_listen(house: House, clock: JumpingClock) -> None:
    async with house.open("demo", pacing=Pacing.BURST) as session:
        await session.push_audio(VOICE, HEARD_RATE)
        deaf: list[Moment] = []
        with session.watch(deaf.append, Wants.FACE, listens=False):
            await clock.advance(1.0)
            assert not any(moment.heard.any() for moment in deaf)
            with session.watch(lambda moment: None):
                await clock.advance(0.5)
                assert deaf[-1].heard.any()


async def test_a_slow_viewer_loses_the_oldest_and_nobody_else_notices(house: House, clock: JumpingClock) -> None:
    async with house.open("demo") as session, session.outlet(capacity=3) as slow:
        got: list[Moment] = []
        taker = asyncio.create_task(gather(session, got))
        await clock.advance(2.0)
        newest = [(await anext(slow)).pts for _ in range(3)]
        assert newest == [moment.pts for moment in got[-3:]]
        assert len(got) == pytest.approx(50, abs=2)
        taker.cancel()


async def test_events_tell_the_life_of_a_segment(house: House, clock: JumpingClock) -> None:
    async with house.open("demo", pacing=Pacing.BURST) as session:
        events: list[Event] = []
        task = asyncio.create_task(collect(session, events))
        await settle()
        await session.push_audio(VOICE[: 2 * HEARD_RATE], HEARD_RATE, segment_id="greeting")
        await session.flush("greeting")
        await clock.advance(3.0)
        task.cancel()
        kinds = [(event.type, event.fields.get("segment_id")) for event in events]
        assert kinds == [("speech.started", "greeting"), ("speech.stopped", "greeting")]
        assert events[-1].fields["playback_position"] == pytest.approx(2.0)
        assert events[-1].fields["interrupted"] is False


async def test_an_interrupt_says_the_true_playback_position(house: House, clock: JumpingClock) -> None:
    async with house.open("demo", pacing=Pacing.BURST) as session:
        events: list[Event] = []
        moments: list[Moment] = []
        tasks = [asyncio.create_task(collect(session, events)), asyncio.create_task(gather(session, moments))]
        await settle()
        await session.push_audio(VOICE[: 10 * HEARD_RATE], HEARD_RATE, segment_id="long")
        await clock.advance(1.5)
        heard = sum(1 for moment in moments if moment.heard.any())
        assert await session.interrupt() == 1
        await clock.advance(0.2)
        for task in tasks:
            task.cancel()
        stopped = next(event for event in events if event.type == "speech.stopped")
        assert stopped.fields["interrupted"] is True
        assert stopped.fields["playback_position"] == pytest.approx(heard * 0.04, abs=0.001)
        assert events[-1] == Event("cleared", {"epoch": 1})
        assert not any(moment.heard.any() for moment in moments[-3:])


async def test_interrupting_twice_or_in_silence_is_harmless(house: House, clock: JumpingClock) -> None:
    async with house.open("demo") as session:
        await clock.advance(0.2)
        assert [await session.interrupt(), await session.interrupt()] == [1, 2]
        await clock.advance(0.2)
        assert session.pts > 0


async def test_speech_beyond_the_lane_slows_its_sender_down(house: House, clock: JumpingClock) -> None:
    async with house.open("demo", pacing=Pacing.BURST) as session:
        long = np.tile(VOICE, 4)  # 80 s
        sender = asyncio.create_task(session.push_audio(long, HEARD_RATE))
        await settle(200)
        assert not sender.done()
        assert session.queued_seconds <= 60.0
        with pytest.raises(SpeechFullError):
            session.push_speech_nowait(long, HEARD_RATE)
        await clock.advance(25.0)
        await settle(200)
        assert sender.done()


async def test_a_sender_that_waits_for_room_is_let_go_by_an_interrupt(house: House) -> None:
    async with house.open("demo", pacing=Pacing.BURST) as session:
        sender = asyncio.create_task(session.push_audio(np.tile(VOICE, 4), HEARD_RATE))
        await settle(200)
        await session.interrupt()
        await asyncio.wait_for(sender, 1)
        assert session.queued_seconds == 0


async def test_a_full_server_refuses_and_an_unknown_avatar_too(house: House, worker: FakeWorker) -> None:
    for _ in range(worker.slots):
        house.admit("demo")
    with pytest.raises(NoFreeSlot):
        house.admit("demo")
    with pytest.raises(UnknownAvatar):
        house.admit("nobody")
    with pytest.raises(ValueError, match="--lookahead 5"):
        house.admit("demo", lookahead=5)
    assert len(house.sessions) == worker.slots


async def test_draining_tells_everyone_lets_nobody_in_and_ends_at_its_deadline(
    house: House, worker: FakeWorker, clock: JumpingClock
) -> None:
    staying, leaving = house.admit("demo"), house.admit("demo")
    events: list[Event] = []
    task = asyncio.create_task(collect(staying, events))
    await settle()
    draining = asyncio.create_task(house.drain(10.0))
    await settle()
    assert events == [Event("session.draining", {"deadline_ms": 10_000})]
    with pytest.raises(DrainingError):
        house.admit("demo")
    await leaving.aclose()
    await clock.advance(9.0)
    assert not draining.done()
    await clock.advance(1.5)
    await asyncio.wait_for(draining, 1)
    assert staying.closed.is_set()
    assert worker.free_slots == worker.slots
    await asyncio.wait_for(task, 1)


async def test_a_taker_of_events_that_sleeps_is_closed_not_grown(house: House) -> None:
    async with house.open("demo") as session, session.events() as events:
        for n in range(300):
            session.tell(Event("stats", {"n": n}))
        got = [event.fields["n"] async for event in events]
        assert got == list(range(256))


async def test_a_file_session_ends_when_all_is_said(worker: FakeWorker, clock: JumpingClock) -> None:
    async with open_session(worker, clock, "demo", pacing=Pacing.FILE) as session:  # type: ignore[arg-type]
        got: list[Moment] = []
        taker = asyncio.create_task(gather(session, got))
        await settle()
        await session.push_audio(VOICE[: 4 * HEARD_CHUNK], HEARD_RATE)
        await session.flush()
        await clock.advance(5.0)
        await asyncio.wait_for(taker, 1)
        assert len(got) == 4
        assert session.closed.is_set()


async def test_stats_say_how_it_goes(house: House, clock: JumpingClock) -> None:
    async with house.open("demo") as session, session.outlet():
        for n in range(100):
            await clock.advance(0.020)
            await session.push_audio(VOICE[n * 960 : (n + 1) * 960], HEARD_RATE, pts=n * 960)
            await settle()
        stats = session.stats()
        assert stats["fps"] == pytest.approx(25, abs=1)
        assert stats["latency_p50"] == pytest.approx(0.010, abs=0.003)
        assert stats["repeated"] == 0


@pytest.mark.parametrize("turn", range(0, 60, 3))
async def test_l3_a_session_that_is_cancelled_at_any_await_leaves_nothing(turn: int, clock: JumpingClock) -> None:
    """So many turns of the loop into its life: while it listens, steps, waits for a picture, delivers."""
    tasks = len(asyncio.all_tasks())
    worker = FakeWorker(clock)
    async with House(worker, clock) as house:  # type: ignore[arg-type]  # the fake has the worker's shape
        session = house.admit("demo")
        seen: list[Moment] = []
        watching = asyncio.create_task(gather(session, seen))
        for step in range(turn):
            if step % 5 == 0:
                await session.push_audio(VOICE[:HEARD_CHUNK], HEARD_RATE)
                clock.jump(0.02)
            await asyncio.sleep(0)
        assert session._task is not None
        session._task.cancel()
        await asyncio.wait_for(watching, 1)
        await session.aclose()
        await settle()
        assert house.sessions == {}
        assert worker.free_slots == worker.slots
    await clock.advance(1.0)
    assert len(asyncio.all_tasks()) <= tasks


@pytest.mark.parametrize("moment", [1, 7])
async def test_l3_a_fault_of_our_own_in_mid_session_ends_that_one_alone_and_is_told(
    moment: int, clock: JumpingClock, caplog: pytest.LogCaptureFixture
) -> None:
    left = {"first": 0}

    def retouch(each: Moment) -> Moment:
        left["first"] += 1
        if left["first"] == moment:
            raise ZeroDivisionError("a fault of our own")
        return each

    worker = FakeWorker(clock)
    async with House(worker, clock, retouch) as house:  # type: ignore[arg-type]  # the fake has the worker's shape
        struck, other = house.admit("demo"), house.admit("demo")
        seen: list[Moment] = []
        watching = asyncio.create_task(gather(other, seen))
        await clock.advance(1.0)
        first, second = (struck, other) if struck.closed.is_set() else (other, struck)
        assert first.closed.is_set()
        assert not second.closed.is_set()
        assert worker.free_slots == worker.slots - 1
        with pytest.raises(SessionClosedError):
            await first.push_audio(VOICE[:HEARD_CHUNK], HEARD_RATE)
        await second.push_audio(VOICE[:HEARD_CHUNK], HEARD_RATE)
        watching.cancel()
        assert f"session {first.id} failed" in caplog.text
        assert "a fault of our own" in caplog.text
