"""ICE, hardened: what a stranger can send to a session's UDP port, and what the session can be made to send.

aioice and aiortc are subclassed, not patched. `FilteredConnection` binds only the addresses and ports it is told, is
given no remote candidates (the peer's own checks make peer-reflexive ones), and lets nothing but STUN in from an
address that no check has validated. `GuardedDtlsTransport` bounds what an authenticated but hostile peer can grow or
break.
The contract test in tests/engine/test_icefilter.py fails when their internals move.
"""

import asyncio
import ipaddress
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from aioice import Candidate, Connection
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair, StunProtocol, get_host_addresses
from aioice.stun import Class, Message, TransactionError, parse_message
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport, RtpReceiver, RtpRouter, State
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from aiortc.rtp import RtpPacket, is_rtcp

QUEUE_MOST: Final = 512
"""Datagrams from the peer that wait for the event loop; more are dropped. 50 voice packets a second are normal."""

REMOTE_MOST: Final = 16
"""Addresses that authenticated checks of one peer may come from."""

REBIND_AFTER: Final = 0.5
"""Seconds of silence on the chosen path before a packet from elsewhere is worth a question."""

REBIND_SPACING: Final = 0.25
"""Seconds between such questions: one STUN request, no larger than the packet that caused it would allow."""

SOURCES_MOST: Final = 32
"""RTP sources that one peer may have; the rest are dropped."""

SOCKET_BUFFER: Final = 256 * 1_024
PORT_TRIES: Final = 64


MALFORMED: Final = (
    struct.error,
    ArithmeticError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""What parsers raise on hostile bytes in practice. Cancellation and broken connections are not among it."""


class NoFreePort(OSError):
    """No UDP port of the given range could be bound."""


@dataclass(frozen=True, slots=True)
class HostAddress:
    """A local address to bind, and the one that the answer names: they differ behind one-to-one NAT."""

    bind: str
    advertised: str

    @staticmethod
    def parse(text: str) -> "HostAddress":
        """From "bind" or "bind=advertised". Raises `ValueError` with one clear line."""
        bind, _, advertised = text.strip().partition("=")
        try:
            return HostAddress(str(ipaddress.ip_address(bind)), str(ipaddress.ip_address(advertised or bind)))
        except ValueError:
            raise ValueError(
                f"--host-address {text!r} is not an IP address; give one such as 127.0.0.1, or 10.0.0.5=203.0.113.7 "
                "for one-to-one NAT."
            ) from None


@dataclass(slots=True)
class Datagrams:
    """Counters of what came to a session's port."""

    taken: int = 0
    empty: int = 0
    stranger: int = 0  # no STUN, and from an address that no check has validated
    overflow: int = 0  # the event loop was behind
    refused_candidates: int = 0
    rebound: int = 0  # times the peer was followed to a new address
    malformed: int = 0  # authenticated, but not what it says it is
    sources_refused: int = 0


@dataclass(frozen=True, slots=True)
class Ground:
    """Where connections may bind, and the clock they measure silence by."""

    now: Callable[[], float]
    addresses: tuple[HostAddress, ...] = ()
    ports: tuple[int, int] | None = None
    dice: random.Random = field(default_factory=random.Random)

    def hosts(self) -> list[HostAddress]:
        """IPv4 first: some clients read only the first candidate."""
        if self.addresses:
            return list(self.addresses)
        found = get_host_addresses(use_ipv4=True, use_ipv6=True)
        return [HostAddress(address, address) for address in sorted(found, key=lambda text: ":" in text)]

    def port_tries(self) -> list[int]:
        """Ports to try, in order; 0 is any."""
        if self.ports is None:
            return [0]
        least, most = self.ports
        count = most - least + 1
        start = self.dice.randrange(count)
        return [least + (start + i) % count for i in range(min(count, PORT_TRIES))]


class FilteredProtocol(StunProtocol):
    """One UDP socket of a `FilteredConnection`."""

    def __init__(self, receiver: "FilteredConnection") -> None:
        super().__init__(receiver)
        self._connection = receiver

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        connection = self._connection
        datagram, source = cast(bytes, data), (addr[0], addr[1])
        if not datagram:
            connection.datagrams.empty += 1
        elif datagram[0] < 4:  # STUN, by RFC 7983: it authenticates itself
            try:
                self._stun_received(parse_message(datagram), source)
            except MALFORMED:
                connection.datagrams.malformed += 1
        elif connection.is_validated(source, self):
            connection.heard(source, self)
            connection.data_received(datagram, 1)
        else:
            connection.stranger(source, self)

    def _stun_received(self, message: Message, source: tuple[str, int]) -> None:
        connection = self._connection
        if message.message_class == Class.REQUEST:
            connection.request_received(message, source, self)
        elif message.transaction_id in self.transactions:
            password = connection.remote_password
            if password is not None and message.check_message_integrity(password.encode()):
                connection.lives(source, self)
            self.transactions[message.transaction_id].response_received(message, source)

    def send_stun(self, message: Message, addr: tuple[str, int]) -> None:
        if not self.transport.is_closing():  # a check may outlive its socket by one turn of the loop
            super().send_stun(message, addr)


class FilteredConnection(Connection):
    """An ICE connection that talks to nobody but the peer that knows its password."""

    def __init__(self, ground: Ground, username: str | None = None, password: str | None = None) -> None:
        super().__init__(ice_controlling=False, local_username=username, local_password=password)
        self.datagrams = Datagrams()
        self.last_heard: float | None = None
        """When the last authenticated check or datagram of a validated address came, by the ground's clock."""
        self._ground = ground
        self._path_heard = ground.now()
        self._asked = -REBIND_SPACING
        self._questions: set[asyncio.Task[None]] = set()
        self._validated: set[tuple[int, tuple[str, int]]] = set()

    # what comes in

    def is_validated(self, source: tuple[str, int], protocol: StunProtocol) -> bool:
        """Whether a check to or from `source` succeeded on this socket."""
        known = (protocol.id, source)
        if known in self._validated:
            return True
        # A pair is made by a check that carried our password, so its address is proven from the first datagram on.
        for pair in self._check_list:
            if pair.protocol is protocol and pair.remote_addr == source:
                self._validated.add(known)
                return True
        return False

    def lives(self, source: tuple[str, int], protocol: StunProtocol) -> bool:
        """An authenticated check or answer came, a sign of life. Returns whether it came by the chosen path."""
        self.last_heard = self._ground.now()
        pair = self._nominated.get(1)
        by_path = pair is None or (pair.protocol is protocol and pair.remote_addr == source)
        if by_path:
            self._path_heard = self.last_heard
        return by_path

    def heard(self, source: tuple[str, int], protocol: StunProtocol) -> None:
        """DTLS or SRTP came from a validated address. Where the peer sends from is where it wants to be sent to."""
        silent = self._ground.now() - self._path_heard
        if not self.lives(source, protocol) and silent > REBIND_AFTER:
            self._follow(source, protocol)

    def data_received(self, data: bytes, component: int) -> None:
        if self._queue.qsize() >= QUEUE_MOST:
            self.datagrams.overflow += 1
            return
        self.datagrams.taken += 1
        super().data_received(data, component)

    def stranger(self, source: tuple[str, int], protocol: StunProtocol) -> None:
        """Drop it. But when the chosen path is silent this may be our peer behind a NAT that moved: ask its address.

        Only who knows the password can answer, and one small request leaves for one datagram at most every
        `REBIND_SPACING`, so neither a scan nor an amplifier comes of it.
        """
        self.datagrams.stranger += 1
        now = self._ground.now()
        if 1 not in self._nominated or self._closing or now - self._path_heard <= REBIND_AFTER:
            return
        if now - self._asked < REBIND_SPACING:
            return
        self._asked = now
        question = asyncio.create_task(self._question(source, protocol))
        self._questions.add(question)
        question.add_done_callback(self._questions.discard)

    async def _question(self, source: tuple[str, int], protocol: StunProtocol) -> None:
        pair = CandidatePair(protocol, self._reflexive(source))
        request = self.build_request(pair, nominate=False)
        assert self.remote_password is not None  # a path was nominated, so the peer is known
        try:
            _, answered = await protocol.request(
                request, source, integrity_key=self.remote_password.encode(), retransmissions=1
            )
        except TransactionError:
            return
        if answered == source:
            self._adopt(pair)

    def request_received(self, message: Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        known = any(c.host == addr[0] and c.port == addr[1] for c in self._remote_candidates)
        if not known and len(self._remote_candidates) >= REMOTE_MOST:
            self.datagrams.refused_candidates += 1
            return
        super().request_received(message, addr, protocol)

    def check_incoming(self, message: Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """A check that carried our password: the peer lives at `addr`."""
        super().check_incoming(message, addr, protocol)
        self.lives(addr, protocol)

    # where to send

    def _reflexive(self, source: tuple[str, int]) -> Candidate:
        return Candidate("rebound", 1, "udp", candidate_priority(1, "prflx"), source[0], source[1], "prflx")

    def _follow(self, source: tuple[str, int], protocol: StunProtocol) -> None:
        for pair in self._check_list:
            if pair.protocol is protocol and pair.remote_addr == source:
                if pair.state == CandidatePair.State.SUCCEEDED:
                    self._adopt(pair)
                return

    def _adopt(self, pair: CandidatePair) -> None:
        """Send to `pair` from now on."""
        if self._closing:
            return
        pair.state, pair.nominated = CandidatePair.State.SUCCEEDED, True
        if pair not in self._check_list:
            self._remote_candidates.append(pair.remote_candidate)
            self._check_list.append(pair)
            if len(self._remote_candidates) > REMOTE_MOST:  # a NAT that moves for ever may not grow a list for ever
                oldest = self._remote_candidates.pop(0)
                gone = [p for p in self._check_list if p.remote_candidate is oldest and p.task is None]
                for p in gone:
                    self._check_list.remove(p)
                    self._validated.discard((p.protocol.id, p.remote_addr))
        self._nominated[1] = pair
        self._path_heard = self.last_heard = self._ground.now()
        self.datagrams.rebound += 1

    # what is given

    async def add_remote_candidate(self, remote_candidate: Candidate | None) -> None:
        """Ignore it, the end of candidates too: after that aioice would give up before the peer's first check."""
        if remote_candidate is not None:
            self.datagrams.refused_candidates += 1

    async def get_component_candidates(self, component: int, addresses: list[str], timeout: int = 5) -> list[Candidate]:
        """Bind the ground's addresses. `addresses` are aioice's own idea of them, and not used."""
        candidates: list[Candidate] = []
        refusal: OSError | None = None
        for host in self._ground.hosts():
            try:
                protocol = await self._bind(host)
            except OSError as error:
                refusal = error
                continue
            self._protocols.append(protocol)
            port = protocol.transport.get_extra_info("sockname")[1]
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host.advertised),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host", 65_535 - len(candidates)),
                host=host.advertised,
                port=port,
                type="host",
            )
            candidates.append(protocol.local_candidate)
        if not candidates:
            within = f" of {self._ground.ports[0]}-{self._ground.ports[1]}" if self._ground.ports else ""
            raise NoFreePort(f"no UDP port{within} could be bound: {refusal or 'this machine has no address'}")
        return candidates

    async def _bind(self, host: HostAddress) -> FilteredProtocol:
        loop = asyncio.get_running_loop()
        refusal: OSError | None = None
        for port in self._ground.port_tries():
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: FilteredProtocol(self), local_addr=(host.bind, port)
                )
            except OSError as error:
                refusal = error
                continue
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            return protocol
        raise refusal or OSError("no port to try")

    def send_now(self, data: bytes) -> None:
        """Send to the chosen path without a turn of the loop; dropped when there is none."""
        pair = self._nominated.get(1)
        if pair is not None and not pair.protocol.transport.is_closing():
            pair.protocol.transport.sendto(data, pair.remote_addr)

    async def close(self) -> None:
        for question in list(self._questions):
            question.cancel()
        await super().close()

    def cut(self) -> None:
        """Close the sockets, for when `close` could not."""
        for protocol in self._protocols:
            protocol.transport.abort()


class FilteredGatherer(RTCIceGatherer):
    """aiortc's gatherer around a `FilteredConnection`."""

    def __init__(self, ground: Ground, username: str | None = None, password: str | None = None) -> None:
        super().__init__(iceServers=[])
        self._connection = self.filtered = FilteredConnection(ground, username, password)


class BoundedRouter(RtpRouter):
    """Routes by payload type, and remembers no more than `SOURCES_MOST` sources."""

    def __init__(self, datagrams: Datagrams) -> None:
        super().__init__()
        self._datagrams = datagrams

    def route_rtp(self, packet: RtpPacket) -> RtpReceiver | None:
        if packet.ssrc not in self.ssrc_table and len(self.ssrc_table) >= SOURCES_MOST:
            self._datagrams.sources_refused += 1
            return None
        return super().route_rtp(packet)


class GuardedDtlsTransport(RTCDtlsTransport):
    """Where an exception about one packet would end the connection, the packet is counted and dropped instead."""

    def __init__(
        self, transport: RTCIceTransport, certificates: list[RTCCertificate], connection: FilteredConnection
    ) -> None:
        super().__init__(transport, certificates)
        self._rtp_router = BoundedRouter(connection.datagrams)
        self._datagrams = connection.datagrams
        self._filtered = connection

    def send_now(self, data: bytes) -> None:
        """Encrypt and send one RTP or RTCP packet in this turn of the loop; dropped while not connected."""
        if self._state is State.CONNECTED:
            protect = self._tx_srtp.protect_rtcp if is_rtcp(data) else self._tx_srtp.protect
            self._filtered.send_now(protect(data))

    async def _send_data(self, data: bytes) -> None:
        """SCTP's timers outlive the connection for a moment: what they still send is lost, as on any network."""
        if self._state is State.CONNECTED:
            await super()._send_data(data)

    async def _handle_rtcp_data(self, data: bytes) -> None:
        await self._guard(super()._handle_rtcp_data(data))

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:
        await self._guard(super()._handle_rtp_data(data, arrival_time_ms))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except MALFORMED:
            self._datagrams.malformed += 1


def counted(connections: Iterable[FilteredConnection]) -> Datagrams:
    """The counters of several connections, summed."""
    total = Datagrams()
    for connection in connections:
        for name in Datagrams.__slots__:
            setattr(total, name, getattr(total, name) + getattr(connection.datagrams, name))
    return total
