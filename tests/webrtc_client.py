"""An aiortc client on 127.0.0.1 that knows when it sent what and when what came: for tests and benches.

    async with Client(voice=pcm) as client:
        await client.connect(exchange)            # exchange: async offer -> answer
        ... client.sent, client.sounds, client.pictures, client.events, client.reports

It records what arrives on the wire, before any jitter buffer. With `stock=True` aiortc's receivers run besides, with
their NACKs, PLIs and decoders, and `client.shown` holds what they showed.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import aioice
import av
import numpy as np
import numpy.typing as npt
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.codecs import depayload
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket, is_rtcp

FRAME = 960
RATE = 48_000

Exchange = Callable[[str], Awaitable[str]]
Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Sent:
    """20 ms of the voice: when they left, and where in the voice they begin, in samples."""

    at: float
    sample: int


@dataclass(frozen=True)
class Sound:
    """One packet of sound."""

    at: float
    stamp: int  # RTP time
    number: int
    pcm: Pcm | None


@dataclass(frozen=True)
class Seen:
    """One picture, all of its packets there."""

    first: float
    at: float  # of the last packet
    stamp: int
    size: int  # bytes
    packets: int
    largest: int  # bytes of the largest payload
    keyframe: bool
    luma: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Report:
    kind: str
    at: float
    ntp: float  # seconds
    stamp: int


@dataclass
class _Picture:
    first: float
    parts: dict[int, tuple[bytes, bool, int]] = field(default_factory=dict)


class LoopbackConnection(aioice.Connection):
    """ICE on 127.0.0.1 only."""

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[aioice.Candidate]:
        return await super().get_component_candidates(component, ["127.0.0.1"], timeout)


class LoopbackGatherer(RTCIceGatherer):
    def __init__(self) -> None:
        super().__init__(iceServers=[])
        self._connection = LoopbackConnection(ice_controlling=False)


class _Receiver(RTCRtpReceiver):
    def __init__(self, client: "Client", kind: str, transport: RTCDtlsTransport) -> None:
        super().__init__(kind, transport)
        self.client = client
        self.kind = kind
        self.types: dict[int, Any] = {}

    async def receive(self, parameters: Any) -> None:
        self.types = {codec.payloadType: codec for codec in parameters.codecs}
        await super().receive(parameters)

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket):
            info = packet.sender_info
            self.client.reports.append(
                Report(self.kind, time.monotonic(), info.ntp_timestamp / 2**32, info.rtp_timestamp)
            )
        await super()._handle_rtcp_packet(packet)

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        if self.client.lose_received(self.kind, packet):
            return
        codec = self.types.get(packet.payload_type)
        if codec is not None and codec.name.lower() != "rtx":
            self.client.receive(self.kind, codec, packet)
        if self.client.stock:
            await super()._handle_rtp_packet(packet, arrival_time_ms)


class ClientConnection(RTCPeerConnection):
    def __init__(self, client: "Client") -> None:
        super().__init__(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.client = client
        self.dtls: RTCDtlsTransport | None = None

    def _private(self, name: str) -> Any:
        return getattr(self, f"_RTCPeerConnection__{name}")

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:  # noqa: N802 - overrides aiortc's
        ice = RTCIceTransport(LoopbackGatherer())
        ice.iceGatherer.on("statechange", self._private("updateIceGatheringState"))
        ice.on("statechange", self._private("updateIceConnectionState"))
        ice.on("statechange", self._private("updateConnectionState"))
        self._private("iceTransports").add(ice)
        self.dtls = RTCDtlsTransport(ice, self._private("certificates"))
        self.dtls.on("statechange", self._private("updateConnectionState"))
        self._private("dtlsTransports").add(self.dtls)
        return self.dtls

    def _RTCPeerConnection__createTransceiver(  # noqa: N802 - overrides aiortc's
        self, direction: str, kind: str, sender_track: MediaStreamTrack | None = None
    ) -> Any:
        transceiver = super()._RTCPeerConnection__createTransceiver(direction, kind, sender_track)
        receiver = _Receiver(self.client, kind, transceiver.receiver.transport)
        receiver._set_rtcp_ssrc(transceiver.sender._ssrc)
        transceiver._RTCRtpTransceiver__receiver = receiver
        return transceiver


class _Voice(MediaStreamTrack):
    """20 ms of the voice each 20 ms, from the moment the sender first asks; silence when it is over."""

    kind = "audio"

    def __init__(self, client: "Client", pcm: Pcm) -> None:
        super().__init__()
        self.client = client
        self.pcm = pcm
        self.position = 0
        self.began: float | None = None

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self.began is None:
            self.began = time.monotonic()
        self.position += FRAME
        # A microphone hands 20 ms over when they are over.
        await asyncio.sleep(max(0.0, self.began + self.position / RATE - time.monotonic()))
        pcm = self.pcm[self.position - FRAME : self.position]
        pcm = np.pad(pcm, (0, FRAME - pcm.size))
        frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        frame.pts = self.position - FRAME
        frame.time_base = Fraction(1, RATE)
        return frame


async def until(condition: Callable[[], object], timeout: float = 3.0) -> None:
    """Return when `condition` holds; AssertionError when it does not in time.

    Time in which the machine did not let this loop run does not count: a busy machine is slow, not wrong.
    """
    left = timeout
    while not condition():
        assert left > 0, f"not within {timeout} s"
        before = time.monotonic()
        await asyncio.sleep(0.005)
        left -= min(time.monotonic() - before, 0.010)


class Client:
    """One connection. `role`: "duplex", "whip" or "whep". `codecs`: video codecs offered, in order.

    `loss(kind, index)` says whether the index-th packet sent is lost; `loss_received(kind, packet)` the same for those
    received. Both act inside the encryption, so sequence numbers show the hole.
    """

    def __init__(
        self,
        voice: Pcm | None = None,
        *,
        role: str = "duplex",
        codecs: tuple[str, ...] = ("VP8", "H264"),
        stock: bool = False,
        decode: bool = True,
        loss: Callable[[int], bool] | None = None,
        loss_received: Callable[[str, RtpPacket], bool] | None = None,
    ) -> None:
        self.role = role
        self.stock = stock
        self.decode = decode
        self.sent: list[Sent] = []
        self.sounds: list[Sound] = []
        self.pictures: list[Seen] = []
        self.shown: list[tuple[float, int]] = []  # when, and pts at 90 kHz from the first
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.reports: list[Report] = []
        self.received_packets = 0
        self.pc = ClientConnection(self)
        self.channel: RTCDataChannel | None = None
        self.connected_after: float | None = None
        self._loss = loss
        self._loss_received = loss_received
        self._packets = 0
        self._assembly: dict[int, _Picture] = {}
        self._decoders: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        pcm = np.zeros(0, np.int16) if voice is None else voice
        if role != "whep":
            direction = "sendrecv" if role == "duplex" else "sendonly"
            self.pc.addTransceiver(_Voice(self, pcm), direction=direction)
        else:
            self.pc.addTransceiver("audio", direction="recvonly")
        if role != "whip":
            video = self.pc.addTransceiver("video", direction="recvonly")
            capable = RTCRtpSender.getCapabilities("video").codecs
            names = [f"video/{name}".lower() for name in (*codecs, "rtx")]
            video.setCodecPreferences([c for name in names for c in capable if c.mimeType.lower() == name])
        if role == "duplex":
            self.channel = self.pc.createDataChannel("avatar-events")
            self.channel.on("message", self._on_message)
        self.pc.on("track", self._on_track)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def offer(self) -> str:
        self._tap()
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def connect(self, exchange: Exchange, timeout: float = 10.0) -> None:
        """Offer, take the answer and return when connected."""
        began = time.monotonic()
        await self.accept(await exchange(await self.offer()))
        await self.until(lambda: self.pc.connectionState == "connected", timeout)
        self.connected_after = time.monotonic() - began

    async def until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Return when `condition` holds; AssertionError when it does not in time."""
        try:
            await until(condition, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the connection is {self.pc.connectionState}") from None

    def tell(self, **command: Any) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps(command))

    @property
    def server_address(self) -> tuple[str, int]:
        """Where the server's socket of this connection is."""
        return self.ice._nominated[1].remote_addr

    @property
    def ice(self) -> aioice.Connection:
        assert self.pc.dtls is not None
        return self.pc.dtls.transport._connection

    async def send_rtp(self, packet: bytes) -> None:
        """Any bytes, encrypted as this client's RTP or RTCP: what an authenticated but hostile client can do."""
        assert self.pc.dtls is not None
        await self.pc.dtls._send_rtp(packet)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.pc.close(), 5)

    async def vanish(self) -> None:
        """Be gone without a word: no BYE, no DTLS close."""
        for protocol in list(self.ice._protocols):
            protocol.transport.abort()
        if self.ice._query_consent_task is not None:
            self.ice._query_consent_task.cancel()

    # what arrives

    def lose_received(self, kind: str, packet: RtpPacket) -> bool:
        return self._loss_received is not None and self._loss_received(kind, packet)

    def receive(self, kind: str, codec: Any, packet: RtpPacket) -> None:
        now = time.monotonic()
        self.received_packets += 1
        if kind == "audio":
            self.sounds.append(Sound(now, packet.timestamp, packet.sequence_number, self._decode_sound(packet.payload)))
            return
        picture = self._assembly.setdefault(packet.timestamp, _Picture(now))
        data = depayload(codec, packet.payload)
        picture.parts[packet.sequence_number] = (data, bool(packet.marker), len(packet.payload))
        numbers = sorted(picture.parts, key=lambda n: (n - packet.sequence_number + 0x8000) & 0xFFFF)
        whole = all((b - a) & 0xFFFF == 1 for a, b in itertools.pairwise(numbers))
        if whole and picture.parts[numbers[-1]][1]:
            del self._assembly[packet.timestamp]
            data = b"".join(picture.parts[n][0] for n in numbers)
            keyframe, luma = self._decode_picture(codec.name.lower(), data)
            largest = max(part[2] for part in picture.parts.values())
            self.pictures.append(
                Seen(picture.first, now, packet.timestamp, len(data), len(numbers), largest, keyframe, luma)
            )
        for stamp in list(self._assembly)[:-8]:
            del self._assembly[stamp]

    def _decode_sound(self, payload: bytes) -> Pcm | None:
        if not self.decode:
            return None
        decoder = self._decoders.get("opus")
        if decoder is None:
            decoder = self._decoders["opus"] = av.CodecContext.create("libopus", "r")
            decoder.sample_rate, decoder.layout, decoder.format = RATE, "mono", "s16"
        return np.concatenate([frame.to_ndarray()[0] for frame in decoder.decode(av.Packet(payload))])

    def _decode_picture(self, codec: str, data: bytes) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        if codec == "vp8":
            keyframe = not data[0] & 1
        else:
            keyframe = any(data[i + 4] & 0x1F == 5 for i in range(len(data) - 4) if data[i : i + 4] == b"\0\0\0\1")
        if not self.decode:
            return keyframe, None
        decoder = self._decoders.get(codec)
        if decoder is None:
            decoder = self._decoders[codec] = av.CodecContext.create("libvpx" if codec == "vp8" else "h264", "r")
            decoder.thread_count = 1
            if codec == "h264":
                decoder.flags |= av.codec.context.Flags.low_delay
        try:
            frames = decoder.decode(av.Packet(data))
        except av.FFmpegError:
            return keyframe, None
        return keyframe, frames[0].to_ndarray()[: frames[0].height] if frames else None

    def _on_message(self, message: str | bytes) -> None:
        self.events.append((time.monotonic(), json.loads(message)))

    def _on_track(self, track: MediaStreamTrack) -> None:
        task = asyncio.ensure_future(self._drain(track))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.shown.append((time.monotonic(), frame.pts))

    # what is sent

    def _tap(self) -> None:
        """Note when each packet of the voice really leaves, and lose those that the script loses."""
        assert self.pc.dtls is not None
        send = self.pc.dtls._send_rtp
        source = next((t.sender._ssrc for t in self.pc.getTransceivers() if t.kind == "audio"), None)
        origin: list[int] = []

        async def tapped(data: bytes) -> None:
            if len(data) > 12 and int.from_bytes(data[8:12], "big") == source and not is_rtcp(data):
                stamp = int.from_bytes(data[4:8], "big")
                if not origin:
                    origin.append(stamp)
                self.sent.append(Sent(time.monotonic(), (stamp - origin[0]) & 0xFFFFFFFF))
                self._packets += 1
                if self._loss is not None and self._loss(self._packets - 1):
                    return
            await send(data)

        self.pc.dtls._send_rtp = tapped
