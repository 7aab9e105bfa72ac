"""The HTTP surface, a method a route: WHIP and WHEP signalling, sessions and what they are told, health, the pages.

A request passes the doors in this order: is the house's name right, may this origin, who is it, how often, how much,
and only then is its body parsed. Nothing is created before that. Every refusal is one line of problem+json (RFC 9457).
"""

import asyncio
import contextlib
import io
import logging
import secrets
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from aiohttp import web

import clients
from engine import metrics as metrics_page
from engine.access import Deed, Denied, bearer
from engine.audiofile import AudioFileError, read_audio
from engine.doors import Answer, Handler, ProblemError, doors, dress
from engine.lobby import BusyError, Guest, JoinedError, Pcm, Speech, figures
from engine.protocol import ProtocolError, event_to_json, parse_object
from engine.rooms import Rooms
from engine.session import DrainingError, Session, SessionClosedError
from engine.tokens import TOKEN_SECONDS, TokenError, turn_credentials
from engine.voices import ADVICE, VoiceError
from engine.webrtc import BadOffer, Role
from engine.worker import NoFreeSlot
from models.avatar import PackageError, Shelf
from models.rates import CHUNK_SECONDS, HEARD_RATE
from models.runtime import AvatarCard

log = logging.getLogger(__name__)

SDP_BYTES_MOST: Final = 16 * 1024
SDP_MEDIA_MOST: Final = 3
JSON_BYTES_MOST: Final = 64 * 1024
FILE_BYTES_MOST: Final = 64 * 1024 * 1024
FILE_SECONDS_MOST: Final = 1800.0
BODY_SECONDS: Final = 10.0
"""A small body that takes longer to arrive is not waited for."""

READY_SECONDS: Final = 5.0
EVENT_STREAMS_MOST: Final = 8
KEEP_ALIVE_SECONDS: Final = 15.0

DISCLOSURE: Final = {
    "ai_generated": True,
    "label": "AI",
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
}
PAGES: Final = Path(clients.__file__ or ".").parent / "browser"
MEDIA_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".png": "image/png",
    ".ts": "text/plain",
    ".md": "text/plain",
}


def application(rooms: Rooms) -> web.Application:
    """The routes."""
    app = web.Application(middlewares=[doors(rooms)])
    api = Api(rooms)
    for method, path, handler in api.routes():
        if method == "GET":
            app.router.add_get(path, handler)  # and HEAD
        else:
            app.router.add_route(method, path, handler)
    return app


async def _write(response: web.StreamResponse, content: bytes) -> None:
    """A reader that takes nothing for ten seconds is not waited for any longer."""
    async with asyncio.timeout(10.0):
        await response.write(content)


def _policy(websocket_url: str) -> str:
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        f"font-src 'self'; connect-src 'self' {websocket_url.rsplit('/v1', 1)[0]}; manifest-src 'self'; "
        "form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
    )


class Api:
    """The handlers, a method a route."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        for path in ("/v1/whip", "/v1/whip/{avatar}", "/v1/sessions/{session}/whip"):
            yield "POST", path, self.whip
            yield "GET", path, self.nothing
        yield "POST", "/v1/whep/{session}", self.whep
        yield "GET", "/v1/whep/{session}", self.describe_whep
        yield "PATCH", "/v1/connections/{resource}", self.trickle
        yield "DELETE", "/v1/connections/{resource}", self.hang_up
        yield "GET", "/v1/connections/{resource}", self.nothing
        yield "POST", "/offer", self.offer
        yield "POST", "/v1/sessions", self.create
        yield "GET", "/v1/sessions", self.list_sessions
        yield "GET", "/v1/sessions/{session}", self.show_session
        yield "DELETE", "/v1/sessions/{session}", self.end
        yield "POST", "/v1/sessions/{session}/end", self.end
        yield "POST", "/v1/sessions/{session}/interrupt", self.interrupt
        yield "POST", "/v1/sessions/{session}/say", self.say
        yield "POST", "/v1/sessions/{session}/audio", self.audio
        yield "GET", "/v1/sessions/{session}/events", self.events
        yield "GET", "/v1/avatars", self.avatars
        yield "GET", "/v1/avatars/{avatar}/portrait", self.portrait
        yield "GET", "/v1/voices", self.voices
        yield "GET", "/v1/ice-servers", self.ice_servers
        yield "GET", "/healthz", self.healthz
        yield "GET", "/livez", self.healthz
        yield "GET", "/readyz", self.readyz
        yield "GET", "/metrics", self.metrics
        yield "GET", "/version", self.version
        yield "GET", "/", self.page
        yield "GET", "/admin", self.page
        yield "GET", "/watch/{session}", self.page
        yield "GET", "/{file}", self.page

    # Signalling

    async def whip(self, request: web.Request) -> Answer:
        """An offer of the one who speaks: of a ticket's holder, or of a standard WHIP client without one."""
        ticket = self._ticket(request)
        if ticket is None:
            self._check_create(request)
        offer = await self._offer_body(request)
        guest = self._admit(request.match_info.get("avatar")) if ticket is None else self._redeem(ticket)
        return self._created(request, *await self._join(guest, offer))

    async def whep(self, request: web.Request) -> Answer:
        """An offer of one who looks on."""
        session = self._session(request, "view")
        offer = await self._offer_body(request)
        try:
            answer, resource = await self.rooms.lobby.watch(session.id, offer)
        except BusyError as busy:
            raise ProblemError(503, "no-room", str(busy), 5.0) from busy
        except BadOffer as bad:
            raise _bad_offer(bad) from bad
        return self._created(request, answer, resource)

    async def describe_whep(self, request: web.Request) -> Answer:
        if request.method == "HEAD":
            return web.Response(headers={"Content-Type": "application/sdp"})
        return web.Response(status=204)

    async def trickle(self, request: web.Request) -> Answer:
        """Candidates are not needed: the server learns them from the client's own checks. Restarts are not offered."""
        self._connection(request)
        if _media_type(request) != "application/trickle-ice-sdpfrag":
            raise ProblemError(415, "unsupported-type", "send application/trickle-ice-sdpfrag")
        fragment = await self._body(request, SDP_BYTES_MOST)
        tag = request.headers.get("If-Match")
        if tag is None:
            raise ProblemError(428, "precondition-required", "send the ETag of the 201 as If-Match")
        if tag == "*":
            raise ProblemError(422, "no-restart", "this server does not restart ICE; send a new offer")
        if tag != _etag(request.match_info["resource"]):
            raise ProblemError(412, "precondition-failed", "the ETag is of another ICE session")
        if b"a=" not in fragment:
            raise ProblemError(400, "bad-fragment", "this is no SDP fragment")
        return web.Response(status=204)

    async def hang_up(self, request: web.Request) -> Answer:
        self._connection(request)
        await self.rooms.lobby.leave(request.match_info["resource"])
        return web.Response(status=200)

    async def nothing(self, request: web.Request) -> Answer:
        return web.Response(status=204)

    async def offer(self, request: web.Request) -> Answer:
        """As the aiortc examples do it: JSON in, JSON out."""
        self._check_create(request)
        said = await self._json(request)
        offer = said.get("sdp")
        if said.get("type") != "offer" or not isinstance(offer, str):
            raise ProblemError(400, "bad-offer", 'send {"sdp": …, "type": "offer"}')
        self._check_offer(offer)
        guest = self._admit(_optional_text(said, "avatar_id") or _optional_text(said, "avatar"))
        answer, resource = await self._join(guest, offer)
        token = self.rooms.mint.issue(guest.session.id, self.rooms.clock.wall(), join_seconds=0)
        return _json(
            {
                "sdp": answer,
                "type": "answer",
                "session_id": guest.session.id,
                "token": token,
                "resource": f"/v1/connections/{resource}",
            }
        )

    # Sessions

    async def create(self, request: web.Request) -> Answer:
        """A ticket: the seat is held for its owner, who has a minute's token to join with."""
        self._check_create(request)
        said = await self._json(request)
        transport = said.get("transport", "webrtc")
        avatar = _optional_text(said, "avatar_id")
        lookahead = said.get("lookahead")
        if lookahead is not None and (not isinstance(lookahead, int) or isinstance(lookahead, bool)):
            raise ProblemError(400, "bad-request", '"lookahead" is a number of frames')
        if transport == "webrtc":
            session_id = self._admit(avatar, lookahead).session.id
            card = self.rooms.house.sessions[session_id].card
        elif transport == "websocket":
            card = self._card(avatar)
            self._check_seats()
            session_id = self._websocket_ticket(card.name)
        else:
            raise ProblemError(400, "bad-request", '"transport" is "webrtc" or "websocket"')
        now = self.rooms.clock.wall()
        token = self.rooms.mint.issue(session_id, now)
        view = self.rooms.mint.issue(session_id, now, "view", join_seconds=0)
        body = {
            "session_id": session_id,
            "token": token,
            "avatar_id": card.name,
            "whip_url": f"/v1/sessions/{session_id}/whip",
            "whep_url": f"/v1/whep/{session_id}",
            "watch_url": f"/watch/{session_id}#token={view}",
            "ws_url": self.rooms.websocket_url(_host_name(request)),
            "ice_servers": self._ice_servers(session_id),
            "expires_at": round(now + TOKEN_SECONDS),
            "disclosure": DISCLOSURE | {"label": card.label},
        }
        return _json(body, status=201, headers={"Location": f"/v1/sessions/{session_id}"})

    async def list_sessions(self, request: web.Request) -> Answer:
        self._check_admin(request)
        rooms = self.rooms
        return _json(
            {
                "sessions": [self._figures(session) for session in tuple(rooms.house.sessions.values())],
                "slots": rooms.worker.slots,
                "free_slots": rooms.worker.free_slots,
                "draining": rooms.house.draining,
                "worker": {
                    "alive": rooms.worker.alive,
                    "backend": rooms.worker.backend,
                    "restarts": rooms.worker.restarts,
                    "held": rooms.worker.held,
                },
                "connections": _plain(rooms.peers.stats()),
            }
        )

    async def show_session(self, request: web.Request) -> Answer:
        return _json(self._figures(self._session(request, "view"), token=False))

    async def end(self, request: web.Request) -> Answer:
        self.rooms.lobby.end(self._session(request).id)
        return _json({"ended": True})

    async def interrupt(self, request: web.Request) -> Answer:
        session = self._session(request)
        began = self.rooms.clock.now()
        epoch = await session.interrupt()
        self.rooms.metrics.interrupt_latency.observe(self.rooms.clock.now() - began)
        return _json({"epoch": epoch})

    async def say(self, request: web.Request) -> Answer:
        session = self._session(request)
        said = await self._json(request)
        text = said.get("text")
        if not isinstance(text, str):
            raise ProblemError(400, "bad-request", 'send {"text": …}')
        try:
            words, card = await self.rooms.voices.check(text, _optional_text(said, "voice"))
        except VoiceError as refused:
            none = not await self.rooms.voices.voices()
            raise ProblemError(501 if none else 400, "no-voice" if none else "bad-request", str(refused)) from refused
        segment_id, _ = self._speak(session, self._spoken(words, card.id))
        return _json({"segment_id": segment_id, "voice": card.id}, status=202)

    async def audio(self, request: web.Request) -> Answer:
        """A file of any kind, or raw PCM (audio/pcm;rate=24000, s16 little-endian) as it comes."""
        session = self._session(request)
        kind = _media_type(request)
        if kind in ("audio/pcm", "audio/l16"):
            return await self._raw_audio(request, session, swapped=kind == "audio/l16")
        if self.rooms.uploads.locked():
            raise ProblemError(503, "busy", "too many files are on their way; try again", 2.0)
        async with self.rooms.uploads:
            content = await self._body(request, FILE_BYTES_MOST, seconds=60.0)
        pieces = read_audio(io.BytesIO(content), "the file", FILE_SECONDS_MOST)
        try:
            first = await self._next_piece(pieces)
        except AudioFileError as refused:
            raise ProblemError(415, "no-audio", str(refused)) from refused
        segment_id, _ = self._speak(session, self._played(first, pieces))
        return _json({"segment_id": segment_id}, status=202)

    async def events(self, request: web.Request) -> Answer:
        """Server-sent events: what the data channel tells, for those who have none."""
        session = self._session(request, "view")
        streams = self.rooms.streams
        if streams.get(session.id, 0) >= EVENT_STREAMS_MOST:
            raise ProblemError(429, "too-many", f"{EVENT_STREAMS_MOST} event streams of this session are open", 5.0)
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        dress(self.rooms, request, response)
        streams[session.id] = streams.get(session.id, 0) + 1
        try:
            async with session.events() as events:
                await response.prepare(request)
                await _write(response, b": liveface\n\n")
                reading = asyncio.ensure_future(anext(events, None))
                while True:
                    await asyncio.wait([reading], timeout=KEEP_ALIVE_SECONDS)
                    if not reading.done():
                        await _write(response, b": still here\n\n")
                        continue
                    event = reading.result()
                    if event is None:
                        break
                    await _write(response, f"event: {event.type}\ndata: {event_to_json(event)}\n\n".encode())
                    reading = asyncio.ensure_future(anext(events, None))
        except (ConnectionError, TimeoutError):
            log.debug("an event stream of %s was left", session.id)
        finally:
            with contextlib.suppress(UnboundLocalError):
                reading.cancel()
            streams[session.id] -= 1
            if not streams[session.id]:
                del streams[session.id]
        return response

    # What there is

    async def avatars(self, request: web.Request) -> Answer:
        return _json({"avatars": [await self._avatar(card) for card in self.rooms.worker.cards.values()]})

    async def portrait(self, request: web.Request) -> Answer:
        card = self._card(request.match_info["avatar"])
        if card.name not in self.rooms.portraits:
            loop = asyncio.get_running_loop()
            self.rooms.portraits[card.name] = await loop.run_in_executor(
                self.rooms.files, _portrait, self.rooms.shelf, card
            )
        return web.Response(
            body=self.rooms.portraits[card.name],
            content_type="image/jpeg",
            headers={"Cache-Control": "max-age=3600", "ETag": f'"{card.revision[:16]}"'},
        )

    async def voices(self, request: web.Request) -> Answer:
        cards = await self.rooms.voices.voices()
        said: dict[str, Any] = {
            "voices": [
                {"id": card.id, "name": card.name, "engine": card.engine, "language": card.language} for card in cards
            ]
        }
        return _json(said if cards else said | {"advice": ADVICE})

    async def ice_servers(self, request: web.Request) -> Answer:
        """TURN credentials, as `iceServers` of a browser and as draft-uberti-behave-turn-rest-00 has them."""
        token = bearer(request.headers.get("Authorization"))
        rooms = self.rooms
        user = "client"
        if rooms.access.key is not None and token is not None:
            with contextlib.suppress(TokenError):
                user = rooms.mint.read(token, rooms.clock.wall()).session_id
        if user == "client":
            self._check_create(request)
        servers = self._ice_servers(user)
        turn = next((server for server in servers if "username" in server), None)
        said: dict[str, Any] = {"ice_servers": servers, "iceServers": servers}
        if turn is not None:
            said |= {"username": turn["username"], "password": turn["credential"]}
            said |= {"ttl": rooms.config.turn.seconds, "uris": turn["urls"]}
        return _json(said)

    # How it is

    async def healthz(self, request: web.Request) -> Answer:
        return web.Response(text="alive\n")

    async def readyz(self, request: web.Request) -> Answer:
        """Ready means: a picture was made in the last seconds, and newcomers are let in. Full is ready too."""
        wrong = unreadiness(self.rooms)
        if wrong is not None:
            raise ProblemError(503, "not-ready", wrong, 5.0)
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> Answer:
        self._check_admin(request)
        page = self.rooms.metrics.expose()
        return web.Response(body=page.encode(), headers={"Content-Type": metrics_page.CONTENT_TYPE})

    async def version(self, request: web.Request) -> Answer:
        rooms = self.rooms
        return _json(
            {
                "name": "liveface",
                "version": rooms.version,
                "backend": rooms.worker.backend,
                "avatars": list(rooms.worker.cards),
                "probe": rooms.config.probe,
                "ws_url": rooms.websocket_url(_host_name(request)),
            }
        )

    async def page(self, request: web.Request) -> Answer:
        """The demo, the viewer's page, the operator's page, and their files: only what lies in clients/browser."""
        name = request.match_info.get("file")
        if name is None:
            name = {"/": "index.html", "/admin": "admin.html"}.get(request.path, "watch.html")
        path = _pages().get(name)
        if path is None:
            raise ProblemError(404, "not-found", "there is nothing at this address")
        content = await asyncio.get_running_loop().run_in_executor(self.rooms.files, path.read_bytes)
        response = web.Response(body=content, content_type=MEDIA_TYPES[path.suffix], charset="utf-8")
        response.headers["Cache-Control"] = "no-cache"
        if path.suffix == ".html":
            response.headers["Content-Security-Policy"] = _policy(self.rooms.websocket_url(_host_name(request)))
        return response

    # Doors

    def _token(self, request: web.Request) -> str | None:
        return bearer(request.headers.get("Authorization"))

    def _check_create(self, request: web.Request) -> None:
        self.rooms.access.check_create(self._token(request))

    def _check_admin(self, request: web.Request) -> None:
        forwarded = any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP"))
        self.rooms.access.check_admin(self._token(request), request.remote or "", forwarded)

    def _session(self, request: web.Request, deed: Deed = "control") -> Session:
        """The session of the path, for one who may act on it so. Who may not learns nothing about it."""
        session_id = request.match_info["session"]
        self.rooms.access.check_session(self._token(request), session_id, deed)
        session = self.rooms.house.sessions.get(session_id)
        if session is None or session.closed.is_set():
            raise ProblemError(404, "no-session", "there is no such session; it may have ended")
        return session

    def _connection(self, request: web.Request) -> Guest:
        """The guest behind a connection's address; knowing the address is not enough where there is a key."""
        found = self.rooms.lobby.resource(request.match_info["resource"])
        token = self._token(request)
        access = self.rooms.access
        if found is None:
            if access.key is not None and token is None:
                raise Denied(401, "this needs the session's token")
            raise ProblemError(404, "no-connection", "there is no such connection; it may have ended")
        if access.key is not None or token is not None:
            deed: Deed = "control" if found[1] is found[0].owner else "view"
            if access.key is not None or access.local:
                access.check_session(token, found[0].session.id, deed)
        return found[0]

    def _ticket(self, request: web.Request) -> tuple[str, str | None] | None:
        """The session that this request wants to join, and the token that will be used up; None: one of its own."""
        access, token = self.rooms.access, self._token(request)
        session_id = request.match_info.get("session")
        if token is not None and token.startswith("lf1.") and token != access.key:
            session_id = session_id or access.session_of(token)
        elif session_id is None:
            return None
        else:
            token = None
        access.check_session(token or self._token(request), session_id, "control")
        guest = self.rooms.lobby.guest(session_id)
        if guest is None:
            raise ProblemError(404, "no-session", "there is no such session; it may have ended")
        if guest.taken:
            raise ProblemError(409, "joined", "this session has its connection already; ask for a new session")
        return session_id, token

    def _redeem(self, ticket: tuple[str, str | None]) -> Guest:
        session_id, token = ticket
        if token is not None:
            self.rooms.access.join(token)
        guest = self.rooms.lobby.guest(session_id)
        if guest is None:
            raise ProblemError(404, "no-session", "there is no such session; it may have ended")
        return guest

    async def _offer_body(self, request: web.Request) -> str:
        if _media_type(request) != "application/sdp":
            raise ProblemError(415, "unsupported-type", "send the offer as application/sdp")
        try:
            offer = (await self._body(request, SDP_BYTES_MOST)).decode()
        except UnicodeDecodeError as broken:
            raise ProblemError(400, "bad-offer", "the offer is not UTF-8") from broken
        self._check_offer(offer)
        return offer

    def _check_offer(self, offer: str) -> None:
        """Before any parser sees it."""
        if len(offer.encode()) > SDP_BYTES_MOST:
            raise ProblemError(413, "too-big", f"an offer has at most {SDP_BYTES_MOST} bytes")
        if not offer.startswith("v="):
            raise ProblemError(400, "bad-offer", "this is no SDP offer")
        if not 1 <= f"\n{offer}".count("\nm=") <= SDP_MEDIA_MOST:
            raise ProblemError(400, "bad-offer", f"an offer has one to {SDP_MEDIA_MOST} m-lines")

    async def _json(self, request: web.Request) -> dict[str, Any]:
        content = await self._body(request, JSON_BYTES_MOST)
        if not content:
            return {}
        try:
            return parse_object(content.decode())
        except (UnicodeDecodeError, ProtocolError) as bad:
            raise ProblemError(400, "bad-json", f"the body is no JSON object: {bad}"[:200]) from bad

    async def _body(self, request: web.Request, most: int, seconds: float | None = None) -> bytes:
        """The body, bounded in size and time. It is refused by its declared length before a byte is read."""
        seconds = BODY_SECONDS if seconds is None else seconds
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise ProblemError(415, "unsupported-type", "send the body without Content-Encoding")
        if (request.content_length or 0) > most:
            raise ProblemError(413, "too-big", f"the body may have {most} bytes")
        content = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for piece in request.content.iter_any():
                    content += piece
                    if len(content) > most:
                        raise ProblemError(413, "too-big", f"the body may have {most} bytes")
        except TimeoutError as slow:
            raise ProblemError(408, "too-slow", f"the body did not arrive within {seconds:g} s") from slow
        return bytes(content)

    # Deeds

    def _admit(self, avatar: str | None, lookahead: int | None = None) -> Guest:
        rooms = self.rooms
        try:
            return rooms.lobby.admit(self._card(avatar).name, lookahead)
        except NoFreeSlot as full:
            rooms.metrics.refused.add(reason="no_slot")
            raise ProblemError(503, "no-slot", str(full), full.retry_after) from full
        except DrainingError as closing:
            rooms.metrics.refused.add(reason="draining")
            raise ProblemError(503, "draining", str(closing), 30.0) from closing
        except ValueError as bad:
            raise ProblemError(400, "bad-request", str(bad)) from bad

    def _card(self, avatar: str | None) -> AvatarCard:
        cards = self.rooms.worker.cards
        if avatar is None and cards:
            return next(iter(cards.values()))
        card = cards.get(avatar or "")
        if card is None:
            raise ProblemError(404, "no-avatar", f"no avatar is called so; there are: {', '.join(cards) or 'none'}")
        return card

    def _check_seats(self) -> None:
        if self.rooms.house.draining:
            raise ProblemError(503, "draining", "the server is closing and takes no new sessions", 30.0)
        if not self.rooms.worker.free_slots:
            full = NoFreeSlot(self.rooms.worker.slots)
            raise ProblemError(503, "no-slot", str(full), full.retry_after)

    def _websocket_ticket(self, avatar: str) -> str:
        tickets, now = self.rooms.tickets, self.rooms.clock.now()
        for session_id in [known for known, (_, until) in tickets.items() if until < now]:
            del tickets[session_id]
        if len(tickets) >= 10_000:
            raise ProblemError(503, "no-slot", "too many tickets wait for their guests", 10.0)
        session_id = secrets.token_urlsafe(16)
        tickets[session_id] = (avatar, now + TOKEN_SECONDS)
        return session_id

    async def _join(self, guest: Guest, offer: str, role: Role | None = None) -> tuple[str, str]:
        try:
            return await self.rooms.lobby.join(guest, offer, role)
        except JoinedError as again:
            raise ProblemError(409, "joined", str(again)) from again
        except SessionClosedError as gone:
            raise ProblemError(404, "no-session", str(gone)) from gone
        except BadOffer as bad:
            raise _bad_offer(bad) from bad

    def _created(self, request: web.Request, answer: str, resource: str) -> web.Response:
        response = web.Response(
            status=201,
            body=answer.encode(),
            headers={
                "Content-Type": "application/sdp",
                "Location": f"/v1/connections/{resource}",
                "ETag": _etag(resource),
                "Cache-Control": "no-store",
            },
        )
        for server in self._ice_servers(resource[:8]):
            for url in server["urls"]:
                secret = (
                    f'; username="{server["username"]}"; credential="{server["credential"]}"; '
                    'credential-type="password"'
                    if "username" in server
                    else ""
                )
                response.headers.add("Link", f'<{url}>; rel="ice-server"{secret}')
        return response

    def _speak(self, session: Session, speech: Speech) -> tuple[str, asyncio.Task[None]]:
        try:
            return self.rooms.lobby.say(session.id, speech)
        except BusyError as busy:
            raise ProblemError(429, "too-many", str(busy), 5.0) from busy

    async def _spoken(self, text: str, voice: str) -> Speech:
        async with contextlib.aclosing(self.rooms.voices.speak(text, voice)) as pieces:
            async for piece in pieces:
                yield piece.pcm, piece.rate

    async def _played(self, first: Pcm, rest: Iterator[Pcm]) -> Speech:
        piece: Pcm | None = first
        try:
            while piece is not None:
                yield piece, HEARD_RATE
                piece = await self._next_piece(rest)
        except AudioFileError as broken:
            raise VoiceError(str(broken)) from broken

    async def _next_piece(self, pieces: Iterator[Pcm]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.rooms.files, next, pieces, None)

    async def _raw_audio(self, request: web.Request, session: Session, swapped: bool) -> Answer:
        try:
            rate = int(_parameters(request).get("rate", ""))
        except ValueError as missing:
            raise ProblemError(400, "bad-request", "say the rate: Content-Type: audio/pcm;rate=16000") from missing
        if not 8_000 <= rate <= 48_000:
            raise ProblemError(400, "bad-request", "the rate is 8000 to 48000 Hz")
        samples = 0

        async def pieces() -> Speech:
            nonlocal samples
            odd = b""
            async for received in request.content.iter_chunked(rate // 5 * 2):
                whole = odd + received
                odd = whole[len(whole) // 2 * 2 :]
                pcm = np.frombuffer(whole[: len(whole) // 2 * 2], ">i2" if swapped else "<i2").astype(np.int16)
                yield pcm, rate
                samples += len(pcm)

        segment_id, speaking = self._speak(session, pieces())
        await asyncio.wait([speaking])
        return _json({"segment_id": segment_id, "seconds": round(samples / rate, 3)})

    # Facts

    def _figures(self, session: Session, token: bool = True) -> dict[str, Any]:
        said = session.stats() | figures(session, self.rooms.peers)
        said["connections"] = [_plain(peer.stats()) for peer in self.rooms.peers.of(session)]
        if token:
            said["view_token"] = self.rooms.mint.issue(session.id, self.rooms.clock.wall(), "view", join_seconds=0)
        return _plain(said)

    async def _avatar(self, card: AvatarCard) -> dict[str, Any]:
        titles, loop = self.rooms.titles, asyncio.get_running_loop()
        if card.name not in titles:
            titles[card.name] = await loop.run_in_executor(self.rooms.files, _title, self.rooms.shelf, card)
        return {
            "id": card.name,
            "title": titles[card.name],
            "portrait_url": f"/v1/avatars/{card.name}/portrait",
            "width": card.width,
            "height": card.height,
            "lookahead_ms": round(1000 * card.lookahead * CHUNK_SECONDS),
            "synthetic": card.synthetic,
        }

    def _ice_servers(self, user: str) -> list[dict[str, Any]]:
        turn = self.rooms.config.turn
        stun = [url for url in turn.urls if url.startswith("stun")]
        relays = [url for url in turn.urls if not url.startswith("stun")]
        servers: list[dict[str, Any]] = [{"urls": stun}] if stun else []
        if relays and turn.secret is not None:
            pair = turn_credentials(turn.secret.value, user, self.rooms.clock.wall(), turn.seconds)
            servers.append({"urls": relays, "username": pair.username, "credential": pair.credential})
        return servers


def unreadiness(rooms: Rooms) -> str | None:
    """What is wrong, in words; None when the server is ready."""
    if rooms.house.draining:
        return "the server is closing"
    if not rooms.worker.alive:
        return "the model's process is being replaced"
    last = rooms.worker.last_step
    if last is None or rooms.clock.now() - last > READY_SECONDS:
        return f"no picture was made in the last {READY_SECONDS:g} s"
    return None


def _bad_offer(bad: BadOffer) -> ProblemError:
    return ProblemError(bad.status, "bad-offer", str(bad), 5.0 if bad.status == 503 else None)


def _etag(resource: str) -> str:
    return f'"{resource[:12]}"'


def _media_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _parameters(request: web.Request) -> dict[str, str]:
    """Of the Content-Type."""
    pairs = (part.partition("=") for part in request.headers.get("Content-Type", "").split(";")[1:])
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def _host_name(request: web.Request) -> str:
    """The name that the client knows this machine by, for addresses on other ports."""
    name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    return name if name and all(letter.isalnum() or letter in ".-_[]:" for letter in name) else "localhost"


def _optional_text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise ProblemError(400, "bad-request", f'"{name}" is a text')
    return value


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        name: (None if isinstance(value, float) and not np.isfinite(value) else value) for name, value in said.items()
    }


def _pages() -> dict[str, Path]:
    """File name → path of what may be served. Listed, not looked up, so that no path leads out."""
    return {path.name: path for path in PAGES.iterdir() if path.is_file() and path.suffix in MEDIA_TYPES}


def _title(shelf: Shelf, card: AvatarCard) -> str:
    try:
        return shelf.avatar(card.name).title
    except PackageError:
        return card.name.replace("_", " ").title()


def _portrait(shelf: Shelf, card: AvatarCard) -> bytes:
    """The package's portrait, or the first picture of the loop."""
    with contextlib.suppress(PackageError):
        return shelf.avatar(card.name).read("portrait.jpg")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(card.loop[0]), format="yuv420p")
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height, codec.pix_fmt = card.width, card.height, "yuvj420p"
    codec.time_base = Fraction(1, 25)
    packets = [*codec.encode(frame.reformat(format="yuvj420p")), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
