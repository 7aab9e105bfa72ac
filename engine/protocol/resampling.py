"""Faces and sound at the rates that a client asked for."""

import math

import numpy as np
import numpy.typing as npt

from engine.protocol.coords import HEAD
from engine.protocol.frames import pts_us_from_heard
from models.rates import HEARD_CHUNK, HEARD_RATE

Floats = npt.NDArray[np.float32]
Sound = npt.NDArray[np.int16]


def slerp(a: Floats, b: Floats, t: float) -> Floats:
    """Between unit quaternions x y z w, the short way round."""
    cosine = float(np.dot(a, b))
    if cosine < 0.0:
        a, cosine = -a, -cosine
    if cosine > 0.9995:  # so near that the sine in the divisor would lose more than a straight line does
        mixed = a + (b - a) * np.float32(t)
    else:
        angle = math.acos(min(cosine, 1.0))
        mixed = (a * math.sin((1.0 - t) * angle) + b * math.sin(t * angle)) / math.sin(angle)
    return np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-12), np.float32)


def blend_faces(a: Floats, b: Floats, t: float) -> Floats:
    """[61] and [61] → [61]: straight for weights, position and gaze, slerp for the head."""
    mixed = np.asarray(a + (b - a) * np.float32(t), np.float32)
    mixed[HEAD : HEAD + 4] = slerp(a[HEAD : HEAD + 4], b[HEAD : HEAD + 4], t)
    return mixed


class FaceRate:
    """25 faces a second in, `rate` a second out, on the grid k / rate. Adds no delay: what is asked for between the
    last face and this one is known when this one comes. Never blends across an epoch or a hole."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._last: tuple[int, int, Floats] | None = None  # epoch, pts in 48 kHz samples, face

    def push(self, pts: int, epoch: int, face: Floats) -> list[tuple[int, Floats]]:
        """The faces due in (last pts, pts], dated in microseconds."""
        before, self._last = self._last, (epoch, pts, face)
        if before is None or before[0] != epoch or not 0 < pts - before[1] <= HEARD_CHUNK:
            return [(pts_us_from_heard(pts), face)]
        _, start, a = before
        out: list[tuple[int, Floats]] = []
        for tick in range(start * self.rate // HEARD_RATE + 1, pts * self.rate // HEARD_RATE + 1):
            t = (tick * HEARD_RATE / self.rate - start) / (pts - start)
            out.append((round(tick * 1_000_000 / self.rate), face if t >= 1.0 else blend_faces(a, face, t)))
        return out


class SoundRate:
    """48 kHz s16 mono → 48, 24 or 16 kHz, a chunk at a time, with a short low-pass whose history is kept."""

    def __init__(self, rate: int) -> None:
        self.step = HEARD_RATE // rate
        reach = 8 * self.step
        n = np.arange(-reach, reach + 1)
        taps = np.sinc(n / self.step * 0.92) * np.hamming(n.size)
        self._taps = taps / taps.sum()
        self._past = np.zeros(2 * reach)

    def push(self, heard: Sound) -> Sound:
        """[1920] → [1920 / step]. The low-pass delays by 8 samples of the slower rate: 0.5 ms at most."""
        if self.step == 1:
            return heard
        whole = np.concatenate([self._past, heard.astype(np.float64)])
        self._past = whole[-self._past.size :]
        low: Sound = np.convolve(whole, self._taps, "valid")[:: self.step].round().clip(-32768, 32767).astype(np.int16)
        return low
