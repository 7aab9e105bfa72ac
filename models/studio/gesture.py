"""What the rest of somebody does while the mouth speaks: head, brows, lids, gaze, breath, led by the sound.

Words that matter are said with a nod and often with the brows; people blink when they pause, look away for a moment
before they begin, and hold their head stiller when they listen. All of it is drawn from one seed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.face import ARKIT_52
from models.studio.articulation import OPEN_PHONES, Phone

Floats = npt.NDArray[np.float32]

_AT = {name: i for i, name in enumerate(ARKIT_52)}
REST = {"mouthSmile": 0.14, "eyeSquint": 0.06, "browInnerUp": 0.10, "eyeLookUp": 0.05, "eyeBlink": 0.05}
"""A friendly face that says nothing."""

BLINK_STAGES = (0.05, 0.2, 0.36, 0.52, 0.68, 0.84, 1.0)
"""What a lid may be at: as fine as 25 pictures a second can show, as few as can be drawn once each."""
BROW_STEP = 0.05  # under half a pixel of a picture of 512
VOWELS = OPEN_PHONES | {"ey", "iy", "ow", "uw", "oy", "er"}


class Gesture(NamedTuple):
    """[T] frames."""

    curves: Floats  # [T, 52], only the upper face
    angles: Floats  # [T, 3] degrees: yaw, pitch, roll
    breath: Floats  # [T] 0…1


def gesture(phones: Sequence[Phone], frame_rate: float, frames: int, dice: np.random.Generator) -> Gesture:
    times = (np.arange(frames) + 0.5) / frame_rate
    talking = _talking(phones, times)
    curves = np.zeros((frames, len(ARKIT_52)), np.float32)
    accents = _accents(phones, dice)

    brows = REST["browInnerUp"] + 0.05 * _drift(times, 0.05, dice)
    nod = np.zeros(frames)
    for at, much in accents:
        nod += much * _bell(times - at - 0.03, 0.13) - 0.35 * much * _bell(times - at - 0.38, 0.18)
        if dice.random() < 0.55:
            brows += 0.24 * much * _bell(times - at + 0.05, 0.22)
    brows = np.clip(np.round(brows / BROW_STEP) * BROW_STEP, 0, 0.5)
    curves[:, _AT["browInnerUp"]] = brows
    curves[:, [_AT["browOuterUpLeft"], _AT["browOuterUpRight"]]] = 0.5 * np.clip(brows - 0.1, 0, 1)[:, None]

    lids = _blinks(phones, times, dice)
    for side in ("Left", "Right"):
        curves[:, _AT["eyeBlink" + side]] = lids
        curves[:, _AT["eyeSquint" + side]] = REST["eyeSquint"]
    _look(curves, times, dice)

    lively = 1.0 + 0.8 * talking
    yaw = 2.0 * lively * _drift(times, 0.11, dice)
    pitch = 0.9 * lively * _drift(times, 0.16, dice) + 1.1 * nod + 0.3
    roll = 1.0 * lively * _drift(times, 0.09, dice)
    angles = np.stack([yaw, pitch, roll], 1).astype(np.float32)
    breath = 0.5 + 0.5 * np.sin(2 * math.pi * (times / 3.9 + dice.random()))
    return Gesture(curves, angles, breath.astype(np.float32))


def _bell(x: npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-((x / width) ** 2)))


def _drift(times: npt.NDArray[np.float64], hertz: float, dice: np.random.Generator) -> npt.NDArray[np.float64]:
    """A slow wander of about ±1 that does not repeat."""
    total = np.zeros(len(times))
    for harmonic, share in ((1.0, 0.6), (1.73, 0.35), (3.1, 0.2)):
        total += share * np.sin(2 * math.pi * hertz * harmonic * times + dice.uniform(0, 2 * math.pi))
    return total


def _talking(phones: Sequence[Phone], times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """0 in silence, 1 in speech, half a second from one to the other."""
    spoken = np.zeros(len(times))
    for phone in phones:
        if phone.name != "pau":
            spoken[(times >= phone.start) & (times < phone.end)] = 1
    step = times[1] - times[0] if len(times) > 1 else 1.0
    kernel = np.hanning(max(3, int(1.0 / step) | 1))
    smooth = np.convolve(spoken, kernel / kernel.sum())[len(kernel) // 2 :][: len(times)]
    return np.asarray(np.clip(smooth * 1.3, 0, 1))


def _accents(phones: Sequence[Phone], dice: np.random.Generator) -> list[tuple[float, float]]:
    """(time, strength 0.5…1.2): the long vowels among their neighbours, at least 0.45 s apart."""
    vowels = [phone for phone in phones if phone.name in VOWELS]
    if not vowels:
        return []
    lengths = np.array([phone.end - phone.start for phone in vowels])
    long, found = float(np.quantile(lengths, 0.6)), list[tuple[float, float]]()
    for phone, length in zip(vowels, lengths, strict=True):
        if length >= long and (not found or phone.start - found[-1][0] > 0.45):
            found.append(((phone.start + phone.end) / 2, float(dice.uniform(0.5, 1.2))))
    return found


def _blinks(phones: Sequence[Phone], times: npt.NDArray[np.float64], dice: np.random.Generator) -> Floats:
    """Every two to six seconds, drawn to the beginnings of pauses; shut within 80 ms, open after 200 more."""
    pauses = [phone.start + 0.08 for phone in phones if phone.name == "pau" and phone.end - phone.start > 0.15]
    lids, at = np.zeros(len(times)), float(dice.uniform(0.5, 2.5))
    while at < times[-1] + 0.2:
        nearest = min(pauses, key=lambda pause: abs(pause - at), default=at)
        when = nearest if abs(nearest - at) < 0.8 else at
        since = times - when
        shut = np.clip(np.where(since < 0, 1 + since / 0.10, 1 - since / 0.22), 0, 1)
        lids = np.maximum(lids, shut * shut * (3 - 2 * shut))
        at = max(at, when) + float(dice.uniform(2.0, 6.0))
    stages = np.array(BLINK_STAGES)
    return np.asarray(stages[np.abs(lids[:, None] - stages).argmin(1)], np.float32)


def _look(curves: Floats, times: npt.NDArray[np.float64], dice: np.random.Generator) -> None:
    """At the camera, with small shifts from one eye of the viewer to the other, and a glance aside now and then."""
    at, aside, up = 0.0, 0.0, REST["eyeLookUp"]
    while at < times[-1]:
        held = times >= at
        curves[held, _AT["eyeLookOutLeft"]] = curves[held, _AT["eyeLookInRight"]] = max(0.0, aside)
        curves[held, _AT["eyeLookInLeft"]] = curves[held, _AT["eyeLookOutRight"]] = max(0.0, -aside)
        for side in ("Left", "Right"):
            curves[held, _AT["eyeLookUp" + side]], curves[held, _AT["eyeLookDown" + side]] = max(0.0, up), max(0.0, -up)
        glance = dice.random() < 0.15
        aside = float(dice.choice((-0.25, 0.25) if glance else (-0.05, 0.0, 0.05)))
        up = float(dice.choice((-0.15, 0.15) if glance else (0.0, 0.05, 0.1)))
        at += float(dice.uniform(0.4, 0.8) if glance else dice.uniform(0.8, 3.0))
