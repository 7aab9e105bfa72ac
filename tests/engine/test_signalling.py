"""WHIP, WHEP and offers in JSON against real sockets on 127.0.0.1, with real connections and a model that is a fake."""

import asyncio
import os
import random
import re
from typing import Any

import numpy as np
import pytest

import engine.lobby
import engine.server
from models.rates import HEARD_RATE
from tests.engine.house import SDP, VOICE, House, plain_offer, up
from tests.webrtc_client import Client

pytestmark = pytest.mark.usefixtures("beeping")


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
