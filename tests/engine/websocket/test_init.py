"""The door: who comes in at all, and what a stranger can do to it."""

import asyncio
import contextlib
import gc
import os
import random
import struct
from collections import Counter

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from engine.limits import Limits, Rate
from engine.protocol.frames import HEADER_BYTES, Kind
from engine.websocket import Patience
from tests.engine.protocol.said import mutated
from tests.engine.websocket.visit import (
    Place,
    Raw,
    a_place,
    descriptors,
    end,
    event,
    frames,
    hello,
    sound,
    until,
)


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        ("https://evil.example", None, False),
        ("http://localhost:3000", None, True),
        ("http://127.0.0.1:8800", None, True),
        ("https://evil.example", "evil.example:8801", False),  # a name that was made to point here
        ("https://friend.example", None, True),
        ("null", None, False),
    ],
)
async def test_pages_of_other_sites_stay_outside(origin: str, host: str | None, welcome: bool) -> None:
    async with a_place(origins=["https://friend.example"]) as place:
        raw = await Raw.open(place)
        status = await raw.greeting(origin, host or f"127.0.0.1:{place.stream.port}")
        assert status == (101 if welcome else 403)
        raw.hang_up()


@pytest.mark.parametrize("offered", [[], ["avatar.v2"], ["chat", "superchat"]])
async def test_a_wrong_subprotocol_is_refused_in_the_handshake(place: Place, offered: list[str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(place.stream.url, subprotocols=[Subprotocol(name) for name in offered] or None)
    assert refused.value.response.status_code == 400
    assert "avatar.v1" in (refused.value.response.body or b"").decode()


async def test_the_best_offered_subprotocol_is_taken(place: Place) -> None:
    async with connect(place.stream.url, subprotocols=[Subprotocol("x"), Subprotocol("avatar.v1")]) as client:
        assert client.subprotocol == "avatar.v1"


async def test_other_paths(place: Place) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(place.stream.url.replace("stream", "streams"), subprotocols=[Subprotocol("avatar.v1")])
    assert refused.value.response.status_code == 404
    reader, writer = await asyncio.open_connection("127.0.0.1", place.stream.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_closing_server_says_so() -> None:
    async with a_place() as place:
        client = await connect(place.stream.url, subprotocols=[Subprotocol("avatar.v1")])
        await client.send(hello())
        await event(client, "session.started")
    assert (await end(client))[:2] == (1012, "restart")


async def test_floods_are_told_to_wait() -> None:
    few = Limits(Rate(0.1, 2), Rate(1, 100), Rate(100, 100), now=0.0)
    async with a_place(limits=few) as place:
        for _ in range(2):
            async with place.talk():
                pass
        with pytest.raises(InvalidStatus) as refused:
            await connect(place.stream.url, subprotocols=[Subprotocol("avatar.v1")])
        assert refused.value.response.status_code == 429
        assert int(refused.value.response.headers["Retry-After"]) >= 1


async def test_no_more_guests_than_chairs() -> None:
    async with a_place(guests_most=1) as place, place.visit():
        await until(lambda: place.stream.guests == 1)
        with pytest.raises(InvalidStatus) as refused:
            await connect(place.stream.url, subprotocols=[Subprotocol("avatar.v1")])
        assert refused.value.response.status_code == 503


async def test_p9_a_handshake_at_a_byte_a_second(place: Place) -> None:
    raw = await Raw.open(place)
    raw.writer.write(b"G")
    assert await asyncio.wait_for(raw.reader.read(), 2) == b""  # hung up after `handshake` seconds
    raw.hang_up()


async def test_p9_a_compressed_bomb_is_never_inflated(place: Place) -> None:
    raw = await Raw.open(place)
    await raw.greet(face=False)
    raw.frame(0xC2, bytes(1000))  # RSV1: compressed, though nobody agreed to that
    assert await raw.close_code() == 1002
    raw.hang_up()
    await place.gone()


async def test_m11_a_message_of_ten_megabytes(place: Place) -> None:
    """M11: refused by its announced length, before its body has come."""
    raw = await Raw.open(place)
    await raw.greet(face=False)
    raw.writer.write(b"\x82\xff" + struct.pack(">Q", 10_000_000) + bytes(4) + bytes(10_000))
    assert await raw.close_code() == 1009
    raw.hang_up()
    await place.gone()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc")  # noqa: PTH112 - at import
async def test_random_conversations_leave_tasks_and_descriptors_as_they_were(place: Place) -> None:
    """Forty guests of every kind of manners; each ends with a close code that the contract knows, or leaves."""
    dice = random.Random(7)
    async with place.talk():
        pass
    await place.gone()
    gc.collect()
    tasks, files = len(asyncio.all_tasks()), descriptors()
    codes: list[int] = []

    async def guest(seed: int) -> None:
        mood = random.Random(seed)
        async with place.visit() as client:
            try:
                if mood.random() < 0.9:
                    await client.send(hello(audio_out=mood.random() < 0.3, mesh=mood.random() < 0.3))
                for _ in range(mood.randrange(8)):
                    raw = sound() if mood.random() < 0.5 else bytes(sound())[: mood.randrange(HEADER_BYTES + 9)]
                    await client.send(mood.choice([raw, raw, '{"type":"interrupt"}', '{"type":"x"}', "{", b""]))
                if mood.random() < 0.3:
                    client.transport.abort()
                elif mood.random() < 0.5:
                    await client.send('{"type":"session.end"}')
                    codes.append((await end(client))[0])
            except ConnectionClosed as closed:
                codes.append(closed.rcvd.code if closed.rcvd else 1006)

    for _ in range(10):
        await asyncio.gather(*(guest(dice.randrange(2**32)) for _ in range(4)))
    await place.gone()
    assert set(codes) <= {1000, 1003, 1013, 4400, 1006}
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    gc.collect()
    assert descriptors() <= files


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_hundred_thousand_messages_over_sockets() -> None:
    """Good messages, mutated, ten to a conversation, eight conversations at a time, beside one honest neighbour."""
    good: list[str | bytes] = [
        hello(),
        hello(audio={"format": "pcm_f32le"}, face={"encoding": "json", "rate": 60}),
        sound(),
        '{"type":"interrupt"}',
        '{"type":"audio.append","audio":"AAAA","pts_us":5}',
        '{"type":"session.update","mesh":true}',
        '{"type":"ping","t":1}',
    ]
    codes: Counter[int] = Counter()
    async with a_place(Patience(60, 20, 600, 600, 20), slots=12, speed=1) as place:
        async with place.talk() as (neighbour, _):
            await frames(neighbour, Kind.FACE, 1)
            gc.collect()
            tasks, files = len(asyncio.all_tasks()), descriptors()

            async def fuzz(seed: int) -> None:
                dice = random.Random(seed)
                for _ in range(1_250):
                    async with place.visit() as client:
                        with contextlib.suppress(ConnectionClosed):
                            await client.send(hello() if dice.random() < 0.8 else mutated(dice, good[0]))
                            for _ in range(9):
                                await client.send(mutated(dice, dice.choice(good)))
                            await client.send('{"type":"session.end"}')
                        codes[(await end(client, 300))[0]] += 1

            reading = asyncio.create_task(drain(neighbour))
            await asyncio.gather(*(fuzz(seed) for seed in range(8)))
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            assert neighbour.close_code is None
            assert sum(codes.values()) == 10_000
            assert set(codes) <= {1000, 1003, 1008, 1009, 4400, 4404, 4406, 4408}, codes
            await until(lambda: place.stream.guests == 1 and len(asyncio.all_tasks()) <= tasks, 10)
            gc.collect()
            assert descriptors() <= files
        await place.gone()


async def drain(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in client:
            pass
