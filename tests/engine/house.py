"""A server that is up on 127.0.0.1 with a model that is a fake, and someone who asks it things."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from engine.clock import RealClock
from engine.config import Access, Config, Secret
from engine.config import Limits as LimitSettings
from engine.server import Server, serving
from engine.voices import Spoken, VoiceCard
from engine.worker import Worker
from models.rates import HEARD_RATE
from tests.fakes import FakeRuntime, vowel
from tests.webrtc_client import Client

BEEP = Spoken((vowel(0.04, 16_000) * 32_000).astype(np.int16), 16_000)
VOICE = (vowel(5, HEARD_RATE) * 32_000).astype(np.int16)
KEY = "a key of twenty letters"
SDP = {"Content-Type": "application/sdp"}


class Beeps:
    """A voice that beeps 40 ms a character."""

    async def voices(self) -> Sequence[VoiceCard]:
        return [VoiceCard("beeps:high", "High", "beeps", "en")]

    async def speak(self, text: str, voice: str) -> AsyncGenerator[Spoken, None]:
        for _ in text:
            yield BEEP

    async def aclose(self) -> None:
        return None


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"not within {seconds} s"
        await asyncio.sleep(0.01)


@dataclass
class House:
    """A server that is up, and someone who asks it things."""

    server: Server
    http: aiohttp.ClientSession
    runtime: FakeRuntime
    key: str | None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def free(self) -> int:
        return self.server.rooms.worker.free_slots

    async def ask(
        self, method: str, path: str, token: str | None = None, **what: Any
    ) -> tuple[int, "aiohttp.typedefs.LooseHeaders", Any]:
        headers = dict(what.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, self.base + path, headers=headers, **what) as answer:
            content = await answer.read()
            kind = answer.headers.get("Content-Type", "")
            return answer.status, answer.headers, json.loads(content) if "json" in kind else content

    async def ticket(self, **wishes: Any) -> dict[str, Any]:
        status, _, ticket = await self.ask("POST", "/v1/sessions", self.key, json=wishes)
        assert status == 201, ticket
        return dict(ticket)

    @asynccontextmanager
    async def talking(
        self, ticket: dict[str, Any] | None = None, loss: Callable[[int], bool] | None = None
    ) -> AsyncIterator[tuple[dict[str, Any], Client]]:
        """A client that speaks and is seen to be answered."""
        ticket = ticket or await self.ticket()
        async with Client(VOICE, decode=False, loss=loss) as client:

            async def exchange(offer: str) -> str:
                status, headers, answer = await self.ask(
                    "POST", ticket["whip_url"], ticket["token"], data=offer, headers=SDP
                )
                assert status == 201, answer
                ticket["location"] = headers["Location"]
                ticket["etag"] = headers["ETag"]
                return str(answer, "utf-8")

            await client.connect(exchange)
            await client.until(lambda: len(client.pictures) > 2)
            yield ticket, client

    async def emptied(self, slots: int | None = None) -> None:
        wanted = self.server.rooms.worker.slots if slots is None else slots
        await until(lambda: self.free == wanted and not self.server.rooms.peers.peers)


@asynccontextmanager
async def up(
    slots: int = 3, key: str | None = None, script: Sequence[str] = (), **settings: Any
) -> AsyncIterator[House]:
    runtime = FakeRuntime(script, ("demo", "bert"), slots + 1)

    def opener(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> FakeRuntime:
        return runtime

    access = settings.pop("access", Access(secret=None if key is None else Secret(key)))
    generous = LimitSettings(1000, 1000, 1000, 1000, 1000, 1000)
    config = Config(port=0, ws_port=0, access=access, limits=settings.pop("limits", generous), **settings)
    clock = RealClock()
    async with (
        Worker([], slots, opener, inline=True, clock=clock) as worker,
        serving(config, clock, worker) as server,
        aiohttp.ClientSession() as http,
    ):
        yield House(server, http, runtime, key)


async def plain_offer() -> str:
    async with Client(np.zeros(HEARD_RATE, np.int16)) as client:
        return await client.offer()
