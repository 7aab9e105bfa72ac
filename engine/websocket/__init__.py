"""Faces over websockets: `avatar.v1` on a port of its own. A thin skin: what is said is in engine/protocol.

    async with House(worker, clock) as house, serve_websocket(house, clock, avatar="demo") as stream:
        print(stream.url)  # ws://127.0.0.1:8801/v1/stream

A client that is slow loses pictures and faces, never events; one that stalls is closed. Nobody else notices either.
"""

import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from engine.clock import Clock
from engine.limits import Limits, retry_after
from engine.protocol import MESSAGE_BYTES_MOST, PATH, SUBPROTOCOL
from engine.protocol.closing import Close, ProtocolError
from engine.session import House
from engine.websocket.admission import Admission, Authorise, Patience, everybody
from engine.websocket.guest import Guest

__all__ = ["Admission", "Patience", "Stream", "serve_websocket"]

log = logging.getLogger(__name__)
library_log = logging.getLogger(f"{__name__}.library")
library_log.setLevel(logging.ERROR)  # a line for every stranger who connects would bury ours

FRAMES_QUEUED: Final = 8


WRITE_LIMIT: Final = 4096
"""Bytes that may wait in this process. What waits is old; the newest face should be next."""


UNSENT_BYTES: Final = 8192
"""Bytes that the kernel may hold unsent, for the same reason."""


class Stream:
    """The websocket server: who is here, and what has been counted."""

    def __init__(
        self,
        house: House,
        clock: Clock,
        avatar: str | None,
        authorise: Authorise,
        origins: Collection[str],
        limits: Limits | None,
        guests_most: int,
        server: Mapping[str, str],
        patience: Patience,
        jpeg_threads: ThreadPoolExecutor,
    ) -> None:
        self.house = house
        self.clock = clock
        self.avatar = avatar
        self.authorise = authorise
        self.server: Mapping[str, str] = dict(server)
        self.patience = patience
        self.threads = jpeg_threads
        self.host, self.port = "", 0
        self.closed: Counter[str] = Counter()
        """How connections ended, by the string of their close code."""
        self.sent: Counter[str] = Counter()
        """Messages sent, by kind."""
        self.frames_dropped = 0
        self.owners: dict[str, Guest] = {}
        """Which guest speaks for a session that was opened here."""
        self._guests: set[Guest] = set()
        self._origins = set(origins)
        self._limits = limits
        self._guests_most = guests_most

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}{PATH}"

    @property
    def guests(self) -> int:
        return len(self._guests)

    def stats(self) -> dict[str, Any]:
        return {
            "guests": len(self._guests),
            "closed": dict(self.closed),
            "sent": dict(self.sent),
            "frames_dropped": self.frames_dropped + sum(guest.outbox.frames_dropped for guest in self._guests),
        }

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """The HTTP answer to a handshake that goes no further, or None."""
        path = urlsplit(request.path).path
        if path in ("/healthz", "/livez"):
            return connection.respond(HTTPStatus.OK, "alive\n")
        if path != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"faces are at {PATH}\n")
        address = connection.remote_address[0] if connection.remote_address else ""
        if self._limits is not None and (wait := self._limits.wait(self.clock.now(), address)) > 0.0:
            return self._later(connection, HTTPStatus.TOO_MANY_REQUESTS, wait)
        if len(self._guests) >= self._guests_most:
            return self._later(connection, HTTPStatus.SERVICE_UNAVAILABLE, 5.0)
        origin = request.headers.get("Origin")
        if origin is not None and not self._welcome(origin, request.headers.get("Host", "")):
            return connection.respond(
                HTTPStatus.FORBIDDEN, f"pages of {origin} are not allowed here: see --access-origins\n"
            )
        return None

    async def attend(self, connection: ServerConnection) -> None:
        """One client, from its hello to its end."""
        unhurried(connection)
        guest = Guest(self, connection)
        self._guests.add(guest)
        try:
            await guest.stay()
        finally:
            self._guests.discard(guest)
            self.closed[guest.ended.string] += 1
            self.frames_dropped += guest.outbox.frames_dropped

    def _welcome(self, origin: str, host: str) -> bool:
        """Pages of other sites may not speak in their visitor's name (cross-site websocket hijack). Allowed are those
        that were named, this machine's own when the server is on loopback, and those of the server's own host."""
        if "*" in self._origins or origin in self._origins:
            return True
        page, asked = urlsplit(origin).hostname, urlsplit(f"//{host}").hostname
        if _loopback(self.host):
            return _loopback(page) and _loopback(asked)
        return page is not None and page == asked

    def _later(self, connection: ServerConnection, status: HTTPStatus, seconds: float) -> Response:
        response = connection.respond(status, "too many; try again later\n")
        response.headers["Retry-After"] = retry_after(seconds)
        return response


def unhurried(connection: ServerConnection) -> None:
    """Keep the kernel's queue short, so that a slow reader gets new faces late instead of old ones later."""
    plug = connection.transport.get_extra_info("socket")
    if plug is not None:
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


def _loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _subprotocol(connection: ServerConnection, offered: Any) -> Subprotocol:
    if SUBPROTOCOL not in offered:
        raise NegotiationError(f"this server speaks {SUBPROTOCOL} only; offer it as the websocket subprotocol")
    return Subprotocol(SUBPROTOCOL)


@asynccontextmanager
async def serve_websocket(
    house: House,
    clock: Clock,
    *,
    host: str = "127.0.0.1",
    port: int = 8801,
    avatar: str | None = None,
    authorise: Authorise = everybody,
    origins: Collection[str] = (),
    limits: Limits | None = None,
    guests_most: int = 512,
    server: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[Stream]:
    """`avatar.v1` at `ws://host:port/v1/stream` until the block ends; then every client is closed with 1012.

    `port=0` takes a free one (see `Stream.port`). `avatar` is for clients that name none. Raises OSError when the port
    is taken.
    """
    patience = patience or Patience()
    with ThreadPoolExecutor(1, "websocket pictures") as threads:
        stream = Stream(
            house,
            clock,
            avatar,
            authorise,
            origins,
            limits,
            guests_most,
            server or {"name": "liveface"},
            patience,
            threads,
        )
        listener = await serve(
            stream.attend,
            host,
            port,
            select_subprotocol=_subprotocol,
            process_request=stream.refuse,
            compression=None,
            max_size=MESSAGE_BYTES_MOST,
            max_queue=FRAMES_QUEUED,
            write_limit=WRITE_LIMIT,
            open_timeout=patience.handshake,
            close_timeout=patience.farewell,
            ping_interval=None,  # see Guest._pulse: a silent client is 4408 here, not 1011
            server_header=None,
            logger=library_log,
        )
        stream.host, stream.port = listener.sockets[0].getsockname()[:2]
        log.info("faces at %s", stream.url)
        try:
            yield stream
        finally:
            for guest in tuple(stream._guests):
                guest.end(ProtocolError(Close.RESTART, "the server is closing"))
            listener.close(code=Close.RESTART.code, reason=Close.RESTART.string)
            await listener.wait_closed()
