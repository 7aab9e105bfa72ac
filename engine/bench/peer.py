"""A WebRTC client that remembers when it sent what and when what came: `python -m engine.bench.peer PLAN`, a process.

It only takes notes while it talks, and decodes when the talk is over, so that it takes little from a server on the same
machine. What it takes is in the record. PLAN is a `Plan` as JSON; the `Record` goes to standard output as JSON.
"""

import asyncio
import contextlib
import itertools
import json
import resource
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import aiohttp
import aioice.ice
import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.codecs import depayload
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket, is_rtcp

from engine.bench.latency import PACKET, Dated, Pcm, Record, Seen, Sent, Sound, Stimulus, find_onsets, held
from engine.clock import Clock, RealClock
from engine.probe import read
from models.rates import HEARD_RATE

CONNECT_SECONDS = 10.0
AFTER_SECONDS = 0.5
"""What is on its way when the last word is said still counts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one client does. `inserted_delay` holds what arrives in every other stretch of `HOLD_SECONDS` for so many
    seconds: the negative control."""

    url: str
    seconds: float
    seed: int = 1
    avatar: str | None = None
    token: str | None = None
    inserted_delay: float = 0.0


@dataclass(slots=True)
class Notes:
    """What is written down while the talk goes on."""

    sent: list[Sent] = field(default_factory=list)
    audio: list[tuple[float, RtpPacket]] = field(default_factory=list)
    video: list[tuple[float, RtpPacket]] = field(default_factory=list)
    reports: list[Dated] = field(default_factory=list)


class Voice(MediaStreamTrack):
    """20 ms each 20 ms, handed over when they are over, as a microphone does; silence at the end."""

    kind = "audio"

    def __init__(self, pcm: Pcm, clock: Clock) -> None:
        super().__init__()
        self._pcm = pcm
        self._clock = clock
        self._position = 0
        self._began: float | None = None

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self._began is None:
            self._began = self._clock.now()
        begin, self._position = self._position, self._position + PACKET
        await self._clock.sleep_until(self._began + self._position / HEARD_RATE)
        pcm = self._pcm[begin : self._position]
        frame = av.AudioFrame.from_ndarray(np.pad(pcm, (0, PACKET - len(pcm)))[None], format="s16", layout="mono")
        frame.sample_rate = HEARD_RATE
        frame.pts = begin
        frame.time_base = Fraction(1, HEARD_RATE)
        return frame


async def talk(plan: Plan, clock: Clock) -> Record:
    """Connect, talk for `plan.seconds`, hang up, and read the notes. Raises `RuntimeError` with one line."""
    stimulus = Stimulus.of(plan.seconds, plan.seed)
    notes = Notes()
    path = "/v1/whip" if plan.avatar is None else f"/v1/whip/{plan.avatar}"
    began = clock.now()
    async with (
        aiohttp.ClientSession(plan.url) as http,
        on_call(http, path, plan.token, Voice(stimulus.pcm(), clock), notes, clock),
    ):
        connected_after = clock.now() - began
        await clock.sleep_until(clock.now() + plan.seconds + AFTER_SECONDS + plan.inserted_delay)
        used = resource.getrusage(resource.RUSAGE_SELF)
    sounds, onsets = _listen(notes.audio)
    return Record(
        stimulus=stimulus,
        sent=notes.sent,
        sounds=sounds,
        onsets=onsets,
        pictures=look(notes.video),
        reports=notes.reports,
        connected_after=connected_after,
        cpu_seconds=used.ru_utime + used.ru_stime,
    )


@asynccontextmanager
async def on_call(
    http: aiohttp.ClientSession, path: str, token: str | None, voice: MediaStreamTrack, notes: Notes, clock: Clock
) -> AsyncIterator[RTCDataChannel]:
    """Connected in this block, and what is yielded takes commands. Raises `RuntimeError` with one line."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    headers = {"Content-Type": "application/sdp"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connected, opened = asyncio.Event(), asyncio.Event()

    @peer.on("connectionstatechange")
    def changed() -> None:
        if peer.connectionState == "connected":
            connected.set()

    location = None
    try:
        channel = _attend(peer, voice, notes, clock)
        channel.on("open", opened.set)
        await peer.setLocalDescription(await peer.createOffer())
        async with http.post(path, data=peer.localDescription.sdp, headers=headers) as answered:
            text = await answered.text()
            if answered.status != 201:
                raise RuntimeError(f"the server answered {answered.status}: {' '.join(text.split())[:200]}")
            location = answered.headers.get("Location")
        await peer.setRemoteDescription(RTCSessionDescription(text, "answer"))
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connected.wait()
                await opened.wait()
        except TimeoutError:
            raise RuntimeError(
                f"not connected within {CONNECT_SECONDS:g} s: the connection is {peer.connectionState}"
            ) from None
        yield channel
    finally:
        if location is not None:
            with contextlib.suppress(aiohttp.ClientError):
                await http.delete(location, headers=headers)
        await peer.close()


def _attend(peer: RTCPeerConnection, voice: MediaStreamTrack, notes: Notes, clock: Clock) -> RTCDataChannel:
    """Offer a voice, a picture to receive and events; note what leaves and what arrives instead of decoding it."""
    audio = peer.addTransceiver(voice, direction="sendrecv")
    video = peer.addTransceiver("video", direction="recvonly")
    video.setCodecPreferences(
        [codec for codec in RTCRtpSender.getCapabilities("video").codecs if codec.mimeType == "video/VP8"]
    )
    channel = peer.createDataChannel("avatar-events")
    # aiortc looks these up on the instance each time a packet is routed.
    for kind, transceiver, arrived in (("audio", audio, notes.audio), ("video", video, notes.video)):
        receiver: Any = transceiver.receiver
        receiver._handle_rtp_packet = _note(arrived, clock)
        receiver._handle_rtcp_packet = _note_report(kind, notes.reports)
    transport: Any = audio.sender.transport
    send, origin = transport._send_rtp, list[int]()

    async def noted(packet: bytes) -> None:
        if not is_rtcp(packet) and int.from_bytes(packet[8:12], "big") == audio.sender._ssrc:
            stamp = int.from_bytes(packet[4:8], "big")
            origin.append(stamp)
            notes.sent.append(Sent(clock.now(), (stamp - origin[0]) % (1 << 32)))
        await send(packet)

    transport._send_rtp = noted
    return channel


def _note(arrived: list[tuple[float, RtpPacket]], clock: Clock) -> Callable[..., Any]:
    async def take(packet: RtpPacket, arrival_time_ms: int) -> None:
        arrived.append((clock.now(), packet))

    return take


def _note_report(kind: str, reports: list[Dated]) -> Callable[..., Any]:
    async def take(packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            reports.append(Dated(kind, packet.sender_info.ntp_timestamp / 2**32, packet.sender_info.rtp_timestamp))

    return take


def _listen(packets: list[tuple[float, RtpPacket]]) -> tuple[list[Sound], list[int]]:
    """When each packet of sound came, and the RTP times at which bursts begin in what they say."""
    if not packets:
        return [], []
    first = packets[0][1].timestamp
    by_time = {_after(packet.timestamp, first): (at, packet) for at, packet in packets}
    dated = sorted((each for each in by_time.items() if each[0] >= 0), key=lambda each: each[0])
    decoder = _opus()
    pcm = np.zeros(dated[-1][0] + 6 * PACKET, np.int16)
    for begin, (_, packet) in dated:
        for frame in decoder.decode(av.Packet(packet.payload)):
            sound = frame.to_ndarray()[0]
            pcm[begin : begin + len(sound)] = sound
    sounds = [Sound(at, packet.timestamp) for _, (at, packet) in dated]
    return sounds, [(onset + first) % (1 << 32) for onset in find_onsets(pcm)]


def listen_for(packets: list[tuple[float, RtpPacket]], level: float) -> list[float]:
    """When those packets of sound came in which some sample is louder than `level`, in s16 steps."""
    decoder = _opus()
    loud = []
    for at, packet in packets:
        pcm = np.concatenate([frame.to_ndarray()[0] for frame in decoder.decode(av.Packet(packet.payload))])
        if np.abs(pcm.astype(np.int32)).max(initial=0) > level:
            loud.append(at)
    return loud


def _opus() -> Any:
    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = HEARD_RATE, "mono", "s16"
    return decoder


def look(packets: list[tuple[float, RtpPacket]]) -> list[Seen]:
    """The pictures whose packets all came, with their marks."""
    codec = RTCRtpCodecParameters(mimeType="video/VP8", clockRate=90_000, payloadType=96)
    decoder: Any = av.CodecContext.create("libvpx", "r")
    seen = []
    pictures: dict[int, list[tuple[float, RtpPacket]]] = {}
    for at, packet in packets:  # what was held comes among what was not
        if packet.payload:
            pictures.setdefault(packet.timestamp, []).append((at, packet))
    for stamp, parts in sorted(pictures.items(), key=lambda each: _after(each[0], packets[0][1].timestamp)):
        numbers = [packet.sequence_number for _, packet in parts]
        whole = all((after - before) & 0xFFFF == 1 for before, after in itertools.pairwise(numbers))
        if not whole or not parts[-1][1].marker:
            continue
        picture = b"".join(depayload(codec, packet.payload) for _, packet in parts)
        mark = None
        with contextlib.suppress(av.FFmpegError):
            for frame in decoder.decode(av.Packet(picture)):
                mark = read(frame.to_ndarray()[: frame.height, : frame.width])
        seen.append(
            Seen(
                first=parts[0][0],
                last=parts[-1][0],
                stamp=stamp,
                size=len(picture),
                key=not picture[0] & 1,
                number=None if mark is None else mark.number,
                loud=mark is not None and mark.loud,
                repeated=mark is not None and mark.repeated,
            )
        )
    return seen


def _after(stamp: int, first: int) -> int:
    """How much later than `first`, of RTP times near each other that may have gone round."""
    return (stamp - first + (1 << 31)) % (1 << 32) - (1 << 31)


def hold_arrivals(seconds: float, clock: Clock) -> None:
    """Let the datagrams of this process arrive so much later, in every other stretch of time."""
    protocol: Any = aioice.ice.StunProtocol
    arrive = protocol.datagram_received

    def late(self: aioice.ice.StunProtocol, datagram: bytes, address: tuple[Any, ...]) -> None:
        if held(clock.now()):
            asyncio.get_running_loop().call_later(seconds, arrive, self, datagram, address)
        else:
            arrive(self, datagram, address)

    protocol.datagram_received = late


def stay_on_loopback(url: str) -> None:
    """To a server on this machine, offer 127.0.0.1 alone, which aioice leaves out by itself."""
    if any(name in url for name in ("//127.", "//localhost", "//[::1]")):
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def main() -> int:
    plan, clock = Plan(**json.loads(sys.argv[1])), RealClock()
    stay_on_loopback(plan.url)
    if plan.inserted_delay > 0:
        hold_arrivals(plan.inserted_delay, clock)
    try:
        record = asyncio.run(talk(plan, clock))
    except (RuntimeError, aiohttp.ClientError) as error:
        print(f"liveface: {error}", file=sys.stderr)
        return 1
    json.dump(asdict(record), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
