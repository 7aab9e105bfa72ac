"""Sound and picture out: payloads become RTP packets that leave in the turn of the event loop in which they are pushed.

`MomentSender` stands where aiortc's sender stood: nothing is queued, and no task pulls a track. It keeps what it sent
for a while, for receivers that ask again (RFC 4585, RFC 4588), within bounds: who asks for more than the path carries
is told no by silence.
"""

import random
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiortc import RTCRtpSender
from aiortc.rtcrtpparameters import RTCRtpSendParameters
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    unpack_remb_fci,
)

from engine.encoder import Headroom
from engine.icefilter import GuardedDtlsTransport
from models.rates import HEARD_RATE

PICTURE_RATE: Final = 90_000
"""The RTP clock of every video codec."""

HISTORY: Final = 256
"""Packets kept for retransmission: a power of two, about 2 s of picture."""

RETRANSMIT_SHARE: Final = 0.5
"""Of the bit rate of the picture, what may be sent again: asking for more means that the path is full, not leaky."""

RETRANSMIT_BITRATE: Final = 800_000
"""The bit rate that this is a share of while no limit is known."""

RETRANSMIT_SECONDS: Final = 3.0
"""Age at which a packet is no longer worth it; a key frame mends more."""

RETRANSMIT_SPACING: Final = 0.05
"""Seconds before the same packet goes again, when the round trip is shorter or not known."""

LIPS_FIRST: Final = 0.020
"""Seconds by which reports ask for the picture before its sound. In a browser sound waits longer than pictures do, in
its own buffer and the loudspeaker's, and pictures are held back to match: on loopback by 10 ms more than they need.
Late sound is noticed less than early sound: ITU-R BT.1359 allows 125 ms of the one and 45 of the other."""


@dataclass(slots=True)
class _Sent:
    number: int
    stamp: int
    marker: bool
    payload: bytes
    at: float
    last: float  # when it went, the first time or again


class MomentSender(RTCRtpSender):
    """Stands where aiortc's sender stood: packets leave when `push` is called, not when a task has pulled a track."""

    def __init__(self, kind: str, transport: GuardedDtlsTransport, now: Callable[[], float]) -> None:
        super().__init__(kind, transport)
        self.ready = False
        """The handshake is done and the codec chosen: `push` sends."""
        self.codec = ""
        self.packets = 0
        self.octets = 0
        self.retransmitted = 0
        self.nacks = 0
        self.keyframe_requests = 0
        self.headroom: Headroom | None = None
        """Kept by who wants to know what the path carries."""
        self.round_trip: float | None = None
        self.remote_lost = 0
        self.on_ready: Callable[[], None] = _nothing
        self.on_keyframe: Callable[[], None] = _nothing
        self.on_bitrate: Callable[[], None] = _nothing
        self.origin = random.getrandbits(32)
        """The RTP time of media time 0."""
        self._kind = kind
        self._guarded = transport
        self._now = now
        # The lower half, as a wrap in the first seconds upsets receivers' SRTP.
        self._number = random.getrandbits(15)
        self._again_number = random.getrandbits(15)
        self._payload_type = 0
        self._again_type: int | None = None
        self._mid = b""
        self._time_id: int | None = None
        self._history: list[_Sent | None] = [None] * HISTORY
        self._again = (0.0, 0)  # when a second began, and the bits sent again in it
        self._recent: deque[tuple[float, int]] = deque(maxlen=1_024)  # when, and bits
        self._reports: deque[tuple[int, float]] = deque(maxlen=8)  # middle of the NTP time of a report, and when

    def stamp(self, pts: int) -> int:
        """The RTP time of media time `pts`."""
        rate = HEARD_RATE if self._kind == "audio" else PICTURE_RATE
        return (self.origin + pts * rate // HEARD_RATE) & 0xFFFFFFFF

    def push(self, payloads: Sequence[bytes], pts: int) -> None:
        """Send one frame, now. Dropped while not `ready`."""
        if not self.ready:
            return
        now = self._now()
        self._recent.append((now, 8 * sum(map(len, payloads))))
        stamp, last = self.stamp(pts), len(payloads) - 1
        extensions = self._extensions()
        for i, payload in enumerate(payloads):
            sent = _Sent(self._number, stamp, i == last, payload, now, now)
            self._history[sent.number % HISTORY] = sent
            self._number = (self._number + 1) & 0xFFFF
            self._send(self._payload_type, sent.number, self._ssrc, sent, payload, extensions)

    def _send(self, kind: int, number: int, source: int, sent: _Sent, payload: bytes, extensions: bytes) -> None:
        # Opus marks the first packet of a talk spurt; ours is one endless spurt.
        marked = 0x80 if sent.marker and self._kind == "video" else 0
        first = 0x90 if extensions else 0x80
        header = struct.pack("!BBHII", first, marked | kind, number, sent.stamp, source)
        self._guarded.send_now(header + extensions + payload)
        self.packets += 1
        self.octets += len(payload)

    def _extensions(self) -> bytes:
        body = self._mid
        if self._time_id is not None:
            fixed = int(self._now() * 262_144) & 0xFFFFFF  # 6.18 fixed point; only differences count
            body += bytes([self._time_id << 4 | 2]) + fixed.to_bytes(3, "big")
        if not body:
            return b""
        body += b"\0" * (-len(body) % 4)
        return struct.pack("!HH", 0xBEDE, len(body) // 4) + body

    @property
    def sending(self) -> float:
        """Bits per second over the last second."""
        since = self._now() - 1.0
        return float(sum(bits for when, bits in self._recent if when > since))

    def info(self, ntp: int, pts: float) -> RtcpSenderInfo:
        """A sender report: `pts` is the media time that is heard at `ntp`, and seen LIPS_FIRST before."""
        rate = HEARD_RATE if self._kind == "audio" else PICTURE_RATE
        if self._kind == "video":
            pts += LIPS_FIRST * HEARD_RATE
        self._reports.append(((ntp >> 16) & 0xFFFFFFFF, self._now()))
        return RtcpSenderInfo(
            ntp_timestamp=ntp,
            rtp_timestamp=(self.origin + round(pts * rate / HEARD_RATE)) & 0xFFFFFFFF,
            packet_count=self.packets & 0xFFFFFFFF,
            octet_count=self.octets & 0xFFFFFFFF,
        )

    # what aiortc calls

    async def send(self, parameters: RTCRtpSendParameters) -> None:
        if self.ready:
            return
        codec = parameters.codecs[0]
        self.codec = codec.name.upper()
        self._payload_type = codec.payloadType or 0
        for other in parameters.codecs:
            if other.name.lower() == "rtx" and other.parameters.get("apt") == codec.payloadType:
                self._again_type = other.payloadType
        for extension in parameters.headerExtensions:
            if not 1 <= extension.id <= 14:
                continue  # would need the two-byte form
            mid = parameters.muxId.encode()
            if extension.uri.endswith(":sdes:mid") and 1 <= len(mid) <= 16:
                self._mid = bytes([extension.id << 4 | len(mid) - 1]) + mid
            elif extension.uri.endswith("/abs-send-time") and self._kind == "video":
                self._time_id = extension.id
        self._guarded._register_rtp_sender(self, parameters)
        self.ready = True
        self.on_ready()

    async def stop(self) -> None:
        if self.ready:
            self.ready = False
            self._guarded._unregister_rtp_sender(self)
            self._guarded.send_now(bytes(RtcpByePacket(sources=[self._ssrc])))

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self._ssrc:
                    self._reported(report)
        elif isinstance(packet, RtcpRtpfbPacket) and packet.fmt == RTCP_RTPFB_NACK:
            self.nacks += 1
            for number in packet.lost:
                self._send_again(number)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self.keyframe_requests += 1
            self.on_keyframe()
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            bitrate, sources = unpack_remb_fci(packet.fci)
            if self._ssrc in sources and self.headroom is not None:
                self.headroom.estimated(bitrate, self.sending, self._now())
                self.on_bitrate()

    def _reported(self, report: RtcpReceiverInfo) -> None:
        self.remote_lost = report.packets_lost
        if self.headroom is not None:
            self.headroom.lost(report.fraction_lost / 256, self.sending, self._now())
            self.on_bitrate()
        for middle, when in self._reports:
            if middle == report.lsr and report.lsr:
                measured = max(0.0, self._now() - when - report.dlsr / 65_536)
                if self.headroom is not None:
                    self.headroom.travelled(measured, self.sending, self._now())
                self.round_trip = measured if self.round_trip is None else 0.85 * self.round_trip + 0.15 * measured

    def _send_again(self, number: int) -> None:
        sent, now = self._history[number % HISTORY], self._now()
        if sent is None or sent.number != number or now - sent.at > RETRANSMIT_SECONDS:
            return
        if now - sent.last < max(RETRANSMIT_SPACING, self.round_trip or 0.0):
            return  # the one that went before is still on its way
        second, spent = self._again
        spent = spent if now - second < 1.0 else 0
        limit = self.headroom.limit if self.headroom is not None else None
        if spent > RETRANSMIT_SHARE * (limit or RETRANSMIT_BITRATE):
            return
        self._again = (second if spent else now, spent + 8 * len(sent.payload))
        sent.last = now
        self.retransmitted += 1
        if self._again_type is None:
            self._send(self._payload_type, number, self._ssrc, sent, sent.payload, self._extensions())
            return
        payload = struct.pack("!H", number) + sent.payload  # RFC 4588
        self._send(self._again_type, self._again_number, self._rtx_ssrc, sent, payload, self._extensions())
        self._again_number = (self._again_number + 1) & 0xFFFF


def _nothing() -> None:
    """A callback that nobody has set yet."""
