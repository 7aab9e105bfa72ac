"""What there is and how it is, asked over real sockets."""

import asyncio

import pytest

import engine.pages
import engine.server
from engine.config import Secret, Turn
from engine.pages import unreadiness
from tests.engine.house import House, until, up

pytestmark = pytest.mark.usefixtures("beeping")


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


async def test_l10_ready_means_that_a_picture_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hangs: HTTP still answers, `/readyz` no longer says ready."""
    monkeypatch.setattr(engine.pages, "READY_SECONDS", 0.4)
    monkeypatch.setattr(engine.server, "CANARY_SECONDS", 0.1)
    async with up(script=["ok"] * 5 + ["hang"]) as house:
        await until(lambda: house.runtime.steps > 5 and unreadiness(house.server.rooms) is not None)
        assert (await house.ask("GET", "/healthz"))[0] == 200
        _, headers, problem = await house.ask("GET", "/readyz")
        assert "Retry-After" in headers
        assert problem["type"] == "urn:liveface:not-ready"
        house.runtime.unhang.set()
        await until(lambda: unreadiness(house.server.rooms) is None)
