"""Our parts in aiortc's connection, and what we need of aiortc. Whole connections are in test_webrtc.py."""

import asyncio
import time

import pytest
from aiortc import RTCRtpReceiver, RTCRtpSender

from engine.connection import Connection, close_connection
from engine.egress import MomentSender
from engine.icefilter import Ground


async def test_contract_what_this_skin_needs_of_aiortc_is_still_there() -> None:
    """Fails when aiortc moves what `Connection` overrides or calls; then read `RTCPeerConnection` again."""
    connection = Connection(Ground(time.monotonic), ("VP8", "H264"))
    for name in (
        "certificates",
        "createDtlsTransport",
        "createTransceiver",
        "dtlsTransports",
        "iceTransports",
        "stream_id",
        "transceivers",
        "updateConnectionState",
        "updateIceConnectionState",
        "updateIceGatheringState",
    ):
        connection._private(name)
    transceiver = connection._RTCPeerConnection__createTransceiver("recvonly", "video")
    assert isinstance(transceiver.sender, MomentSender)
    assert connection.getTransceivers() == [transceiver]
    for name in ("send", "stop", "_handle_rtcp_packet"):
        assert name in vars(MomentSender)
        assert callable(getattr(RTCRtpSender, name))
    assert callable(RTCRtpReceiver.setTransport)
    assert {"_ssrc", "_rtx_ssrc", "_stream_id", "_track_id"} <= set(vars(transceiver.sender))
    await connection.close()


async def test_a_connection_that_does_not_close_has_its_sockets_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(Ground(time.monotonic), ("VP8",))
    connection._RTCPeerConnection__createTransceiver("recvonly", "audio")

    async def never() -> None:
        await asyncio.Event().wait()

    cut: list[bool] = []
    monkeypatch.setattr(connection, "close", never)
    monkeypatch.setattr(connection.ice[0], "cut", lambda: cut.append(True))
    began = time.monotonic()
    await close_connection(connection, 0.05)
    assert cut == [True]
    assert time.monotonic() - began < 5
    monkeypatch.undo()
    await close_connection(connection, 5)
