"""The HTTP surface against real sockets on 127.0.0.1, real connections, and a model that is a fake."""

import asyncio
import io
import json
import logging
import os
import random
import re
import socket
import threading
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

import engine.api
import engine.lobby
import engine.server
from engine import logs
from engine.api import unreadiness
from engine.clock import RealClock
from engine.config import Access, Config, Media, Secret, Turn
from engine.config import Limits as LimitSettings
from engine.metrics import Metrics
from engine.server import Server, serving
from engine.start import StartError
from engine.voices import Spoken, VoiceCard, Voices
from engine.worker import Worker
from models.rates import HEARD_RATE
from tests.fakes import FakeRuntime, vowel
from tests.processor import ATTEMPTS, Waits
from tests.webrtc_client import Client

BEEP = Spoken((vowel(0.04, 16_000) * 32_000).astype(np.int16), 16_000)
VOICE = (vowel(5, HEARD_RATE) * 32_000).astype(np.int16)
KEY = "a key of twenty letters"
SDP = {"Content-Type": "application/sdp"}


class Beeps:
    """A voice that beeps 40 ms a character."""

    async def voices(self) -> Sequence[VoiceCard]:
        return [VoiceCard("beeps:high", "High", "beeps", "en")]

    async def speak(self, text: str, voice: str) -> AsyncGenerator[Spoken, None]:
        for _ in text:
            yield BEEP

    async def aclose(self) -> None:
        return None


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@dataclass
class House:
    """A server that is up, and someone who asks it things."""

    server: Server
    http: aiohttp.ClientSession
    runtime: FakeRuntime
    key: str | None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def free(self) -> int:
        return self.server.rooms.worker.free_slots

    async def ask(
        self, method: str, path: str, token: str | None = None, **what: Any
    ) -> tuple[int, "aiohttp.typedefs.LooseHeaders", Any]:
        headers = dict(what.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, self.base + path, headers=headers, **what) as answer:
            content = await answer.read()
            kind = answer.headers.get("Content-Type", "")
            return answer.status, answer.headers, json.loads(content) if "json" in kind else content

    async def ticket(self, **wishes: Any) -> dict[str, Any]:
        status, _, ticket = await self.ask("POST", "/v1/sessions", self.key, json=wishes)
        assert status == 201, ticket
        return dict(ticket)

    @asynccontextmanager
    async def talking(
        self, ticket: dict[str, Any] | None = None, loss: Callable[[int], bool] | None = None
    ) -> AsyncIterator[tuple[dict[str, Any], Client]]:
        """A client that speaks and is seen to be answered."""
        ticket = ticket or await self.ticket()
        async with Client(VOICE, decode=False, loss=loss) as client:

            async def exchange(offer: str) -> str:
                status, headers, answer = await self.ask(
                    "POST", ticket["whip_url"], ticket["token"], data=offer, headers=SDP
                )
                assert status == 201, answer
                ticket["location"] = headers["Location"]
                ticket["etag"] = headers["ETag"]
                return str(answer, "utf-8")

            await client.connect(exchange)
            await client.until(lambda: len(client.pictures) > 2)
            yield ticket, client

    async def emptied(self, slots: int | None = None) -> None:
        wanted = self.server.rooms.worker.slots if slots is None else slots
        await until(lambda: self.free == wanted and not self.server.rooms.peers.peers)


@asynccontextmanager
async def up(
    slots: int = 3, key: str | None = None, script: Sequence[str] = (), **settings: Any
) -> AsyncIterator[House]:
    runtime = FakeRuntime(script, ("demo", "bert"), slots + 1)

    def opener(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> FakeRuntime:
        return runtime

    access = settings.pop("access", Access(secret=None if key is None else Secret(key)))
    generous = LimitSettings(1000, 1000, 1000, 1000, 1000, 1000)
    config = Config(port=0, ws_port=0, access=access, limits=settings.pop("limits", generous), **settings)
    clock = RealClock()
    async with (
        Worker([], slots, opener, inline=True, clock=clock) as worker,
        serving(config, clock, worker) as server,
        aiohttp.ClientSession() as http,
    ):
        yield House(server, http, runtime, key)


@pytest.fixture(autouse=True)
def beeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Voices, "installed", classmethod(lambda cls: cls([Beeps()])))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with up() as house:
        yield house


@pytest.fixture
async def guarded() -> AsyncIterator[House]:
    async with up(key=KEY) as house:
        yield house


async def plain_offer() -> str:
    async with Client(np.zeros(HEARD_RATE, np.int16)) as client:
        return await client.offer()


# Signalling


async def test_whip_opens_a_full_duplex_conversation_and_delete_ends_it(house: House) -> None:
    async with house.talking() as (ticket, client):
        assert house.free == 2
        await client.until(lambda: len(client.sounds) > 10)
        status, _, _ = await house.ask("DELETE", ticket["location"], ticket["token"])
        assert status == 200  # OBS takes nothing else
    await house.emptied()


async def test_a_standard_whip_client_needs_no_ticket(house: House) -> None:
    offer = await plain_offer()
    status, headers, answer = await house.ask("POST", "/v1/whip/bert", data=offer, headers=SDP)
    assert status == 201
    assert headers["Content-Type"] == "application/sdp"
    assert re.fullmatch(r"/v1/connections/[\w-]{22}", headers["Location"])
    assert re.fullmatch(r'"[\w-]+"', headers["ETag"])
    assert answer.startswith(b"v=0")
    assert re.findall(rb"a=(sendrecv|sendonly|recvonly)", answer) == [b"sendrecv", b"sendonly"]
    (session,) = house.server.rooms.house.sessions.values()
    assert session.card.name == "bert"
    assert (await house.ask("GET", headers["Location"]))[0] == 204
    assert (await house.ask("DELETE", headers["Location"]))[0] == 200
    assert (await house.ask("DELETE", headers["Location"]))[0] == 404
    await house.emptied()


async def test_a_voice_source_is_only_heard_and_a_viewer_only_looks_on(house: House) -> None:
    """Strict WHIP and WHEP: OBS or ffmpeg speaks, browsers watch."""
    async with Client(VOICE, role="whip") as source, Client(role="whep", decode=False) as viewer:
        answers = []

        async def exchange(path: str, offer: str) -> str:
            status, _, answer = await house.ask("POST", path, data=offer, headers=SDP)
            assert status == 201, answer
            answers.append(answer.decode())
            return str(answer, "utf-8")

        await source.connect(lambda offer: exchange("/v1/whip", offer))
        (session_id,) = house.server.rooms.house.sessions
        await viewer.connect(lambda offer: exchange(f"/v1/whep/{session_id}", offer))
        await viewer.until(lambda: len(viewer.pictures) > 3)
        assert [re.findall(r"a=(sendrecv|sendonly|recvonly)", answer) for answer in answers] == [
            ["recvonly"],
            ["sendonly", "sendonly"],
        ]
        house.server.rooms.lobby.end(session_id)
    await house.emptied()


async def test_patch_answers_as_rfc_9725_says(house: House) -> None:
    offer = await plain_offer()
    _, headers, _ = await house.ask("POST", "/v1/whip", data=offer, headers=SDP)
    path, tag = headers["Location"], headers["ETag"]
    fragment = {"data": "a=ice-ufrag:x\r\na=end-of-candidates\r\n"}
    kind = {"Content-Type": "application/trickle-ice-sdpfrag"}
    statuses = [
        (await house.ask("PATCH", path, headers=kind | extra, **fragment))[0]
        for extra in ({"If-Match": tag}, {"If-Match": "*"}, {"If-Match": '"stale"'}, {})
    ]
    assert statuses == [204, 422, 412, 428]
    assert "ETag" not in (await house.ask("PATCH", path, headers=kind | {"If-Match": tag}, **fragment))[1]
    assert (await house.ask("PATCH", path, headers=SDP, **fragment))[0] == 415
    assert (await house.ask("PATCH", "/v1/connections/nobody", headers=kind, **fragment))[0] == 404
    assert (await house.ask("PUT", path))[0] == 405


async def test_cors_asks_first_without_a_token_and_learns_no_secret() -> None:
    turn = Turn(("turn:turn.example:3478?transport=udp", "stun:stun.example"), Secret("north"))
    friend = "https://friend.example"
    async with up(access=Access(Secret(KEY), origins=(friend,)), turn=turn, key=KEY) as guarded:
        for path in ("/v1/whip", "/v1/whip/demo", "/v1/whep/x", "/v1/sessions/x/whip"):
            status, headers, _ = await guarded.ask("OPTIONS", path, headers={"Origin": friend})
            assert status == 200
            assert headers["Accept-Post"] == "application/sdp"
            assert headers["Access-Control-Allow-Origin"] == friend
            assert "Authorization" in headers["Access-Control-Allow-Headers"]
            assert "Link" not in headers
            assert (await guarded.ask("GET", path))[0] == 204
        async with guarded.http.head(f"{guarded.base}/v1/whep/x") as found:
            assert (found.status, found.headers["Content-Type"]) == (200, "application/sdp")
        offer = await plain_offer()
        status, headers, _ = await guarded.ask("POST", "/v1/whip", KEY, data=offer, headers=SDP | {"Origin": friend})
        assert status == 201
        assert "Location" in headers["Access-Control-Expose-Headers"]
        links = headers.getall("Link")
        assert any(
            re.fullmatch(
                r'<turn:turn\.example:3478\?transport=udp>; rel="ice-server"; username="\d+:[^"]+"; '
                r'credential="[^"]+"; credential-type="password"',
                link,
            )
            for link in links
        )
        assert '<stun:stun.example>; rel="ice-server"' in links


async def test_offer_works_as_aiortc_clients_use_it(house: House) -> None:
    async with Client(np.zeros(HEARD_RATE, np.int16), decode=False) as client:
        said: dict[str, Any] = {}

        async def exchange(offer: str) -> str:
            nonlocal said
            status, _, said = await house.ask("POST", "/offer", json={"sdp": offer, "type": "offer"})
            assert status == 200, said
            assert said["type"] == "answer"
            return str(said["sdp"])

        await client.connect(exchange)
        await client.until(lambda: len(client.pictures) > 2)
        assert (await house.ask("POST", f"/v1/sessions/{said['session_id']}/end", said["token"]))[0] == 200
    await house.emptied()
    assert (await house.ask("POST", "/offer", json={"sdp": 7, "type": "offer"}))[0] == 400
    assert (await house.ask("POST", "/offer", json={"sdp": "v=0", "type": "answer"}))[0] == 400
    assert house.free == 3


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ({"data": "v=0", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"data": "v=0\r\n", "headers": SDP}, 400),
        ({"data": "hello", "headers": SDP}, 400),
        ({"data": b"\xff\xfe", "headers": SDP}, 400),
        ({"data": b"v=0", "headers": SDP | {"Content-Encoding": "gzip"}}, 415),
    ],
)
async def test_what_is_no_offer_gets_one_clear_line(house: House, what: dict[str, Any], status: int) -> None:
    got, headers, problem = await house.ask("POST", "/v1/whip", **what)
    assert got == status
    assert headers["Content-Type"].startswith("application/problem+json")
    assert problem["status"] == status
    assert "\n" not in problem["detail"]
    assert house.free == 3


async def test_p6_a_huge_offer_is_refused_before_anything_parses_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 m-lines, a megabyte, no m-line at all: none of it reaches a parser or takes a seat."""

    async def parsed(*_: Any) -> None:
        pytest.fail("it was parsed")

    monkeypatch.setattr(house.server.rooms.peers, "answer", parsed)
    line = "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/48000/2\r\n"
    for offer, status in (
        ("v=0\r\n" + line * 500, 413),
        ("v=0\r\n" + "m=x\r\n" * 4, 400),
        ("v=0\r\n", 400),
        ("v=0\r\n" + "a" * 1_000_000, 413),
    ):
        assert (await house.ask("POST", "/v1/whip", data=offer, headers=SDP))[0] == status

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"v=0\r\n" * 2_000

    assert (await house.ask("POST", "/v1/whip", data=pieces(), headers=SDP))[0] == 413
    assert (await house.ask("POST", "/offer", json={"type": "offer", "sdp": "v=0\r\n" + line * 300}))[0] == 413
    assert house.free == 3


async def test_p5_mutilated_offers_get_an_answer_or_a_refusal_and_leave_nothing(house: House) -> None:
    offer = await plain_offer()
    dice = random.Random(5)
    await house.ask("POST", "/v1/whip", data="v=0\r\nm=", headers=SDP)
    before = (len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - no pathlib in async code
    seen: set[int] = set()
    for _ in range(60):
        lines = offer.split("\r\n")
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(lines))
            deed = dice.randrange(4)
            if deed == 0 and len(lines) > 1:
                lines.pop(at)
            elif deed == 1:
                lines.insert(
                    at, dice.choice(["a=fingerprint:sha-256 00", "a=candidate:1 1 udp", "a=rtpmap:x", "é", ""])
                )
            elif deed == 2:
                lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]
            else:
                lines[at] = re.sub(r"\d+", dice.choice(["-1", "9" * 30, "NaN"]), lines[at], count=1)
        status, headers, _ = await house.ask("POST", "/v1/whip", data="\r\n".join(lines).encode(), headers=SDP)
        seen.add(status)
        assert status in (201, 400, 415, 422), status
        if status == 201:
            assert (await house.ask("DELETE", headers["Location"]))[0] == 200
    assert {201, 400} <= seen
    await house.emptied()
    await asyncio.sleep(0.1)
    after = (len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - no pathlib in async code
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 2


async def test_p8_a_ticket_takes_one_offer(house: House) -> None:
    """Replayed, doubled, or late: one connection, the other offers are told so."""
    offer = await plain_offer()
    ticket = await house.ticket()

    async def send() -> int:
        return (await house.ask("POST", ticket["whip_url"], ticket["token"], data=offer, headers=SDP))[0]

    assert sorted(await asyncio.gather(send(), send(), send())) == [201, 409, 409]
    assert await send() == 409
    assert house.free == 2
    await house.ask("POST", f"/v1/sessions/{ticket['session_id']}/end", ticket["token"])
    await house.emptied()
    assert await send() == 404


async def test_a_bad_offer_uses_up_its_ticket_and_frees_the_seat(house: House) -> None:
    ticket = await house.ticket()
    bad = "v=0\r\nm=audio 9 X 0\r\n"
    assert (await house.ask("POST", ticket["whip_url"], ticket["token"], data=bad, headers=SDP))[0] in (400, 422)
    await house.emptied()


async def test_the_token_alone_leads_to_the_session(house: House) -> None:
    """WHIP clients know one address and one token."""
    ticket = await house.ticket(avatar_id="bert")
    offer = await plain_offer()
    assert (await house.ask("POST", "/v1/whip", ticket["token"], data=offer, headers=SDP))[0] == 201
    assert list(house.server.rooms.house.sessions) == [ticket["session_id"]]


async def test_a_ticket_that_nobody_joins_gives_its_seat_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.server, "Lobby", lambda *a: engine.lobby.Lobby(*a, join_seconds=0.2))
    async with up() as house:
        await house.ticket()
        assert house.free == 2
        await house.emptied()


# Access


async def test_s1_without_a_key_nothing_is_created(guarded: House) -> None:
    offer = await plain_offer()
    await guarded.ask("GET", "/healthz")

    def exists() -> tuple[int, ...]:
        threads, tasks = threading.active_count(), len(asyncio.all_tasks())
        return threads, tasks, guarded.free, len(guarded.server.rooms.peers.peers)

    before = exists()
    for token in (None, "wrong"):
        for method, path, what in (
            ("POST", "/v1/whip", {"data": offer, "headers": SDP}),
            ("POST", "/v1/sessions/anything/whip", {"data": offer, "headers": SDP}),
            ("POST", "/v1/whep/anything", {"data": offer, "headers": SDP}),
            ("POST", "/offer", {"json": {"sdp": offer, "type": "offer"}}),
            ("POST", "/v1/sessions", {"json": {}}),
            ("POST", "/v1/sessions/anything/say", {"json": {"text": "hello"}}),
            ("GET", "/v1/sessions", {}),
            ("GET", "/v1/ice-servers", {}),
            ("GET", "/metrics", {}),
        ):
            status, headers, problem = await guarded.ask(method, path, token, **what)
            assert status == 401, (method, path)
            assert headers["WWW-Authenticate"] == "Bearer"
            assert KEY not in json.dumps(problem)
    assert exists() == before


async def test_s1_the_websocket_asks_for_a_token_too(guarded: House) -> None:
    url = (await guarded.ticket(transport="websocket"))["ws_url"].replace("localhost", "127.0.0.1")
    for auth in ({}, {"auth": {"token": "wrong"}}):
        async with guarded.http.ws_connect(url, protocols=["avatar.v1"]) as socket:
            await socket.send_json({"type": "session.start", "protocol": "1.0", **auth})
            error = await socket.receive_json(timeout=5)
            assert (error["type"], error["code"]) == ("error", "unauthorised")
    assert guarded.free == 3


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


async def test_s3_another_sites_page_gets_neither_http_nor_websocket(house: House) -> None:
    evil = {"Origin": "https://evil.example"}
    assert (await house.ask("POST", "/v1/sessions", json={}, headers=evil))[0] == 403
    assert (await house.ask("GET", "/v1/avatars", headers=evil))[0] == 403
    assert "Access-Control-Allow-Origin" not in (await house.ask("OPTIONS", "/v1/sessions", headers=evil))[1]
    url = (await house.ask("GET", "/version"))[2]["ws_url"]
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await house.http.ws_connect(url, protocols=["avatar.v1"], headers=evil)
    rebound = {"Host": "evil.example"}
    assert (await house.ask("POST", "/v1/sessions", json={}, headers=rebound))[0] == 421
    assert house.free == 3


async def test_s4_nobody_acts_on_another_ones_session(guarded: House) -> None:
    mine, theirs = await guarded.ticket(), await guarded.ticket()
    path = f"/v1/sessions/{theirs['session_id']}"
    offer = await plain_offer()
    deeds: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{path}/interrupt", {}),
        ("POST", f"{path}/say", {"json": {"text": "hello"}}),
        ("POST", f"{path}/audio", {"data": b"x"}),
        ("POST", f"{path}/end", {}),
        ("DELETE", path, {}),
        ("GET", f"{path}/events", {}),
        ("GET", path, {}),
        ("POST", f"{path}/whip", {"data": offer, "headers": SDP}),
        ("POST", f"/v1/whep/{theirs['session_id']}", {"data": offer, "headers": SDP}),
    ]
    for method, where, what in deeds:
        assert (await guarded.ask(method, where, mine["token"], **what))[0] == 403, where
        assert (await guarded.ask(method, where, **what))[0] == 401, where
    viewer = theirs["watch_url"].partition("#token=")[2]
    for method, where, what in deeds[:5]:
        assert (await guarded.ask(method, where, viewer, **what))[0] == 403, where
    assert (await guarded.ask("GET", path, viewer))[0] == 200
    assert (await guarded.ask("POST", f"{path}/interrupt", theirs["token"]))[0] == 200
    assert guarded.free == 1


async def test_s4_a_connections_address_is_not_enough_where_there_is_a_key(guarded: House) -> None:
    mine = await guarded.ticket()
    async with guarded.talking() as (ticket, _):
        assert (await guarded.ask("DELETE", ticket["location"]))[0] == 401
        assert (await guarded.ask("DELETE", ticket["location"], mine["token"]))[0] == 403
        assert (await guarded.ask("DELETE", "/v1/connections/unknown"))[0] == 401
        assert (await guarded.ask("DELETE", ticket["location"], ticket["token"]))[0] == 200


async def test_s5_a_flood_is_told_to_wait_and_costs_no_seat() -> None:
    few = LimitSettings(address_rate=0.01, address_burst=5)
    async with up(limits=few, key=KEY) as guarded:
        answers = [await guarded.ask("POST", "/v1/sessions", "wrong", json={}) for _ in range(12)]
        assert [status for status, _, _ in answers] == [401] * 5 + [429] * 7
        assert int(answers[-1][1]["Retry-After"]) >= 1
        assert guarded.free == 3
        assert (await guarded.ask("GET", "/healthz"))[0] == 200


async def test_s5_who_drips_a_header_byte_by_byte_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.server, "IDLE_SECONDS", 0.3)
    async with up() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        writer.write(b"GET / HTTP/1.1\r\nHo")
        assert await asyncio.wait_for(reader.read(), 3) == b""
        writer.close()
        assert (await house.ask("GET", "/healthz"))[0] == 200


async def test_s5_a_body_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.api, "BODY_SECONDS", 0.1)
    async with up() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert (await asyncio.wait_for(reader.readline(), 3)).startswith(b"HTTP/1.1 408")
        writer.close()
        assert house.free == 3


async def test_g5_a_full_server_says_so_at_once_and_nobody_notices(house: House) -> None:
    async with house.talking() as (_, client):
        await house.ticket()
        await house.ticket()
        pictures = len(client.pictures)
        for _ in range(ATTEMPTS):
            took = []
            async with Waits() as waits:
                for _ in range(5):
                    began = asyncio.get_running_loop().time()
                    status, headers, problem = await house.ask("POST", "/v1/sessions", json={})
                    took.append(asyncio.get_running_loop().time() - began)
                    assert (status, problem["type"]) == (503, "urn:liveface:no-slot")
                    assert int(headers["Retry-After"]) >= 1
            if max(took) < 0.1 or not waits.starved:
                break  # measured; while the machine was elsewhere, it is measured again
        assert max(took) - waits.seconds < 0.1
        assert (await house.ask("POST", "/v1/whip", data=await plain_offer(), headers=SDP))[0] == 503
        assert (await house.ask("POST", "/v1/sessions", json={"transport": "websocket"}))[0] == 503
        await client.until(lambda: len(client.pictures) > pictures + 5)
        assert (await house.ask("GET", "/readyz"))[0] == 200  # full is ready


async def test_p10_json_bombs_are_refused(house: House) -> None:
    for bomb in (
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"avatar_id": 1e400}',
        b'{"avatar_id": "a", "avatar_id": "b"}',
        b'{"lookahead": ' + b"9" * 20_000 + b"}",
        b'{"avatar_id": NaN}',
        b"\xff{}",
        b"[]",
        b'{"avatar_id": 7}',
        b'{"lookahead": true}',
        b'{"transport": "pigeon"}',
    ):
        status, _, _ = await house.ask("POST", "/v1/sessions", data=bomb)
        assert status == 400, bomb[:40]
    assert (await house.ask("POST", "/v1/sessions", data=b"[" * 100_000))[0] == 413
    assert (await house.ask("POST", "/v1/sessions", json={"avatar_id": "../../etc/passwd"}))[0] == 404
    assert house.free == 3


# What a session is told


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


async def test_a_file_that_is_too_big_is_refused_by_its_declared_length(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.api, "FILE_BYTES_MOST", 10_000)
    ticket = await house.ticket()
    path = f"/v1/sessions/{ticket['session_id']}/audio"
    assert (await house.ask("POST", path, ticket["token"], data=wav(1.0)))[0] == 413


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


# What there is, and how it is


async def test_lists_have_the_shape_that_the_page_expects(house: House) -> None:
    status, headers, said = await house.ask("GET", "/v1/avatars")
    assert status == 200
    assert said["avatars"][0] == {
        "id": "demo",
        "title": said["avatars"][0]["title"],
        "portrait_url": "/v1/avatars/demo/portrait",
        "width": 64,
        "height": 64,
        "lookahead_ms": 0,
        "synthetic": True,
    }
    for avatar in ("demo", "bert"):  # one has a package on disk, the other only its loop
        status, headers, picture = await house.ask("GET", f"/v1/avatars/{avatar}/portrait")
        assert (status, headers["Content-Type"], picture[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert (await house.ask("GET", "/v1/avatars/nobody/portrait"))[0] == 404
    assert (await house.ask("GET", "/v1/voices"))[2]["voices"][0]["id"] == "beeps:high"
    said = (await house.ask("GET", "/version"))[2]
    assert {"name", "version", "backend", "avatars", "probe", "ws_url"} == set(said)
    ticket = await house.ticket()
    assert ticket["disclosure"]["ai_generated"] is True
    assert ticket["expires_at"] > 1_700_000_000
    assert {"session_id", "token", "whip_url", "whep_url", "ws_url", "ice_servers"} <= set(ticket)


async def test_ice_servers_are_what_coturn_and_browsers_read() -> None:
    async with up(turn=Turn(("stun:s.example", "turn:t.example"), Secret("north"), 600)) as house:
        said = (await house.ask("GET", "/v1/ice-servers"))[2]
    assert said["ice_servers"][0] == {"urls": ["stun:s.example"]}
    assert set(said["ice_servers"][1]) == {"urls", "username", "credential"}
    assert (said["ttl"], said["uris"]) == (600, ["turn:t.example"])
    assert said["username"] == said["ice_servers"][1]["username"]


async def test_the_pages_are_served_and_nothing_else_is(house: House) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/admin", "text/html"),
        ("/watch/abc", "text/html"),
        ("/liveface.js", "text/javascript"),
        ("/style.css", "text/css"),
    ):
        status, headers, content = await house.ask("GET", path)
        assert (status, headers["Content-Type"].partition(";")[0]) == (200, kind)
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert content
        if kind == "text/html":
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'; script-src 'self'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
    for path in ("/nothing.js", "/..%2f..%2fpyproject.toml", "/%2e%2e/engine", "/watch/../../etc/passwd", "/.git"):
        assert (await house.ask("GET", path))[0] == 404


async def test_metrics_tell_what_happened(house: House) -> None:
    async with house.talking() as (ticket, _):
        await asyncio.sleep(1.1)
        page = (await house.ask("GET", "/metrics"))[2].decode()
        assert 'avatar_sessions_active{transport="webrtc"} 1' in page
        assert 'avatar_session_slots{state="used"} 1' in page
        await house.ask("DELETE", ticket["location"], ticket["token"])
    await house.emptied()
    page = (await house.ask("GET", "/metrics"))[2].decode()
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert float(values['avatar_sessions_total{transport="webrtc",outcome="left"}']) == 1
    assert float(values["avatar_negotiation_seconds_count"]) == 1
    assert float(values["avatar_first_frame_seconds_count"]) == 1
    assert float(values["avatar_webrtc_sent_bytes_total"]) > 1_000
    assert float(values["avatar_event_loop_lag_seconds_count"]) > 10
    assert ticket["session_id"] not in page


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
        await asyncio.sleep(0.5)
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


async def test_l10_ready_means_that_a_picture_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hangs: HTTP still answers, `/readyz` no longer says ready."""
    monkeypatch.setattr(engine.api, "READY_SECONDS", 0.4)
    monkeypatch.setattr(engine.server, "CANARY_SECONDS", 0.1)
    async with up(script=["ok"] * 5 + ["hang"]) as house:
        await until(lambda: house.runtime.steps > 5 and unreadiness(house.server.rooms) is not None)
        assert (await house.ask("GET", "/healthz"))[0] == 200
        _, headers, problem = await house.ask("GET", "/readyz")
        assert "Retry-After" in headers
        assert problem["type"] == "urn:liveface:not-ready"
        house.runtime.unhang.set()
        await until(lambda: unreadiness(house.server.rooms) is None)


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


async def test_a_fault_of_our_own_is_one_line_for_the_client(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(house.server.rooms.voices, "voices", broken)
    status, _, problem = await house.ask("GET", "/v1/voices")
    assert status == 500
    assert "inner workings" not in json.dumps(problem)


async def test_the_operator_sees_every_session_and_can_watch(guarded: House) -> None:
    async with guarded.talking() as (ticket, _):
        _, _, said = await guarded.ask("GET", "/v1/sessions", KEY)
        (session,) = said["sessions"]
        assert (session["session_id"], session["avatar_id"]) == (ticket["session_id"], "demo")
        assert (said["slots"], said["free_slots"], said["draining"]) == (3, 2, False)
        path = f"/v1/sessions/{ticket['session_id']}"
        assert (await guarded.ask("GET", path, session["view_token"]))[0] == 200
        assert "view_token" not in (await guarded.ask("GET", path, ticket["token"]))[2]


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
