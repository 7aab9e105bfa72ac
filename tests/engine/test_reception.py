"""Who may do what with which seat, asked over real sockets."""

import asyncio
import json
import threading
from typing import Any

import pytest

from tests.engine.house import KEY, SDP, House, plain_offer
from tests.processor import ATTEMPTS, Waits

pytestmark = pytest.mark.usefixtures("beeping")


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
