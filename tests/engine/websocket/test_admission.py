"""Who is let in, and as what."""

import asyncio
from typing import Any

import pytest

from engine.protocol.frames import Kind
from engine.session import Pacing
from engine.tokens import TokenError
from engine.websocket import Admission
from tests.engine.websocket.visit import (
    Place,
    a_place,
    end,
    event,
    frames,
    hello,
    sound,
    until,
)


async def test_a_refused_token_costs_no_slot() -> None:
    asked: list[tuple[str | None, str | None, str | None]] = []

    def door(token: str | None, session_id: str | None, origin: str | None) -> Admission:
        asked.append((token, session_id, origin))
        if token != "good":
            raise TokenError("the token's signature is wrong")
        return Admission(session_id="the-one", avatar="demo")

    async with a_place(authorise=door) as place:
        async with place.visit() as client:
            await client.send(hello(auth={"token": "bad"}))
            code, reason, error = await end(client)
            assert (code, reason, error["message"]) == (4401, "unauthorised", "the token's signature is wrong")
        async with place.visit() as client:
            await client.send(hello())
            assert (await end(client))[0] == 4401
        assert place.worker.seats == []
        async with place.visit(additional_headers={"Authorization": "Bearer good"}) as client:
            await client.send(hello())
            assert (await event(client, "session.started"))["session_id"] == "the-one"
        await place.gone()
        async with place.visit() as client:
            await client.send(hello(auth={"token": "good"}, avatar_id="other"))
            assert (await end(client))[:2] == (4403, "avatar_not_allowed")
    assert asked == [("bad", None, None), (None, None, None), ("good", None, None), ("good", None, None)]


async def test_who_may_only_look_on_cannot_speak() -> None:
    async with a_place(authorise=lambda *_: Admission("shown", may_speak=False)) as place:
        async with place.visit() as client:
            await client.send(hello())
            assert (await end(client))[0] == 4400  # there is nothing to look on at yet
        async with place.house.open("demo", session_id="shown", transport="webrtc"):
            async with place.talk() as (client, started):
                assert started["session_id"] == "shown"
                await frames(client, Kind.FACE, 2)
                await client.send(sound())
                assert (await end(client))[:2] == (1008, "policy")
            await until(lambda: place.stream.guests == 0)
            assert "shown" in place.house.sessions  # the viewer's end is not the session's


@pytest.mark.parametrize(
    ("wishes", "code", "reason"),
    [
        ({"avatar_id": "nobody"}, 4404, "unknown_avatar"),
        ({"avatar_id": "../../etc/passwd"}, 4404, "unknown_avatar"),
        ({"audio": {"sample_rate": 12_345}}, 4406, "unsupported_format"),
        ({"face": {"coords": "blender"}}, 4406, "unsupported_format"),
        ({"protocol": "2.0"}, 4406, "unsupported_format"),
        ({"audio": 5}, 4400, "bad_hello"),
    ],
)
async def test_a_hello_that_cannot_be_granted(place: Place, wishes: dict[str, Any], code: int, reason: str) -> None:
    async with place.visit() as client:
        await client.send(hello(**wishes))
        told = await end(client)
    assert told[:2] == (code, reason)
    assert (told[2]["code"], told[2]["fatal"]) == (reason, True)
    await place.gone()


async def test_a_full_house_says_when_to_come_back() -> None:
    async with a_place(slots=1) as place, place.talk() as (first, _):
        async with place.visit() as second:
            await second.send(hello())
            code, reason, error = await end(second)
        assert (code, reason) == (1013, "try_later")
        assert error["retry_after_ms"] > 0
        await frames(first, Kind.FACE, 2)


async def test_a_draining_house_sends_elsewhere(place: Place) -> None:
    async with place.talk() as (client, _):
        draining = asyncio.create_task(place.house.drain(1.0))
        assert (await event(client, "session.draining"))["deadline_ms"] == 1000
        async with place.visit() as late:
            await late.send(hello())
            assert (await end(late))[:2] == (1012, "restart")
        assert (await end(client))[:2] == (1012, "restart")
        await draining


async def test_the_second_client_of_a_session_replaces_the_first(place: Place) -> None:
    async with place.talk() as (first, started):
        await frames(first, Kind.FACE, 5)
        async with place.talk(resume=started["session_id"]) as (second, resumed):
            assert resumed["session_id"] == started["session_id"]
            assert (await end(first))[:2] == (4409, "replaced")
            (face,) = await frames(second, Kind.FACE, 1)
            assert face.pts_us > 0  # the session has gone on
            assert len(place.worker.seats) == 1
    await place.gone()


async def test_a_viewer_takes_nothing_over(place: Place) -> None:
    async with (
        place.talk() as (first, started),
        place.talk(resume=started["session_id"], view=True) as (second, shown),
    ):
        assert shown["session_id"] == started["session_id"]
        await frames(second, Kind.FACE, 3)
        await second.send('{"type":"interrupt"}')
        assert (await end(second))[:2] == (1008, "policy")
        await frames(first, Kind.FACE, 3)
    await place.gone()


async def test_who_resumes_what_is_gone_gets_a_new_session(place: Place) -> None:
    async with place.talk(resume="long-gone") as (client, started):
        assert started["session_id"] != "long-gone"
        await frames(client, Kind.FACE, 1)


async def test_a_hello_for_a_session_that_is_open_elsewhere_only_looks_on(place: Place) -> None:
    """A WebRTC session's faces can be had over a websocket as well: the guest may speak, and its end ends nothing."""
    async with place.house.open("demo", session_id="call", pacing=Pacing.REALTIME, transport="webrtc"):
        async with place.talk(resume="call") as (client, started):
            assert started["session_id"] == "call"
            await client.send(sound())
            await frames(client, Kind.FACE, 2)
        await until(lambda: place.stream.guests == 0)
        assert "call" in place.house.sessions
