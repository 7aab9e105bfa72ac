"""The server as a whole, up and down: its settings, its log, its end."""

import asyncio
import io
import json
import logging
import re
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

import engine.server
from engine import logs
from engine.clock import RealClock
from engine.config import Access, Config, Media, Secret
from engine.metrics import Metrics
from engine.server import serving
from engine.start import StartError
from models.rates import HEARD_RATE
from tests.engine.house import KEY, SDP, House, plain_offer, up
from tests.webrtc_client import Client

pytestmark = pytest.mark.usefixtures("beeping")


async def test_s5_who_drips_a_header_byte_by_byte_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.server, "IDLE_SECONDS", 0.3)
    async with up() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        writer.write(b"GET / HTTP/1.1\r\nHo")
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
        assert (await house.ask("GET", "/healthz"))[0] == 200


async def test_what_goes_wrong_in_its_users_block_comes_out_as_itself() -> None:
    with pytest.raises(StartError, match="no microphone"):
        async with up():
            raise StartError("no microphone")


async def test_metrics_are_fed_by_what_befalls_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of a second of the voice is lost, and a websocket's reader is too slow for nine faces."""
    monkeypatch.setattr(engine.server, "COUNT_SECONDS", 0.1)
    monkeypatch.setattr(engine.server.Stream, "stats", lambda stream: {"frames_dropped": 9})
    async with up() as house, house.talking(loss=lambda index: 60 <= index < 73) as (_, client):

        async def page() -> dict[str, float]:
            text = (await house.ask("GET", "/metrics"))[2].decode()
            lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
            return {name: float(value) for name, value in lines}

        await client.until(lambda: len(client.sent) > 100)
        before = await page()
        await asyncio.sleep(1.2)  # moments are counted once a second
        told = await page()
    assert 0.1 <= told["avatar_audio_gap_seconds_total"] <= 0.5
    assert told["avatar_ws_send_queue_dropped_total"] == 9
    for name in ("avatar_batch_size", "avatar_av_skew_seconds", "avatar_audio_to_video_latency_seconds"):
        assert told[f"{name}_count"] > before[f"{name}_count"] + 5, name
    assert told["avatar_batch_size_sum"] >= told["avatar_batch_size_count"]
    assert abs(told["avatar_av_skew_seconds_sum"]) <= 0.04 * told["avatar_av_skew_seconds_count"]


async def test_every_family_of_the_page_is_somebodys_business() -> None:
    """A family that nobody feeds says that nothing happens where nobody looks."""
    rooms = "".join(path.read_text() for path in Path(engine.server.__file__).parent.glob("*.py"))
    silent = [name for name in vars(Metrics()) if not re.search(rf"metrics\.{name}\b", rooms)]
    assert silent == []


async def test_s10_media_keeps_to_the_ports_codecs_and_bit_rate_of_the_settings() -> None:
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    settings = Media(ports=f"{port}-{port}", codecs=("H264",), bitrate=200_000, encode_threads=1)
    async with up(media=settings) as house, house.talking() as (_, client):
        assert client.server_address == ("127.0.0.1", port)
        (peer,) = house.server.rooms.peers.peers
        assert peer.codec == "H264"
        assert peer.stats()["bitrate"] <= 200_000
        assert sum(thread.name.startswith("encode") for thread in threading.enumerate()) == 1
        status, headers, _ = await house.ask("POST", "/v1/whip", data=await plain_offer(), headers=SDP)
        assert status == 503, "there is no second port"
        assert "Retry-After" in headers


async def test_l1_a_draining_server_lets_nobody_in_and_says_why(house: House) -> None:
    async with house.talking() as (ticket, client):
        running = asyncio.create_task(house.server.run_until_stopped())
        await asyncio.sleep(0.05)
        house.server.stop()
        await client.until(lambda: any(e["type"] == "session.draining" for _, e in client.events))
        assert (await house.ask("GET", "/readyz"))[0] == 503
        for path, what in (("/v1/sessions", {"json": {}}), ("/v1/whip", {"data": await plain_offer(), "headers": SDP})):
            status, headers, problem = await house.ask("POST", path, **what)
            assert (status, problem["type"]) == (503, "urn:liveface:draining")
            assert "Retry-After" in headers
        pictures = len(client.pictures)
        await client.until(lambda: len(client.pictures) > pictures + 5)  # who is in stays in
        assert not running.done()
        await house.ask("DELETE", ticket["location"], ticket["token"])
        await asyncio.wait_for(running, 3)


async def test_l1_a_second_signal_is_now(house: House) -> None:
    async with house.talking():
        running = asyncio.create_task(house.server.run_until_stopped())
        await asyncio.sleep(0.05)
        house.server.stop()
        house.server.stop()
        await asyncio.wait_for(running, 3)


async def test_s7_no_line_of_the_log_opens_a_door_or_tells_an_address(
    guarded: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    level = root.level
    logs.set_up("info", "json", stream)
    try:
        async with guarded.talking() as (ticket, _):
            await guarded.ask(
                "POST", f"/v1/sessions/{ticket['session_id']}/say", ticket["token"], json={"text": "secret"}
            )
            await guarded.ask("POST", "/v1/whip", KEY, data="v=0\r\nm=audio\r\na=ice-pwd:hush\r\n", headers=SDP)
            await guarded.ask("DELETE", ticket["location"], ticket["token"])
        await guarded.emptied()

        async def broken(*_: Any) -> web.Response:
            raise RuntimeError(f"it broke with Authorization: Bearer {ticket['token']}")

        monkeypatch.setattr(guarded.server.rooms.voices, "voices", broken)
        assert (await guarded.ask("GET", "/v1/voices"))[0] == 500
    finally:
        for handler in root.handlers[:]:
            if getattr(handler, "stream", None) is stream:
                root.removeHandler(handler)
        root.setLevel(level)
    lines = stream.getvalue()
    assert [json.loads(line)["event"] for line in lines.splitlines() if "session.opened" in line]
    for secret in (ticket["token"], KEY, "hush", "a=candidate", "ice-ufrag", "m=audio", ticket["location"]):
        assert secret not in lines, secret


async def test_probe_stamps_the_pictures() -> None:
    from engine.probe import read

    async with up(probe=True) as house, Client(np.zeros(HEARD_RATE, np.int16)) as client:

        async def exchange(offer: str) -> str:
            return str((await house.ask("POST", "/v1/whip", data=offer, headers=SDP))[2], "utf-8")

        await client.connect(exchange)
        await client.until(lambda: sum(seen.luma is not None for seen in client.pictures) > 3)
        marks = [read(seen.luma) for seen in client.pictures if seen.luma is not None]
    numbers = [mark.number for mark in marks if mark is not None]
    assert len(numbers) > 2
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"host": "0.0.0.0"}, "LIVEFACE_TOKEN"),
        ({"access": Access(Secret("short"))}, "16"),
        ({"avatar": ("nobody",)}, "no avatar is called 'nobody'"),
        ({"host": "192.0.2.1", "access": Access(anyone=True)}, "cannot listen on"),
        ({"backend": "abacus"}, "abacus"),
        ({"media": Media(ports="50000")}, "as 50000-50199"),
        ({"media": Media(ports="80-90")}, "1024"),
        ({"media": Media(codecs=("AV1",))}, "VP8 and H264"),
    ],
)
async def test_l8_a_server_that_cannot_start_says_why_in_one_line(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(StartError) as refused:
        async with serving(Config(port=0, ws_port=0, runtime="inline", **settings), RealClock()):
            pytest.fail("it started")
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_l8_a_taken_port_is_named(house: House) -> None:
    config = Config(port=house.server.port, ws_port=0, runtime="inline")
    with pytest.raises(StartError, match=f":{house.server.port}.*--port"):
        async with serving(config, RealClock()):
            pytest.fail("it started")


async def test_a_connection_that_asks_now_and_then_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is quiet whenever the sweeper looks, and must not be taken for one that drips."""
    monkeypatch.setattr(engine.server, "IDLE_SECONDS", 0.15)
    async with up() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        for _ in range(4):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await asyncio.wait_for(reader.readline(), 3)).startswith(b"HTTP/1.1 200")
            await asyncio.wait_for(reader.readuntil(b"alive\n"), 3)
            await asyncio.sleep(0.15)
        writer.close()
