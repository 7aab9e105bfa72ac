"""The WebRTC skin: offers in, answers out, and one Broadcast per session that encodes once for all its viewers.

    async with Peers(clock, host_addresses=["127.0.0.1"]) as peers:
        answer, peer = await peers.answer(offer_sdp, session)      # raises BadOffer(status, message)
        await peer.closed.wait()                                   # then peer.reason says why

Whoever owns the session closes it; a peer never does. A peer ends by itself when its connection fails, when a deadline
passes, or when its session's outlet ends.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from engine.clock import Clock
from engine.media import Event, Moment
from models.runtime import Wants

EVENTS_CHANNEL = "avatar-events"


class BadOffer(ValueError):
    """An offer that gets no answer. `status` is the HTTP status to send, `str(error)` one line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Role(Enum):
    """What a connection is for; an offer's own directions decide unless the route does."""

    DUPLEX = "duplex"  # voice up, voice and picture down, events both ways
    WHIP = "whip"  # strict: a voice source; the answer receives only
    WHEP = "whep"  # strict: a viewer; the answer sends only


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds after which a connection is closed."""

    first_media: float = 15.0
    """To a finished handshake, and for a voice source to its first sound."""
    silence: float = 12.0
    """Without any authenticated packet: media, RTCP, ICE check. A muted microphone still sends the last two; a black-out
    of 10 s has 2 s to come back."""
    close: float = 5.0
    """For closing itself."""


class Conversation(Protocol):
    """What this skin needs of `engine.session.Session`."""

    @property
    def id(self) -> str: ...

    async def push_audio(
        self,
        pcm: npt.NDArray[np.int16],
        rate: int,
        pts: int | None = None,
        segment_id: str | None = None,
        arrived: float | None = None,
    ) -> None: ...

    async def flush(self, segment_id: str | None = None) -> None: ...

    async def interrupt(self) -> int: ...

    def outlet(
        self, wants: Wants = Wants.PICTURE, capacity: int = 4
    ) -> AbstractAsyncContextManager[AsyncIterator[Moment]]: ...

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[Event]]: ...


class Peer:
    """One connection. Made by `Peers.answer`; ends by itself or by `close`."""

    id: str
    role: Role
    session: Conversation
    closed: asyncio.Event
    """Set once nothing of the connection is left: tasks, sockets, its place among the viewers."""
    connected: asyncio.Event
    reason: str | None
    """After `closed`: 'left', 'failed', 'never connected', 'silent', 'session ended', 'closed by the server' …"""

    async def close(self, reason: str = "closed by the server") -> None:
        """End the connection within `Deadlines.close`. Safe to call twice."""
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """Counters and the round trip, in seconds, for /metrics and events."""
        raise NotImplementedError


class Peers:
    """All connections of a server, with the encode threads and the addresses they share.

    `host_addresses`: local addresses to bind and advertise, "bind" or "bind=advertised" for one-to-one NAT; none means
    every address of this machine but loopback. `ports`: UDP ports to choose from, inclusive; none means any free one.
    `codecs`: video codecs in the order of preference, of "VP8" and "H264".
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
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every peer, then the encode threads."""
        raise NotImplementedError

    @property
    def peers(self) -> list[Peer]:
        """Those that are not closed."""
        raise NotImplementedError

    def of(self, session: Conversation) -> list[Peer]:
        """The peers of one session."""
        raise NotImplementedError

    async def answer(self, offer_sdp: str, session: Conversation, role: Role | None = None) -> tuple[str, Peer]:
        """Answer an offer. Without `role` the offer decides: all sendonly is WHIP, all recvonly WHEP, else duplex.

        Raises `BadOffer` and leaves nothing behind when the offer is malformed, too long, not for us, or when no UDP
        port is free (status 503). Remote candidates are ignored, so trickled ones need no route: answer them 204.
        """
        raise NotImplementedError

    def stats(self) -> dict[str, Any]:
        """Totals over all peers since the start: the fields of `Peer.stats`, summed."""
        raise NotImplementedError
