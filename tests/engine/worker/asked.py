"""A worker of scripted runtimes, and what is asked of it."""

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.clock import RealClock
from engine.worker import Seat, Worker
from models.rates import CHUNK
from models.runtime import Floats, Out, Wants
from tests.models.runtime import scripted

BACKEND = "tests.models.runtime.scripted"


ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE


def chunk(order: float = scripted.WELL, value: float = 1.0) -> Floats:
    sound = np.zeros(CHUNK, np.float32)
    sound[:2] = order, value
    return sound


def new_worker(inline: bool = False, slots: int = 3, names: tuple[str, ...] = ("anna", "bert")) -> Worker:
    return Worker([Path(name) for name in names], slots, BACKEND, inline=inline, clock=RealClock())


async def say(seat: Seat, value: float = 1.0, order: float = scripted.WELL, reset: bool = False) -> Out:
    return await seat.hear(chunk(order, value), 0, ALL, reset)


def heard(out: Out) -> float:
    assert out.points is not None
    return float(out.points[0, 0])


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to pass within 5 s")


async def lost(worker: Worker) -> None:
    await until(lambda: not worker.alive)


async def back(worker: Worker) -> None:
    await until(lambda: worker.alive)


def traces() -> dict[str, object]:
    """What a worker must not leave behind."""
    gc.collect()
    return {
        "descriptors": sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()),
        "threads": threading.active_count(),
        "children": Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(),
        "shared memory": sorted(path.name for path in Path("/dev/shm").iterdir()),
    }


def alive(process: int) -> bool:
    """Neither gone nor a zombie that whoever inherited it has yet to reap."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
