"""Sound to a handful of numbers that say what a mouth does: by rule, causal, no learning. For the plain runtime.

Openness follows loudness and the first formant, rounding and width the second, the teeth come together on hiss, and
lips that were silent between two loud chunks meet. A session's state is a value; `hear` changes nothing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.rates import CHUNK, FRAME_RATE, MEL_HOP, MEL_WINDOW, SAMPLE_RATE
from models.runtime import Floats

OPENING, ROUNDING, WIDTH, TEETH, FUNNEL, PRESS, BITE = range(7)
"""Places in an articulation [7]; each 0…1. Teeth: as in s; funnel: as in sh; press: as in m and p; bite: as in f, which
no rule here can hear."""

REST: Final[Floats] = np.zeros(7, np.float32)
REST.setflags(write=False)

_TRANSFORM = 512
_WINDOW: Final = np.hanning(MEL_WINDOW).astype(np.float32)
_FULL_SCALE: Final = float(np.square(_WINDOW).sum() * _TRANSFORM / 4)  # band power of a sine at full scale

EDGES_HZ: Final = (100, 300, 600, 1_100, 1_800, 3_000, 4_500, 7_500)
_EDGES: Final = [round(edge * _TRANSFORM / SAMPLE_RATE) for edge in EDGES_HZ]

SPEECH_DB: Final = -26.0
"""How loud a voice is before it was heard."""
SPEECH_FALL_DB: Final = 1.5 / FRAME_RATE
SPEECH_RANGE_DB: Final = (-48.0, -8.0)
SHUT_BELOW_SPEECH_DB: Final = 28.0
OPEN_BELOW_SPEECH_DB: Final = 3.0
SILENT_DB: Final = -62.0

ATTACK: Final = np.array([0.85, 0.6, 0.6, 0.85, 0.7, 0.9, 1.0], np.float32)
RELEASE: Final = np.array([0.6, 0.5, 0.5, 0.7, 0.6, 0.6, 1.0], np.float32)
"""Shares of the way that is left, gone in one frame: at rest 200 ms after the sound."""

NEARLY_REST: Final = 0.03


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """All that the next answer depends on, besides its chunk."""

    past: Floats  # the last samples, for the first window of the next chunk
    speech_db: float
    raw: Floats  # [K + 2, 7]: what the last chunks sounded like, oldest first
    shown: Floats  # [7]: the last answer
    rests: int  # answers still to come that are for chunks before the first


def silence(lookahead: int) -> Heard:
    return Heard(
        np.zeros(MEL_WINDOW - MEL_HOP, np.float32),
        SPEECH_DB,
        np.zeros((lookahead + 2, len(REST)), np.float32),
        REST,
        lookahead,
    )


def hear(state: Heard, pcm: Floats) -> tuple[Heard, Floats]:
    """One chunk [640] in; the articulation [7] of the frame K chunks ago out."""
    pcm = np.clip(np.nan_to_num(pcm), -1, 1)
    samples = np.concatenate([state.past, pcm])
    bands = band_powers(samples)
    level = 10 * np.log10(bands.sum() + 1e-12)
    speech_db = float(np.clip(max(level, state.speech_db - SPEECH_FALL_DB), *SPEECH_RANGE_DB))
    raw = np.concatenate([state.raw[1:], _sounds_like(bands, level, speech_db)[None]])
    if state.rests:
        return Heard(samples[CHUNK:], speech_db, raw, REST, state.rests - 1), REST
    target = _with_neighbours(raw)
    rate = np.where(target > state.shown, ATTACK, RELEASE)
    shown = state.shown + (target - state.shown) * rate
    shown = np.where((target == 0) & (shown < NEARLY_REST), 0, shown).astype(np.float32)
    return Heard(samples[CHUNK:], speech_db, raw, shown, 0), shown


def band_powers(samples: Floats) -> Floats:
    """[7]: mean power of a chunk's four windows between `EDGES_HZ`; a sine at full scale has 1."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, MEL_WINDOW)[::MEL_HOP] * _WINDOW
    power = np.square(np.abs(np.fft.rfft(windows, _TRANSFORM))).mean(0)
    return np.asarray(np.add.reduceat(power[: _EDGES[-1]], _EDGES[:-1]) / _FULL_SCALE, np.float32)


def _sounds_like(bands: Floats, level: float, speech_db: float) -> Floats:
    """[7] of one chunk alone."""
    if level < SILENT_DB:
        return REST
    bottom, low, middle, upper, bright, sharp, air = (float(power) + 1e-12 for power in bands)
    loud = _ramp(level, speech_db - SHUT_BELOW_SPEECH_DB, speech_db - OPEN_BELOW_SPEECH_DB)
    hiss = _ramp(_db(sharp + air, bottom + low + middle + upper), -3, 5)
    funnel = hiss * _ramp(_db(bright + sharp, air), -4, 3)
    voiced = 1 - hiss
    closed = bottom + low  # where a first formant is when the jaw is nearly shut
    first_formant = _ramp(_db(middle, 0.5 * bottom + low), -9, 3)
    front = _ramp(_db(bright, middle + upper), -3, 9)
    back = max(
        0.7 * _ramp(_db(low + middle, upper + bright), 9, 18),  # as in oh
        _ramp(_db(closed, middle + upper), 12, 22),  # as in oo
    )
    murmur = _ramp(_db(bottom, low + middle + upper + bright), 4, 9) * _ramp(speech_db - level, 5, 11)
    opening = loud**0.8 * (0.32 + 0.68 * first_formant) * voiced * (1 - murmur)
    shaped = loud**0.5 * voiced * (1 - 0.5 * first_formant) * (1 - murmur)
    return np.array(
        [
            opening,
            shaped * back * (1 - front),
            shaped * front,
            loud**0.5 * (hiss - funnel),
            loud**0.5 * funnel,
            murmur * voiced * _ramp(loud, 0.15, 0.4),
            0.0,
        ],
        np.float32,
    )


def _with_neighbours(raw: Floats) -> Floats:
    """The frame in question is `raw[1]`, its past `raw[0]`, and what was heard since follows."""
    before, now, after = raw[0], raw[1], raw[2:]
    if not len(after):
        return np.asarray(now, np.float32)
    target = 0.15 * before + 0.6 * now + 0.25 * after[0]
    sounding = slice(OPENING, PRESS)
    dip = min(before[sounding].max(), after[:, sounding].max()) - now[sounding].max()
    stop = _ramp(float(dip), 0.15, 0.4)  # between two sounds: lips that part must have met
    target[PRESS] = max(float(target[PRESS]), stop)
    return np.asarray(target, np.float32)


def _db(power: float, against: float) -> float:
    return float(10 * np.log10(power / against))


def _ramp(value: float, nothing: float, all_of_it: float) -> float:
    return min(1.0, max(0.0, (value - nothing) / (all_of_it - nothing)))
