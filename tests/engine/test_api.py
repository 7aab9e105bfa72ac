"""Sessions over HTTP: begun, told what to say, watched, ended; real sockets, a fake model."""

import asyncio
import io
import json
import wave
from typing import Any

import numpy as np
import pytest

from engine.voices import Voices
from tests.engine.house import KEY, House
from tests.fakes import vowel
from tests.processor import Waits

pytestmark = pytest.mark.usefixtures("beeping")


async def test_a_ticket_for_the_websocket_opens_its_avatar_once(guarded: House) -> None:
    ticket = await guarded.ticket(transport="websocket", avatar_id="bert")
    assert guarded.free == 3  # the seat is taken when the client comes
    hello = {"type": "session.start", "protocol": "1.0", "auth": {"token": ticket["token"]}}
    url = ticket["ws_url"].replace("localhost", "127.0.0.1")
    async with guarded.http.ws_connect(url, protocols=["avatar.v1"]) as socket:
        await socket.send_json(hello)
        started = await socket.receive_json(timeout=5)
        assert (started["type"], started["session_id"]) == ("session.started", ticket["session_id"])
        (session,) = guarded.server.rooms.house.sessions.values()
        assert session.card.name == "bert"
    await guarded.emptied()
    async with guarded.http.ws_connect(url, protocols=["avatar.v1"]) as socket:
        await socket.send_json(hello)
        assert (await socket.receive_json(timeout=5))["code"] == "unauthorised"


def wav(seconds: float) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((vowel(seconds, 16_000) * 32_000).astype(np.int16).tobytes())
    return out.getvalue()


async def test_say_speaks_and_interrupt_stops_it(house: House) -> None:
    async with house.talking() as (ticket, client):
        path, token = f"/v1/sessions/{ticket['session_id']}", ticket["token"]
        status, _, said = await house.ask("POST", f"{path}/say", token, json={"text": "a" * 200})
        assert (status, said) == (202, {"segment_id": "say-1", "voice": "beeps:high"})

        def told(kind: str, segment_id: str) -> list[dict[str, Any]]:
            return [e for _, e in client.events if e["type"] == kind and e.get("segment_id") == segment_id]

        await client.until(lambda: bool(told("speech.started", "say-1")))
        status, _, answer = await house.ask("POST", f"{path}/interrupt", token)
        assert (status, answer) == (200, {"epoch": 1})
        await client.until(lambda: bool(told("speech.stopped", "say-1")))
        (stopped,) = told("speech.stopped", "say-1")
        assert stopped["interrupted"] is True
        assert stopped["playback_position"] < 8.0
        status, _, said = await house.ask("POST", f"{path}/say", token, json={"text": "ab"})
        await client.until(lambda: bool(told("speech.stopped", "say-2")))
        assert told("speech.stopped", "say-2")[0]["interrupted"] is False


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"text": 7}, 400),
        ({"text": " "}, 400),
        ({"text": "a" * 3_000}, 400),
        ({"text": "a", "voice": "nobody"}, 400),
        ({"text": "a", "voice": 3}, 400),
    ],
)
async def test_what_cannot_be_said_is_refused(house: House, body: dict[str, Any], status: int) -> None:
    ticket = await house.ticket()
    path = f"/v1/sessions/{ticket['session_id']}/say"
    assert (await house.ask("POST", path, ticket["token"], json=body))[0] == status


async def test_a_server_without_voices_says_what_to_install(house: House) -> None:
    house.server.rooms.voices = Voices([])
    ticket = await house.ticket()
    path = f"/v1/sessions/{ticket['session_id']}/say"
    status, _, problem = await house.ask("POST", path, ticket["token"], json={"text": "hello"})
    assert status == 501
    assert "apt install" in problem["detail"]
    assert "apt install" in (await house.ask("GET", "/v1/voices"))[2]["advice"]


async def test_a_session_takes_eight_utterances_and_no_ninth(house: House) -> None:
    ticket = await house.ticket()
    path = f"/v1/sessions/{ticket['session_id']}/say"
    answers = [await house.ask("POST", path, ticket["token"], json={"text": "a" * 2_000}) for _ in range(9)]
    assert [status for status, _, _ in answers] == [202] * 8 + [429]


async def test_files_and_raw_sound_are_spoken(house: House) -> None:
    async with house.talking() as (ticket, client):
        path, token = f"/v1/sessions/{ticket['session_id']}/audio", ticket["token"]
        status, _, said = await house.ask("POST", path, token, data=wav(0.4), headers={"Content-Type": "audio/wav"})
        assert (status, said["segment_id"]) == (202, "say-1")
        pcm = (vowel(0.4, 24_000) * 32_000).astype(">i2").tobytes()
        status, _, said = await house.ask(
            "POST", path, token, data=pcm + b"x", headers={"Content-Type": "audio/L16; rate=24000"}
        )
        assert (status, said) == (200, {"segment_id": "say-2", "seconds": 0.4})
        await client.until(
            lambda: {e["segment_id"] for _, e in client.events if e["type"] == "speech.stopped"} >= {"say-1", "say-2"}
        )


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"this is no sound", "audio/wav", 415),
        (b"", "application/octet-stream", 415),
        (b"#EXTM3U\nfile:///etc/passwd\n", "audio/mpegurl", 415),
        (b"xx", "audio/pcm", 400),
        (b"xx", "audio/pcm;rate=4000", 400),
        (b"xx", "audio/pcm;rate=1e9", 400),
    ],
)
async def test_what_is_no_sound_is_refused(house: House, content: bytes, kind: str, status: int) -> None:
    ticket = await house.ticket()
    path = f"/v1/sessions/{ticket['session_id']}/audio"
    assert (await house.ask("POST", path, ticket["token"], data=content, headers={"Content-Type": kind}))[0] == status


async def test_events_come_over_sse_until_the_session_ends(house: House) -> None:
    ticket = await house.ticket()
    path, token = f"{house.base}/v1/sessions/{ticket['session_id']}", ticket["token"]
    auth = {"Authorization": f"Bearer {token}"}
    async with house.http.get(f"{path}/events", headers=auth) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        await house.ask("POST", f"/v1/sessions/{ticket['session_id']}/interrupt", token)
        await asyncio.sleep(1.1)
        await house.ask("POST", f"/v1/sessions/{ticket['session_id']}/end", token)
        text = (await asyncio.wait_for(stream.text(), 5)).split("\n\n")
    events = {
        line.split("\n")[0].removeprefix("event: "): json.loads(line.partition("data: ")[2])
        for line in text
        if line.startswith("event: ")
    }
    assert events["cleared"] == {"type": "cleared", "epoch": 1}
    assert {"fps", "latency_ms", "stages_ms", "late", "repeated"} <= set(events["stats"])
    assert not house.server.rooms.streams


async def test_the_data_channel_carries_numbers_every_second(house: House) -> None:
    async with house.talking() as (_, client), Waits() as waits:
        await client.until(lambda: sum(e["type"] == "stats" for _, e in client.events) >= 3, timeout=6)
        told = [(at, e) for at, e in client.events if e["type"] == "stats"]
    assert told[-1][0] - told[-2][0] == pytest.approx(1.0, abs=0.1 + waits.seconds)
    stats = told[-1][1]
    assert stats["fps"] == pytest.approx(25, abs=2 + 25 * waits.seconds)
    assert 0 < stats["latency_ms"]["p50"] <= stats["latency_ms"]["p95"] < 100 + 1_000 * waits.seconds
    assert set(stats["latency_ms"]) == {"p50", "p95"}
    assert set(stats["stages_ms"]) == {"voice", "render", "encode"}
    assert stats["stages_ms"]["voice"] == pytest.approx(1.0), "as the model says"
    assert 0 < stats["stages_ms"]["encode"] < 40 + 1_000 * waits.seconds
    assert stats["late"] == stats["repeated"] <= 2 + 25 * waits.seconds
    assert (stats["queued_seconds"], stats["viewers"]) == (0, 1)


async def test_the_operator_sees_every_session_and_can_watch(guarded: House) -> None:
    async with guarded.talking() as (ticket, _):
        _, _, said = await guarded.ask("GET", "/v1/sessions", KEY)
        (session,) = said["sessions"]
        assert (session["session_id"], session["avatar_id"]) == (ticket["session_id"], "demo")
        assert (said["slots"], said["free_slots"], said["draining"]) == (3, 2, False)
        path = f"/v1/sessions/{ticket['session_id']}"
        assert (await guarded.ask("GET", path, session["view_token"]))[0] == 200
        assert "view_token" not in (await guarded.ask("GET", path, ticket["token"]))[2]
