"""The websocket skin over real sockets on loopback: what a client gets, and what becomes of the ones that misbehave."""

import asyncio
import base64
import contextlib
import gc
import io
import json
import os
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from engine.limits import Limits, Rate
from engine.protocol.frames import HEADER_BYTES, Flag, Frame, Kind, pack_frame, parse_frame
from engine.session import House, Pacing
from engine.tokens import TokenError
from engine.websocket import Admission, Patience, Stream, serve_websocket
from models.rates import CHUNK
from models.runtime import Wants
from tests.engine.protocol.said import mutated
from tests.fakes import vowel
from tests.seats import FakeWorker

VOICE = (vowel(4, 16_000, amplitude=0.8) * 32_000).astype("<i2")
HURRY = 5.0
"""How much faster than real time the engine runs here."""

QUICK = Patience(handshake=0.5, hello=0.4, stall=0.5 * HURRY, ping=0.1 * HURRY, farewell=0.2)
"""Stalls are measured on the engine's clock, the rest on asyncio's."""


class HurriedClock:
    """Real time, five times faster unless told otherwise."""

    def __init__(self, speed: float = HURRY) -> None:
        self._speed = speed

    def now(self) -> float:
        return time.monotonic() * self._speed

    def wall(self) -> float:
        return time.time()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, (when - self.now()) / self._speed))


class Place:
    """A house with an open websocket door."""

    def __init__(self, house: House, worker: FakeWorker, stream: Stream) -> None:
        self.house, self.worker, self.stream = house, worker, stream

    @asynccontextmanager
    async def visit(self, **how: Any) -> AsyncIterator[ClientConnection]:
        async with connect(
            self.stream.url,
            subprotocols=[Subprotocol("avatar.v1")],
            compression=None,
            max_size=None,
            max_queue=None,
            close_timeout=1,
            open_timeout=60,
            **how,
        ) as client:
            yield client

    @asynccontextmanager
    async def talk(self, **wishes: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
        """A client that has had its session.started."""
        async with self.visit() as client:
            await client.send(hello(**wishes))
            yield client, json.loads(await client.recv())

    async def gone(self) -> None:
        """All guests have left, and their sessions and slots with them."""
        await until(lambda: self.stream.guests == 0 and not self.house.sessions)
        assert self.worker.free_slots == self.worker.slots


@asynccontextmanager
async def a_place(
    patience: Patience = QUICK, slots: int = 4, lookahead: int = 0, speed: float = HURRY, **how: Any
) -> AsyncIterator[Place]:
    clock = HurriedClock(speed)
    worker = FakeWorker(clock, lookahead=lookahead, slots=slots)  # type: ignore[arg-type]  # it needs now and sleep_until
    async with (
        House(worker, clock) as house,  # type: ignore[arg-type]  # the fake has the worker's shape
        serve_websocket(house, clock, port=0, avatar="demo", patience=patience, **how) as stream,
    ):
        yield Place(house, worker, stream)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with a_place() as place:
        yield place


def hello(**wishes: Any) -> str:
    return json.dumps({"type": "session.start", "protocol": "1.0", **wishes})


def sound(pcm: np.ndarray | bytes = VOICE[:CHUNK], epoch: int = 0, flags: int = 0) -> bytes:
    return pack_frame(Kind.AUDIO_IN, flags, 0, epoch, -1, bytes(pcm))


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.005)


async def frames(client: ClientConnection, kind: Kind, count: int) -> list[Frame]:
    """The next `count` frames of a kind."""
    found: list[Frame] = []
    while len(found) < count:
        message = await asyncio.wait_for(client.recv(), 10)
        if isinstance(message, bytes) and message[1] == kind:
            found.append(parse_frame(message))
    return found


async def event(client: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a kind."""
    while True:
        message = await asyncio.wait_for(client.recv(), 10)
        if isinstance(message, str) and (said := json.loads(message))["type"] == kind:
            return dict(said)


async def end(client: ClientConnection, seconds: float = 30) -> tuple[int, str, dict[str, Any]]:
    """Close code and reason, and the error that was told before."""
    error: dict[str, Any] = {}
    async with asyncio.timeout(seconds):
        async for message in until_closed(client):
            if isinstance(message, str) and (said := json.loads(message))["type"] == "error":
                error = said
    assert client.close_code is not None
    return client.close_code, client.close_reason or "", error


async def until_closed(client: ClientConnection) -> AsyncIterator[str | bytes]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            yield await client.recv()


# What a client gets


async def test_a_voice_in_a_face_out(place: Place) -> None:
    async with place.talk() as (client, started):
        assert started["type"] == "session.started"
        assert len(started["face"]["names"]) == 52
        assert started["disclosure"]["ai_generated"] is True
        await frames(client, Kind.FACE, 1)
        for start in range(0, 10 * CHUNK, CHUNK):
            await client.send(sound(VOICE[start : start + CHUNK]))
        faces = await frames(client, Kind.FACE, 12)
        assert [face.pts_us for face in faces] == [40_000 * face.seq for face in faces]
        assert [face.seq for face in faces] == sorted({face.seq for face in faces})
        jaws = [np.frombuffer(face.payload, "<f4")[started["face"]["names"].index("jawOpen")] for face in faces]
        assert max(jaws) > 0.1
        assert any(face.flags & Flag.SPEAKING for face in faces)
    await place.gone()


async def test_faces_cost_no_rendering(place: Place) -> None:
    async with place.talk(landmarks=True) as (client, _):
        await frames(client, Kind.LANDMARKS, 3)
    assert {wants for _, wants, _ in place.worker.seats[0].calls} <= {Wants.FACE | Wants.POINTS, Wants.NOTHING}


@pytest.mark.parametrize(("codec", "decoder"), [("jpeg", "mjpeg"), ("h264", "h264")])
async def test_pictures_for_those_who_ask(place: Place, codec: str, decoder: str) -> None:
    async with place.talk(video={"codec": codec}) as (client, _):
        first, *_ = shown = await frames(client, Kind.VIDEO, 3)
        assert first.flags & Flag.KEYFRAME
        context = av.CodecContext.create(decoder, "r")
        pictures = [p for frame in shown for p in context.decode(av.Packet(frame.payload))] + context.decode(None)
        assert [(picture.width, picture.height) for picture in pictures] == [(64, 64)] * 3
        (card,) = place.worker.cards.values()
        y = card.loop[0, :16, :16].astype(float)  # outside of what is painted
        shown_y = np.clip((y - 16) * 255 / 219, 0, 255) if codec == "jpeg" else y  # JPEG has the full range
        assert pictures[0].to_ndarray()[:16, :16].mean() == pytest.approx(shown_y.mean(), abs=2)
    await place.gone()


async def test_a_jpeg_is_a_file(place: Place) -> None:
    async with place.talk(video={"codec": "jpeg"}) as (client, _):
        (frame,) = await frames(client, Kind.VIDEO, 1)
        with av.open(io.BytesIO(frame.payload), format="jpeg_pipe") as file:
            assert file.streams.video[0].width == 64


async def test_wishes_can_change_on_the_way(place: Place) -> None:
    async with place.talk() as (client, _):
        await frames(client, Kind.FACE, 2)
        await client.send('{"type":"session.update","mesh":true,"face":{"rate":50}}')
        (mesh,) = await frames(client, Kind.MESH, 1)
        assert len(mesh.payload) == 4 + 468 * 12
        faces = await frames(client, Kind.FACE, 6)
        assert 20_000 in [b.pts_us - a.pts_us for a, b in pairwise(faces)]
        await client.send('{"type":"session.update","mesh":false}')
        await until(lambda: Wants.MESH not in place.worker.seats[0].calls[-1][1])


async def test_who_asks_for_a_mesh_that_is_not_there_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    step = place.worker.runtime.step
    monkeypatch.setattr(place.worker.runtime, "step", lambda rows: [replace(out, mesh=None) for out in step(rows)])
    async with place.talk(mesh=True) as (client, _):
        said = await event(client, "warning")
        assert said["code"] == "no_mesh"
        assert "68 points" in said["message"]
        await frames(client, Kind.FACE, 3)


async def test_the_sound_comes_back_on_the_same_dates(place: Place) -> None:
    async with place.talk(pacing="burst", audio_out={"sample_rate": 16_000}) as (client, started):
        assert started["audio_out"] == {"format": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
        await client.send(sound(VOICE[: 25 * CHUNK], flags=Flag.SEGMENT_END))
        begun = await event(client, "speech.started")
        heard = [f for f in await frames(client, Kind.AUDIO_OUT, 20) if f.pts_us >= begun["pts_us"]]
        assert len(heard) > 10
        for frame in heard[1:]:
            out = np.frombuffer(frame.payload, "<i2").astype(float)
            assert out.size == CHUNK
            at = (frame.pts_us - begun["pts_us"]) * 16 // 1000
            # Both of the engine's resamplers shift a little: the same sound, at the best shift within 2 ms.
            near = [VOICE[at + shift : at + shift + CHUNK].astype(float) for shift in range(-32, 33)]
            assert max(np.corrcoef(out, sent)[0, 1] for sent in near) > 0.98


async def test_burst_speech_is_announced_and_ended(place: Place) -> None:
    async with place.talk(pacing="burst") as (client, _):
        text = base64.b64encode(VOICE[: 10 * CHUNK].tobytes()).decode()
        await client.send(json.dumps({"type": "audio.append", "audio": text, "segment_id": "greeting"}))
        await client.send('{"type":"audio.end","segment_id":"greeting"}')
        begun = await event(client, "speech.started")
        assert (begun["segment_id"], begun["epoch"]) == ("greeting", 0)
        ended = await event(client, "speech.stopped")
        assert ended["interrupted"] is False
        assert ended["playback_position"] == pytest.approx(0.4, abs=0.041)


async def test_figures_come_every_ten_seconds(place: Place) -> None:
    async with place.talk() as (client, started):
        stats = await event(client, "stats")
        assert stats["session_id"] == started["session_id"]
        assert stats["fps"] == pytest.approx(25, abs=5)
        assert stats["frames_dropped"] >= 0


async def test_an_interrupt_begins_a_new_epoch(place: Place) -> None:
    async with place.talk(pacing="burst") as (client, _):
        await client.send(sound(VOICE[: 50 * CHUNK // 2]))
        await event(client, "speech.started")
        await client.send('{"type":"interrupt"}')
        assert (await event(client, "cleared"))["epoch"] == 1
        assert {face.epoch for face in await frames(client, Kind.FACE, 5)} == {1}
        await client.send(sound(epoch=0))
        assert (await event(client, "warning"))["code"] == "stale_epoch"
        await client.send(sound(VOICE[: 5 * CHUNK], epoch=1))
        assert (await event(client, "speech.started"))["epoch"] == 1


async def test_an_interrupt_by_someone_else_reaches_the_client(place: Place) -> None:
    async with place.talk() as (client, started):
        await place.house.sessions[started["session_id"]].interrupt()
        assert (await event(client, "cleared"))["epoch"] == 1


async def test_a_file_dumped_in_real_time_mode_is_cut_at_two_seconds(place: Place) -> None:
    async with place.talk() as (client, _):
        for _ in range(60):
            await client.send(sound(np.tile(VOICE, 4)[:16_000]))
        assert (await event(client, "warning"))["code"] == "buffer_high"
        error = await event(client, "error")
        assert (error["code"], error["fatal"]) == ("audio_buffer_overflow", False)
        assert error["retry_after_ms"] > 0
        await frames(client, Kind.FACE, 3)


async def test_wild_floats_harm_nobody(place: Place) -> None:
    """M10: NaN, infinities and 1e30 go in; finite faces come out, here and next door."""
    wild = np.array([np.nan, np.inf, -np.inf, 1e30] * (CHUNK // 4), "<f4")
    async with place.talk(audio={"format": "pcm_f32le"}) as (client, _), place.talk() as (neighbour, _):
        for _ in range(5):
            await client.send(sound(wild.tobytes()))
        for one in (client, neighbour):
            for face in await frames(one, Kind.FACE, 8):
                assert np.isfinite(np.frombuffer(face.payload, "<f4")).all()


# Who may come in


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


# Misfortune and malice


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        pytest.param(b"\x5a" + bytes(30), 1003, "bad_message", id="no magic"),
        pytest.param(sound()[:20], 1003, "bad_message", id="half a header"),
        pytest.param(sound()[:-1], 1003, "bad_message", id="shorter than announced"),
        pytest.param(b"\xa5\x01\x00\x02" + sound()[4:], 1003, "bad_message", id="version 2"),
        pytest.param(sound(b"\0\0\0"), 1003, "bad_message", id="half a sample"),
        pytest.param("{" + '"a":{' * 5_000, 1003, "bad_message", id="depth 5,000"),
        pytest.param('{"type":"ping","t":1e400}', 1003, "bad_message", id="1e400"),
        pytest.param("not json", 1003, "bad_message", id="no JSON"),
        pytest.param(hello(), 1003, "bad_message", id="a second hello"),
    ],
)
async def test_p9_what_ends_a_conversation(place: Place, message: str | bytes, code: int, reason: str) -> None:
    async with place.talk() as (neighbour, _):
        async with place.talk() as (client, _):
            await client.send(message)
            told = await end(client)
        assert (*told[:2], told[2]["code"]) == (code, reason, reason)
        await frames(neighbour, Kind.FACE, 3)
    await place.gone()


async def test_a_client_that_talks_on_is_told_why_it_is_closed(place: Place) -> None:
    """More is under way than is taken in at a time; the close must not stand behind it until patience ends."""
    async with place.talk() as (client, _):
        await client.send("not json")
        for _ in range(100):
            await client.send(sound())
        assert (await end(client))[:2] == (1003, "bad_message")
        assert client.protocol.close_rcvd_then_sent is True  # a whole farewell, and no connection that broke off
    await place.gone()


async def test_no_hello_no_patience(place: Place) -> None:
    async with place.visit() as client:
        code, reason, error = await end(client)
    assert (code, reason) == (4408, "timeout")
    assert "session.start" in error["message"]
    assert place.worker.seats == []


class Raw:
    """A client that knows no library: bytes on a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, place: Place, small_buffers: bool = False) -> "Raw":
        plug = socket.socket()
        if small_buffers:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", place.stream.port))
        return cls(*await asyncio.open_connection(sock=plug, limit=1024))

    async def greeting(self, origin: str | None = None, host: str = "127.0.0.1") -> int:
        """The handshake; the HTTP status of its answer. Compression is offered and must not be taken."""
        ours = f"Origin: {origin}\r\n" if origin else ""
        self.writer.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {host}\r\n{ours}Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: avatar.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
        )
        answer = await self.reader.readuntil(b"\r\n\r\n")
        assert b"permessage-deflate" not in answer
        return int(answer.split()[1])

    async def greet(self, **wishes: Any) -> None:
        assert await self.greeting() == 101
        if wishes:
            self.frame(0x81, hello(**wishes).encode())

    def frame(self, first: int, payload: bytes) -> None:
        """One websocket frame, masked with zeros."""
        n = len(payload)
        length = bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n)
        self.writer.write(bytes([first]) + length + bytes(4) + payload)

    async def close_code(self) -> int:
        """Of the close frame, reading whole frames until it comes."""
        while True:
            first, second = await asyncio.wait_for(self.reader.readexactly(2), 3)
            n = second & 0x7F
            if n == 126:
                (n,) = struct.unpack(">H", await self.reader.readexactly(2))
            payload = await self.reader.readexactly(n)
            if first & 0x0F == 8:
                return int.from_bytes(payload[:2], "big")

    def hang_up(self) -> None:
        self.writer.transport.abort()


async def test_p9_a_handshake_at_a_byte_a_second(place: Place) -> None:
    raw = await Raw.open(place)
    raw.writer.write(b"G")
    assert await asyncio.wait_for(raw.reader.read(), 2) == b""  # hung up after `handshake` seconds
    raw.hang_up()


async def test_p9_a_message_at_a_byte_a_second(place: Place) -> None:
    raw = await Raw.open(place)
    await raw.greet(face=False)
    raw.writer.write(b"\x82\xfe\x10\x00\0\0\0\0")  # 4,096 bytes are coming
    closing = asyncio.create_task(raw.close_code())
    while not closing.done():
        raw.writer.write(b"\0")
        await asyncio.sleep(0.1)
    assert closing.result() == 4408
    raw.hang_up()
    await place.gone()


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


async def test_p9_a_train_of_empty_fragments(place: Place) -> None:
    raw = await Raw.open(place)
    await raw.greet(face=False)
    raw.frame(0x02, b"")
    for _ in range(200):
        raw.frame(0x00, b"")
    assert await raw.close_code() == 1008
    raw.hang_up()
    await place.gone()


async def test_text_that_is_not_utf8(place: Place) -> None:
    raw = await Raw.open(place)
    await raw.greet(face=False)
    raw.frame(0x81, b'{"type":"\xff"}')
    assert await raw.close_code() == 1007
    raw.hang_up()
    await place.gone()


async def test_a_fragmented_message_is_one_message(place: Place) -> None:
    raw = await Raw.open(place)
    await raw.greet()
    text = hello(face=False).encode()
    raw.frame(0x01, text[:10])
    raw.frame(0x00, text[10:20])
    raw.frame(0x80, text[20:])
    await until(lambda: len(place.house.sessions) == 1)
    raw.hang_up()
    await place.gone()


async def test_m13_who_stops_reading_is_closed_and_nobody_else_notices() -> None:
    """M13: the sender's buffers fill; faces are dropped, not queued; then the guest is put out, its slot and its socket
    are free though it never hangs up, and the door can be shut."""
    async with a_place() as place:
        raw = await Raw.open(place, small_buffers=True)
        await raw.greet(mesh=True, audio_out=True)
        await until(lambda: len(place.house.sessions) == 1)
        async with place.talk() as (neighbour, _):
            await until(lambda: place.stream.closed["timeout"] == 1, 8)
            faces = await frames(neighbour, Kind.FACE, 40)
            assert len(faces) == 40
            assert neighbour.close_code is None
        await place.gone()
        shutting = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - shutting < 5
    raw.hang_up()


async def test_a_slow_reader_gets_new_faces_and_is_told_of_the_old() -> None:
    async with a_place(Patience(hello=2, stall=100, ping=100)) as place:
        raw = await Raw.open(place, small_buffers=True)
        await raw.greet(mesh=True, audio_out=True)
        await until(lambda: place.stream.stats()["frames_dropped"] > 20, 8)
        raw.reader._limit = 2**20  # type: ignore[attr-defined]  # reads on, at last
        dates: list[int] = []
        warned = 0
        while (
            not warned or len(dates) < 20 or max(b - a for a, b in pairwise(dates)) <= 200_000
        ):  # a leap to the newest
            first, second = await asyncio.wait_for(raw.reader.readexactly(2), 3)
            n = second & 0x7F
            if n == 126:
                (n,) = struct.unpack(">H", await raw.reader.readexactly(2))
            payload = await raw.reader.readexactly(n)
            if first & 0x0F == 1 and json.loads(payload).get("code") == "frames_dropped":
                warned = json.loads(payload)["count"]
            if payload[:2] == b"\xa5\x02":
                dates.append(parse_frame(payload).pts_us)
        assert dates == sorted(set(dates))
        raw.hang_up()


async def test_n9_a_client_that_vanishes_leaves_nothing(place: Place) -> None:
    for _ in range(3):
        raw = await Raw.open(place)
        await raw.greet(video={"codec": "jpeg"}, mesh=True, audio_out=True)
        await until(lambda: len(place.house.sessions) == 1)
        raw.hang_up()
        await place.gone()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


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


async def test_a_hello_for_a_session_that_is_open_elsewhere_only_looks_on(place: Place) -> None:
    """A WebRTC session's faces can be had over a websocket as well: the guest may speak, and its end ends nothing."""
    async with place.house.open("demo", session_id="call", pacing=Pacing.REALTIME, transport="webrtc"):
        async with place.talk(resume="call") as (client, started):
            assert started["session_id"] == "call"
            await client.send(sound())
            await frames(client, Kind.FACE, 2)
        await until(lambda: place.stream.guests == 0)
        assert "call" in place.house.sessions
