"""Any PCM in, exact dated chunks out: 1,920 samples at 48 kHz for the ear and 640 at 16 kHz for the model, 40 ms each.

Pure: no clock, no waiting. The owner pushes what came, takes whole chunks, and says by `fill` when missing sound is to
be taken for silence. Every date is a count of samples of the session's own 48 kHz timeline, beginning at 0.

What happens to
- 48 kHz mono s16: `heard` is bit-exact. Stereo becomes the mean of both sides; equal sides stay bit-exact.
- other rates, 8 to 48 kHz: windowed-sinc interpolation that waits for no future sound; `heard` is late against its date
  by the half length of the kernel, at most 1.5 ms. Rates outside are refused (`ValueError`).
- features: the same samples of `heard` through a 145-tap low pass at 7.6 kHz, every third one kept. They lag `heard` by
  exactly 1.5 ms (24 samples at 16 kHz), so a chunk is ready the moment its 40 ms are in.
- 16 kHz: features are the source's own samples, equally late, and `heard` is made only when somebody asks for it.
- float: 1.0 is full scale; beyond it is clipped, also 1e30. NaN and infinities become 0 and are counted in `mended`.
- direct current, full-scale square: pass to the ear as they are; features never leave -1…1.
- an empty packet: nothing, but its rate and shape are still checked. A long packet: all its chunks at once.
- a hole in the dates of at most 1 s: silence, counted in `invented`. Dates off by at most 1 ms count as contiguous.
- late sound, whose place is taken by at most 1 s: dropped, counted in `late`.
- a leap of more than 1 s either way: what follows is contiguous, counted in `resyncs`; nothing is invented.
- another rate in mid-stream: contiguous, dates anew; the last 1.5 ms inside the kernel (3 of features) are lost.
- no dates at all (`pts=None`): contiguous. Nothing is ever late then, because nobody can know.
Bounded: what was pushed, and at most 1 s of silence for each call.

The interpolation is our own because the stream of soxr filters in FFT blocks: it held back 20 to 176 ms (LOG.md). The
tests hold ours against soxr's best quality.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from engine.media import AudioChunk, Floats, Heard
from models.rates import CHUNK, HEARD_CHUNK, HEARD_RATE, SAMPLE_RATE

RATE_LEAST = 8_000
RATE_MOST = HEARD_RATE
SILENCE_MOST_SECONDS = 1
"""The longest hole that is filled; a longer one is a new beginning."""

PHASES_MOST = 1024
"""Fractions of a source sample with a kernel of their own; rates that need more get the one just below."""

PERIOD_MOST = 640
"""Rates whose kernels come round within so many 48 kHz samples (all usual ones) are made block by block, each a product
of matrices; others are gathered sample by sample."""

BLOCK = 48
"""48 kHz samples that a block has at least: 1 ms."""

LOWPASS_HALF = 72
FEATURE_DELAY = LOWPASS_HALF * SAMPLE_RATE // HEARD_RATE
"""24 samples at 16 kHz: by how much features lag `heard`."""

_STEP = HEARD_RATE // SAMPLE_RATE

_PAST = LOWPASS_HALF // _STEP * 2
"""Of sound at 16 kHz: by how many samples features lag it. By way of 48 kHz both filters take half of that."""

Doubles = npt.NDArray[np.float64]


def _windowed_sinc(distance: Doubles, half: int, cutoff: float) -> Doubles:
    """Kaiser-windowed sinc, 60 dB down, at `distance` samples from its middle; `cutoff` in cycles per sample."""
    inside = np.clip(1 - (distance / half) ** 2, 0, None)
    shape = np.where(np.abs(distance) <= half, np.i0(5.65 * np.sqrt(inside)), 0.0)
    taps: Doubles = np.sinc(2 * cutoff * distance) * shape
    return taps


def _unity(taps: Doubles) -> Doubles:
    """The same with a gain of 1 at 0 Hz, in whole multiples of 2^-32: times s16 they are exact in float64, and so are
    their sums. Whoever adds them up, in any order and however the sound was cut, gets the same."""
    exact: Doubles = np.ldexp(np.rint(np.ldexp(taps / taps.sum(axis=-1, keepdims=True), 32)), -32)
    return exact


def _banded(kernels: Doubles, begins: Sequence[int]) -> Doubles:
    """[reach, outputs]: column o holds kernel o from row `begins[o]` on, so that a stretch of sound times it is all
    outputs of a block."""
    matrix = np.zeros((begins[-1] + kernels.shape[1], len(begins)))
    for column, begin in enumerate(begins):
        matrix[begin : begin + kernels.shape[1], column] = kernels[column % len(kernels)]
    return matrix


def _blocks(sound: Doubles, step: int, count: int, matrix: Doubles) -> Doubles:
    """The outputs of `count` blocks; each begins `step` samples of `sound` after the one before."""
    overlapping: Doubles = np.ndarray((count, len(matrix)), np.float64, sound, strides=(8 * step, 8))
    made: Doubles = (overlapping.copy() @ matrix).reshape(-1)
    return made


_LOWPASS = _unity(_windowed_sinc(np.arange(-LOWPASS_HALF, LOWPASS_HALF + 1.0), LOWPASS_HALF, 7_600 / HEARD_RATE))
_LOWPASS_BLOCK = 16
"""Features of a block."""
_LOWPASS_MATRIX = _banded(_LOWPASS[None], range(0, _STEP * _LOWPASS_BLOCK, _STEP))


def kernel_half(rate: int) -> int:
    """Half the interpolation kernel, in samples of the source: what `heard` is late by at this rate. 0 at 48 kHz."""
    return 0 if rate == HEARD_RATE else min(32, -(-rate * 3 // 2_000))


@lru_cache(maxsize=16)
def _kernels(rate: int) -> Doubles:
    """[phases, taps]: row f interpolates at the fraction f / phases after the middle of its window."""
    half = kernel_half(rate)
    phases = min(HEARD_RATE // math.gcd(rate, HEARD_RATE), PHASES_MOST)
    fraction = np.arange(0.0, phases)[:, None] / phases
    distance = np.arange(1.0 - half, half + 1.0)[None, :] - fraction
    return _unity(_windowed_sinc(distance, half, 0.47))


@lru_cache(maxsize=16)
def _block(rate: int) -> tuple[int, int, Doubles]:
    """Source samples of a block, its 48 kHz samples, and the matrix from one (and the taps before it) to the other."""
    common = math.gcd(rate, HEARD_RATE)
    period = HEARD_RATE // common
    periods = max(1, BLOCK // period)
    order = [output * rate % HEARD_RATE // common for output in range(period)]
    begins = [output * rate // HEARD_RATE for output in range(period * periods)]
    return rate // common * periods, period * periods, _banded(_kernels(rate)[order], begins)


class _Sound:
    """A stretch of 16 kHz as the ear hears it, made when it is first asked for."""

    __slots__ = ("_heard", "_stretch")

    def __init__(self, stretch: Heard) -> None:
        self._stretch = stretch
        self._heard: Heard | None = None

    def __call__(self) -> Heard:
        if self._heard is None:
            self._heard = _heard_at_16k(self._stretch, 2 * _PAST)
            self._heard.setflags(write=False)
        return self._heard


class _Run:
    """Contiguous sound at one rate, on its way to 48 kHz. Output m needs the source up to m * rate // 48,000 only."""

    def __init__(self, rate: int, direct: bool = False) -> None:
        self.rate = rate
        self.direct = direct
        """At 16 kHz from the edge of a chunk on: the model gets what came, and nothing is made for the ear unasked."""
        self.heard = 0
        """Source samples in, invented ones too."""
        self.made = 0
        """48 kHz samples out."""
        self._taps = 2 * kernel_half(rate)
        self._blocked = rate < HEARD_RATE and HEARD_RATE // math.gcd(rate, HEARD_RATE) <= PERIOD_MOST
        self._tail: Doubles = np.zeros(self._taps + (_block(rate)[0] if self._blocked else 0))

    def interpolate(self, pcm: Heard) -> Heard:
        """Every 48 kHz sample that `pcm` completes. The result does not depend on how the sound was cut into calls."""
        before, self.heard = self.heard, self.heard + len(pcm)
        begin, self.made = self.made, -(-self.heard * HEARD_RATE // self.rate)
        if self.rate == HEARD_RATE or self.direct:
            return pcm
        sound = np.concatenate([self._tail, pcm])
        # sound[n - first] is source sample n.
        first = before - len(self._tail)
        self._tail = sound[len(pcm) :].copy()
        if begin == self.made:
            return np.empty(0, np.int16)
        return _s16((self._by_blocks if self._blocked else self._one_by_one)(sound, first, begin))

    def _by_blocks(self, sound: Doubles, first: int, begin: int) -> Doubles:
        block, outputs, matrix = _block(self.rate)
        index = begin // outputs
        count = -(-self.made // outputs) - index
        whole = np.zeros((count - 1) * block + len(matrix))
        known = sound[index * block - self._taps + 1 - first :][: len(whole)]
        whole[: len(known)] = known  # what lies behind it is heard in outputs that are not due yet
        return _blocks(whole, block, count, matrix)[begin - index * outputs : self.made - index * outputs]

    def _one_by_one(self, sound: Doubles, first: int, begin: int) -> Doubles:
        kernels = _kernels(self.rate)
        windows = np.lib.stride_tricks.sliding_window_view(sound, self._taps)
        place = np.arange(begin, self.made, dtype=np.int64) * self.rate
        row = (place % HEARD_RATE) * len(kernels) // HEARD_RATE
        # The window that ends with source sample n begins with n - taps + 1.
        made: Doubles = np.einsum("ij,ij->i", windows[place // HEARD_RATE - self._taps + 1 - first], kernels[row])
        return made


def _s16(sound: Doubles) -> Heard:
    return np.minimum(np.maximum(np.rint(sound), -32768), 32767).astype(np.int16)


def _heard_at_16k(sound: Heard, known: int) -> Heard:
    """What `_Run` would make of `sound` from its `known`-th sample on; as many at least came before as the kernel is
    long."""
    block, _, matrix = _block(SAMPLE_RATE)
    count = -(-(len(sound) - known) // block)
    whole = np.zeros((count - 1) * block + len(matrix))
    piece = sound[known + block - len(matrix) :]
    whole[: len(piece)] = piece
    return _s16(_blocks(whole, block, count, matrix)[: _STEP * (len(sound) - known)])


class Chunker:
    """One session's sound, cut. `push` what came, `take` what is whole."""

    def __init__(self, pts: int = 0, epoch: int = 0) -> None:
        self.epoch = epoch
        self.invented = 0
        """48 kHz samples of silence that nobody sent, so far."""
        self.late = 0
        """48 kHz samples that came when their place was taken, so far."""
        self.mended = 0
        """Samples that were no numbers, so far."""
        self.behind = 0
        """48 kHz samples between the end of what was pushed last and the place it came too late for; 0 when in time."""
        self.resyncs = 0
        """Leaps in the dates that were too long to fill, so far."""
        self._ready: list[AudioChunk] = []
        self._begin(pts)

    def _begin(self, pts: int) -> None:
        self._pts = pts
        self._partial: Heard = np.zeros(HEARD_CHUNK, np.int16)
        self._filled = 0
        self._partial_invented = 0
        self._memory: Heard = np.zeros(2 * LOWPASS_HALF, np.int16)
        self._past: Heard = np.zeros(2 * _PAST, np.int16)
        self._run = _Run(HEARD_RATE)
        self._anchor: int | None = None  # the source's date of the run's first sample
        self._skipped = 0  # seconds that may still come, and will be late

    @property
    def position(self) -> int:
        """The date of the next sample to come."""
        return self._pts + self._filled

    @property
    def buffered(self) -> int:
        """48 kHz samples inside: whole chunks not yet taken, and the beginning of the next."""
        return len(self._ready) * HEARD_CHUNK + self._filled

    def push(self, pcm: npt.NDArray[np.generic], rate: int, pts: int | None = None, arrived: float = 0.0) -> None:
        """Take sound in: s16 or float, `[n]` or `[n, 1 or 2]`. `pts` is the place of its first sample in the source, in
        samples of `rate`; None is contiguous. Raises `ValueError` for a rate, type or shape that is none of these."""
        mono = self._mono(pcm, rate)
        self.behind = 0
        if rate != self._run.rate:
            self._begin_run(rate)
            self._anchor = None
        if pts is not None:
            mono = self._place(mono, pts, arrived)
        self._append(self._run.interpolate(mono), 0, arrived)

    def fill(self, until_pts: int, arrived: float = 0.0) -> int:
        """Declare what is missing before the date `until_pts` as silence, at most 1 s in a call; sound that comes for
        these dates later is late. Returns the samples invented, which at 8 kHz may be 5 too many."""
        missing = min(until_pts - self.position, SILENCE_MOST_SECONDS * HEARD_RATE)
        if missing <= 0:
            return 0
        run = self._run
        # The smallest count whose last output reaches the date: outputs = ceil(inputs * 48,000 / rate).
        needed = (run.made + missing - 1) * run.rate // HEARD_RATE + 1 - run.heard
        return self._silence(needed, arrived)

    def skip(self, until_pts: int) -> None:
        """As `fill`, for a stretch of any length that nobody will hear: whole seconds are not even made. Sound that
        comes for these dates later is late, not a leap."""
        seconds = max(0, until_pts - self.position) // HEARD_RATE
        self._run.heard += seconds * self._run.rate
        self._run.made += seconds * HEARD_RATE
        self._pts += seconds * HEARD_RATE
        self.invented += seconds * HEARD_RATE
        self._skipped += seconds
        self.fill(until_pts)

    def flush(self, arrived: float = 0.0) -> None:
        """End a segment: pad the last chunk with silence. The next dates begin anew."""
        if self._filled:
            run = self._run
            missing = HEARD_CHUNK - self._filled
            needed = (run.made + missing - 1) * run.rate // HEARD_RATE + 1 - run.heard
            sound = run.interpolate(np.zeros(needed, np.int16))[: missing // self._unit]
            self.invented += missing
            self._append(sound, missing, arrived)
            self._begin_run(run.rate)
        self._anchor = None

    def take(self) -> list[AudioChunk]:
        """The chunks that are whole, oldest first; each is given once."""
        ready, self._ready = self._ready, []
        return ready

    def clear(self, pts: int | None = None, epoch: int | None = None) -> None:
        """Forget all sound, taken or not (an interrupt); go on at the date `pts`, from silence. Without `pts`, at the
        date of the first chunk not yet taken. Counters stay."""
        begin = self._ready[0].pts if self._ready else self._pts
        self._ready = []
        self._begin(begin if pts is None else pts)
        if epoch is not None:
            self.epoch = epoch

    def _place(self, mono: Heard, pts: int, arrived: float) -> Heard:
        """Bring the run to `pts`: silence for a hole, less sound where it is late. Returns what is yet to be heard."""
        run = self._run
        if self._anchor is None:
            self._anchor = pts - run.heard
        ahead = pts - (self._anchor + run.heard)
        if ahead > SILENCE_MOST_SECONDS * run.rate or -ahead > (SILENCE_MOST_SECONDS + self._skipped) * run.rate:
            self.resyncs += 1
            self._anchor = pts - run.heard
        elif ahead > run.rate // 1_000:
            self._silence(ahead, arrived)
        elif ahead < -(run.rate // 1_000):
            late = min(-ahead, len(mono))
            self.late += late * HEARD_RATE // run.rate
            self.behind = max(0, -ahead - len(mono)) * HEARD_RATE // run.rate
            return mono[late:]
        self._skipped = 0
        return mono

    @property
    def _unit(self) -> int:
        """48 kHz samples that a sample of `_partial` stands for."""
        return _STEP if self._run.direct else 1

    def _begin_run(self, rate: int) -> None:
        direct = rate == SAMPLE_RATE and self._filled == 0
        if direct and not self._run.direct:
            self._past = np.zeros(2 * _PAST, np.int16)
            self._partial = np.zeros(CHUNK, np.int16)
        elif self._run.direct and not direct:
            whole = _heard_at_16k(np.concatenate([self._past, self._partial[: self._filled // _STEP]]), _PAST)
            self._memory, begun = whole[: len(self._memory)], whole[len(self._memory) :]
            self._partial = np.zeros(HEARD_CHUNK, np.int16)
            self._partial[: len(begun)] = begun
        self._run = _Run(rate, direct)

    def _silence(self, count: int, arrived: float) -> int:
        sound = self._run.interpolate(np.zeros(count, np.int16))
        made = len(sound) * self._unit
        self.invented += made
        self._append(sound, made, arrived)
        return made

    def _append(self, sound: Heard, invented: int, arrived: float) -> None:
        begin, unit = 0, self._unit
        while begin < len(sound):
            at = self._filled // unit
            count = min(len(self._partial) - at, len(sound) - begin)
            self._partial[at : at + count] = sound[begin : begin + count]
            self._filled += count * unit
            self._partial_invented += count * unit if invented else 0
            begin += count
            if self._filled == HEARD_CHUNK:
                self._cut(arrived)

    def _cut(self, arrived: float) -> None:
        sound, features = (self._cut_at_16k if self._run.direct else self._cut_at_48k)()
        features.setflags(write=False)
        self._ready.append(
            AudioChunk(self._pts, sound, features, self.epoch, arrived, min(self._partial_invented, HEARD_CHUNK))
        )
        self._pts += HEARD_CHUNK
        self._partial = np.empty_like(self._partial)
        self._filled = 0
        self._partial_invented = 0

    def _cut_at_16k(self) -> tuple[Callable[[], Heard], Floats]:
        """The model's sound is the client's, as late as by way of 48 kHz; the ear's is made when somebody listens."""
        stretch = np.concatenate([self._past, self._partial])
        self._past = stretch[CHUNK:]

        return _Sound(stretch), stretch[_PAST : _PAST + CHUNK].astype(np.float32) / np.float32(32768)

    def _cut_at_48k(self) -> tuple[Callable[[], Heard], Floats]:
        heard = self._partial
        heard.setflags(write=False)
        stretch = np.concatenate([self._memory, heard])
        self._memory = stretch[HEARD_CHUNK:]
        count = CHUNK // _LOWPASS_BLOCK
        features = _blocks(stretch.astype(np.float64), _STEP * _LOWPASS_BLOCK, count, _LOWPASS_MATRIX) / 32768
        return lambda: heard, np.minimum(np.maximum(features, -1), 1).astype(np.float32)

    def _mono(self, pcm: npt.NDArray[np.generic], rate: int) -> Heard:
        if isinstance(rate, bool) or not isinstance(rate, int) or not RATE_LEAST <= rate <= RATE_MOST:
            raise ValueError(f"sound at {rate!r} Hz: send {RATE_LEAST} to {RATE_MOST} Hz")
        if pcm.ndim not in (1, 2) or (pcm.ndim == 2 and pcm.shape[1] not in (1, 2)):
            raise ValueError(f"sound of shape {pcm.shape}: send [samples] or [samples, 1 or 2 channels]")
        if pcm.dtype.kind == "i" and pcm.dtype.itemsize == 2:
            whole = pcm.astype(np.int16, copy=False)
            if whole.ndim == 1:
                return whole
            return whole[:, 0] if whole.shape[1] == 1 else (whole.astype(np.int32).sum(axis=1) >> 1).astype(np.int16)
        if pcm.dtype.kind != "f":
            raise ValueError(f"sound of type {pcm.dtype}: send int16 or float")
        real = pcm.astype(np.float64)
        wrong = ~np.isfinite(real)
        if wrong.any():
            self.mended += int(wrong.sum())
            real[wrong] = 0.0
        np.clip(real, -1, 1, out=real)
        if real.ndim == 2:
            real = real.mean(axis=1)
        return _s16(real * 32768)
