"""Websocket clients that measure by the sound that comes back."""

import asyncio
import json
from contextlib import asynccontextmanager

import numpy as np
import pytest
from websockets.asyncio.server import serve

from engine.bench import faces
from engine.bench.faces import FacesPlan, Heard, Matches, crowd, masked, pieces, unmasked
from engine.clock import RealClock
from engine.protocol.frames import Kind, pack_frame, parse_frame

DELAY = 0.05


def test_no_two_pieces_are_alike_and_each_is_40_ms():
    said = pieces(16_000, 100, 1)
    assert len(set(said)) == 100
    assert {len(piece) for piece in said} == {2 * 640}
    assert said != pieces(16_000, 100, 2)
    assert np.abs(np.frombuffer(said[5], "<i2")).max() > 1_000


def test_a_face_and_its_piece_are_matched_in_either_order():
    matches = Matches()
    matches.send(b"one", 1.0)
    matches.send(b"two", 2.0)
    assert matches.face(40_000, 1.5) is None
    assert matches.sound(40_000, b"one") == (1.0, 1.5)
    assert matches.sound(80_000, b"two") is None
    assert matches.face(80_000, 2.5) == (2.0, 2.5)
    assert matches.sound(120_000, b"silence that nobody sent") is None
    assert matches.face(120_000, 3.0) is None


async def called(plan: FacesPlan) -> list[Heard]:
    """The crowd in a thread of its own: it never gives way to this loop."""
    return await asyncio.to_thread(crowd, plan, RealClock())


@asynccontextmanager
async def echo(refuse: bool = False, silent: bool = False):
    """A server whose face of each piece comes DELAY after it, and then the piece itself."""
    heard: list[dict] = []

    async def guest(socket):
        heard.append(json.loads(await socket.recv()))
        if refuse:
            await socket.close(4408, "too slow")
            return
        if silent:
            await socket.wait_closed()
            return
        await socket.send('{"type": "session.started"}')
        wants_sound = heard[-1]["audio_out"] is not None
        answers = set()

        async def answer(seq: int, piece: bytes):
            await asyncio.sleep(DELAY)
            await socket.send(pack_frame(Kind.FACE, 0, seq + (seq > 20), 0, 40_000 * seq, b"face"))
            if wants_sound:
                await socket.send(pack_frame(Kind.AUDIO_OUT, 0, seq, 0, 40_000 * seq, piece))

        async for message in socket:
            frame = parse_frame(message)
            task = asyncio.create_task(answer(frame.seq, frame.payload))
            answers.add(task)
            task.add_done_callback(answers.discard)
        for task in answers:
            task.cancel()

    async with serve(guest, "127.0.0.1", 0, subprotocols=["avatar.v1"]) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream", heard


async def test_a_known_delay_is_read_and_spared_faces_are_counted(monkeypatch):
    monkeypatch.setattr(faces, "SETTLE_SECONDS", 0.5)
    async with echo() as (url, heard):
        found = await called(FacesPlan(url, 4, 3.0, avatar="anna", token="t"))
    assert [each.closed for each in found] == [""] * 4
    assert all(10 < each.faces / each.seconds < 27 for each in found)
    assert [bool(each.latencies) for each in found] == [True] * 4, "four clients, each a probe"
    latencies = [latency for each in found for latency in each.latencies]
    assert DELAY <= np.median(latencies) < DELAY + 0.05
    assert all(each.spared >= 1 for each in found)
    assert found[0].cpu_seconds > 0
    assert heard[0]["avatar_id"] == "anna"
    assert heard[0]["auth"] == {"token": "t"}


async def test_of_many_only_a_few_ask_for_their_sound(monkeypatch):
    monkeypatch.setattr(faces, "APART_SECONDS", 0.001)
    async with echo() as (url, heard):
        await called(FacesPlan(url, 12, 0.3))
    assert sum(hello["audio_out"] is not None for hello in heard) == 3


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/v1/stream", None])
async def test_a_client_that_is_closed_says_why(url):
    async with echo(refuse=True) as (refusing, _):
        (heard,) = await called(FacesPlan(url or refusing, 1, 1.0))
    assert "refused" in heard.closed if url else heard.closed == "closed with 4408 too slow"


async def test_a_server_that_refuses_the_handshake_is_quoted():
    async with serve(lambda _: None, "127.0.0.1", 0, subprotocols=["other"]) as server:
        port = server.sockets[0].getsockname()[1]
        (heard,) = await called(FacesPlan(f"ws://127.0.0.1:{port}/", 1, 1.0))
    assert "400" in heard.closed


async def test_a_silent_server_is_left(monkeypatch):
    monkeypatch.setattr(faces, "SILENT_SECONDS", 0.2)
    async with echo(silent=True) as (url, _):
        (heard,) = await called(FacesPlan(url, 1, 1.0))
    assert heard.closed == "nothing came for 0.2 s"


@pytest.mark.parametrize("size", [0, 125, 126, 5_000])
def test_frames_come_whole_however_they_are_cut(size):
    """What a server would send: the same frame without the mask."""
    payload = bytes(range(256)) * (size // 256 + 1)
    frame = masked(2, payload[:size])
    at = 2 if size < 126 else 4
    plain = bytes([frame[0], frame[1] & 0x7F]) + frame[2:at] + frame[at + 4 :]
    buffer, found = bytearray(), []
    for byte in plain + plain:
        buffer.append(byte)
        found += unmasked(buffer)
    assert found == [(2, payload[:size])] * 2
    assert not buffer
