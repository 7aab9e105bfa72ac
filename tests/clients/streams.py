"""A websocket server with a fake model, for clients to speak to; and voices to speak with."""

import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from engine.clock import RealClock
from engine.session import House
from engine.websocket import Stream, serve_websocket
from tests.fakes import vowel
from tests.seats import FakeWorker

VOICE = (vowel(1, 16_000, amplitude=0.8) * 32_000).astype("<i2").tobytes()
"""A second of a vowel, 16 kHz."""


@asynccontextmanager
async def a_stream(lookahead: int = 0) -> AsyncIterator[Stream]:
    """`avatar.v1` on a free port of 127.0.0.1, in real time. The mouth opens as far as the sound is loud."""
    clock = RealClock()
    worker = FakeWorker(clock, lookahead=lookahead)  # type: ignore[arg-type]  # it needs now and sleep_until
    async with (
        House(worker, clock) as house,  # type: ignore[arg-type]  # the fake has the worker's shape
        serve_websocket(house, clock, port=0, avatar="demo") as stream,
    ):
        yield stream


def write_wav(path: Path, pcm: bytes = VOICE, width: int = 2, rate: int = 16_000) -> Path:
    """Mono."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)
    return path


def write_speech(path: Path) -> Path:
    """200 ms of silence and 0.8 s of a vowel."""
    pcm = np.concatenate([np.zeros(3_200), vowel(0.8, amplitude=0.8)])
    return write_wav(path, (pcm * 32_000).astype("<i2").tobytes())
