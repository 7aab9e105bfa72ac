"""Phones with times → the ARKit weights of a mouth that says them, at any frame rate.

Coarticulation by dominance: every phone pulls the mouth towards its own shape with a bell that begins before the phone
and outlives it, wider for lips that round (rounding anticipates), weaker for what the lips do not care about. What must
happen is not left to that vote: during m, b and p the lips meet, during f and v the lower lip is at the teeth; these
are laid over the result as constraints that ramp within 40 ms and hold for the closure itself.

Phones are ARPAbet in lower case, "pau" for silence. Curves are [T, 52] in the order of `face.ARKIT_52`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.face import ARKIT_52

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of an utterance, in seconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Style:
    """How somebody speaks."""

    opening: float = 1.0
    """Jaw and lips together: 0.7 mumbles, 1.3 declaims."""
    rounding: float = 1.0
    smile: float = 0.0
    lead: float = 0.035
    """Seconds by which lips move ahead of the sound."""
    ajar: float = 0.0
    """How far consonants and short vowels leave the mouth open: 0 hardly, 1 as filmed."""
    reach: float = 1.0
    """How far a phone's shape spreads into its neighbours: less is quicker."""


LIKE_FILM = Style(opening=1.1, lead=0.020, ajar=1.0, reach=0.7)
"""How a person filmed for lip reading opens the mouth: `tests/bench/mouths.py` says how near this comes."""

TAUGHT = replace(LIKE_FILM, lead=0.0)
"""What the voice encoder learns: the same mouth, with the sound and not before it, as that person's correlates best."""


@dataclass(frozen=True, slots=True)
class _Shape:
    pull: float  # how much it dominates its neighbours
    reach: float  # how far its influence goes beyond the phone, 1 = usual
    weights: dict[str, float]


def _shape(pull: float, reach: float = 1.0, **weights: float) -> _Shape:
    return _Shape(pull, reach, weights)


_SEALED = _shape(4.0, 0.8, jawOpen=0.05, mouthPress=0.30, mouthRollLower=0.20, mouthRollUpper=0.18)
_LIP_TEETH = _shape(4.0, 0.8, jawOpen=0.07, mouthRollLower=0.60, mouthUpperUp=0.25)
_SHAPES: dict[str, _Shape] = {
    "pau": _shape(1.0, 1.0),
    "m": _SEALED,
    "b": _SEALED,
    "p": _SEALED,
    "f": _LIP_TEETH,
    "v": _LIP_TEETH,
    "w": _shape(2.4, 1.3, jawOpen=0.10, mouthPucker=0.75, mouthFunnel=0.20),
    "uw": _shape(2.2, 1.4, jawOpen=0.13, mouthPucker=0.70, mouthFunnel=0.25),
    "uh": _shape(1.3, 1.1, jawOpen=0.20, mouthPucker=0.40, mouthFunnel=0.20),
    "ow": _shape(1.9, 1.2, jawOpen=0.32, mouthPucker=0.45, mouthFunnel=0.38),
    "oy": _shape(1.6, 1.1, jawOpen=0.38, mouthPucker=0.25, mouthFunnel=0.40),
    "ao": _shape(1.6, 1.0, jawOpen=0.48, mouthFunnel=0.42),
    "aa": _shape(1.7, 1.0, jawOpen=0.66, mouthLowerDown=0.10),
    "ae": _shape(1.7, 1.0, jawOpen=0.56, mouthStretch=0.30, mouthUpperUp=0.12, mouthLowerDown=0.12),
    "ay": _shape(1.7, 1.0, jawOpen=0.58, mouthStretch=0.15, mouthLowerDown=0.10),
    "aw": _shape(1.6, 1.0, jawOpen=0.56, mouthFunnel=0.18),
    "ah": _shape(1.3, 1.0, jawOpen=0.42, mouthLowerDown=0.08),
    "ax": _shape(0.8, 1.0, jawOpen=0.24),
    "er": _shape(1.2, 1.0, jawOpen=0.22, mouthFunnel=0.28, mouthPucker=0.20),
    "eh": _shape(1.4, 1.0, jawOpen=0.40, mouthStretch=0.24, mouthLowerDown=0.12),
    "ey": _shape(1.5, 1.0, jawOpen=0.32, mouthSmile=0.22, mouthStretch=0.28, mouthLowerDown=0.12),
    "ih": _shape(1.1, 1.0, jawOpen=0.23, mouthStretch=0.20, mouthLowerDown=0.10),
    "iy": _shape(1.6, 1.0, jawOpen=0.15, mouthSmile=0.28, mouthStretch=0.38, mouthLowerDown=0.14),
    "y": _shape(1.0, 1.0, jawOpen=0.13, mouthStretch=0.25),
    "r": _shape(1.3, 1.1, jawOpen=0.15, mouthFunnel=0.38, mouthPucker=0.25),
    "l": _shape(1.0, 1.0, jawOpen=0.24, tongueOut=0.08, mouthLowerDown=0.08),
    "th": _shape(1.6, 1.0, jawOpen=0.15, tongueOut=0.32, mouthLowerDown=0.20),
    "dh": _shape(1.3, 1.0, jawOpen=0.14, tongueOut=0.22, mouthLowerDown=0.16),
    "s": _shape(1.7, 0.9, jawOpen=0.06, mouthStretch=0.24, mouthLowerDown=0.34, mouthUpperUp=0.15),
    "sh": _shape(1.9, 1.1, jawOpen=0.09, mouthFunnel=0.62, mouthPucker=0.20),
    "t": _shape(1.1, 0.9, jawOpen=0.11, mouthLowerDown=0.20),
    "k": _shape(0.8, 1.0, jawOpen=0.20),
    "hh": _shape(0.4, 1.0, jawOpen=0.22),
}
_SAME_AS = {"z": "s", "zh": "sh", "ch": "sh", "jh": "sh", "d": "t", "n": "t", "dx": "t", "ng": "k", "g": "k"}
_SAME_AS |= {"el": "l", "en": "t", "em": "m", "axr": "er", "ix": "ih", "sil": "pau"}

PHONES: tuple[str, ...] = (*_SHAPES, *_SAME_AS)
"""Every phone that has a shape."""

_AJAR = {
    "t": (0.18, 0.30),
    "s": (0.12, 0.40),
    "k": (0.27, 0.0),
    "th": (0.20, 0.25),
    "dh": (0.20, 0.20),
    "l": (0.28, 0.15),
}
_AJAR |= {"hh": (0.30, 0.0), "y": (0.20, 0.0), "ih": (0.30, 0.14), "iy": (0.22, 0.20), "ey": (0.40, 0.15)}
_AJAR |= {"ax": (0.30, 0.10), "eh": (0.46, 0.15)}
"""jawOpen and mouthLowerDown of phones that a filmed speaker says more openly than the shapes above."""

CLOSED_PHONES = frozenset(("m", "b", "p", "em"))
LIP_TEETH_PHONES = frozenset(("f", "v"))
OPEN_PHONES = frozenset(("aa", "ae", "ah", "ao", "ay", "aw", "eh"))
ROUND_PHONES = frozenset(("uw", "ow", "w"))

RAMP_SECONDS = 0.040
"""In which lips come together before a closure and part after it."""

LEAST_CLOSED_SECONDS = 0.045
"""However short the phone, the lips meet for longer than one picture lasts."""

_AT = {name: i for i, name in enumerate(ARKIT_52)}
_OPENERS = [_AT[n] for n in ("mouthFunnel", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft")]
_OPENERS += [_AT[n] for n in ("mouthUpperUpRight", "mouthStretchLeft", "mouthStretchRight", "tongueOut")]
_JAW, _CLOSE, _ROLL = _AT["jawOpen"], _AT["mouthClose"], _AT["mouthRollLower"]
_PRESS = [_AT["mouthPressLeft"], _AT["mouthPressRight"]]
_SMILES = [_AT["mouthSmileLeft"], _AT["mouthSmileRight"]]


def articulate(phones: Sequence[Phone], frame_rate: float, frames: int, style: Style | None = None) -> Floats:
    """The mouth at the middle of each of `frames` frames: [frames, 52]. Only the mouth, jaw and tongue move."""
    style = style or Style()
    times = (np.arange(frames) + 0.5) / frame_rate
    if not phones:
        return _rested(np.zeros((frames, len(ARKIT_52)), np.float32), style)
    starts, ends = _edges(phones)
    names = [_SAME_AS.get(phone.name, phone.name) for phone in phones]
    shapes = [_SHAPES[name] for name in names]
    targets = np.stack([_target(name, style) for name in names])

    middle, half = (starts + ends) / 2, np.maximum(0.030, (ends - starts) / 2)
    reach = np.array([style.reach * shape.reach for shape in shapes]) * (half + 0.022)
    pulls = np.array([shape.pull for shape in shapes])
    bells = pulls * np.exp(-((np.abs(times[:, None] + style.lead - middle) / reach) ** 2.2))
    curves = (bells @ targets) / (bells.sum(axis=1, keepdims=True) + 0.15)

    sealed = _held(times, phones, CLOSED_PHONES)[:, None]
    bitten = _held(times, phones, LIP_TEETH_PHONES) * (1 - sealed[:, 0])
    curves[:, _OPENERS] *= 1 - sealed
    curves[:, _JAW] *= 1 - 0.80 * sealed[:, 0] - 0.60 * bitten
    curves[:, _PRESS] = np.maximum(curves[:, _PRESS] * (1 - bitten[:, None]), 0.66 * sealed)
    curves[:, _ROLL] = np.maximum(curves[:, _ROLL], 0.75 * bitten)
    curves[:, _CLOSE] = curves[:, _JAW] * sealed[:, 0]
    return _rested(curves.astype(np.float32), style)


def closure(phones: Iterable[Phone], frame_rate: float, frames: int) -> Floats:
    """How far the lips are held shut at the middle of each frame: [frames] in 0…1."""
    return _held((np.arange(frames) + 0.5) / frame_rate, phones, CLOSED_PHONES).astype(np.float32)


def opening(curves: Floats) -> Floats:
    """One number for how open lips are, 0 when they meet: [..., 52] → [...]."""
    apart = curves[..., _JAW] + 0.25 * curves[..., [_AT["mouthLowerDownLeft"], _AT["mouthUpperUpLeft"]]].sum(axis=-1)
    sealed = np.clip(np.maximum(curves[..., _CLOSE] / (curves[..., _JAW] + 1e-3), curves[..., _PRESS[0]] / 0.6), 0, 1)
    return np.asarray(apart * (1 - sealed), np.float32)


def rounding(curves: Floats) -> Floats:
    """One number for how round they are: [..., 52] → [...]."""
    return np.asarray(curves[..., _AT["mouthPucker"]] + 0.6 * curves[..., _AT["mouthFunnel"]], np.float32)


def _edges(phones: Sequence[Phone]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return np.array([p.start for p in phones]), np.array([p.end for p in phones])


def _target(phone: str, style: Style) -> npt.NDArray[np.float64]:
    row = np.zeros(len(ARKIT_52))
    weights = dict(_SHAPES[phone].weights)
    for name, much in zip(("jawOpen", "mouthLowerDown"), _AJAR.get(phone, ()), strict=False):
        usual = weights.get(name, 0.0)
        weights[name] = usual + style.ajar * max(0.0, much - usual)
    for name, value in weights.items():
        scale = style.rounding if name in ("mouthPucker", "mouthFunnel") else 1.0
        scale = style.opening if name in ("jawOpen", "mouthLowerDown", "mouthUpperUp") else scale
        for side in (name,) if name in _AT else (name + "Left", name + "Right"):
            row[_AT[side]] = min(1.0, value * scale)
    return row


def _held(times: npt.NDArray[np.float64], phones: Iterable[Phone], which: frozenset[str]) -> npt.NDArray[np.float64]:
    """1 within each of the phones, raised cosine ramps before and after."""
    held = np.zeros(len(times))
    for phone in phones:
        if phone.name not in which:
            continue
        middle, half = (phone.start + phone.end) / 2, max(LEAST_CLOSED_SECONDS, phone.end - phone.start) / 2
        outside = np.clip((np.abs(times - middle) - half) / RAMP_SECONDS, 0, 1)
        held = np.maximum(held, 0.5 + 0.5 * np.cos(math.pi * outside))
    return held


def _rested(curves: Floats, style: Style) -> Floats:
    curves[:, _SMILES] = np.clip(curves[:, _SMILES] + style.smile, 0, 1)
    return np.clip(curves, 0, 1)
