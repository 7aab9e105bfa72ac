"""What there is, and how it is: avatars, voices, relays, health, metrics, version, and the pages of clients/browser."""

import asyncio
import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from aiohttp import web

import clients
from engine import metrics as metrics_page
from engine.access import bearer
from engine.bodies import host_name, said_json
from engine.doors import Answer, Handler, ProblemError
from engine.reception import Reception
from engine.rooms import Rooms
from engine.tokens import TokenError
from engine.voices import ADVICE
from models.avatar import PackageError, Shelf
from models.rates import CHUNK_SECONDS
from models.runtime import AvatarCard

READY_SECONDS: Final = 5.0
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


class Pages:
    """What is asked for and changes nothing."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception
        self.rooms = reception.rooms

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
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

    async def avatars(self, request: web.Request) -> Answer:
        return said_json({"avatars": [await self._avatar(card) for card in self.rooms.worker.cards.values()]})

    async def portrait(self, request: web.Request) -> Answer:
        card = self.reception.card(request.match_info["avatar"])
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
        return said_json(said if cards else said | {"advice": ADVICE})

    async def ice_servers(self, request: web.Request) -> Answer:
        """TURN credentials, as `iceServers` of a browser and as draft-uberti-behave-turn-rest-00 has them."""
        token = bearer(request.headers.get("Authorization"))
        rooms = self.rooms
        user = "client"
        if rooms.access.key is not None and token is not None:
            with contextlib.suppress(TokenError):
                user = rooms.mint.read(token, rooms.clock.wall()).session_id
        if user == "client":
            self.reception.check_create(request)
        servers = self.reception.ice_servers(user)
        turn = next((server for server in servers if "username" in server), None)
        said: dict[str, Any] = {"ice_servers": servers, "iceServers": servers}
        if turn is not None:
            said |= {"username": turn["username"], "password": turn["credential"]}
            said |= {"ttl": rooms.config.turn.seconds, "uris": turn["urls"]}
        return said_json(said)

    async def healthz(self, request: web.Request) -> Answer:
        return web.Response(text="alive\n")

    async def readyz(self, request: web.Request) -> Answer:
        """Ready means: a picture was made in the last seconds, and newcomers are let in. Full is ready too."""
        wrong = unreadiness(self.rooms)
        if wrong is not None:
            raise ProblemError(503, "not-ready", wrong, 5.0)
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> Answer:
        self.reception.check_admin(request)
        page = self.rooms.metrics.expose()
        return web.Response(body=page.encode(), headers={"Content-Type": metrics_page.CONTENT_TYPE})

    async def version(self, request: web.Request) -> Answer:
        rooms = self.rooms
        return said_json(
            {
                "name": "liveface",
                "version": rooms.version,
                "backend": rooms.worker.backend,
                "avatars": list(rooms.worker.cards),
                "probe": rooms.config.probe,
                "ws_url": rooms.websocket_url(host_name(request)),
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
            response.headers["Content-Security-Policy"] = _policy(self.rooms.websocket_url(host_name(request)))
        return response

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


def _pages() -> dict[str, Path]:
    """File name → path of what may be served. Listed, not looked up, so that no path leads out."""
    return {path.name: path for path in PAGES.iterdir() if path.is_file() and path.suffix in MEDIA_TYPES}


def _policy(websocket_url: str) -> str:
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
        f"font-src 'self'; connect-src 'self' {websocket_url.rsplit('/v1', 1)[0]}; manifest-src 'self'; "
        "form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
    )


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
