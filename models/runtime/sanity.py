"""A runtime that never lets a broken picture out: holds the last good one, resets that slot alone, counts.

Broken means not finite, or flat where the loop frame under it is not (black, green, one colour).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from models.runtime import AvatarCard, Out, Roi, Row, Runtime, Wants

FLAT = 4
"""A luma range below this is one colour."""

TEXTURED = 16
"""A luma range above this in the loop frame says that the picture there is not one colour."""


class Sane:
    """Wraps a runtime; answers for every row, in order, and raises `RuntimeError` when the runtime did not."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._good: dict[int, Out] = {}  # per slot, the last good answer
        self._spoiled: set[int] = set()  # slots that start from silence at their next row

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self._runtime.cards

    def step(self, rows: Sequence[Row]) -> list[Out]:
        asked: list[Row] = []
        for row in rows:
            if row.reset:
                self._good.pop(row.slot, None)
            asked.append(replace(row, reset=True) if row.slot in self._spoiled else row)
            self._spoiled.discard(row.slot)
        outs = self._runtime.step(asked)
        if [(out.slot, out.generation) for out in outs] != [(row.slot, row.generation) for row in rows]:
            raise RuntimeError("the runtime did not answer its rows in order")
        return [self._checked(row, out) for row, out in zip(rows, outs, strict=True)]

    def _checked(self, row: Row, out: Out) -> Out:
        if finite(out) and not self._flat(row, out.roi):
            self._good[row.slot] = out
            return out
        self._spoiled.add(row.slot)
        good = self._good.get(row.slot)
        if good is None or good.generation != row.generation:
            return Out(row.slot, row.generation, held=True)
        return Out(
            row.slot,
            row.generation,
            points=good.points if Wants.POINTS in row.wants else None,
            face=good.face if Wants.FACE in row.wants else None,
            mesh=good.mesh if Wants.MESH in row.wants else None,
            roi=good.roi if Wants.PICTURE in row.wants else None,
            held=True,
        )

    def _flat(self, row: Row, roi: Roi | None) -> bool:
        if roi is None or int(np.ptp(roi.luma)) >= FLAT:
            return False
        card = self.cards[row.avatar]
        height, width = roi.luma.shape
        under = card.loop[row.loop_index % card.frames][roi.y : roi.y + height, roi.x : roi.x + width]
        return int(np.ptp(under)) >= TEXTURED

    def close(self) -> None:
        self._runtime.close()


def finite(out: Out) -> bool:
    return all(np.isfinite(values).all() for values in (out.points, out.face, out.mesh) if values is not None)
