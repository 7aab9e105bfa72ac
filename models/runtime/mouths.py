"""Which of an avatar's painted mouths a face needs: an articulation, or what a network says, as shares of mouths.

A row for each session: [B, 7] or [B, 52] in, [B, M] out. A row's shares do not depend on its neighbours.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from models import face
from models.runtime import Floats
from models.runtime.articulation import BITE, FUNNEL, OPENING, PRESS, ROUNDING, TEETH, WIDTH

_AT: Final = {name: place for place, name in enumerate(face.ARKIT_52)}
_SHAPE: Final = ("mouthPucker", "mouthFunnel", "mouthStretchLeft", "mouthRollLower", "mouthPressLeft", "tongueOut")
"""What tells one column of mouths from another; within a column only the opening differs."""

WIDEST_GAP: Final = 0.8
"""Of the widest mouth: what speech at its loudest opens to."""

FAINT: Final = np.array([0.09, 0.1, 0.08, 0.08, 0.05, 0.05, 0.15], np.float32)
"""Of an articulation: what a network says of silence."""

LEAST_SHARE: Final = 0.08
"""Of a mixture: what has less is not seen, but costs as much."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Mouths of one shape, from shut to wide open."""

    places: tuple[int, ...]
    gaps: Floats  # rising

    def weigh(self, gap: Floats, share: Floats, weights: Floats) -> None:
        """Add `share` [B] to the two mouths next to `gap` [B], in `weights` [B, M]."""
        last, rows = len(self.places) - 1, np.arange(len(gap))
        at = np.interp(gap, self.gaps, np.arange(last + 1))
        lower = np.minimum(at.astype(int), last)
        places, beyond = np.array(self.places), at - lower
        weights[rows, places[lower]] += share * (1 - beyond)
        weights[rows, places[np.minimum(lower + 1, last)]] += share * beyond


class Choice:
    """An avatar's mouths by shape and opening."""

    def __init__(self, weights: Floats, lip_gap: Floats) -> None:
        self._count = len(weights)
        named = partial(_named, weights)
        shapes: dict[tuple[float, ...], list[int]] = {}
        for place in range(self._count):
            shape = tuple(round(float(named(name)[place]), 2) for name in _SHAPE)
            shapes.setdefault(shape, []).append(place)
        families = [sorted(places, key=lambda place: float(lip_gap[place])) for places in shapes.values()]
        columns = [places for places in families if len(places) > 2]
        singles = [places[0] for places in families if len(places) <= 2]
        if not columns:
            raise ValueError("mouths.safetensors holds no three mouths of one shape")
        roundness = named("mouthPucker") + named("mouthFunnel")
        width = named("mouthStretchLeft")
        self._plain, self._rounded, self._wide = (
            self._column(min(columns, key=lambda places: float(key[places].mean())), lip_gap)
            for key in (roundness + width, width - roundness, roundness - width)
        )
        self._widest = WIDEST_GAP * float(self._plain.gaps[-1])
        pressed = named("mouthPressLeft")
        self._press = _most(singles, pressed)
        self._bite = _most(singles, named("mouthRollLower") - 2 * pressed)
        self._funnel = _most(singles, named("mouthFunnel"))
        self._teeth = _most(singles, width)
        jaw = named("jawOpen")[list(self._plain.places)]
        self._jaws: Floats = np.maximum.accumulate(jaw + 1e-6 * np.arange(len(jaw)))
        self._most_rounded = float(roundness[self._rounded.places[-1]]) or 1.0
        self._most_wide = float(width[self._wide.places[-1]]) or 1.0

    @staticmethod
    def _column(places: list[int], lip_gap: Floats) -> Column:
        return Column(tuple(places), np.maximum.accumulate(lip_gap[places] + 1e-6 * np.arange(len(places))))

    def weigh(self, articulations: Floats) -> Floats:
        """[B, 7] → shares [B, M] that sum to 1."""
        weights = np.zeros((len(articulations), self._count), np.float32)
        of = articulations.T.astype(np.float64)
        left, gap = np.ones(len(articulations)), of[OPENING] * self._widest
        singles = ((self._press, PRESS), (self._bite, BITE), (self._funnel, FUNNEL), (self._teeth, TEETH))
        for place, kind in singles:
            if place is not None:
                share = left * of[kind]
                weights[:, place] += share
                left = left - share
        rounded = of[ROUNDING]
        wide = of[WIDTH] * (1 - rounded)
        self._rounded.weigh(0.75 * gap, left * rounded, weights)
        self._wide.weigh(gap, left * wide, weights)
        self._plain.weigh(gap, left * (1 - rounded - wide), weights)
        weights[weights < LEAST_SHARE] = 0
        return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)

    def articulate(self, weights: Floats) -> Floats:
        """ARKit weights [B, 52] → the articulations [B, 7] that show them best on this avatar's mouths.

        What a network says of silence is small but not nothing, and what it says of extremes is less than they are:
        `FAINT` is taken for nothing, and the rest stretched.
        """
        said = partial(_named, weights)
        jaw = np.maximum(0, said("jawOpen") - said("mouthClose"))
        parted = jaw + np.float32(0.2) * said("mouthLowerDownLeft") + np.float32(0.1) * said("mouthUpperUpLeft")
        shown = np.zeros((len(weights), len(FAINT)), np.float32)
        shown[:, OPENING] = np.interp(parted, self._jaws, self._plain.gaps) / self._widest
        shown[:, ROUNDING] = 1.5 * (said("mouthPucker") + 0.5 * said("mouthFunnel")) / self._most_rounded
        shown[:, WIDTH] = (said("mouthStretchLeft") + 0.5 * said("mouthSmileLeft")) / self._most_wide
        shown[:, TEETH] = (said("mouthLowerDownLeft") - jaw) / 0.35
        shown[:, FUNNEL] = (said("mouthFunnel") - said("mouthPucker")) / 0.5
        shown[:, PRESS] = said("mouthPressLeft") / 0.5
        shown[:, BITE] = (said("mouthRollLower") - said("mouthPressLeft")) / 0.6
        return np.clip((shown - FAINT) / (1 - FAINT), 0, 1)


def _named(weights: Floats, name: str) -> Floats:
    return weights[:, _AT[name]]


def _most(places: list[int], key: Floats) -> int | None:
    best = max(places, key=lambda place: float(key[place]), default=None)
    return best if best is not None and key[best] > 0.05 else None
