"""Is somebody speaking? A gate on what the model hears, so that the lips rest on breath, hum and hiss. Pure.

Each 40 ms chunk has a level (200 Hz to 4 kHz, where speech is and mains hum is not) and a periodicity (how much it
repeats itself at the pitch of a voice). The gate keeps two levels of its own: the noise floor, which falls at once and
rises slowly, faster under sound without pitch; and the loudness of speech so far. Everything is relative to these two,
so the volume of the microphone does not matter.

- It opens in the very chunk in which a voice begins, and for a loud and sudden burst without pitch (s, p, t). A burst
  that no voice follows within 240 ms was a noise, and bursts open nothing more until there has been a voice. Breath
  swells slowly and is quieter than that.
- It stays open while there is pitch, or had been within HOLD of the last chunk that counts: stops and fricatives
  inside words do not close it.
- It closes over two chunks. Closed is a gain of exactly 0: the model hears true silence.
"""

import math
from typing import Final

import numpy as np

from engine.media import Floats
from models.rates import CHUNK, FRAME_RATE, SAMPLE_RATE

HOLD_CHUNKS: Final = 4
"""160 ms: longer than the closure of a stop, shorter than the 200 ms in which lips must come to rest after speech."""

BURST_CHUNKS: Final = 6
"""240 ms of sound without pitch are a fricative; more are noise."""

CLOSING: Final = (0.5, 0.0)
OPEN_ABOVE_FLOOR_DB: Final = 9.0
STAY_ABOVE_FLOOR_DB: Final = 6.0
BURST_ABOVE_FLOOR_DB: Final = 15.0
VOICE_BELOW_SPEECH_DB: Final = 26.0
BURST_BELOW_SPEECH_DB: Final = 12.0
BURST_RISE_DB: Final = 10.0
"""Within two chunks: a consonant begins at once."""

QUIETEST_DB: Final = -62.0
"""Below this nothing is speech, at any setting of a microphone."""

PERIODIC: Final = 0.5
FLOOR_RISE_DB: Final = 30 / FRAME_RATE
"""A chunk, under sound without pitch: a fan that is switched on is floor within a second."""

FLOOR_RISE_VOICED_DB: Final = 3 / FRAME_RATE
"""The same under sound with pitch: a vowel may be held for five seconds, a tone may not be held for ever."""

SPEECH_FALL_DB: Final = 1 / FRAME_RATE
SPEECH_AT_FIRST_DB: Final = -30.0
FLOOR_AT_FIRST_DB: Final = -42.0
"""A session may begin in mid-word: louder than this is not believed to be a room's noise at once."""


_FREQUENCIES = np.fft.rfftfreq(CHUNK, 1 / SAMPLE_RATE)
_BAND = slice(*np.searchsorted(_FREQUENCIES, [200, 4_001]).tolist())
_WINDOW = np.hanning(CHUNK).astype(np.float32)
_LAGS = slice(SAMPLE_RATE // 400, SAMPLE_RATE // 70)
_WINDOW_OVERLAP = np.fft.irfft(np.abs(np.fft.rfft(_WINDOW, 2 * CHUNK)) ** 2)[:CHUNK]
_FULL_OVERLAP = float(_WINDOW_OVERLAP[0])
_WIDENED = _FULL_OVERLAP / _WINDOW_OVERLAP[_LAGS]
"""What the window took from a repetition at each lag, given back."""


def measure(features: Floats) -> tuple[float, float]:
    """Level in dB against full scale and periodicity 0…1 of one chunk, f32 [640]."""
    if not features.any():  # most sessions are silent most of the time, and need no transform to know it
        return -120.0, 0.0
    spectrum = np.fft.rfft(features * _WINDOW)[_BAND]
    power = np.zeros(CHUNK // 2 + 1)
    power[_BAND] = spectrum.real**2 + spectrum.imag**2
    # Without zeros behind the chunk, lags wrap round: the window leaves less than 3 % of that at the longest one.
    repeats = np.fft.irfft(power)
    energy = float(repeats[0])
    if energy <= 1e-12:
        return -120.0, 0.0
    level = 10 * math.log10(energy / _FULL_OVERLAP)
    periodicity = float((repeats[_LAGS] * _WIDENED).max()) / energy
    return level, min(1.0, max(0.0, periodicity))


class Gate:
    """The gate of one session. Chunks go in once each, in order."""

    def __init__(self) -> None:
        self.speaking = False
        self.floor = 0.0
        """dB. 0 until the first chunk, which is taken for noise unless it is louder than a room is."""
        self.speech = SPEECH_AT_FIRST_DB
        """dB: how loud this voice is."""
        self._since_counting = HOLD_CHUNKS
        self._alone = 0  # chunks that it has been open without a voice
        self._bursts_trusted = True
        self._before = (0.0, 0.0)
        self._level = 0.0
        self._last: tuple[Floats, float, float] | None = None
        self._closing = len(CLOSING)

    def open(self, features: Floats) -> float:
        """Hear one chunk, f32 [640]; get the gain 0…1 that it passes with. `speaking` is set for it."""
        level, periodicity = self._measured(features)
        self._follow_floor(level, periodicity)
        self._level = level
        above = level - self.floor
        heard = level > QUIETEST_DB
        voiced = heard and periodicity >= PERIODIC and level > self.speech - VOICE_BELOW_SPEECH_DB
        voiced = voiced and above > (STAY_ABOVE_FLOOR_DB if self.speaking else OPEN_ABOVE_FLOOR_DB)
        loud = heard and above > BURST_ABOVE_FLOOR_DB and level > self.speech - BURST_BELOW_SPEECH_DB
        sudden = level - min(self._before) > BURST_RISE_DB
        self._before = (self._before[1], level)
        burst = loud and self._alone < BURST_CHUNKS and (self.speaking or (sudden and self._bursts_trusted))
        if burst and not self.speaking:
            self._bursts_trusted = False
        self._since_counting = 0 if voiced or burst else self._since_counting + 1
        if voiced:
            self.speech = max(level, self.speech - SPEECH_FALL_DB)
            self._bursts_trusted = True
        self.speaking = voiced or burst or (self.speaking and self._since_counting < HOLD_CHUNKS)
        self._alone = 0 if voiced or not self.speaking else self._alone + 1
        if self.speaking:
            self._closing = 0
            return 1.0
        if self._closing < len(CLOSING):
            self._closing += 1
            return CLOSING[self._closing - 1]
        return 0.0

    def shut(self) -> None:
        """Nobody is speaking from here on (an interrupt). What was learnt of the room and of the voice stays."""
        self.speaking = False
        self._since_counting = HOLD_CHUNKS
        self._closing = len(CLOSING)

    def quiet(self, features: Floats | None = None) -> bool:
        """Whether a chunk, or else the last one that went in, holds nothing worth hearing, as far as is known now.
        Changes nothing."""
        level = self._level if features is None else self._measured(features)[0]
        if self.floor == 0.0:
            return level <= QUIETEST_DB  # nothing is known of the room yet
        return level <= max(QUIETEST_DB, self.floor + STAY_ABOVE_FLOOR_DB, self.speech - VOICE_BELOW_SPEECH_DB)

    def _measured(self, features: Floats) -> tuple[float, float]:
        """Once for a chunk: who is behind asks whether it is quiet first, and has no time for it twice."""
        if self._last is None or self._last[0] is not features:
            self._last = features, *measure(features)
        return self._last[1:]

    def _follow_floor(self, level: float, periodicity: float) -> None:
        if self.floor == 0.0:
            self.floor = max(min(level, FLOOR_AT_FIRST_DB), QUIETEST_DB - 20)
        elif level < self.floor:
            self.floor = max(level, QUIETEST_DB - 20)
        else:
            rise = FLOOR_RISE_VOICED_DB if periodicity >= PERIODIC else FLOOR_RISE_DB
            self.floor = min(level, self.floor + rise)
