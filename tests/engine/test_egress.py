"""Packets out, on a transport that only remembers them."""

import struct
from typing import Any

import pytest
from aiortc.rtcrtpparameters import (
    RTCRtpCodecParameters,
    RTCRtpHeaderExtensionParameters,
    RTCRtpSendParameters,
)
from aiortc.rtp import (
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpByePacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
    RtpPacket,
)

from engine.egress import HISTORY, LIPS_FIRST, RETRANSMIT_SECONDS, RETRANSMIT_SPACING, MomentSender
from models.rates import HEARD_CHUNK, HEARD_RATE
from tests.fakes import JumpingClock

VIDEO = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90_000, payloadType=96)
AGAIN = RTCRtpCodecParameters(mimeType="video/rtx", clockRate=90_000, payloadType=97, parameters={"apt": 96})
OPUS = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=HEARD_RATE, channels=2, payloadType=111)


class Wire:
    """As much of a transport as is used."""

    state = "connected"

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send_now(self, packet: bytes) -> None:
        self.sent.append(packet)

    def _register_rtp_sender(self, sender: Any, parameters: Any) -> None:
        self.registered = sender

    def _unregister_rtp_sender(self, sender: Any) -> None:
        self.registered = None

    @property
    def packets(self) -> list[RtpPacket]:
        return [RtpPacket.parse(packet) for packet in self.sent]


class Stage:
    def __init__(self, kind: str) -> None:
        self.clock, self.wire = JumpingClock(), Wire()
        self.sender = MomentSender(kind, self.wire, self.clock.now)  # type: ignore[arg-type]  # a wire is enough

    async def begin(self, *codecs: RTCRtpCodecParameters, mid: str = "1", extensions: Any = ()) -> MomentSender:
        await self.sender.send(RTCRtpSendParameters(codecs=list(codecs), muxId=mid, headerExtensions=list(extensions)))
        return self.sender

    async def lost(self, *numbers: int) -> None:
        nack = RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=1, media_ssrc=self.sender._ssrc, lost=list(numbers))
        await self.sender._handle_rtcp_packet(nack)


@pytest.fixture
async def video() -> Stage:
    return Stage("video")


async def test_before_the_handshake_nothing_leaves(video: Stage) -> None:
    video.sender.push([b"early"], 0)
    assert video.wire.sent == []


async def test_a_picture_leaves_at_once_under_one_date_and_its_last_packet_is_marked(video: Stage) -> None:
    sender = await video.begin(VIDEO, AGAIN)
    sender.push([b"one", b"two", b"three"], HEARD_CHUNK)
    packets = video.wire.packets
    assert [packet.payload for packet in packets] == [b"one", b"two", b"three"]
    assert [packet.marker for packet in packets] == [0, 0, 1]
    assert {packet.timestamp for packet in packets} == {(sender.origin + 3_600) & 0xFFFFFFFF}
    assert [packet.sequence_number - packets[0].sequence_number for packet in packets] == [0, 1, 2]
    assert (sender.packets, sender.octets) == (3, 11)


async def test_sound_is_one_endless_spurt_without_marks() -> None:
    stage = Stage("audio")
    sender = await stage.begin(OPUS)
    sender.push([b"x"], 0)
    sender.push([b"y"], HEARD_RATE // 50)
    first, second = stage.wire.packets
    assert (first.marker, second.marker) == (0, 0)
    assert (second.timestamp - first.timestamp) & 0xFFFFFFFF == 960


async def test_numbers_wrap_and_what_was_sent_is_still_found(video: Stage) -> None:
    sender = await video.begin(VIDEO)
    sender._number = 0xFFFF
    sender.push([b"last", b"first"], 0)
    assert [packet.sequence_number for packet in video.wire.packets] == [0xFFFF, 0]
    video.clock.jump(0.1)
    await video.lost(0xFFFF, 0)
    assert [packet.payload for packet in video.wire.packets[2:]] == [b"last", b"first"]


async def test_a_lost_packet_goes_again_as_rfc_4588_says(video: Stage) -> None:
    sender = await video.begin(VIDEO, AGAIN)
    sender.push([b"lost"], 0)
    sent = video.wire.packets[0]
    video.clock.jump(0.1)
    await video.lost(sent.sequence_number)
    again = video.wire.packets[1]
    assert (again.payload_type, again.ssrc) == (97, sender._rtx_ssrc)
    assert again.payload == struct.pack("!H", sent.sequence_number) + b"lost"
    assert again.timestamp == sent.timestamp
    assert sender.retransmitted == 1


async def test_what_is_asked_for_too_soon_too_late_or_was_never_sent_does_not_go_again(video: Stage) -> None:
    sender = await video.begin(VIDEO, AGAIN)
    sender.push([b"x"], 0)
    number = video.wire.packets[0].sequence_number
    video.clock.jump(RETRANSMIT_SPACING / 2)
    await video.lost(number, (number + 1) & 0xFFFF, (number - HISTORY) & 0xFFFF)
    video.clock.jump(RETRANSMIT_SECONDS + 0.1)
    await video.lost(number)
    assert len(video.wire.sent) == 1
    assert sender.nacks == 2


async def test_who_asks_for_everything_again_gets_half_of_the_bit_rate_at_most(video: Stage) -> None:
    sender = await video.begin(VIDEO, AGAIN)
    sender.push([bytes(1_000)] * 200, 0)
    video.clock.jump(0.1)
    await video.lost(*(packet.sequence_number for packet in video.wire.packets))
    assert sender.retransmitted * 8 * 1_000 <= 400_000 + 8 * 1_000


async def test_a_wish_for_a_keyframe_is_passed_on_and_counted(video: Stage) -> None:
    sender = await video.begin(VIDEO)
    wishes: list[int] = []
    sender.on_keyframe = lambda: wishes.append(1)
    await sender._handle_rtcp_packet(RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=1, media_ssrc=sender._ssrc))
    assert (wishes, sender.keyframe_requests) == ([1], 1)


async def test_reports_ask_for_the_picture_a_little_before_its_sound(video: Stage) -> None:
    sound = Stage("audio")
    seen, heard = video.sender.info(1 << 32, 48_000.0), sound.sender.info(1 << 32, 48_000.0)
    assert (heard.rtp_timestamp - sound.sender.origin) & 0xFFFFFFFF == 48_000
    assert (seen.rtp_timestamp - video.sender.origin) & 0xFFFFFFFF == round(90_000 * (1 + LIPS_FIRST))


async def test_the_mid_goes_with_every_packet_where_it_was_agreed(video: Stage) -> None:
    mid = RTCRtpHeaderExtensionParameters(id=3, uri="urn:ietf:params:rtp-hdrext:sdes:mid")
    sender = await video.begin(VIDEO, mid="7", extensions=[mid])
    sender.push([b"x"], 0)
    assert b"\xbe\xde\x00\x01\x307\x00\x00" in video.wire.sent[0]


async def test_the_end_is_said_and_nothing_follows_it(video: Stage) -> None:
    sender = await video.begin(VIDEO)
    await sender.stop()
    (bye,) = RtcpPacket.parse(video.wire.sent[0])
    assert isinstance(bye, RtcpByePacket)
    assert bye.sources == [sender._ssrc]
    sender.push([b"late"], 0)
    await sender.stop()
    assert len(video.wire.sent) == 1
