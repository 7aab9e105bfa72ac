"""Where a bridge gets its faces: a WAV file, a microphone, or somebody else's conversation; at a steady pace."""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from clients.python import Avatar, AvatarClosedError, Event, Face, Sampler, connect
from clients.python.__main__ import read_wav, speak
from clients.python.client import URL

BUFFER_SECONDS = 0.06
"""How far behind the newest face the shown one is: what the network may be late without a jerk."""

MICROPHONE_RATE = 16_000

Send = Callable[[Face], Awaitable[None]]


def parser(name: str, what: str, schema: str, coords: str) -> argparse.ArgumentParser:
    """The options that all bridges share."""
    parse = argparse.ArgumentParser(prog=f"python -m clients.vr.bridges.{name}", description=what)
    parse.add_argument("--url", default=URL, help=f"of the Liveface server, default {URL}")
    parse.add_argument("--avatar", help="the server's own choice by default")
    parse.add_argument("--token", help="from POST /v1/sessions, where the server asks for one")
    source = parse.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav", type=Path, help="speak this file")
    source.add_argument("--mic", action="store_true", help="this machine's microphone (pip install sounddevice)")
    source.add_argument("--watch", metavar="SESSION", help="the face of a conversation that runs already")
    parse.add_argument("--fps", type=float, default=60.0, help="faces a second, default 60")
    parse.set_defaults(schema=schema, coords=coords)
    return parse


def run(arguments: argparse.Namespace, bridge: Callable[[argparse.Namespace], Awaitable[None]]) -> int:
    """The command line's end: one line for what went wrong."""
    try:
        asyncio.run(_awaited(bridge(arguments)))
    except (AvatarClosedError, OSError, ValueError) as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _awaited(what: Awaitable[None]) -> None:
    await what


async def feed(arguments: argparse.Namespace, send: Send) -> None:
    """Connect, push the voice, and call `send` with a face `--fps` times a second until the voice has been said."""
    voice = read_wav(arguments.wav) if arguments.wav else None
    wishes: dict[str, Any] = {
        "avatar": arguments.avatar,
        "token": arguments.token,
        "sample_rate": voice.sample_rate if voice else MICROPHONE_RATE,
        "channels": voice.channels if voice else 1,
        "pacing": "burst" if voice else "realtime",
        "face": {"schema": arguments.schema, "coords": arguments.coords},
        "resume": arguments.watch,
        "view": bool(arguments.watch),
    }
    async with connect(arguments.url, **wishes) as avatar:
        source: Awaitable[None]
        if voice:
            source = speak(avatar, voice, live=False)
        elif arguments.mic:
            source = microphone(avatar)
        else:
            source = asyncio.sleep(0)
        await paced(avatar, source, send, arguments.fps)


async def paced(avatar: Avatar, source: Awaitable[None], send: Send, fps: float) -> None:
    """Faces come 25 times a second and a little unevenly; they leave evenly, mixed."""
    sampler = Sampler()
    clock = asyncio.get_running_loop()
    offset: float | None = None  # what is added to our time to get a date on theirs
    over: float | None = None  # when the last of the speech has been shown

    async def receive() -> None:
        nonlocal offset, over
        async for message in avatar:
            if isinstance(message, Face):
                sampler.push(message)
                ahead = message.pts_us / 1e6 - clock.time()
                # The earliest arrival tells the true offset; it may sag slowly, for clocks differ.
                offset = ahead if offset is None else max(ahead, offset - 0.0002)
            elif isinstance(message, Event) and message.type == "speech.stopped" and pushing.done():
                over = clock.time() + 2 * BUFFER_SECONDS

    pushing = asyncio.ensure_future(source)
    receiving = asyncio.ensure_future(receive())
    try:
        due = clock.time()
        while (over is None or clock.time() < over) and not receiving.done() and not failed(pushing):
            if offset is not None:
                face = sampler.at((clock.time() + offset - BUFFER_SECONDS) * 1e6)
                if face is not None:
                    await send(face)
            due = max(due + 1 / fps, clock.time() - 1 / fps)
            await asyncio.sleep(max(0.0, due - clock.time()))
        for task in (receiving, pushing):
            if task.done():
                task.result()
    finally:
        for task in (pushing, receiving):
            task.cancel()
        await asyncio.gather(pushing, receiving, return_exceptions=True)


def failed(task: "asyncio.Future[None]") -> bool:
    """There will be no more of this voice, and not because all has been said."""
    return task.done() and (task.cancelled() or task.exception() is not None)


async def microphone(avatar: Avatar) -> None:
    async for piece in _recorded():
        await avatar.push(piece)


async def _recorded() -> AsyncIterator[bytes]:
    try:
        import sounddevice  # an extra: no bridge needs it for files
    except (ImportError, OSError) as missing:
        raise ValueError(f"no microphone: {missing}. Try: pip install sounddevice") from missing
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes] = asyncio.Queue(50)

    def keep(piece: bytes) -> None:
        if not pieces.full():
            pieces.put_nowait(piece)

    def heard(block: Any, frames: int, when: Any, status: Any) -> None:
        loop.call_soon_threadsafe(keep, bytes(block))

    wanted: dict[str, Any] = {"channels": 1, "dtype": "int16", "callback": heard}
    try:
        with sounddevice.RawInputStream(MICROPHONE_RATE, MICROPHONE_RATE // 50, **wanted):
            while True:
                yield await pieces.get()
    except sounddevice.PortAudioError as refused:  # to open or to start
        raise ValueError(f"no microphone could be opened ({' '.join(str(refused).split())})") from refused


async def datagrams(host: str, port: int) -> asyncio.DatagramTransport:
    """A UDP socket to one receiver. That nobody listens there yet is no error."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=(host, port)
    )
    return transport
