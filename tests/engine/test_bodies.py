"""What requests bring, over real sockets: bounded in size, time and form."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import engine.api
import engine.bodies
from tests.engine.house import SDP, House, up

pytestmark = pytest.mark.usefixtures("beeping")


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


async def test_s5_a_body_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.bodies, "BODY_SECONDS", 0.1)
    async with up() as house:
        reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        writer.write(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        assert (await asyncio.wait_for(reader.readline(), 3)).startswith(b"HTTP/1.1 408")
        writer.close()
        assert house.free == 3


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


async def test_a_file_that_is_too_big_is_refused_by_its_declared_length(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.api, "FILE_BYTES_MOST", 10_000)
    ticket = await house.ticket()
    path = f"/v1/sessions/{ticket['session_id']}/audio"
    assert (await house.ask("POST", path, ticket["token"], data=bytes(32_000)))[0] == 413
