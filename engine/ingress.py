"""Voice in: RTP packets of Opus, lost, late, doubled and out of order, into dated sound, in place of aiortc's buffer.

`Ingress` is pure: packets and the time go in, `Piece`s come out. In order; a hole is waited for until two packets have
come past it or 60 ms have gone by, then only the hole is skipped. Up to 60 ms of a hole are concealed; the rest is left
out, and the pts tells. Silence that the sender does not send (DTX) is no hole: its sequence numbers are contiguous.
`VoiceReceiver` is the skin that feeds it from aiortc.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import av
import numpy as np
from aiortc import RTCRtpReceiver
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtp import AnyRtcpPacket, RtcpReceiverInfo, RtcpSrPacket, RtpPacket

from engine.media import Heard
from models.rates import HEARD_RATE

WAIT_PACKETS: Final = 2
"""Packets past a hole after which it is skipped. Each costs 20 ms at a loss and nothing without one."""

WAIT_SECONDS: Final = 0.06
"""The same in time, for a hole that nothing follows soon."""

CONCEAL_MOST: Final = HEARD_RATE * 60 // 1_000
"""Samples of a hole that are invented; a longer invention is heard as a buzz."""

STEP_MOST: Final = HEARD_RATE
"""Samples by which a timestamp may run ahead of the time that went by; past it the timeline is joined anew."""

SEQUENCE_LEAP: Final = 3_000
"""Sequence numbers ahead (60 s of packets) that are believed at once; RFC 3550 A.1 has the same rule."""

LATE_MOST: Final = 100
"""Sequence numbers back that are taken for a late packet, not for a sender that began anew."""

TAKEOVER_AFTER: Final = 0.5
"""Seconds of silence after which another source may speak instead."""

_WRAP_SECONDS: Final = 0x100000000 / HEARD_RATE
"""24.9 h: how long RTP timestamps at 48 kHz take to come round."""

BACKLOG_MOST: Final = 100
"""Pieces that wait for the session (2 s); beyond it the oldest go."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Decoded sound at its place on the sender's own timeline, which begins with the first packet."""

    pts: int  # 48 kHz samples
    pcm: Heard  # [n] s16 mono
    concealed: bool
    arrived: float  # when the packet that released it came


class Decoder(Protocol):
    """Opus, or what a test puts in its place."""

    def decode(self, payload: bytes) -> Heard | None:
        """The sound of one packet, [n] s16 mono at 48 kHz; None when the bytes are no such packet."""
        ...

    def conceal(self, samples: int) -> Heard:
        """What may have been in a lost packet of so many samples."""
        ...


class OpusDecoder:
    """libopus through PyAV, with its own packet loss concealment."""

    def __init__(self) -> None:
        context = av.CodecContext.create("libopus", "r")
        if not isinstance(context, av.AudioCodecContext):
            raise TypeError("libopus is no audio decoder")
        context.sample_rate = HEARD_RATE
        context.layout = "mono"  # libopus mixes a stereo sender down itself
        context.format = "s16"
        self._context = context
        self._header: bytes | None = None
        self._frame = 0

    def decode(self, payload: bytes) -> Heard | None:
        pcm = self._decode(payload)
        if pcm is not None and pcm.size:
            # The first byte says how the frame was made; alone, it is a frame of no bytes, which libopus takes as lost.
            self._header = bytes([payload[0] & 0xFC])
            self._frame = pcm.size
        return pcm

    def conceal(self, samples: int) -> Heard:
        made: list[Heard] = []
        have = 0
        while self._header is not None and have < samples:
            pcm = self._decode(self._header)
            if pcm is None or not pcm.size:
                break
            made.append(pcm)
            have += pcm.size
        sound = np.concatenate(made)[:samples] if made else np.zeros(0, np.int16)
        return np.pad(sound, (0, samples - sound.size))

    def _decode(self, payload: bytes) -> Heard | None:
        if not payload:
            return None
        try:
            frames = self._context.decode(av.Packet(payload))
        except av.FFmpegError:
            return None
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]) if frames else np.zeros(0, np.int16)


@dataclass(slots=True)
class Counts:
    """What happened to the packets of one voice."""

    received: int = 0
    lost: int = 0  # skipped holes, in packets
    late: int = 0  # came after their hole was skipped
    doubled: int = 0
    undecodable: int = 0
    resynced: int = 0  # jumps of sequence or timestamp that were not believed
    concealed_samples: int = 0
    foreign: int = 0  # of a source that does not have the floor


@dataclass(frozen=True, slots=True)
class _Waiting:
    timestamp: int
    payload: bytes
    arrived: float


class Ingress:
    """One voice. Feed `add` every packet and call `due` at `deadline`; both return what became ready, in order."""

    def __init__(self, decoder: Decoder, wait_packets: int = WAIT_PACKETS, wait_seconds: float = WAIT_SECONDS) -> None:
        self.counts = Counts()
        self._decoder = decoder
        self._wait_packets = wait_packets
        self._wait_seconds = wait_seconds
        self._waiting: dict[int, _Waiting] = {}
        self._next: int | None = None  # extended sequence number that comes out next
        self._highest = self._first = 0
        self._expected_before = 0
        self._transit: float | None = None
        self.jitter = 0.0
        """Interarrival jitter in seconds, as RFC 3550 smooths it."""
        self._source: int | None = None
        self._contender: int | None = None  # another source that spoke last; its second packet may take the floor
        self._heard = 0.0
        self._suspect: int | None = None
        # the timeline
        self._end = 0  # pts after the last piece
        self._last: tuple[int | None, int, float] | None = None  # timestamp, pts and arrival of the last decoded packet

    @property
    def deadline(self) -> float | None:
        """When `due` has something to skip, if no packet comes before."""
        if not self._waiting:
            return None
        return min(w.arrived for w in self._waiting.values()) + self._wait_seconds

    @property
    def source(self) -> int | None:
        """The SSRC that has the floor."""
        return self._source

    @property
    def highest_sequence(self) -> int:
        """Extended highest sequence number, as receiver reports state it."""
        return self._highest & 0xFFFFFFFF

    @property
    def expected(self) -> int:
        """Packets that should have come by now."""
        return self._expected_before + (self._highest - self._first + 1 if self._next is not None else 0)

    def add(self, sequence: int, timestamp: int, payload: bytes, now: float, source: int = 0) -> list[Piece]:
        """Take a packet that came at `now`. Numbers wrap as RTP's do; `source` is its SSRC."""
        if not self._has_floor(source, now):
            return []
        number = self._extend(sequence)
        if number is None:
            return []
        self._heard = now
        self.counts.received += 1
        self._measure(timestamp, now)
        assert self._next is not None
        if number < self._next:
            self.counts.late += 1
            return []
        if number in self._waiting:
            self.counts.doubled += 1
            return []
        self._highest = max(self._highest, number)
        self._waiting[number] = _Waiting(timestamp, payload, now)
        return self._release(now)

    def due(self, now: float) -> list[Piece]:
        """Skip the hole that has been waited for long enough. Does nothing before `deadline`."""
        return self._release(now)

    def _measure(self, timestamp: int, now: float) -> None:
        transit = (now - timestamp / HEARD_RATE) % _WRAP_SECONDS
        if self._transit is not None:
            change = abs((transit - self._transit + _WRAP_SECONDS / 2) % _WRAP_SECONDS - _WRAP_SECONDS / 2)
            self.jitter += (min(change, 1.0) - self.jitter) / 16
        self._transit = transit

    # which packets

    def _has_floor(self, source: int, now: float) -> bool:
        if self._source is None:
            self._source = source
        elif source != self._source:
            before, self._contender = self._contender, source
            if now - self._heard < TAKEOVER_AFTER or source != before:
                self.counts.foreign += 1
                return False
            self._source = source
            self._begin_anew()
        else:
            self._contender = None
        return True

    def _extend(self, sequence: int) -> int | None:
        """The sequence number without its wraps; None when it is not believed yet."""
        if self._next is None:
            self._next = self._highest = self._first = sequence + 0x10000  # an earlier one may yet follow
            return self._next
        step = (sequence - self._highest) & 0xFFFF
        if step < SEQUENCE_LEAP:
            self._suspect = None
            return self._highest + step
        if step >= 0x10000 - LATE_MOST:
            return self._highest + step - 0x10000
        # Far away: believed when the next one follows it.
        if self._suspect == sequence:
            self._begin_anew()
            return self._extend(sequence)
        self._suspect = (sequence + 1) & 0xFFFF
        self.counts.resynced += 1
        return None

    def _begin_anew(self) -> None:
        self._expected_before = self.expected
        self._waiting.clear()
        self._next = None
        self._suspect = None
        if self._last is not None:
            self._last = (None, self._last[1], self._last[2])  # its timestamps say nothing about those to come

    def _release(self, now: float) -> list[Piece]:
        pieces: list[Piece] = []
        lost = 0
        while self._waiting:
            assert self._next is not None
            packet = self._waiting.pop(self._next, None)
            if packet is not None:
                self._next += 1
                pieces += self._decode(packet, lost, now)
                lost = 0
                continue
            first = min(self._waiting)
            past = self._highest - self._next >= self._wait_packets
            if not past and now < min(w.arrived for w in self._waiting.values()) + self._wait_seconds:
                break
            lost += first - self._next
            self.counts.lost += first - self._next
            self._next = first
        return pieces

    # which sound, and where

    def _decode(self, packet: _Waiting, lost: int, now: float) -> list[Piece]:
        pts = self._place(packet)
        pieces: list[Piece] = []
        hole = min(pts - self._end, CONCEAL_MOST)
        if lost and hole > 0 and self._last is not None:
            pieces.append(Piece(self._end, self._decoder.conceal(hole), True, now))
            self.counts.concealed_samples += hole
        if packet.payload:
            pcm = self._decoder.decode(packet.payload)
            if pcm is None:
                self.counts.undecodable += 1
            elif pcm.size:
                pieces.append(Piece(pts, pcm, False, now))
                self._end = pts + int(pcm.size)
        self._last = (packet.timestamp, pts, packet.arrived)
        self._end = max(self._end, pts)
        return pieces

    def _place(self, packet: _Waiting) -> int:
        """The pts of a packet: by its timestamp when time has gone by for it, else by its arrival."""
        if self._last is None:
            return 0
        timestamp, pts, arrived = self._last
        elapsed = max(0, round((packet.arrived - arrived) * HEARD_RATE))
        if timestamp is not None:
            step = (packet.timestamp - timestamp) & 0xFFFFFFFF
            if step <= elapsed + STEP_MOST:
                return max(pts + step, self._end)
            self.counts.resynced += 1
        silence = pts + elapsed - self._end
        return self._end + (silence if silence > CONCEAL_MOST else 0)


class VoiceReceiver(RTCRtpReceiver):
    """Stands where aiortc's receiver stood: no decoder thread, no unbounded queue. Of video it keeps nothing.

    `async for piece in receiver.pieces()` is the voice; it ends when the connection does.
    """

    def __init__(self, kind: str, transport: RTCDtlsTransport, now: Callable[[], float]) -> None:
        super().__init__(kind, transport)
        self.ingress = Ingress(OpusDecoder()) if kind == "audio" else None
        self.dropped = 0
        """Pieces that the session was too slow for."""
        self.last_packet: float | None = None
        self.left = asyncio.Event()
        """The sender said goodbye, or the connection ended."""
        self._now = now
        self._payload_types: frozenset[int] = frozenset()
        self._backlog: deque[Piece] = deque(maxlen=BACKLOG_MOST)
        self._ready = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._registered = False
        self._sender_report: tuple[int, float] | None = None  # middle of its NTP time, and when it came
        self._reported = (0, 0)  # expected and received at the last report

    async def pieces(self) -> AsyncIterator[Piece]:
        """What was heard, oldest first."""
        while True:
            while self._backlog:
                yield self._backlog.popleft()
            if self.left.is_set():
                return
            self._ready.clear()
            await self._ready.wait()

    def report(self) -> RtcpReceiverInfo | None:
        """The block of a receiver report about this voice; None before there is one."""
        ingress = self.ingress
        if ingress is None or ingress.source is None or self.last_packet is None:
            return None
        expected, received = ingress.expected, ingress.counts.received - ingress.counts.doubled
        new_expected, new_received = expected - self._reported[0], received - self._reported[1]
        self._reported = (expected, received)
        missing = max(0, new_expected - new_received)
        last_report, delay = 0, 0
        if self._sender_report is not None:
            last_report = self._sender_report[0]
            delay = min(round((self._now() - self._sender_report[1]) * 65_536), 0xFFFFFFFF)
        return RtcpReceiverInfo(
            ssrc=ingress.source,
            fraction_lost=min(255, (missing << 8) // new_expected) if new_expected > 0 else 0,
            packets_lost=max(0, min(expected - received, 0x7FFFFF)),
            highest_sequence=ingress.highest_sequence,
            jitter=min(round(ingress.jitter * HEARD_RATE), 0xFFFFFFFF),
            lsr=last_report,
            dlsr=delay,
        )

    # what aiortc calls

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        if self._registered:
            return
        self._registered = True
        self._payload_types = frozenset(
            codec.payloadType
            for codec in parameters.codecs
            if codec.payloadType is not None and codec.name.lower() == "opus"
        )
        self.transport._register_rtp_receiver(self, parameters)

    async def stop(self) -> None:
        if self._registered:
            self.transport._unregister_rtp_receiver(self)
        self._handle_disconnect()

    def _handle_disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.left.set()
        self._ready.set()

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            self._sender_report = ((packet.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF, self._now())

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        now = self._now()
        if self.ingress is None:
            self.last_packet = now
        elif packet.payload_type in self._payload_types:
            self.last_packet = now
            self._give(self.ingress.add(packet.sequence_number, packet.timestamp, packet.payload, now, packet.ssrc))

    def _give(self, pieces: list[Piece]) -> None:
        assert self.ingress is not None
        if pieces:
            self.dropped += max(0, len(self._backlog) + len(pieces) - BACKLOG_MOST)
            self._backlog.extend(pieces)
            self._ready.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.ingress.deadline
        if deadline is not None and not self.left.is_set():
            delay = max(0.0, deadline - self._now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_deadline)

    def _on_deadline(self) -> None:
        assert self.ingress is not None
        self._timer = None
        self._give(self.ingress.due(self._now()))
