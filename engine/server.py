"""The server's process: everything opened in its order, one address, chores, and a clean end.

    async with serving(config, RealClock()) as server:
        print(server.url)
        await server.run_until_stopped()

The first signal lets nobody in any more and waits for those who are in; the second does not wait.
"""

import asyncio
import contextlib
import logging
import resource
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

from aiohttp import web

from engine import memory, pages
from engine.access import Access
from engine.api import application
from engine.clock import Clock
from engine.config import Config
from engine.limits import Limits, Rate
from engine.lobby import Lobby, lag_sampler
from engine.metrics import Metrics
from engine.probe import stamp
from engine.rooms import Rooms
from engine.session import House
from engine.start import StartError, open_worker, shelf_of
from engine.tokens import Mint, TokenError
from engine.voices import Voices
from engine.webrtc import Deadlines, Peers, port_range
from engine.websocket import Admission, Stream, serve_websocket
from engine.worker import Worker, WorkerLost
from models.rates import HEARD_RATE

log = logging.getLogger(__name__)

IDLE_SECONDS: Final = 15.0
"""A connection that has not finished a request header in this time is closed."""

KEEP_ALIVE_SECONDS: Final = 75.0
"""A connection between two requests is kept so long: longer than clients and proxies keep theirs."""

BLACKOUT_SECONDS: Final = 2.0
"""A network that was gone for exactly `deadlines.silent` gets so long to come back."""

CANARY_SECONDS: Final = 2.0
COUNT_SECONDS: Final = 1.0
TIDY_SECONDS: Final = 0.5
"""After a session's end: those that end together are tidied up after together."""


class Server:
    """A server that is up. Made by `serving`."""

    def __init__(self, rooms: Rooms, host: str, port: int) -> None:
        self.rooms = rooms
        self.host = host
        self.port = port
        self.stopping = asyncio.Event()
        """Set by the first signal."""
        self._signals: asyncio.Queue[None] = asyncio.Queue(maxsize=8)

    @property
    def url(self) -> str:
        """The address to open."""
        host = "localhost" if self.rooms.access.local or self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def stop(self) -> None:
        """Once: drain. Twice: now."""
        with contextlib.suppress(asyncio.QueueFull):
            self._signals.put_nowait(None)

    def heed_signals(self) -> None:
        """SIGTERM and SIGINT are `stop` from here on, until the loop closes: `make` passes Ctrl-C on to a process that
        has had it from the terminal, and the second must not break off the cleaning up that the first began."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; then let nobody in, tell everyone, and wait for them to leave, until
        the deadline or a second signal."""
        self.heed_signals()
        await self._signals.get()
        self.stopping.set()
        seconds = self.rooms.config.deadlines.drain
        log.info("closing: %d sessions get up to %g s", len(self.rooms.house.sessions), seconds)
        draining = asyncio.create_task(self.rooms.house.drain(seconds), name="drain")
        again = asyncio.create_task(self._signals.get(), name="second signal")
        await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, again):
            task.cancel()
        await asyncio.gather(draining, again, return_exceptions=True)


@asynccontextmanager
async def serving(config: Config, clock: Clock, worker: Worker | None = None) -> AsyncIterator[Server]:
    """Everything up, in this block. Raises StartError with one line. `worker` is for tests that bring their own."""
    key = None if config.access.secret is None else config.access.secret.value
    mint = Mint(key.encode().ljust(16, b"\0") if key else secrets.token_bytes(32))
    try:
        access = Access(mint, clock, config.host, key, config.access.anyone, config.access.origins)
    except ValueError as unsafe:
        raise StartError(str(unsafe)) from unsafe
    shelf = shelf_of(config)
    listener = _bind(config.host, config.port)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        files = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="files"))
        if worker is None:
            worker = await stack.enter_async_context(open_worker(config, clock))
        metrics = Metrics()
        stack.enter_context(_default_executor())
        house = await stack.enter_async_context(House(worker, clock, retouch=stamp if config.probe else None))
        peers = await stack.enter_async_context(_peers(config, clock, access))
        voices = await stack.enter_async_context(Voices.installed())
        lobby = await stack.enter_async_context(Lobby(house, peers, metrics, clock))
        rooms = Rooms(
            config=config,
            clock=clock,
            access=access,
            mint=mint,
            limits=_limits(config, access, clock),
            metrics=metrics,
            worker=worker,
            house=house,
            peers=peers,
            lobby=lobby,
            voices=voices,
            shelf=shelf,
            version=metadata.version("liveface"),
            files=files,
        )
        _wire(metrics, rooms)
        try:
            stream = await stack.enter_async_context(
                serve_websocket(
                    house,
                    clock,
                    host=config.host,
                    port=config.websocket_port,
                    avatar=next(iter(worker.cards), None),
                    authorise=lambda token, session_id, origin: _admission(rooms, token, session_id),
                    origins=config.access.origins,
                    limits=_limits(config, access, clock),
                    server={"name": "liveface", "version": rooms.version},
                )
            )
        except OSError as taken:
            raise StartError(_port_taken(config.host, config.websocket_port, "--ws-port", taken)) from taken
        rooms.websocket_url = lambda name: f"ws://{name}:{stream.port}/v1/stream"
        app = application(rooms)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            auto_decompress=False,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()
        await stack.enter_async_context(lag_sampler(clock, metrics))
        with contextlib.suppress(TimeoutError):  # who is told the address may use it at once
            async with asyncio.timeout(pages.READY_SECONDS):
                await _sing_once(rooms)
        await stack.enter_async_context(_chores(rooms, runner, stream))
        stack.enter_context(memory.settled())
        yield Server(rooms, config.host, listener.getsockname()[1])


def _admission(rooms: Rooms, token: str | None, session_id: str | None) -> Admission:
    """What the websocket asks about a client that says hello."""
    access = rooms.access
    if access.key is not None and token == access.key:
        return Admission()
    if token is not None and token.startswith("lf1."):
        now = rooms.clock.wall()
        if session_id is not None or rooms.mint.read(token, now).session_id in rooms.house.sessions:
            grant = rooms.mint.read(token, now, session_id)
        else:
            grant = rooms.mint.join(token, now)
        avatar, _ = rooms.tickets.get(grant.session_id, (None, 0.0))
        return Admission(grant.session_id, avatar, may_speak=grant.role == "own")
    if access.key is not None:
        raise TokenError("this server asks for a token" if token is None else "the token is not of this server")
    if session_id is not None and not access.local:
        raise TokenError("going on with a session needs its token")
    return Admission()


@contextlib.contextmanager
def _default_executor() -> Iterator[None]:
    """The loop's own pool is for name look-ups and the like. Media, files and voices have theirs."""
    with ThreadPoolExecutor(2, thread_name_prefix="sundry") as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        yield


def _peers(config: Config, clock: Clock, access: Access) -> Peers:
    addresses = [config.host_address] if config.host_address else ["127.0.0.1"] if access.local else []
    media = config.media
    try:
        return Peers(
            clock,
            host_addresses=addresses,
            ports=None if media.ports is None else port_range(media.ports),
            codecs=media.codecs,
            bitrate=media.bitrate,
            encode_threads=media.encode_threads,
            deadlines=Deadlines(
                first_media=config.deadlines.first_media, silence=config.deadlines.silent + BLACKOUT_SECONDS
            ),
        )
    except ValueError as wrong:
        raise StartError(str(wrong)) from wrong


def _limits(config: Config, access: Access, clock: Clock) -> Limits:
    """On loopback without a key there is one guest, and it is not shut out of its own machine."""
    ease = 100.0 if access.local and access.key is None else 1.0
    said = config.limits
    return Limits(
        Rate(said.address_rate * ease, said.address_burst * ease),
        Rate(said.token_rate * ease, said.token_burst * ease),
        Rate(said.total_rate * ease, said.total_burst * ease),
        clock.now(),
    )


def _wire(metrics: Metrics, rooms: Rooms) -> None:
    """Gauges and counters that are read where they live, when the page is written."""
    worker, house = rooms.worker, rooms.house
    metrics.build_info.set(1.0, version=rooms.version, backend=worker.backend.partition(":")[0] or "unknown")
    metrics.session_slots.read = lambda: {
        ("free",): float(worker.free_slots),
        ("used",): float(worker.slots - worker.free_slots),
    }
    metrics.worker_restarts.read = lambda: {(): float(worker.restarts)}
    metrics.audio_buffer.read = lambda: {(): sum(session.queued_seconds for session in house.sessions.values())}

    def active() -> Mapping[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {("webrtc",): 0.0, ("websocket",): 0.0}
        for session in house.sessions.values():
            counts[session.transport,] = counts.get((session.transport,), 0.0) + 1.0
        return counts

    metrics.sessions_active.read = active
    metrics.tasks.read = lambda: {(): float(len(asyncio.all_tasks()))}
    metrics.threads.read = lambda: {(): float(threading.active_count())}
    if Path("/proc/self/statm").exists():
        metrics.open_files.read = lambda: {(): float(sum(1 for _ in Path("/proc/self/fd").iterdir()))}
        metrics.memory.read = lambda: {
            (): float(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        }


@asynccontextmanager
async def _chores(rooms: Rooms, runner: web.AppRunner, stream: Stream) -> AsyncIterator[None]:
    """What is done every so often while the server is up."""
    fault: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        chores = [tasks.create_task(_sing(rooms)), tasks.create_task(_sweep(rooms, runner))]
        chores += [tasks.create_task(_count(rooms, stream)), tasks.create_task(_tidy(rooms))]
        try:
            yield
        except Exception as own:  # of whoever uses the server: a group around it would hide its one line
            fault = own
        for chore in chores:
            chore.cancel()
    if fault is not None:
        raise fault


async def _sing(rooms: Rooms) -> None:
    """The canary: when nobody speaks, a picture is made all the same, so that `/readyz` tells the truth."""
    while True:
        last = rooms.worker.last_step
        if last is None or rooms.clock.now() - last > CANARY_SECONDS:
            await _sing_once(rooms)
        await rooms.clock.sleep_until(rooms.clock.now() + CANARY_SECONDS)


async def _sing_once(rooms: Rooms) -> None:
    try:
        await rooms.worker.canary()
    except WorkerLost as lost:
        log.warning("the canary got no picture: %s", lost)


async def _sweep(rooms: Rooms, runner: web.AppRunner) -> None:
    """Closes connections that never finish their first request: a slow drip of header bytes holds nothing for long.
    Between requests, aiohttp's own keep-alive time does it."""
    silent: dict[int, float] = {}
    while True:
        await rooms.clock.sleep_until(rooms.clock.now() + IDLE_SECONDS / 3)
        now = rooms.clock.now()
        connections = {id(each): each for each in (runner.server.connections if runner.server is not None else ())}
        rooms.greeted &= connections.keys()
        silent = {known: silent.get(known, now) for known in connections.keys() - rooms.greeted}
        for known, since in silent.items():
            if now - since > IDLE_SECONDS:
                connections[known].force_close()


async def _tidy(rooms: Rooms) -> None:
    """Takes away what ended sessions leave behind."""
    while True:
        await rooms.lobby.departed.wait()
        rooms.lobby.departed.clear()
        await rooms.clock.sleep_until(rooms.clock.now() + TIDY_SECONDS)
        memory.collect()
        await asyncio.get_running_loop().run_in_executor(rooms.files, memory.give_back)


async def _count(rooms: Rooms, stream: Stream) -> None:
    """Totals that others keep, taken over into counters once a second."""
    metrics = rooms.metrics
    before: dict[str, float] = {}
    while True:
        await rooms.clock.sleep_until(rooms.clock.now() + COUNT_SECONDS)
        peers = rooms.peers.stats()
        totals = (
            (metrics.webrtc_sent, "sent", peers.get("sent_bytes", 0)),
            (metrics.webrtc_lost, "lost", peers.get("remote_lost_packets", 0)),
            (metrics.webrtc_pli, "keyframes", peers.get("keyframe_requests", 0)),
            (metrics.audio_gap, "concealed", peers.get("voice_concealed_samples", 0) / HEARD_RATE),
            (metrics.ws_dropped, "faces", stream.stats()["frames_dropped"]),
        )
        for counter, name, total in totals:
            counter.add(max(0.0, total - before.get(name, 0.0)))
            before[name] = total
        for rows, times in rooms.worker.batches.items():
            for _ in range(times):
                metrics.batch_size.observe(rows)
        rooms.worker.batches.clear()
        for peer in rooms.peers.peers:
            round_trip = peer.stats().get("round_trip_seconds")
            if round_trip is not None:
                metrics.webrtc_rtt.observe(round_trip)


def _bind(host: str, port: int) -> socket.socket:
    """The listening socket, first of all: a port that is taken is told before the model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        return listener
    except OSError as taken:
        raise StartError(_port_taken(host, port, "--port", taken)) from taken


def _port_taken(host: str, port: int, flag: str, reason: OSError) -> str:
    return f"cannot listen on {host}:{port}: {reason.strerror or reason}; choose another with {flag}"
