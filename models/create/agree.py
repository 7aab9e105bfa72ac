"""Do sound and lips belong together, and by how much is the sound early or late?

The voice encoder hears what a mouth must do; the tracker saw what it did. Where the two agree best is the recording's
A/V offset; how well they agree there says whether it is this person's voice at all. The loudness of the sound would be
no judge: it scatters by a quarter of a second.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from models import face
from models.create.film import Floats
from models.mel import Mel
from models.rates import CHUNK, FRAME_RATE, SAMPLE_RATE
from models.runtime.eager import VOICE
from models.voice import LOOKAHEADS, MOUTH, Voice, load

MOST_SECONDS: Final = 0.2
"""Larger offsets are no camera's."""
AGREES: Final = 0.3
"""Correlation at the best offset from which voice and lips are taken to be one person's, and the offset for a fault of
the recording: a real speaker's minute has 0.55 to 0.68, anybody else's voice 0.13 at most."""
UNCERTAIN_MS: Final = 45.0
"""About a frame: what the encoder and a person's own articulation differ by. Smaller offsets are left alone."""
SYLLABLE_FRAMES: Final = 13
"""Half a second: what both do more slowly is the rhythm of sentences, in which any two people agree."""
SECONDS_NEEDED: Final = 15.0
"""Of speech, before an offset means anything in itself."""
OWN_FRAMES: Final = 4
"""A short take's own offset is no further from that of most."""
TRUSTED: Final = 0.7
"""Of what one take says of itself; the rest is chance. The encoder and a head that was fitted to other takes, who know
nothing of each other, agree on single sentences with a correlation of 0.8."""
SPEECH_FLOOR: Final = 1.0
"""Standard loudness (mean log-mel) above the quietest tenth from which a column counts as speech."""
HANG_FRAMES: Final = 4
"""Speech goes on through gaps as short as this: a stop consonant is no pause."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Positive: the audio is early, and is to be delayed by so much."""

    offset_ms: float
    r: float

    @property
    def correction_ms(self) -> float:
        """The offset where it can be trusted and matters; else 0."""
        return self.offset_ms if self.r >= AGREES and abs(self.offset_ms) > UNCERTAIN_MS else 0.0


def heard_opening(audio: Floats) -> npt.NDArray[np.float64]:
    """[T]: how far the voice encoder would open the jaw, 0 where it hears a closure."""
    voice = Voice(load(VOICE)).eval()
    most = LOOKAHEADS[-1]
    frames = len(audio) // CHUNK
    pcm = np.pad(audio[: frames * CHUNK], (0, most * CHUNK))
    with torch.inference_mode():
        code, _ = voice(torch.from_numpy(pcm)[None], voice.silence(1))
        heard = voice.encoder.hear(code, most)
    jaw = heard.mouth[0, most:, [names[0] for names in MOUTH].index("jawOpen")].double().numpy()
    closed = heard.closure[0, most:].sigmoid().double().numpy()
    return np.asarray(jaw * (1 - closed), np.float64)


def seen_opening(points: Floats) -> npt.NDArray[np.float64]:
    """[T] of [T, 478, 3]: the opening of the inner lips in eye-corner distances; NaN where there is no face."""
    gap = np.linalg.norm(points[:, face.INNER_UPPER] - points[:, face.INNER_LOWER], axis=-1)
    corners = points[:, list(face.EYE_CORNERS)]
    return np.asarray(gap / np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1), np.float64)


def agreement(takes: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> Agreement:
    """Of (heard, seen) openings [T] each, pooled. NaN in what was seen does not count, nor what is next to it."""
    takes = [(_syllables(heard), _syllables(seen)) for heard, seen in takes]
    most = round(MOST_SECONDS * FRAME_RATE) + 1
    lags = np.arange(-most, most + 1)
    scores = np.array([_correlation(takes, int(lag)) for lag in lags])
    best = int(scores.argmax())
    part = 0.0
    if 0 < best < len(lags) - 1:
        before, peak, after = scores[best - 1 : best + 2]
        part = 0.5 * (before - after) / (before - 2 * peak + after) if before - 2 * peak + after else 0.0
    return Agreement(float((lags[best] + part) * 1000 / FRAME_RATE), float(scores[best]))


def apart(takes: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> list[float]:
    """Of each of many short takes, (heard, seen) as above: by how many milliseconds its sound is earlier than that of
    most of them, as far as one take can be trusted. A camera that is started for every sentence starts its sound now
    and then a frame or two beside its pictures."""
    shifts = np.arange(-4 * OWN_FRAMES, 4 * OWN_FRAMES + 1) / 4
    own = []
    for heard, seen in takes:
        count = min(len(heard), len(seen))
        frames = np.arange(count)
        calm = _syllables(heard[:count])
        moved = ((np.interp(frames - shift, frames, calm), _syllables(seen[:count])) for shift in shifts)
        scores = [_correlation([pair], 0) for pair in moved]
        best = int(np.argmax(scores))
        own.append(shifts[best] if scores[best] >= AGREES else np.nan)
    if not np.isfinite(own).any():
        return [0.0] * len(own)
    usual = np.nanmedian(own)
    return [TRUSTED * float(np.nan_to_num(shift - usual)) * 1000 / FRAME_RATE for shift in own]


def _syllables(opening: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[T] less its mean over half a second."""
    if len(opening) < SYLLABLE_FRAMES:
        return opening
    wide = np.pad(opening, SYLLABLE_FRAMES // 2, mode="edge")
    return opening - np.convolve(wide, np.full(SYLLABLE_FRAMES, 1 / SYLLABLE_FRAMES), "valid")


def _correlation(takes: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], lag: int) -> float:
    """Of what was heard with what was seen `lag` frames later."""
    a: list[npt.NDArray[np.float64]] = []
    b: list[npt.NDArray[np.float64]] = []
    for heard, seen in takes:
        count = min(len(heard), len(seen))
        x, y = heard[max(0, -lag) : count - max(0, lag)], seen[max(0, lag) : count - max(0, -lag)]
        known = np.isfinite(y)
        if known.sum() > FRAME_RATE:
            a.append(x[known] - x[known].mean())
            b.append(y[known] - y[known].mean())
    if not a:
        return 0.0
    x, y = np.concatenate(a), np.concatenate(b)
    spread = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / spread if spread > 1e-9 else 0.0


def delayed(audio: Floats, milliseconds: float) -> Floats:
    """Sound moved to later (or, below zero, to earlier), equally long."""
    shift = round(milliseconds * SAMPLE_RATE / 1000)
    if shift > 0:
        return np.concatenate([np.zeros(shift, np.float32), audio[: len(audio) - shift]])
    return np.concatenate([audio[-shift:], np.zeros(-shift, np.float32)])


def speech(audio: Floats) -> npt.NDArray[np.bool_]:
    """[T]: frames in which somebody speaks, by loudness over the recording's own quiet."""
    frames = len(audio) // CHUNK
    mel = Mel()
    with torch.inference_mode():
        columns, _ = mel(torch.from_numpy(audio[: frames * CHUNK])[None], mel.silence(1))
    loud = columns[0].mean(-1).reshape(frames, -1).mean(-1).numpy()
    quiet, full = np.quantile(loud, [0.05, 0.95])
    spoken = loud > quiet + max(SPEECH_FLOOR, 0.3 * (full - quiet))
    return _without_gaps(spoken)


def _without_gaps(spoken: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    filled = spoken.copy()
    edges = np.flatnonzero(spoken)
    for before, after in itertools.pairwise(edges):
        if after - before - 1 <= HANG_FRAMES:
            filled[before:after] = True
    return filled
