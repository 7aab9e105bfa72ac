"""What holds for every request, before and after the one who answers it: who may come in, and how a refusal reads.

A request passes in this order: is the house's name right, may this origin, how often; the handler asks the rest. Every
refusal is one line of problem+json (RFC 9457), and every answer leaves with the same headers.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from engine.access import Denied, bearer
from engine.limits import out_of_files, retry_after
from engine.rooms import Rooms
from engine.session import SessionClosedError
from engine.worker import UnknownAvatar, WorkerLost

log = logging.getLogger(__name__)

WRITES: Final = frozenset(["POST", "PATCH", "DELETE", "PUT"])
CORS_HEADERS: Final = "Authorization, Content-Type, If-Match"
EXPOSED_HEADERS: Final = "Location, ETag, Link, Retry-After, Accept-Post"

Answer = web.StreamResponse
Handler = Callable[[web.Request], Awaitable[Answer]]


class ProblemError(Exception):
    """An answer that is a refusal."""

    def __init__(self, status: int, kind: str, detail: str, wait: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.wait = wait

    def response(self) -> web.Response:
        body = {"type": f"urn:liveface:{self.kind}", "title": self.kind.replace("-", " "), "status": self.status}
        headers = {} if self.wait is None else {"Retry-After": retry_after(self.wait)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(
            status=self.status,
            text=json.dumps(body | {"detail": str(self)}),
            content_type="application/problem+json",
            headers=headers,
        )


def doors(rooms: Rooms) -> Any:
    """Everything that holds for every request."""

    @web.middleware
    async def pass_through(request: web.Request, handler: Handler) -> Answer:
        rooms.greeted.add(id(request.protocol))
        try:
            response = await _pass(rooms, request, handler)
        except ProblemError as problem:
            response = problem.response()
        except Denied as denied:
            rooms.metrics.refused.add(reason="access")
            kinds = {401: "unauthorised", 403: "forbidden", 421: "misdirected"}
            response = ProblemError(denied.status, kinds[denied.status], str(denied)).response()
        except web.HTTPException as known:
            response = ProblemError(known.status, "http", known.reason.lower()).response()
            if "Allow" in known.headers:
                response.headers["Allow"] = known.headers["Allow"]
        except (SessionClosedError, WorkerLost) as gone:
            response = ProblemError(409, "no-session", str(gone)).response()
        except (UnknownAvatar, KeyError):
            response = ProblemError(404, "not-found", "it is not here, or no longer").response()
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as fault:
            if out_of_files(fault):
                log.warning("%s %s is refused: %s", request.method, request.match_info.route.resource, fault)
                rooms.metrics.refused.add(reason="resources")
                response = ProblemError(503, "no-room", "the server has no files or sockets left", 5.0).response()
            else:
                log.exception("%s %s failed", request.method, request.match_info.route.resource)
                response = ProblemError(500, "internal", "something went wrong here; the log says what").response()
        if not response.prepared:
            dress(rooms, request, response)
        rooms.metrics.requests.add(method=_known_method(request.method), status=str(response.status))
        return response

    return pass_through


async def _pass(rooms: Rooms, request: web.Request, handler: Handler) -> Answer:
    if request.path not in ("/healthz", "/livez", "/readyz"):
        rooms.access.check_host(request.host)
    origin = request.headers.get("Origin")
    if request.method == "OPTIONS":
        return _preflight(request)
    if request.path.startswith("/v1/") or request.path == "/offer":
        rooms.access.check_origin(origin, request.host)
    if request.method in WRITES:
        token = bearer(request.headers.get("Authorization"))
        wait = rooms.limits.wait(rooms.clock.now(), request.remote or "", token)
        if wait > 0:
            rooms.metrics.refused.add(reason="rate")
            raise ProblemError(429, "too-many", "too many requests from here; slow down", wait)
    return await handler(request)


def _preflight(request: web.Request) -> web.Response:
    """CORS asks first. No secrets here (RFC 9725, section 4.6): it comes without a token."""
    if isinstance(request.match_info.http_exception, web.HTTPNotFound):
        raise ProblemError(404, "not-found", "there is nothing at this address")
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
        "Access-Control-Allow-Headers": CORS_HEADERS,
        "Access-Control-Max-Age": "600",
    }
    if "/whip" in request.path or "/whep" in request.path:
        headers["Accept-Post"] = "application/sdp"
    return web.Response(status=200, headers=headers)


def dress(rooms: Rooms, request: web.Request, response: Answer) -> None:
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(self)"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Server"] = "liveface"
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers.setdefault("Cache-Control", "no-store")
    origin = request.headers.get("Origin")
    headers["Vary"] = "Origin"
    if origin is not None and rooms.access.origin_allowed(origin, request.host):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS


def _known_method(method: str) -> str:
    return method if method in WRITES or method in ("GET", "HEAD", "OPTIONS") else "other"
