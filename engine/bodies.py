"""What a request brings, read within bounds of size and time before any parser sees it; and JSON to answer with."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from engine.doors import ProblemError
from engine.protocol.closing import ProtocolError
from engine.protocol.events import parse_object

SDP_BYTES_MOST: Final = 16 * 1024
SDP_MEDIA_MOST: Final = 3
JSON_BYTES_MOST: Final = 64 * 1024
BODY_SECONDS: Final = 10.0
"""A small body that takes longer to arrive is not waited for."""


async def body(request: web.Request, most: int, seconds: float | None = None) -> bytes:
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


async def json_body(request: web.Request) -> dict[str, Any]:
    content = await body(request, JSON_BYTES_MOST)
    if not content:
        return {}
    try:
        return parse_object(content.decode())
    except (UnicodeDecodeError, ProtocolError) as bad:
        raise ProblemError(400, "bad-json", f"the body is no JSON object: {bad}"[:200]) from bad


async def offer_body(request: web.Request) -> str:
    if media_type(request) != "application/sdp":
        raise ProblemError(415, "unsupported-type", "send the offer as application/sdp")
    try:
        offer = (await body(request, SDP_BYTES_MOST)).decode()
    except UnicodeDecodeError as broken:
        raise ProblemError(400, "bad-offer", "the offer is not UTF-8") from broken
    check_offer(offer)
    return offer


def check_offer(offer: str) -> None:
    """Before any parser sees it."""
    if len(offer.encode()) > SDP_BYTES_MOST:
        raise ProblemError(413, "too-big", f"an offer has at most {SDP_BYTES_MOST} bytes")
    if not offer.startswith("v="):
        raise ProblemError(400, "bad-offer", "this is no SDP offer")
    if not 1 <= f"\n{offer}".count("\nm=") <= SDP_MEDIA_MOST:
        raise ProblemError(400, "bad-offer", f"an offer has one to {SDP_MEDIA_MOST} m-lines")


def media_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def parameters(request: web.Request) -> dict[str, str]:
    """Of the Content-Type."""
    pairs = (part.partition("=") for part in request.headers.get("Content-Type", "").split(";")[1:])
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}


def host_name(request: web.Request) -> str:
    """The name that the client knows this machine by, for addresses on other ports."""
    name = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
    return name if name and all(letter.isalnum() or letter in ".-_[]:" for letter in name) else "localhost"


def optional_text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise ProblemError(400, "bad-request", f'"{name}" is a text')
    return value


def said_json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)
