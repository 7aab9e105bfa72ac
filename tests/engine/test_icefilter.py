"""The hardened ICE against aioice's own on 127.0.0.1, with strangers, floods and a NAT that moves."""

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aioice
import pytest
from aioice import stun
from aiortc import RTCPeerConnection
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport, RtpRouter
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from aiortc.rtp import RtpPacket

from engine.icefilter import (
    QUEUE_MOST,
    REMOTE_MOST,
    SOURCES_MOST,
    BoundedRouter,
    Datagrams,
    FilteredConnection,
    FilteredGatherer,
    FilteredProtocol,
    Ground,
    GuardedDtlsTransport,
    HostAddress,
    NoFreePort,
    counted,
)
from tests.fakes import LossyLink
from tests.webrtc_client import LoopbackConnection, until

HERE = HostAddress("127.0.0.1", "127.0.0.1")
DTLS_HELLO = bytes.fromhex("16fefd0000000000000000002a") + bytes(42)
DTLS_ALERT = bytes.fromhex("15fefd000000000000000000020228")
SRTP = b"\x80\x60" + bytes(60)


def ground(**kwargs: object) -> Ground:
    return Ground(time.monotonic, (HERE,), **kwargs)


@asynccontextmanager
async def pair(
    link: LossyLink | None = None, connect: bool = True
) -> AsyncIterator[tuple[FilteredConnection, LoopbackConnection]]:
    """Our server and aioice's client, each knowing the other's name and password, connected."""
    server, client = FilteredConnection(ground()), LoopbackConnection(ice_controlling=True)
    await server.gather_candidates()
    await client.gather_candidates()
    for ours, theirs in ((server, client), (client, server)):
        ours.remote_username, ours.remote_password = theirs.local_username, theirs.local_password
    candidate = server.local_candidates[0]
    try:
        if link is not None:
            link.target = (candidate.host, candidate.port)
            await link.__aenter__()
            candidate = aioice.Candidate.from_sdp(candidate.to_sdp())
            candidate.host, candidate.port = link.address
            candidate._network_host = candidate.host
        await client.add_remote_candidate(candidate)
        await client.add_remote_candidate(None)
        if connect:
            await asyncio.wait_for(asyncio.gather(server.connect(), client.connect()), 5)
        yield server, client
    finally:
        await asyncio.gather(server.close(), client.close())
        if link is not None:
            await link.__aexit__(None, None, None)


def address(server: FilteredConnection) -> tuple[str, int]:
    return ("127.0.0.1", server.local_candidates[0].port)


@asynccontextmanager
async def stranger() -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def test_a_server_without_remote_candidates_connects() -> None:
    async with pair() as (server, client):
        await client.send(b"\x80hello")
        assert await asyncio.wait_for(server.recv(), 1) == b"\x80hello"
        server.send_now(b"\x80there")
        assert await asyncio.wait_for(client.recv(), 1) == b"\x80there"
        assert [candidate.type for candidate in server.remote_candidates] == ["prflx"]


async def test_p1_an_empty_datagram_is_ignored_from_stranger_and_peer() -> None:
    async with pair() as (server, client), stranger() as other:
        other.sendto(b"", address(server))
        server._protocols[0].datagram_received(b"", server._nominated[1].remote_addr)
        await client.send(b"\x80after")
        assert await asyncio.wait_for(server.recv(), 1) == b"\x80after"
        assert server.datagrams.empty == 2


@pytest.mark.parametrize("forged", [DTLS_HELLO, DTLS_ALERT, SRTP, b"\xff" * 100, b"\x17"], ids=repr)
async def test_p2_a_stranger_reaches_nothing_behind_ice(forged: bytes) -> None:
    async with pair() as (server, client), stranger() as other:
        for _ in range(20):
            other.sendto(forged, address(server))
        await until(lambda: server.datagrams.stranger == 20)
        await client.send(b"\x80after")
        assert await asyncio.wait_for(server.recv(), 1) == b"\x80after"


async def test_p2_a_stranger_reaches_nothing_while_the_handshake_runs() -> None:
    async with pair(connect=False) as (server, client), stranger() as other:
        checks = asyncio.gather(server.connect(), client.connect())
        for _ in range(50):
            other.sendto(DTLS_ALERT, address(server))
            other.sendto(b"", address(server))
            await asyncio.sleep(0.002)
        await asyncio.wait_for(checks, 5)
        assert server._queue.empty()
        assert server.datagrams.stranger >= 40


async def test_p3_a_flood_from_the_peer_fills_a_bounded_queue() -> None:
    async with pair() as (server, _client):
        protocol = server._protocols[0]
        source = server._nominated[1].remote_addr
        for _ in range(5_000):
            protocol.datagram_received(SRTP, source)
        assert server._queue.qsize() == QUEUE_MOST
        assert server.datagrams.overflow == 5_000 - QUEUE_MOST


async def test_p3_garbage_of_a_stranger_costs_microseconds_and_no_memory() -> None:
    async with pair() as (server, _client):
        protocol = server._protocols[0]
        dice = random.Random(1)
        garbage = [dice.randbytes(1_200) for _ in range(100)]
        began = time.process_time()
        for n in range(20_000):
            protocol.datagram_received(garbage[n % 100], ("127.0.0.1", 9))
        seconds = time.process_time() - began
        assert server._queue.empty()
        assert len(server._check_list) == 1
        assert seconds / 20_000 < 20e-6


async def test_p4_malformed_stun_is_counted_and_ignored() -> None:
    async with pair() as (server, client):
        protocol, dice = server._protocols[0], random.Random(2)
        good = bytes(server.build_request(server._nominated[1], nominate=False))
        for _ in range(5_000):
            bad = bytearray(good if dice.random() < 0.7 else dice.randbytes(dice.randrange(1, 80)))
            for _ in range(dice.randrange(1, 5)):
                bad[dice.randrange(len(bad))] = dice.randrange(256)
            bad[0] = dice.randrange(4)
            del bad[dice.randrange(1, len(bad) + 1) :]
            protocol.datagram_received(bytes(bad), ("127.0.0.1", 9))
        assert server.datagrams.malformed > 1_000
        assert server._queue.empty()
        await client.send(b"\x80after")
        assert await asyncio.wait_for(server.recv(), 1) == b"\x80after"


async def test_p4_an_authenticated_check_without_its_attributes_is_ignored() -> None:
    async with pair() as (server, client):
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{server.local_username}:{client.local_username}"
        request.add_message_integrity(server.local_password.encode())
        server._protocols[0].datagram_received(bytes(request), ("127.0.0.1", 9))
        assert server.datagrams.malformed == 1


async def test_p7_no_candidate_is_ever_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a client names, the server sends to nobody who has not proven the password. Asserted at the socket."""
    server = FilteredConnection(ground())
    server.remote_username, server.remote_password = "user", "password" * 4
    await server.gather_candidates()
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(server._protocols[0].transport, "sendto", lambda data, where: sent.append(where), raising=False)
    for host in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "secret.local", "::1"):
        for port in (22, 53, 80, 443):
            candidate = aioice.Candidate("1", 1, "udp", 1, host, port, "host")
            await server.add_remote_candidate(candidate)
    await server.add_remote_candidate(None)
    checks = asyncio.create_task(server.connect())
    await asyncio.sleep(0.15)
    assert sent == []
    assert server.datagrams.refused_candidates == 28
    assert not checks.done()
    await server.close()
    with pytest.raises(ConnectionError):
        await checks


async def test_addresses_that_one_peer_may_come_from_are_bounded() -> None:
    async with pair() as (server, client):
        protocol = server._protocols[0]
        for port in range(20_000, 20_200):
            request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
            request.attributes["USERNAME"] = f"{server.local_username}:{client.local_username}"
            request.attributes["PRIORITY"] = 1
            request.add_message_integrity(server.local_password.encode())
            protocol.datagram_received(bytes(request), ("127.0.0.1", port))
        assert len(server._remote_candidates) <= REMOTE_MOST
        assert len(server._check_list) <= REMOTE_MOST
        assert server.datagrams.refused_candidates > 100


async def test_n5_a_nat_that_moves_is_followed_within_a_second() -> None:
    async with pair(link := LossyLink(("127.0.0.1", 9))) as (server, client):
        await client.send(b"\x80before")
        assert await asyncio.wait_for(server.recv(), 1) == b"\x80before"
        await link.rebind()
        began = time.monotonic()
        got: bytes | None = None
        while got is None:
            assert time.monotonic() - began < 3
            await client.send(b"\x80after")
            await asyncio.sleep(0.02)
            got = server._queue.get_nowait()[0] if not server._queue.empty() else None
        assert time.monotonic() - began < 2.0
        assert server.datagrams.rebound == 1
        assert server._nominated[1].remote_addr == link.source
        server.send_now(b"\x80back")
        assert await asyncio.wait_for(client.recv(), 1) == b"\x80back"


async def test_n5_it_is_followed_again_and_again_without_growing() -> None:
    async with pair(link := LossyLink(("127.0.0.1", 9))) as (server, client):
        server._asked = -1e9
        for n in range(1, 4):
            await link.rebind()
            server._path_heard -= 10  # silence, without waiting for it
            server._asked -= 10
            while server.datagrams.rebound < n:
                await client.send(SRTP)
                await asyncio.sleep(0.01)
        for n in range(100):
            pretend = aioice.ice.CandidatePair(server._protocols[0], server._reflexive(("127.0.0.1", 30_000 + n)))
            server._adopt(pretend)
        assert len(server._remote_candidates) <= REMOTE_MOST
        assert len(server._check_list) <= REMOTE_MOST + 1


async def test_a_stranger_cannot_take_a_silent_session_over() -> None:
    async with pair() as (server, _client), stranger() as other:
        chosen = server._nominated[1].remote_addr
        server._path_heard -= 10
        for _ in range(5):
            other.sendto(SRTP, address(server))
            await asyncio.sleep(0.01)
        question = other.recv(2_000)
        assert stun.parse_message(question).message_method == stun.Method.BINDING
        with pytest.raises(BlockingIOError):
            other.recv(2_000)  # five packets, one question
        reply = stun.Message(
            stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=stun.parse_message(question).transaction_id
        )
        reply.attributes["XOR-MAPPED-ADDRESS"] = ("127.0.0.1", 1)
        reply.add_message_integrity(b"a guess")
        other.sendto(bytes(reply), address(server))
        await asyncio.sleep(0.05)
        assert server._nominated[1].remote_addr == chosen
        assert server.datagrams.rebound == 0


async def test_a_dead_socket_of_a_closed_session_takes_nothing() -> None:
    async with pair() as (server, _client):
        await server.close()
        server.send_now(b"\x80")
        assert server.local_candidates == []


async def test_s10_ports_stay_within_their_range() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        taken = probe.getsockname()[1]
        if taken > 65_000:
            pytest.skip("the free port found is at the end of the range")
        servers = [FilteredConnection(ground(ports=(taken, taken + 20))) for _ in range(5)]
        try:
            for server in servers:
                await server.gather_candidates()
            ports = [server.local_candidates[0].port for server in servers]
            assert len(set(ports)) == 5
            assert all(taken < port <= taken + 20 for port in ports)
        finally:
            for server in servers:
                await server.close()
        full = FilteredConnection(ground(ports=(taken, taken)))
        with pytest.raises(NoFreePort, match=f"no UDP port of {taken}-{taken} could be bound"):
            await full.gather_candidates()
        await full.close()


async def test_behind_one_to_one_nat_the_answer_names_the_public_address() -> None:
    server = FilteredConnection(Ground(time.monotonic, (HostAddress("127.0.0.1", "203.0.113.7"),)))
    await server.gather_candidates()
    assert server.local_candidates[0].host == "203.0.113.7"
    await server.close()


def test_host_addresses_are_checked_with_a_clear_line() -> None:
    assert HostAddress.parse("127.0.0.1") == HERE
    assert HostAddress.parse("10.0.0.5=203.0.113.7") == HostAddress("10.0.0.5", "203.0.113.7")
    assert HostAddress.parse(" ::1 ").bind == "::1"
    for bad in ("localhost", "", "1.2.3=4", "1.2.3.4=host"):
        with pytest.raises(ValueError, match="is not an IP address"):
            HostAddress.parse(bad)


def test_ipv4_candidates_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "engine.icefilter.get_host_addresses", lambda use_ipv4, use_ipv6: ["fd00::1", "10.0.0.1", "fd00::2"]
    )
    assert [host.bind for host in Ground(time.monotonic).hosts()] == ["10.0.0.1", "fd00::1", "fd00::2"]


def test_p12_sources_are_bounded_in_the_router() -> None:
    class Receiver:
        def _handle_disconnect(self) -> None: ...

    router = BoundedRouter(counts := Datagrams())
    receiver = Receiver()
    router.register_receiver(receiver, ssrcs=[1], payload_types=[96])
    for source in range(2, 100_000):
        router.route_rtp(RtpPacket(payload_type=96, ssrc=source))
    assert len(router.ssrc_table) == SOURCES_MOST
    assert counts.sources_refused == 100_000 - SOURCES_MOST - 1
    assert router.route_rtp(RtpPacket(payload_type=96, ssrc=1)) is receiver


def test_counters_add_up() -> None:
    one, two = FilteredConnection(ground()), FilteredConnection(ground())
    one.datagrams.empty, two.datagrams.empty, two.datagrams.taken = 2, 3, 4
    total = counted([one, two])
    assert (total.empty, total.taken) == (5, 4)


def test_contract_what_the_filter_needs_of_aioice_and_aiortc_is_still_there() -> None:
    """Fails when their internals move; then read `Connection`, `StunProtocol` and `RTCDtlsTransport` again."""
    connection = FilteredConnection(ground())
    for name in (
        "_check_list",
        "_closing",
        "_nominated",
        "_protocols",
        "_queue",
        "_remote_candidates",
        "_local_candidates",
        "remote_password",
        "local_password",
    ):
        assert hasattr(connection, name), name
    for owner, names in {
        aioice.Connection: (
            "add_remote_candidate",
            "build_request",
            "check_incoming",
            "data_received",
            "gather_candidates",
            "get_component_candidates",
            "request_received",
        ),
        aioice.ice.StunProtocol: ("datagram_received", "request", "send_stun"),
        RTCDtlsTransport: ("_handle_rtcp_data", "_handle_rtp_data", "_send_data", "_send_rtp"),
        RtpRouter: ("route_rtp", "register_receiver"),
    }.items():
        for name in names:
            assert callable(getattr(owner, name)), (owner, name)
    for name in ("_RTCPeerConnection__createDtlsTransport", "_RTCPeerConnection__createTransceiver"):
        assert callable(getattr(RTCPeerConnection, name)), name
    gatherer = FilteredGatherer(ground())
    assert gatherer._connection is gatherer.filtered
    assert isinstance(RTCIceGatherer(iceServers=[])._connection, aioice.Connection)
    transport = GuardedDtlsTransport(
        RTCIceTransport(gatherer), [RTCCertificate.generateCertificate()], gatherer.filtered
    )
    for name in ("_rtp_router", "_rx_srtp", "_tx_srtp", "_state"):
        assert hasattr(transport, name), name
    assert FilteredProtocol.__mro__[1] is aioice.ice.StunProtocol
