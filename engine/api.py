"""The HTTP surface: sessions and what they are told, beside signalling.py and pages.py.

A request passes the doors in this order: is the house's name right, may this origin, who is it, how often, how much,
and only then is its body parsed. Nothing is created before that. Every refusal is one line of problem+json (RFC 9457).
"""

import asyncio
import contextlib
import io
import logging
import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from aiohttp import web

from engine.audiofile import AudioFileError, read_audio
from engine.bodies import body, host_name, json_body, media_type, optional_text, parameters, said_json
from engine.doors import Answer, Handler, ProblemError, doors, dress
from engine.lobby import BusyError, Pcm, Speech, figures
from engine.pages import Pages
from engine.protocol.events import event_to_json
from engine.reception import Reception
from engine.rooms import Rooms
from engine.session import Session
from engine.signalling import Signalling
from engine.tokens import TOKEN_SECONDS
from engine.voices import VoiceError
from models.rates import HEARD_RATE

log = logging.getLogger(__name__)

FILE_BYTES_MOST: Final = 64 * 1024 * 1024
FILE_SECONDS_MOST: Final = 1800.0
EVENT_STREAMS_MOST: Final = 8
KEEP_ALIVE_SECONDS: Final = 15.0

DISCLOSURE: Final = {
    "ai_generated": True,
    "label": "AI",
    "digital_source_type": "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia",
}


def application(rooms: Rooms) -> web.Application:
    """All routes. The pages come last: theirs take whatever name is left."""
    app = web.Application(middlewares=[doors(rooms)])
    reception = Reception(rooms)
    for room in (Signalling(reception), Sessions(reception), Pages(reception)):
        for method, path, handler in room.routes():
            if method == "GET":
                app.router.add_get(path, handler)  # and HEAD
            else:
                app.router.add_route(method, path, handler)
    return app


class Sessions:
    """A session begins, is told what to say, tells what happens, and ends."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception
        self.rooms = reception.rooms

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        yield "POST", "/v1/sessions", self.create
        yield "GET", "/v1/sessions", self.list_sessions
        yield "GET", "/v1/sessions/{session}", self.show_session
        yield "DELETE", "/v1/sessions/{session}", self.end
        yield "POST", "/v1/sessions/{session}/end", self.end
        yield "POST", "/v1/sessions/{session}/interrupt", self.interrupt
        yield "POST", "/v1/sessions/{session}/say", self.say
        yield "POST", "/v1/sessions/{session}/audio", self.audio
        yield "GET", "/v1/sessions/{session}/events", self.events

    async def create(self, request: web.Request) -> Answer:
        """A ticket: the seat is held for its owner, who has a minute's token to join with."""
        self.reception.check_create(request)
        said = await json_body(request)
        transport = said.get("transport", "webrtc")
        avatar = optional_text(said, "avatar_id")
        lookahead = said.get("lookahead")
        if lookahead is not None and (not isinstance(lookahead, int) or isinstance(lookahead, bool)):
            raise ProblemError(400, "bad-request", '"lookahead" is a number of frames')
        if transport == "webrtc":
            session_id = self.reception.admit(avatar, lookahead).session.id
            card = self.rooms.house.sessions[session_id].card
        elif transport == "websocket":
            card = self.reception.card(avatar)
            self.reception.check_seats()
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
            "ws_url": self.rooms.websocket_url(host_name(request)),
            "ice_servers": self.reception.ice_servers(session_id),
            "expires_at": round(now + TOKEN_SECONDS),
            "disclosure": DISCLOSURE | {"label": card.label},
        }
        return said_json(body, status=201, headers={"Location": f"/v1/sessions/{session_id}"})

    async def list_sessions(self, request: web.Request) -> Answer:
        self.reception.check_admin(request)
        rooms = self.rooms
        return said_json(
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
        return said_json(self._figures(self.reception.session(request, "view"), token=False))

    async def end(self, request: web.Request) -> Answer:
        self.rooms.lobby.end(self.reception.session(request).id)
        return said_json({"ended": True})

    async def interrupt(self, request: web.Request) -> Answer:
        session = self.reception.session(request)
        began = self.rooms.clock.now()
        epoch = await session.interrupt()
        self.rooms.metrics.interrupt_latency.observe(self.rooms.clock.now() - began)
        return said_json({"epoch": epoch})

    async def say(self, request: web.Request) -> Answer:
        session = self.reception.session(request)
        said = await json_body(request)
        text = said.get("text")
        if not isinstance(text, str):
            raise ProblemError(400, "bad-request", 'send {"text": …}')
        try:
            words, card = await self.rooms.voices.check(text, optional_text(said, "voice"))
        except VoiceError as refused:
            none = not await self.rooms.voices.voices()
            raise ProblemError(501 if none else 400, "no-voice" if none else "bad-request", str(refused)) from refused
        segment_id, _ = self._speak(session, self._spoken(words, card.id))
        return said_json({"segment_id": segment_id, "voice": card.id}, status=202)

    async def audio(self, request: web.Request) -> Answer:
        """A file of any kind, or raw PCM (audio/pcm;rate=24000, s16 little-endian) as it comes."""
        session = self.reception.session(request)
        kind = media_type(request)
        if kind in ("audio/pcm", "audio/l16"):
            return await self._raw_audio(request, session, swapped=kind == "audio/l16")
        if self.rooms.uploads.locked():
            raise ProblemError(503, "busy", "too many files are on their way; try again", 2.0)
        async with self.rooms.uploads:
            content = await body(request, FILE_BYTES_MOST, seconds=60.0)
        pieces = read_audio(io.BytesIO(content), "the file", FILE_SECONDS_MOST)
        try:
            first = await self._next_piece(pieces)
        except AudioFileError as refused:
            raise ProblemError(415, "no-audio", str(refused)) from refused
        segment_id, _ = self._speak(session, self._played(first, pieces))
        return said_json({"segment_id": segment_id}, status=202)

    async def events(self, request: web.Request) -> Answer:
        """Server-sent events: what the data channel tells, for those who have none."""
        session = self.reception.session(request, "view")
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

    def _websocket_ticket(self, avatar: str) -> str:
        tickets, now = self.rooms.tickets, self.rooms.clock.now()
        for session_id in [known for known, (_, until) in tickets.items() if until < now]:
            del tickets[session_id]
        if len(tickets) >= 10_000:
            raise ProblemError(503, "no-slot", "too many tickets wait for their guests", 10.0)
        session_id = secrets.token_urlsafe(16)
        tickets[session_id] = (avatar, now + TOKEN_SECONDS)
        return session_id

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
            rate = int(parameters(request).get("rate", ""))
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
        return said_json({"segment_id": segment_id, "seconds": round(samples / rate, 3)})

    def _figures(self, session: Session, token: bool = True) -> dict[str, Any]:
        said = session.stats() | figures(session, self.rooms.peers)
        said["connections"] = [_plain(peer.stats()) for peer in self.rooms.peers.of(session)]
        if token:
            said["view_token"] = self.rooms.mint.issue(session.id, self.rooms.clock.wall(), "view", join_seconds=0)
        return _plain(said)


async def _write(response: web.StreamResponse, content: bytes) -> None:
    """A reader that takes nothing for ten seconds is not waited for any longer."""
    async with asyncio.timeout(10.0):
        await response.write(content)


def _plain(said: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {
        name: (None if isinstance(value, float) and not np.isfinite(value) else value) for name, value in said.items()
    }
