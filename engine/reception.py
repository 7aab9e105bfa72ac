"""Who asks, for whom, and whether there is a seat: what every handler settles before it does anything."""

from typing import Any

from aiohttp import web

from engine.access import Deed, bearer
from engine.doors import ProblemError
from engine.lobby import Guest
from engine.rooms import Rooms
from engine.session import DrainingError, Session
from engine.tokens import turn_credentials
from engine.worker import NoFreeSlot
from models.runtime import AvatarCard


class Reception:
    """Raises what the doors turn into an answer: Denied, or ProblemError."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms

    def token(self, request: web.Request) -> str | None:
        return bearer(request.headers.get("Authorization"))

    def check_create(self, request: web.Request) -> None:
        self.rooms.access.check_create(self.token(request))

    def check_admin(self, request: web.Request) -> None:
        forwarded = any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP"))
        self.rooms.access.check_admin(self.token(request), request.remote or "", forwarded)

    def session(self, request: web.Request, deed: Deed = "control") -> Session:
        """The session of the path, for one who may act on it so. Who may not learns nothing about it."""
        session_id = request.match_info["session"]
        self.rooms.access.check_session(self.token(request), session_id, deed)
        session = self.rooms.house.sessions.get(session_id)
        if session is None or session.closed.is_set():
            raise ProblemError(404, "no-session", "there is no such session; it may have ended")
        return session

    def card(self, avatar: str | None) -> AvatarCard:
        cards = self.rooms.worker.cards
        if avatar is None and cards:
            return next(iter(cards.values()))
        card = cards.get(avatar or "")
        if card is None:
            raise ProblemError(404, "no-avatar", f"no avatar is called so; there are: {', '.join(cards) or 'none'}")
        return card

    def admit(self, avatar: str | None, lookahead: int | None = None) -> Guest:
        rooms = self.rooms
        try:
            return rooms.lobby.admit(self.card(avatar).name, lookahead)
        except NoFreeSlot as full:
            rooms.metrics.refused.add(reason="no_slot")
            raise ProblemError(503, "no-slot", str(full), full.retry_after) from full
        except DrainingError as closing:
            rooms.metrics.refused.add(reason="draining")
            raise ProblemError(503, "draining", str(closing), 30.0) from closing
        except ValueError as bad:
            raise ProblemError(400, "bad-request", str(bad)) from bad

    def check_seats(self) -> None:
        if self.rooms.house.draining:
            raise ProblemError(503, "draining", "the server is closing and takes no new sessions", 30.0)
        if not self.rooms.worker.free_slots:
            full = NoFreeSlot(self.rooms.worker.slots)
            raise ProblemError(503, "no-slot", str(full), full.retry_after)

    def ice_servers(self, user: str) -> list[dict[str, Any]]:
        turn = self.rooms.config.turn
        stun = [url for url in turn.urls if url.startswith("stun")]
        relays = [url for url in turn.urls if not url.startswith("stun")]
        servers: list[dict[str, Any]] = [{"urls": stun}] if stun else []
        if relays and turn.secret is not None:
            pair = turn_credentials(turn.secret.value, user, self.rooms.clock.wall(), turn.seconds)
            servers.append({"urls": relays, "username": pair.username, "credential": pair.credential})
        return servers
