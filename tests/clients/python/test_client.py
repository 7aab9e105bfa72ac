"""Conversations of the Python client with a server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from clients.python import AvatarClosedError, Event, Face, Picture, Points, Sound, connect
from engine.websocket import Stream
from tests.clients.streams import VOICE, a_stream


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream(lookahead=1) as stream:
        yield stream


async def test_faces_sound_points_and_pictures(stream: Stream) -> None:
    kinds: dict[type, Any] = {}
    async with connect(
        stream.url, pacing="burst", landmarks=True, mesh=True, video="jpeg", audio_out=24_000, face={"visemes": True}
    ) as avatar:
        assert avatar.lookahead_ms == 40
        assert len(avatar.names) == 52
        await avatar.push(VOICE, end=True)
        async for message in avatar:
            kinds[type(message)] = message
            if isinstance(message, Event) and message.type == "speech.stopped":
                break
    assert set(kinds) == {Face, Points, Picture, Sound, Event}
    assert len(kinds[Sound].pcm) == 2 * 960
    assert kinds[Picture].encoded[:2] == b"\xff\xd8"
    assert sum(kinds[Face].visemes) == pytest.approx(1, abs=1e-5)


async def test_a_face_of_json(stream: Stream) -> None:
    async with connect(stream.url, face={"encoding": "json", "schema": "oculus15", "rate": 50}) as avatar:
        face = await anext(avatar.faces())
        assert face.names[0] == "sil"
        assert len(face.values) == 15


async def test_an_interrupt_counts_at_once(stream: Stream) -> None:
    async with connect(stream.url, pacing="burst") as avatar:
        await avatar.push(VOICE)
        await avatar.interrupt()
        assert avatar.epoch == 1
        await avatar.push(VOICE[:6_400])  # belongs to the new epoch already, though the server has not answered
        async for message in avatar:
            assert isinstance(message, Event) or message.epoch == 1
            if isinstance(message, Event) and message.type == "speech.started" and message["epoch"] == 1:
                break
            assert not (isinstance(message, Event) and message.type == "warning")


async def test_a_refusal_is_an_exception_with_the_servers_sentence(stream: Stream) -> None:
    with pytest.raises(AvatarClosedError, match="nobody") as refused:
        async with connect(stream.url, avatar="nobody"):
            pass
    assert (refused.value.code, refused.value.reason) == (4404, "unknown_avatar")


async def test_no_server_is_one_clear_line() -> None:
    with pytest.raises(AvatarClosedError, match="cannot speak avatar"):
        async with connect("ws://127.0.0.1:9/v1/stream"):
            pass


async def test_an_address_of_another_kind_is_one_clear_line() -> None:
    with pytest.raises(AvatarClosedError, match="begins with ws://") as refused:
        async with connect("http://127.0.0.1:8800"):
            pass
    assert "\n" not in str(refused.value)


async def test_a_server_that_closes_ends_the_iteration(stream: Stream) -> None:
    async with connect(stream.url) as avatar:
        await avatar.say("session.end")
        assert [m async for m in avatar if isinstance(m, Event) and m.type == "error"] == []
