"""aiortc's peer connection, made of our parts: ICE that hears only its peer, a sender of moments, a receiver of voice.

aiortc does the handshakes: SDP, ICE (hardened in `icefilter`), DTLS and SCTP. Media does not pass through its tracks:
`MomentSender` and `VoiceReceiver` stand where its sender and receiver stood.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCRtpTransceiver
from aiortc.rtcicetransport import RTCIceTransport

from engine.egress import MomentSender
from engine.icefilter import MALFORMED, FilteredConnection, FilteredGatherer, Ground, GuardedDtlsTransport
from engine.ingress import VoiceReceiver

logger = logging.getLogger(__name__)


class Connection(RTCPeerConnection):
    """aiortc's peer connection on one transport, of our parts.

    It overrides two private factory methods; a contract test fails when aiortc moves them.
    """

    def __init__(self, ground: Ground, codecs: Sequence[str]) -> None:
        # Ours never asks a STUN server: aiortc's default is a public one.
        super().__init__(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self.ice: list[FilteredConnection] = []
        self.transport: GuardedDtlsTransport | None = None
        self.senders: dict[str, MomentSender] = {}
        self.receivers: dict[str, VoiceReceiver] = {}
        self._ground = ground
        self._codecs = codecs

    def _private(self, name: str) -> Any:
        return getattr(self, f"_RTCPeerConnection__{name}")

    def _RTCPeerConnection__createDtlsTransport(self) -> GuardedDtlsTransport:  # noqa: N802 - overrides aiortc's
        if self.transport is not None:
            return self.transport
        gatherer = FilteredGatherer(self._ground)
        gatherer.on("statechange", self._private("updateIceGatheringState"))
        ice = RTCIceTransport(gatherer)
        ice.on("statechange", self._private("updateIceConnectionState"))
        ice.on("statechange", self._private("updateConnectionState"))
        self._private("iceTransports").add(ice)
        self.ice.append(gatherer.filtered)
        transport = GuardedDtlsTransport(ice, self._private("certificates"), gatherer.filtered)
        transport.on("statechange", self._private("updateConnectionState"))
        self._private("dtlsTransports").add(transport)
        self.transport = transport
        return transport

    def _RTCPeerConnection__createTransceiver(  # noqa: N802 - overrides aiortc's
        self, direction: str, kind: str, sender_track: None = None
    ) -> RTCRtpTransceiver:
        bundled = self.transport is not None
        transport = self._RTCPeerConnection__createDtlsTransport()
        sender = MomentSender(kind, transport, self._ground.now)
        receiver = VoiceReceiver(kind, transport, self._ground.now)
        self.senders[kind], self.receivers[kind] = sender, receiver
        transceiver = RTCRtpTransceiver(direction=direction, kind=kind, sender=sender, receiver=receiver)
        receiver._set_rtcp_ssrc(sender._ssrc)
        sender._stream_id = self._private("stream_id")
        transceiver._bundled = bundled
        capable = RTCRtpSender.getCapabilities(kind).codecs
        names = ("opus",) if kind == "audio" else (*(name.lower() for name in self._codecs), "rtx")
        transceiver.setCodecPreferences([codec for name in names for codec in capable if codec.name.lower() == name])
        self._private("transceivers").append(transceiver)
        return transceiver


async def close_connection(connection: Connection, seconds: float) -> None:
    """Close it, whatever state a hostile offer has left it in: aiortc's own close may raise or wait for ever."""
    try:
        async with asyncio.timeout(seconds):
            await connection.close()
    except (TimeoutError, ConnectionError, RuntimeError, *MALFORMED):
        logger.warning("a connection did not close by itself; its sockets are closed now", exc_info=True)
        for ice in connection.ice:
            ice.cut()
