"""Where sessions' states lie between steps: one row of each state tensor a slot, and one row that belongs to nobody.

A step gathers the rows of its active slots into a batch, padded to a bucket with the scratch row, and scatters what
comes back. Batches have few sizes, so that everything can be compiled and allocated before the first guest. The arrays
may be numpy's or torch's, on any device: only indexing is asked of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128)


def bucket(rows: int) -> int:
    """The smallest batch that holds so many rows."""
    for size in BUCKETS:
        if size >= rows:
            return size
    raise ValueError(f"a step takes at most {BUCKETS[-1]} rows, not {rows}")


def buckets(slots: int) -> tuple[int, ...]:
    """The batches that so many slots can need."""
    return tuple(size for size in BUCKETS if size < 2 * slots)


def batches(rows: int, most: int | None = None) -> list[slice]:
    """How many rows are cut into steps, when there are more than `most`: by default, than the largest bucket holds."""
    most = most or BUCKETS[-1]
    return [slice(first, min(first + most, rows)) for first in range(0, rows, most)]


class Slots:
    """States of `slots` sessions. `silence`: name → the row [1, ...] of a session that has heard nothing.

    `repeat(row, n)` makes [n, ...] of it, and `index(list)` an index into it; numpy's by default.
    """

    def __init__(
        self,
        silence: Mapping[str, Any],
        slots: int,
        repeat: Callable[[Any, int], Any] = lambda row, count: np.repeat(row, count, axis=0),
        index: Callable[[list[int]], Any] = np.array,
    ) -> None:
        self._silence = dict(silence)
        self._states = {name: repeat(row, slots + 1) for name, row in silence.items()}
        self._scratch = slots
        self._index = index

    def gather(self, slots: Sequence[int], reset: Sequence[bool]) -> dict[str, Any]:
        """The states of these slots as batches of a bucket's size; those to reset begin from silence."""
        silent = [slot for slot, again in zip(slots, reset, strict=True) if again]
        if silent:
            at = self._index(silent)
            for name, state in self._states.items():
                state[at] = self._silence[name]
        padding = [self._scratch] * (bucket(len(slots)) - len(slots))
        at = self._index([*slots, *padding])
        return {name: state[at] for name, state in self._states.items()}

    def scatter(self, slots: Sequence[int], states: Mapping[str, Any]) -> None:
        """Keep what came back; what came back for the padding is forgotten."""
        at = self._index(list(slots))
        for name, state in self._states.items():
            state[at] = states[name][: len(slots)]
