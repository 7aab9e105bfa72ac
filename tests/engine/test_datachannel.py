"""Events, commands and points of one connection, with a wire that is a list. Over real connections: test_webrtc.py."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.datachannel import COMMAND_BYTES_MOST, COMMANDS_PER_SECOND, EVENT_BYTES_MOST, LABEL, EventChannel
from engine.media import Event
from engine.session import SessionClosedError
from tests.engine.test_webrtc import Talk
from tests.fakes import JumpingClock


class Wire:
    """A data channel's stand-in."""

    def __init__(self, label: str = LABEL) -> None:
        self.label = label
        self.readyState = "open"
        self.bufferedAmount = 0
        self.sent: list[dict[str, Any]] = []
        self.say: Callable[[str | bytes], None] = lambda message: None

    def on(self, event: str, listener: Callable[..., None]) -> None:
        assert event == "message"
        self.say = listener

    def send(self, data: str) -> None:
        self.sent.append(json.loads(data))


class Line:
    """A data channel between a session's stand-in and a wire's."""

    def __init__(self, commands: bool = True) -> None:
        self.clock = JumpingClock()
        self.talk, self.wire, self.reasons = Talk(), Wire(), list[str]()
        self.channel = EventChannel(self.talk, self.clock, commands, self.reasons.append)
        self.channel.opened(self.wire)

    def say(self, **command: Any) -> None:
        self.wire.say(json.dumps(command))


@asynccontextmanager
async def line(commands: bool = True) -> AsyncIterator[Line]:
    this = Line(commands)
    tasks = [asyncio.create_task(part) for part in this.channel.parts()]
    await settled()
    yield this
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    faults = [task.exception() for task in tasks if not task.cancelled()]
    assert not [fault for fault in faults if fault is not None]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_ping_comes_back_with_its_stamp_and_the_servers_time() -> None:
    async with line() as on:
        on.say(type="ping", t=7)
        on.say(type="ping", t=["no", "stamp"])
        await settled()
        assert [(said["type"], said["t"]) for said in on.wire.sent] == [("pong", 7), ("pong", None)]
        assert on.wire.sent[0]["server_t_us"] == round(on.clock.wall() * 1e6)


async def test_commands_reach_the_session() -> None:
    async with line() as on:
        on.say(type="interrupt")
        on.say(type="audio.end", segment_id="s1")
        on.say(type="audio.end", segment_id=5)
        on.say(type="session.end")
        await settled()
        assert (on.talk.epoch, on.talk.flushed, on.reasons) == (1, ["s1", None], ["left"])
        assert on.channel.ignored == 0


async def test_a_viewer_may_ask_the_time_and_nothing_else() -> None:
    async with line(commands=False) as on:
        on.say(type="interrupt")
        on.say(type="session.end")
        on.say(type="ping", t=1)
        await settled()
        assert (on.talk.epoch, on.reasons, on.channel.ignored, len(on.wire.sent)) == (0, [], 2, 1)


@pytest.mark.parametrize(
    "nonsense",
    [
        "[" * 10_000,
        "nonsense",
        "[]",
        '"x"',
        '{"type": 5}',
        '{"type":"dance"}',
        '{"type":"session.update","landmarks":"yes"}',
        '{"type":"ping","t":"' + "x" * COMMAND_BYTES_MOST + '"}',
        b"\0\1",
    ],
)
async def test_nonsense_is_counted_and_ignored(nonsense: str | bytes) -> None:
    async with line() as on:
        on.wire.say(nonsense)
        await settled()
        assert (on.channel.ignored, on.reasons, on.wire.sent) == (1, [], [])


async def test_a_flood_of_commands_is_cut_to_fifty_a_second() -> None:
    async with line() as on:
        for _ in range(4 * COMMANDS_PER_SECOND):
            on.say(type="interrupt")
        await settled()
        for _ in range(COMMANDS_PER_SECOND):
            await settled()
        assert on.talk.epoch == COMMANDS_PER_SECOND
        assert on.channel.ignored == 3 * COMMANDS_PER_SECOND
        on.clock.jump(1.0)
        on.say(type="interrupt")
        await settled()
        assert on.talk.epoch == COMMANDS_PER_SECOND + 1


async def test_events_go_out_in_order_and_unread_ones_end_the_connection() -> None:
    async with line() as on:
        await on.talk.listeners[0].put(Event("stats", {"fps": 25}))
        await settled()
        assert on.wire.sent == [{"type": "stats", "fps": 25}]
        on.wire.bufferedAmount = EVENT_BYTES_MOST + 1
        await on.talk.listeners[0].put(Event("stats", {}))
        await settled()
        assert on.reasons == ["events not read"]
        assert len(on.wire.sent) == 1


async def test_a_wire_that_is_closing_is_not_written_to() -> None:
    async with line() as on:
        on.wire.readyState = "closing"
        on.say(type="ping", t=1)
        await settled()
        assert on.wire.sent == []


async def test_another_channel_and_a_second_of_our_name_are_nobodys() -> None:
    async with line() as on:
        for other in (Wire("chat"), Wire()):
            on.channel.opened(other)
            other.say('{"type":"interrupt"}')
        await settled()
        assert on.talk.epoch == 0


async def test_a_session_that_is_gone_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with line() as on:

        async def gone() -> int:
            raise SessionClosedError("over")

        monkeypatch.setattr(on.talk, "interrupt", gone)
        on.say(type="interrupt")
        await settled()
        assert on.reasons == ["session ended"]
