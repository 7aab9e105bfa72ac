"""Signalling: WHIP for the one who speaks (RFC 9725), WHEP for those who look on, and offers in JSON.

Nothing is created before the request has been let in, its body has been bounded, and its ticket is good.
"""

from collections.abc import Iterator

from aiohttp import web

from engine.access import Deed, Denied
from engine.bodies import SDP_BYTES_MOST, body, check_offer, json_body, media_type, offer_body, optional_text, said_json
from engine.doors import Answer, Handler, ProblemError
from engine.lobby import BusyError, Guest, JoinedError
from engine.reception import Reception
from engine.session import SessionClosedError
from engine.webrtc import BadOffer, Role


class Signalling:
    """Offers in, answers out."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception
        self.rooms = reception.rooms

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

    async def whip(self, request: web.Request) -> Answer:
        """An offer of the one who speaks: of a ticket's holder, or of a standard WHIP client without one."""
        ticket = self._ticket(request)
        if ticket is None:
            self.reception.check_create(request)
        offer = await offer_body(request)
        guest = self.reception.admit(request.match_info.get("avatar")) if ticket is None else self._redeem(ticket)
        return self._created(request, *await self._join(guest, offer))

    async def whep(self, request: web.Request) -> Answer:
        """An offer of one who looks on."""
        session = self.reception.session(request, "view")
        offer = await offer_body(request)
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
        if media_type(request) != "application/trickle-ice-sdpfrag":
            raise ProblemError(415, "unsupported-type", "send application/trickle-ice-sdpfrag")
        fragment = await body(request, SDP_BYTES_MOST)
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
        self.reception.check_create(request)
        said = await json_body(request)
        offer = said.get("sdp")
        if said.get("type") != "offer" or not isinstance(offer, str):
            raise ProblemError(400, "bad-offer", 'send {"sdp": …, "type": "offer"}')
        check_offer(offer)
        guest = self.reception.admit(optional_text(said, "avatar_id") or optional_text(said, "avatar"))
        answer, resource = await self._join(guest, offer)
        token = self.rooms.mint.issue(guest.session.id, self.rooms.clock.wall(), join_seconds=0)
        return said_json(
            {
                "sdp": answer,
                "type": "answer",
                "session_id": guest.session.id,
                "token": token,
                "resource": f"/v1/connections/{resource}",
            }
        )

    def _connection(self, request: web.Request) -> Guest:
        """The guest behind a connection's address; knowing the address is not enough where there is a key."""
        found = self.rooms.lobby.resource(request.match_info["resource"])
        token = self.reception.token(request)
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
        access, token = self.rooms.access, self.reception.token(request)
        session_id = request.match_info.get("session")
        if token is not None and token.startswith("lf1.") and token != access.key:
            session_id = session_id or access.session_of(token)
        elif session_id is None:
            return None
        else:
            token = None
        access.check_session(token or self.reception.token(request), session_id, "control")
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
        for server in self.reception.ice_servers(resource[:8]):
            for url in server["urls"]:
                secret = (
                    f'; username="{server["username"]}"; credential="{server["credential"]}"; '
                    'credential-type="password"'
                    if "username" in server
                    else ""
                )
                response.headers.add("Link", f'<{url}>; rel="ice-server"{secret}')
        return response


def _bad_offer(bad: BadOffer) -> ProblemError:
    return ProblemError(bad.status, "bad-offer", str(bad), 5.0 if bad.status == 503 else None)


def _etag(resource: str) -> str:
    return f'"{resource[:12]}"'
