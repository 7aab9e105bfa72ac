"""A runtime that does what the first sample of a chunk tells it, for tests of whoever drives a runtime.

Its state is a sum of all it has heard since its reset, and every answer shows it: `points[0, 0]` and the luma.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import sleep

import numpy as np

from models.rates import FACE, POINTS
from models.runtime import AvatarCard, Out, Roi, Row, Wants

WELL, NAN, FLAT, HANG, RAISE, CRASH, SLOW, WRONG, LEAK, OOM = (n / 16 for n in range(10))

LOOP = np.tile(np.arange(64, dtype=np.uint8), (5, 96, 1))


class Scripted:
    def __init__(self, names: Sequence[str], slots: int, lookahead: int | None) -> None:
        self._heard = np.zeros(slots)
        self._cards = {
            name: AvatarCard(name, "0" * 64, 64, 64, 2 if lookahead is None else lookahead, LOOP) for name in names
        }

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self._cards

    def step(self, rows: Sequence[Row]) -> list[Out]:
        orders = {float(row.pcm[0]) for row in rows}
        if HANG in orders:
            sleep(3600)
        if RAISE in orders:
            raise RuntimeError("an illegal address")
        if OOM in orders:
            raise MemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if CRASH in orders:
            os.kill(os.getpid(), signal.SIGSEGV)
        if SLOW in orders:
            sleep(0.05)
        return [self._answer(row, len(rows)) for row in rows]

    def _answer(self, row: Row, batch: int) -> Out:
        if row.reset:
            self._heard[row.slot] = 0
        self._heard[row.slot] += row.pcm[1]
        points = np.full((POINTS, 3), self._heard[row.slot], np.float32)
        luma = np.tile(np.arange(32, dtype=np.uint8), (16, 1)) + np.uint8(row.loop_index)
        if row.pcm[0] == NAN:
            points[5, 1] = np.nan
        if row.pcm[0] == FLAT:
            luma[:] = 0
        quarter = np.full((8, 16), 128, np.uint8)
        return Out(
            row.slot + (row.pcm[0] == LEAK),
            row.generation + (row.pcm[0] == WRONG),
            points=points if Wants.POINTS in row.wants else None,
            face=np.full(FACE, batch, np.float32) if Wants.FACE in row.wants else None,
            roi=Roi(16, 32, luma, quarter, quarter) if Wants.PICTURE in row.wants else None,
            stage_seconds={"features": 0.25, "place": 0.5},
        )

    def close(self) -> None:
        pass


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> Scripted:  # noqa: A001 - the seam's name
    for package in packages:
        if package.name == "broken":
            raise ValueError("weights/face.safetensors does not match the manifest")
    return Scripted([package.name for package in packages], slots, lookahead)
