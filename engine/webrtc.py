"""The WebRTC skin: offers in, answers out, and packets both ways.

    async with Peers(clock, host_addresses=["127.0.0.1"]) as peers:
        answer, peer = await peers.answer(offer_sdp, session)      # raises BadOffer(status, message)
        await peer.closed.wait()                                   # then peer.reason says why

Whoever owns the session closes it; a peer never does. A peer ends by itself when its connection fails, when a deadline
passes, or when its session ends.

aiortc does the handshakes (`connection`); media does not pass through its tracks, so a Moment leaves as packets in the
turn of the event loop in which it is encoded, sound and picture together, and nothing is queued on the way.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiortc import (
    RTCSessionDescription,
)
from aiortc.rtp import (
    AnyRtcpPacket,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from engine.broadcast import Broadcast, Workshop
from engine.clock import Clock
from engine.connection import Connection, close_connection
from engine.datachannel import Conversation, EventChannel
from engine.encoder import Headroom, choose_h264
from engine.icefilter import (
    Ground,
    HostAddress,
    NoFreePort,
    counted,
)
from engine.ingress import VoiceReceiver
from engine.limits import out_of_files
from engine.offer import BadOffer, Role, read_offer
from engine.session import SessionClosedError
from models.rates import HEARD_RATE

logger = logging.getLogger(__name__)

__all__ = ["BadOffer", "Deadlines", "Peer", "Peers", "Role", "port_range"]

REPORT_SECONDS: Final = 1.0
REFERENCE_MOST: Final = 2.0
"""Seconds after which the last Moment says nothing about now, and sender reports pause."""

NTP_EPOCH: Final = 2_208_988_800
"""1900 to 1970, in seconds."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds after which a connection is closed."""

    first_media: float = 15.0
    """To a finished handshake, and for a voice source to its first sound."""
    silence: float = 12.0
    """Without any authenticated packet: media, RTCP, ICE check. A muted microphone still sends the last two, and a
    black-out of 10 s has 2 s to come back."""
    close: float = 5.0
    """For closing itself."""


# One connection


class Peer:
    """One connection. Made by `Peers.answer`; ends by itself or by `close`."""

    def __init__(self, session: Conversation, role: Role, connection: Connection, shared: "_Shared") -> None:
        self.id = secrets.token_urlsafe(12)
        self.role = role
        self.session = session
        self.closed = asyncio.Event()
        """Set once nothing of the connection is left: tasks, sockets, its place among the viewers."""
        self.connected = asyncio.Event()
        self.reason: str | None = None
        """After `closed`: 'left', 'failed', 'never connected', 'silent', 'session ended', 'closed by the server' …"""
        self._connection = connection
        self._shared = shared
        self._leaving = asyncio.Event()
        self._born = shared.clock.now()
        self._connected_at: float | None = None
        self._broadcast: Broadcast | None = None
        self._sees = False  # a key frame has gone out
        self._channel = EventChannel(session, shared.clock, role is not Role.WHEP, self.leave)  # viewers watch
        self._cname = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None
        connection.on("connectionstatechange", self._on_state)
        connection.on("datachannel", self._channel.opened)
        for sender in connection.senders.values():
            sender.on_ready = self._on_ready
        video = connection.senders.get("video")
        if video is not None:
            video.on_keyframe = self._on_keyframe
            video.on_bitrate = self._on_bitrate
            video.headroom = Headroom(shared.workshop.bitrate)

    @property
    def codec(self) -> str:
        """The picture's codec once negotiated, else empty."""
        video = self._connection.senders.get("video")
        return video.codec if video is not None and video.ready else ""

    @property
    def limit(self) -> int | None:
        """Bits per second of picture that the path carries; None when nothing is known to be in the way."""
        video = self._connection.senders.get("video")
        return None if video is None or video.headroom is None else video.headroom.limit

    async def close(self, reason: str = "closed by the server") -> None:
        """End the connection within `Deadlines.close`. Safe to call twice."""
        self.leave(reason)
        await self.closed.wait()

    def leave(self, reason: str) -> None:
        """Begin to end; the first reason stays."""
        if self.reason is None:
            self.reason = reason
        self._leaving.set()

    def stats(self) -> dict[str, Any]:
        """Counters and the round trip, in seconds, for /metrics and events."""
        now = self._shared.clock.now()
        figures: dict[str, Any] = {"role": self.role.value, "codec": self.codec, "seconds": now - self._born}
        if self._connected_at is not None:
            figures["negotiation_seconds"] = self._connected_at - self._born
        senders = self._connection.senders.values()
        round_trips = [s.round_trip for s in senders if s.round_trip is not None]
        figures["round_trip_seconds"] = min(round_trips) if round_trips else None
        figures["sent_packets"] = sum(s.packets for s in senders)
        figures["sent_bytes"] = sum(s.octets for s in senders)
        figures["retransmitted_packets"] = sum(s.retransmitted for s in senders)
        figures["keyframe_requests"] = sum(s.keyframe_requests for s in senders)
        figures["remote_lost_packets"] = sum(s.remote_lost for s in senders)
        figures["bitrate_limit"] = self.limit
        figures["commands_ignored"] = self._channel.ignored
        voice = self._connection.receivers.get("audio")
        if voice is not None and voice.ingress is not None:
            counts = voice.ingress.counts
            figures |= {f"voice_{name}": value for name, value in asdict(counts).items()}
            figures["voice_jitter_seconds"] = voice.ingress.jitter
            figures["voice_dropped_pieces"] = voice.dropped
        figures |= {f"datagrams_{name}": value for name, value in asdict(counted(self._connection.ice)).items()}
        if self._broadcast is not None:
            encoder = self._broadcast.encoders.get(self.codec)
            figures["bitrate"] = encoder.bitrate if encoder is not None else None
            figures |= self._broadcast.figures()
        return figures

    # what the broadcast calls

    def send_sound(self, payload: bytes, pts: int) -> None:
        sender = self._connection.senders.get("audio")
        if sender is not None:
            sender.push((payload,), pts)

    def send_picture(self, payloads: Sequence[bytes], keyframe: bool, pts: int) -> None:
        """Nothing before the first key frame: what cannot be decoded need not travel."""
        self._sees = self._sees or keyframe
        if self._sees:
            self._connection.senders["video"].push(payloads, pts)

    # its life

    def start(self) -> None:
        self._task = asyncio.create_task(self._live(), name=f"peer {self.id}")
        self._task.add_done_callback(lambda _: self.closed.set())

    async def _live(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(part) for part in self._parts()]
                await self._leaving.wait()
                for part in parts:
                    part.cancel()
        except* Exception:
            self.leave("failed")
            logger.exception("peer %s of session %s failed", self.id, self.session.id)
        finally:
            self.leave("closed by the server")  # when cancelled from outside
            await asyncio.shield(self._shut())

    def _parts(self) -> Iterator[Any]:
        yield self._watch()
        yield self._report()
        yield self._hear_end()
        voice = self._connection.receivers.get("audio")
        if voice is not None and self.role is not Role.WHEP:
            yield self._hear(voice)
        yield from self._channel.parts()

    async def _watch(self) -> None:
        """Close what never comes to life and what has died."""
        clock, deadlines = self._shared.clock, self._shared.deadlines
        pace = min(0.5, deadlines.first_media / 4, deadlines.silence / 4)
        voice = self._connection.receivers.get("audio")
        while True:
            await clock.sleep_until(clock.now() + pace)
            now = clock.now()
            late = now - self._born > deadlines.first_media
            if late and not self.connected.is_set():
                self.leave("never connected")
            if late and self.role is Role.WHIP and (voice is None or voice.last_packet is None):
                self.leave("no sound came")
            if self.connected.is_set() and now - self._last_heard() > deadlines.silence:
                self.leave("silent")

    def _last_heard(self) -> float:
        heard = [ice.last_heard for ice in self._connection.ice if ice.last_heard is not None]
        return max([self._connected_at or self._born, *heard])

    async def _hear_end(self) -> None:
        await self.session.closed.wait()
        self.leave("session ended")

    async def _hear(self, voice: VoiceReceiver) -> None:
        try:
            async for piece in voice.pieces():
                await self.session.push_audio(piece.pcm, HEARD_RATE, pts=piece.pts, arrived=piece.arrived, speech=False)
        except SessionClosedError:
            self.leave("session ended")

    async def _report(self) -> None:
        """Sender and receiver reports. Sound and picture are dated by one clock, so lips keep in sync."""
        clock = self._shared.clock
        await self.connected.wait()
        wait = 0.1  # receivers need two reports before they can align sound and picture
        while True:
            await clock.sleep_until(clock.now() + wait)
            wait = min(REPORT_SECONDS, wait * 2) * (0.75 + 0.5 * random.random())
            self._send_reports()

    def _send_reports(self) -> None:
        transport = self._connection.transport
        if transport is None:
            return
        now = self._shared.clock.now()
        voice = self._connection.receivers.get("audio")
        block = voice.report() if voice is not None else None
        reports = [] if block is None else [block]
        reference = None if self._broadcast is None else self._broadcast.reference
        fresh = reference is not None and now - reference[1] <= REFERENCE_MOST
        for sender in self._connection.senders.values():
            packet: AnyRtcpPacket
            if fresh and reference is not None and sender.ready:
                pts = reference[0] + (now - reference[1]) * HEARD_RATE
                packet = RtcpSrPacket(sender._ssrc, sender.info(self._shared.ntp(now), pts), reports)
            elif reports:
                packet = RtcpRrPacket(sender._ssrc, reports)
            else:
                continue
            name = RtcpSdesPacket([RtcpSourceInfo(sender._ssrc, [(1, self._cname.encode())])])
            transport.send_now(bytes(packet) + bytes(name))
            reports = []

    def _on_state(self) -> None:
        state = self._connection.connectionState
        if state == "connected" and not self.connected.is_set():
            self._connected_at = self._shared.clock.now()
            self.connected.set()
        elif state == "failed":
            self.leave("failed")
        elif state == "closed":
            self.leave("left")

    def _on_ready(self) -> None:
        if self._leaving.is_set():
            return
        self._broadcast = self._shared.broadcast(self.session)
        self._broadcast.add(self)

    def _on_keyframe(self) -> None:
        if self._broadcast is not None:
            self._broadcast.ask_keyframe(self)

    def _on_bitrate(self) -> None:
        if self._broadcast is not None:
            self._broadcast.adapt()

    # its end

    async def _shut(self) -> None:
        broadcast = self._broadcast
        if broadcast is not None:
            broadcast.remove(self)
            await self._shared.retire(broadcast)
        async with self._shared.closing:
            await close_connection(self._connection, self._shared.deadlines.close)
        self._shared.forget(self)


# All of them


class _Shared:
    """What all connections of a server share."""

    def __init__(self, clock: Clock, bitrate: int, deadlines: Deadlines, encode_threads: int) -> None:
        self.clock = clock
        self.deadlines = deadlines
        self.workshop = Workshop(clock, ThreadPoolExecutor(encode_threads, thread_name_prefix="encode"), bitrate)
        self.peers: dict[str, Peer] = {}
        self.broadcasts: dict[str, Broadcast] = {}
        self.totals: dict[str, float] = {}
        self.closing = asyncio.Semaphore(2)
        """When all leave at once they are closed in turns of the loop, so that those who stay notice nothing."""
        self._ntp_zero = clock.wall() - clock.now() + NTP_EPOCH  # once: a step of the wall clock moves no report

    def ntp(self, now: float) -> int:
        return int((now + self._ntp_zero) * 0x100000000)

    def broadcast(self, session: Conversation) -> Broadcast:
        broadcast = self.broadcasts.get(session.id)
        if broadcast is None:
            broadcast = self.broadcasts[session.id] = Broadcast(session, self.workshop)
        return broadcast

    async def retire(self, broadcast: Broadcast) -> None:
        """Close it when nobody watches any more."""
        if not broadcast.viewers:
            for session_id in [key for key, known in self.broadcasts.items() if known is broadcast]:
                del self.broadcasts[session_id]
            await broadcast.close()

    def forget(self, peer: Peer) -> None:
        self.peers.pop(peer.id, None)
        for name, value in peer.stats().items():
            if isinstance(value, int) and not isinstance(value, bool) and name not in ("bitrate", "bitrate_limit"):
                self.totals[name] = self.totals.get(name, 0) + value


class Peers:
    """All connections of a server, with the encode threads and the addresses they share.

    `host_addresses`: local addresses to bind and advertise, "bind" or "bind=advertised" for one-to-one NAT; none means
    every address of this machine but loopback. `ports`: UDP ports to choose from, inclusive; none means any free one.
    `codecs`: video codecs in the order of preference, of "VP8" and "H264". `bitrate`: bits per second of a picture
    stream at most; viewers' estimates lower it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        host_addresses: Sequence[str] = (),
        ports: tuple[int, int] | None = None,
        codecs: Sequence[str] = ("VP8", "H264"),
        bitrate: int = 800_000,
        encode_threads: int = 2,
        deadlines: Deadlines | None = None,
    ) -> None:
        if not codecs or not set(codecs) <= {"VP8", "H264"}:
            raise ValueError(f"Video codecs must be of VP8 and H264, not {list(codecs)}.")
        if ports is not None and not 1_024 <= ports[0] <= ports[1] <= 65_535:
            raise ValueError(f"The UDP port range {ports[0]}-{ports[1]} must lie within 1024-65535.")
        self._codecs = tuple(codecs)
        self._shared = _Shared(clock, bitrate, deadlines or Deadlines(), encode_threads)
        self._ground = Ground(clock.now, tuple(HostAddress.parse(text) for text in host_addresses), ports)

    async def __aenter__(self) -> Self:
        if "H264" in self._codecs:
            loop = asyncio.get_running_loop()
            self._shared.workshop.openers["H264"] = await loop.run_in_executor(
                self._shared.workshop.executor, choose_h264
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every peer, then the encode threads."""
        await asyncio.gather(*(peer.close("closed by the server") for peer in self.peers))
        self._shared.workshop.executor.shutdown(wait=True, cancel_futures=True)

    @property
    def peers(self) -> list[Peer]:
        """Those that are not closed."""
        return list(self._shared.peers.values())

    def of(self, session: Conversation) -> list[Peer]:
        """The peers of one session."""
        return [peer for peer in self.peers if peer.session is session]

    async def answer(self, offer_sdp: str, session: Conversation, role: Role | None = None) -> tuple[str, Peer]:
        """Answer an offer. Without `role` the offer decides: all sendonly is WHIP, all recvonly WHEP, else duplex.

        Raises `BadOffer` and leaves nothing behind when the offer is malformed, too long, not for us, or when no UDP
        port is free (status 503). Remote candidates are ignored, so trickled ones need no route: answer them 204.
        """
        offer = read_offer(offer_sdp)
        role = role or offer.role
        if role is not Role.WHEP and "audio" not in offer.directions:
            raise BadOffer(422, "The offer has no audio to hear the voice from.")
        connection = Connection(self._ground, self._codecs)
        try:
            async with asyncio.timeout(self._shared.deadlines.close):
                await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
                for transceiver in connection.getTransceivers():
                    transceiver.direction = _direction(role, transceiver.kind)
                await connection.setLocalDescription(await connection.createAnswer())
        except BaseException as error:
            await close_connection(connection, self._shared.deadlines.close)
            if isinstance(error, NoFreePort) or out_of_files(error):
                raise BadOffer(503, "No UDP port is free here; try again later.") from error
            if isinstance(error, TimeoutError):
                raise BadOffer(503, "The server is too busy to answer; try again in a moment.") from error
            if isinstance(error, Exception):  # whatever a parser makes of hostile text
                logger.info("an offer could not be answered: %s", type(error).__name__)
                logger.debug("what it said", exc_info=error)  # may quote the offer, and with it addresses
                raise BadOffer(400, "The offer cannot be answered: it is malformed or incomplete.") from error
            raise
        peer = Peer(session, role, connection, self._shared)
        self._shared.peers[peer.id] = peer
        peer.start()
        return connection.localDescription.sdp, peer

    def stats(self) -> dict[str, Any]:
        """Totals over all peers since the start: the counters of `Peer.stats`, summed."""
        totals = dict(self._shared.totals)
        for peer in self.peers:
            for name, value in peer.stats().items():
                if isinstance(value, int) and name not in ("bitrate", "bitrate_limit"):
                    totals[name] = totals.get(name, 0) + value
        totals["peers"] = len(self._shared.peers)
        return totals


def port_range(text: str) -> tuple[int, int]:
    """ "50000-50199" → (50000, 50199). Raises ValueError with a line that says how to write it."""
    first, dash, last = text.partition("-")
    if not (dash and first.strip().isdecimal() and last.strip().isdecimal()):
        raise ValueError(f"The UDP port range {text!r} must be two numbers, as 50000-50199.")
    return int(first), int(last)


def _direction(role: Role, kind: str) -> str:
    if role is Role.WHIP:
        return "recvonly"
    return "sendrecv" if role is Role.DUPLEX and kind == "audio" else "sendonly"
