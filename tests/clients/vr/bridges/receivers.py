"""What the tests of all bridges share: a pose, a UDP ear, the options of a command line."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clients.python import Face
from engine.protocol.coords import head_in
from engine.websocket import Stream


def a_face(names: tuple[str, ...], coords: str, seed: int = 3) -> Face:
    """A pose of every axis at once, as the server would send it in `coords`."""
    dice = np.random.default_rng(seed)
    q = np.array([*dice.uniform(-0.3, 0.3, 3), 1.0])
    canonical = np.concatenate([q / np.linalg.norm(q), dice.uniform(-0.1, 0.1, 3), [12.0, -7.0]]).astype(np.float32)
    head = tuple(float(x) for x in head_in(coords, canonical))  # type: ignore[arg-type]  # one of the three
    weights = tuple(float(np.float32(x)) for x in dice.uniform(0, 1, len(names)))
    return Face(1_234_567, 0, 5, True, names, weights, head[:4], head[4:7], (head[7], head[8]))


def same_turn(a: Any, b: Any) -> bool:
    return abs(abs(float(np.dot(a, b))) - 1.0) < 1e-7


class Heard(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.datagrams: list[bytes] = []

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        self.datagrams.append(datagram)


@asynccontextmanager
async def a_receiver() -> AsyncIterator[tuple[Heard, str]]:
    loop = asyncio.get_running_loop()
    transport, heard = await loop.create_datagram_endpoint(Heard, local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    yield heard, f"{host}:{port}"
    transport.close()


def wishes(stream: Stream, speech: Path | None, schema: str, coords: str, **more: Any) -> argparse.Namespace:
    shared = {"url": stream.url, "avatar": None, "token": None, "wav": speech, "mic": False, "watch": None, "fps": 60.0}
    return argparse.Namespace(schema=schema, coords=coords, **shared, **more)
