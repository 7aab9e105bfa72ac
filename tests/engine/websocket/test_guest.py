"""A conversation over real sockets on loopback, and what becomes of those who misbehave."""

import asyncio
import base64
import json
import struct
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from engine.protocol.frames import Flag, Kind, parse_frame
from engine.websocket import Patience
from models.rates import CHUNK
from models.runtime import Wants
from tests.engine.websocket.visit import (
    VOICE,
    Place,
    Raw,
    a_place,
    end,
    event,
    frames,
    hello,
    sound,
    until,
)


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
