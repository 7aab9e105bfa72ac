"""What holds for every request, knocked at over real sockets."""

import json
import re
from typing import Any

import aiohttp
import pytest

from engine.config import Access, Secret, Turn
from engine.config import Limits as LimitSettings
from tests.engine.house import KEY, SDP, House, plain_offer, up

pytestmark = pytest.mark.usefixtures("beeping")


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


async def test_s1_the_websocket_asks_for_a_token_too(guarded: House) -> None:
    url = (await guarded.ticket(transport="websocket"))["ws_url"].replace("localhost", "127.0.0.1")
    for auth in ({}, {"auth": {"token": "wrong"}}):
        async with guarded.http.ws_connect(url, protocols=["avatar.v1"]) as socket:
            await socket.send_json({"type": "session.start", "protocol": "1.0", **auth})
            error = await socket.receive_json(timeout=5)
            assert (error["type"], error["code"]) == ("error", "unauthorised")
    assert guarded.free == 3


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


async def test_s5_a_flood_is_told_to_wait_and_costs_no_seat() -> None:
    few = LimitSettings(address_rate=0.01, address_burst=5)
    async with up(limits=few, key=KEY) as guarded:
        answers = [await guarded.ask("POST", "/v1/sessions", "wrong", json={}) for _ in range(12)]
        assert [status for status, _, _ in answers] == [401] * 5 + [429] * 7
        assert int(answers[-1][1]["Retry-After"]) >= 1
        assert guarded.free == 3
        assert (await guarded.ask("GET", "/healthz"))[0] == 200


async def test_a_fault_of_our_own_is_one_line_for_the_client(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("inner workings")

    monkeypatch.setattr(house.server.rooms.voices, "voices", broken)
    status, _, problem = await house.ask("GET", "/v1/voices")
    assert status == 500
    assert "inner workings" not in json.dumps(problem)
