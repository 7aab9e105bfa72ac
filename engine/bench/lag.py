"""How late the server's event loop wakes, as its `/metrics` say, and an offer of 600 KB that should not move it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from engine.clock import Clock

OFFER_BYTES = 600_000
OFFER_SECONDS = 0.5
"""Between two of them."""

Edges = dict[float, float]
"""Upper edge of a bucket in seconds → samples up to it."""

_BUCKET = re.compile(r'^avatar_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


@dataclass(slots=True)
class Thrown:
    """What became of the offers: status of the answer → how many."""

    answers: dict[int, int] = field(default_factory=dict)


async def lags(url: str, token: str | None) -> Edges:
    """All samples since the server began; none where it does not tell."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics", headers=headers) as page:
            return edges(await page.text())
    except aiohttp.ClientError:
        return {}


def edges(page: str) -> Edges:
    return {float(edge): float(count) for edge, count in _BUCKET.findall(page)}


def describe(before: Edges, after: Edges) -> dict[str, float]:
    """Milliseconds; each is the upper edge of the bucket that it lies in."""
    counts = {edge: count - before.get(edge, 0.0) for edge, count in after.items()}
    samples = max(counts.values(), default=0.0)
    if not samples:
        return {}
    reached = {
        share: min(edge for edge, count in counts.items() if count >= share * samples) for share in (0.5, 0.99, 1)
    }
    return {"p50": reached[0.5] * 1e3, "p99": reached[0.99] * 1e3, "max": reached[1] * 1e3, "count": samples}


@asynccontextmanager
async def thrown_offers(url: str, clock: Clock) -> AsyncIterator[Thrown]:
    """While the block runs, the server is offered 600 KB of session description twice a second."""
    thrown = Thrown()
    lines = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=rtpmap:111 opus/48000/2\r\n"
    offer = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n" + lines * (OFFER_BYTES // len(lines))

    async def throw(http: aiohttp.ClientSession) -> None:
        while True:
            headers = {"Content-Type": "application/sdp"}
            try:
                async with http.post(f"{url}/v1/whip", data=offer, headers=headers) as answer:
                    thrown.answers[answer.status] = thrown.answers.get(answer.status, 0) + 1
            except aiohttp.ClientError:  # refused by the length it declares, and hung up on while it still sends
                thrown.answers[0] = thrown.answers.get(0, 0) + 1
            await clock.sleep_until(clock.now() + OFFER_SECONDS)

    async with aiohttp.ClientSession() as http:
        throwing = asyncio.create_task(throw(http), name="offers")
        try:
            yield thrown
        finally:
            throwing.cancel()
            await asyncio.wait([throwing])
