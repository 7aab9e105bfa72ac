"""`liveface mic`: this machine's microphone drives a session that browsers can watch.

The sound device has a thread of its own, which must never wait: it hands each block over and returns. `sounddevice` is
imported only when a microphone is opened; all else works without it.
"""

import argparse
import asyncio
import importlib
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine import serve
from engine.channel import Channel
from engine.clock import Clock, RealClock
from engine.config import Config
from engine.session import SessionClosedError
from models.rates import HEARD_RATE

BLOCK: Final = HEARD_RATE // 100
"""480 samples: 10 ms."""

BLOCKS_MOST: Final = 50
"""Half a second may wait for a busy loop; then the oldest goes."""


class MicrophoneError(RuntimeError):
    """There is no microphone to be had; one line says why."""


class Block:
    """10 ms of sound: `pts` counts samples since the microphone was opened, `arrived` is the engine's clock."""

    __slots__ = ("arrived", "pcm", "pts")

    def __init__(self, pcm: npt.NDArray[np.int16], pts: int, arrived: float) -> None:
        self.pcm, self.pts, self.arrived = pcm, pts, arrived


@asynccontextmanager
async def listening(clock: Clock, device: str | int | None = None) -> AsyncIterator[Channel[Block]]:
    """The blocks of a microphone, mono at 48 kHz, while the block lasts. Raises MicrophoneError."""
    sounddevice = _library()
    loop = asyncio.get_running_loop()
    blocks: Channel[Block] = Channel(BLOCKS_MOST, "drop_oldest", "microphone")
    # Appending and popping of a deque are atomic. One waking call is on its way at most: a device that keeps no time
    # would otherwise fill the loop's pipe, and signals go through that pipe too.
    waiting: deque[Block] = deque(maxlen=BLOCKS_MOST)
    called = threading.Event()
    heard = 0

    def take_over() -> None:
        called.clear()
        for _ in range(len(waiting)):
            if not blocks.closed:
                blocks.put_nowait(waiting.popleft())

    def hand_over(pcm: npt.NDArray[np.int16], frames: int, when: object, status: object) -> None:
        nonlocal heard
        waiting.append(Block(pcm[:, 0].copy(), heard, clock.now()))
        heard += frames
        if called.is_set():
            return
        called.set()
        try:
            loop.call_soon_threadsafe(take_over)
        except RuntimeError as closed:  # the loop has ended before the device has
            raise sounddevice.CallbackAbort from closed

    with _refusals():
        stream = sounddevice.InputStream(
            **_form(device),
            blocksize=BLOCK,
            latency="low",
            callback=hand_over,
            finished_callback=lambda: _end(loop, blocks),
        )
        await asyncio.to_thread(stream.start)
    try:
        yield blocks
    finally:
        await asyncio.to_thread(stream.abort)
        await asyncio.to_thread(stream.close)
        blocks.close(discard=True)


def check(device: str | int | None) -> None:
    """Before a server is started for it: is there such a microphone? Raises MicrophoneError."""
    with _refusals():
        _library().check_input_settings(**_form(device))


def _form(device: str | int | None) -> dict[str, Any]:
    return {"device": device, "samplerate": HEARD_RATE, "channels": 1, "dtype": "int16"}


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (_library().PortAudioError, ValueError, OSError) as refused:
        words = " ".join(str(refused).split())
        raise MicrophoneError(f"no microphone could be opened ({words}); --list shows what there is") from refused


async def drive(session: Any, blocks: Channel[Block]) -> int:
    """Push a microphone's blocks into a session until either ends; returns how many samples that were."""
    pushed = 0
    async for block in blocks:
        await session.push_audio(block.pcm, HEARD_RATE, pts=block.pts, arrived=block.arrived, speech=False)
        pushed += len(block.pcm)
    return pushed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="which microphone, by number or part of its name")
    parser.add_argument("--list", action="store_true", help="list the microphones")
    serve.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from engine.start import StartError

    try:
        library = _library()
        if arguments.list:
            print(str(library.query_devices()) or "no sound device is here")
            return 0
        loaded = serve.settle(arguments)
        if loaded is None:
            return 2
        device = arguments.device
        number = int(device) if device is not None and device.isdigit() else device
        check(number)
        asyncio.run(_run(loaded.config, number))
    except (StartError, MicrophoneError) as reason:
        print(f"liveface: {reason}", file=sys.stderr)
        return 1
    return 0


async def _run(config: Config, device: str | int | None) -> None:
    from engine.server import serving

    clock = RealClock()
    async with serving(config, clock) as server:
        lobby = server.rooms.lobby
        guest = lobby.admit(next(iter(server.rooms.worker.cards)), transport="microphone")
        guest.taken = True  # the microphone is its owner
        async with listening(clock, device) as blocks:
            server.heed_signals()  # before anybody can know that there is something to end
            token = server.rooms.mint.issue(guest.session.id, clock.wall(), "view", join_seconds=0)
            print(f"Open {server.url}watch/{guest.session.id}#token={token}", flush=True)
            driving = asyncio.create_task(drive(guest.session, blocks), name="microphone")
            serving_on = asyncio.create_task(server.run_until_stopped(), name="server")
            stopping = asyncio.create_task(server.stopping.wait(), name="stopping")
            await asyncio.wait([driving, stopping], return_when=asyncio.FIRST_COMPLETED)
            asked = stopping.done()
            if not guest.ended.is_set():
                lobby.end(guest.session.id)
            server.stop()
            await serving_on
            for task in (driving, stopping):
                task.cancel()
            driven, _ = await asyncio.gather(driving, stopping, return_exceptions=True)
            if not asked:
                explain(driven)


def explain(driven: int | BaseException) -> None:
    """Why the driving ended though nobody asked for the end. Raises `MicrophoneError`, or what went wrong."""
    if isinstance(driven, SessionClosedError):
        return  # somebody ended the session
    if isinstance(driven, BaseException):
        raise driven
    raise MicrophoneError("the microphone has stopped (unplugged, or taken away?); --list shows what there is")


def _library() -> Any:
    """`sounddevice`. It brings ModuleNotFoundError where it is not installed, OSError where PortAudio is not."""
    try:
        return importlib.import_module("sounddevice")
    except OSError as missing:
        raise MicrophoneError("PortAudio is not installed here: apt install libportaudio2") from missing


def _end(loop: asyncio.AbstractEventLoop, blocks: Channel[Block]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(blocks.close)
