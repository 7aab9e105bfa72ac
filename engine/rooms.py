"""What the server serves, in one value: the whole world of those who answer requests."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from engine.access import Access
from engine.clock import Clock
from engine.config import Config
from engine.limits import Limits
from engine.lobby import Lobby
from engine.metrics import Metrics
from engine.session import House
from engine.tokens import Mint
from engine.voices import Voices
from engine.webrtc import Peers
from engine.worker import Worker
from models.avatar import Shelf


@dataclass(eq=False)
class Rooms:
    """Made once, when everything is up."""

    config: Config
    clock: Clock
    access: Access
    mint: Mint
    limits: Limits
    metrics: Metrics
    worker: Worker
    house: House
    peers: Peers
    lobby: Lobby
    voices: Voices
    shelf: Shelf
    version: str
    files: ThreadPoolExecutor
    tickets: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Session id → avatar and expiry, of tickets for the websocket, whose session begins when its client comes."""
    websocket_url: Callable[[str], str] = lambda host: ""
    streams: dict[str, int] = field(default_factory=dict)
    portraits: dict[str, bytes] = field(default_factory=dict)
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    greeted: set[int] = field(default_factory=set)
    """Connections that have made a request, by identity."""
    titles: dict[str, str] = field(default_factory=dict)
