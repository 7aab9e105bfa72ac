"""What the voice encoder learns from: utterances as mel columns with what is true at every frame, cut into batches and
disguised as other voices, microphones and rooms while they are served."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models import voice
from models.face import ARKIT_52
from models.mel import HIGHEST, LOWEST, Mel
from models.rates import CHUNK, FRAME_RATE, MELS
from models.studio import articulation
from models.studio.speech import Utterance

Floats = npt.NDArray[np.float32]
Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Columns [B, 4 F, 80], visemes, closure, mouth, and which frames count."""

FRAMES = 72
"""Of a training crop: 2.9 s."""

BATCH = 48


@dataclass(frozen=True, eq=False)
class Lesson:
    """An utterance as the encoder meets it: columns [4 T, 80] f16, and what is true at every frame."""

    voice: str
    columns: npt.NDArray[np.float16]
    visemes: npt.NDArray[np.int64]  # [T]
    closure: Floats  # [T] 0…1
    mouth: Floats  # [T, len(MOUTH)]
    phones: tuple[articulation.Phone, ...]


def lesson(spoken: Utterance, mel: Mel) -> Lesson:
    frames = len(spoken.sound) // CHUNK
    with torch.no_grad():
        columns, _ = mel(torch.from_numpy(spoken.sound[None, : frames * CHUNK]), mel.silence(1))
    middles = (np.arange(frames) + 0.5) / FRAME_RATE
    starts = np.array([phone.start for phone in spoken.phones] or [0.0])
    at = np.clip(np.searchsorted(starts, middles, side="right") - 1, 0, len(starts) - 1)
    names = [phone.name for phone in spoken.phones] or ["pau"]
    visemes = np.array([voice.VISEME_OF[names[i]] for i in at])
    if spoken.phones:
        visemes[middles > spoken.phones[-1].end] = voice.VISEME_OF["pau"]
    curves = articulation.articulate(spoken.phones, FRAME_RATE, frames, articulation.TAUGHT)
    mouth = curves[:, np.array([ARKIT_52.index(group[0]) for group in voice.MOUTH])]
    return Lesson(
        spoken.voice,
        columns[0].numpy().astype(np.float16),
        visemes,
        articulation.closure(spoken.phones, FRAME_RATE, frames),
        mouth,
        spoken.phones,
    )


def crops(lessons: Sequence[Lesson], dice: np.random.Generator, batch: int = BATCH) -> Iterator[Batch]:
    """Endless batches."""
    step = voice.COLUMNS
    while True:
        columns = np.zeros((batch, FRAMES * step, MELS), np.float32)
        visemes = np.zeros((batch, FRAMES), np.int64)
        closure = np.zeros((batch, FRAMES), np.float32)
        mouth = np.zeros((batch, FRAMES, len(voice.MOUTH)), np.float32)
        counts = np.zeros((batch, FRAMES), np.float32)
        for row in range(batch):
            chosen = lessons[int(dice.integers(len(lessons)))]
            total = len(chosen.visemes)
            begin = int(dice.integers(0, max(1, total - FRAMES + 1))) if dice.random() < 0.7 else 0
            # A part of the crops begins late, after a silence, as sessions do.
            late = int(dice.integers(1, 12)) if begin == 0 and dice.random() < 0.5 else 0
            length = min(total - begin, FRAMES - late)
            there, here = slice(begin, begin + length), slice(late, late + length)
            columns[row, here.start * step : here.stop * step] = chosen.columns[there.start * step : there.stop * step]
            visemes[row, here], closure[row, here] = chosen.visemes[there], chosen.closure[there]
            mouth[row, here] = chosen.mouth[there]
            counts[row, : here.stop] = 1
        yield (
            _disguised(torch.from_numpy(columns)),
            torch.from_numpy(visemes),
            torch.from_numpy(closure),
            torch.from_numpy(mouth),
            torch.from_numpy(counts),
        )


def _disguised(columns: Tensor) -> Tensor:
    """Another vocal tract, another microphone, another gain, another floor of noise: on log-mel columns, in place of
    the sound, since that costs next to nothing."""
    batch, steps, bands = columns.shape
    silent = columns < 0.5
    place = _warped(torch.empty(batch, 1).uniform_(0.80, 1.18), bands)
    low = place.long()
    part = (place - low)[:, None]
    index = low[:, None].expand(-1, steps, -1)
    columns = columns.gather(2, index) * (1 - part) + columns.gather(2, index + 1) * part
    unit = torch.linspace(0, 1, bands)
    tilt = torch.randn(batch, 1) * 0.8 * (unit - 0.5)
    for ripple in (1, 2, 3, 4):
        tilt = tilt + torch.randn(batch, 1) * 0.45 * torch.cos(math.pi * ripple * unit + torch.rand(batch, 1) * 6.28)
    columns = columns + tilt[:, None] + torch.randn(batch, 1, 1) * 1.3
    columns = torch.where(silent, torch.zeros(()), _masked(columns).clamp(min=0))
    floor = torch.empty(batch, 1, 1).uniform_(0.5, 6.0) + 0.5 * tilt[:, None] + 0.3 * torch.randn(batch, steps, bands)
    return torch.where(torch.rand(batch, 1, 1) < 0.45, torch.logaddexp(columns, floor), columns).clamp(min=0)


def _masked(columns: Tensor) -> Tensor:
    """Some lose a stretch of bands, which stand still then: no formant may be the only witness."""
    bands = torch.arange(columns.shape[-1])
    first = torch.randint(0, columns.shape[-1], (len(columns), 1))
    wide = torch.randint(3, 14, (len(columns), 1)) * (torch.rand(len(columns), 1) < 0.3)
    lost = ((bands >= first) & (bands < first + wide))[:, None]
    return torch.where(lost, columns.mean(1, keepdim=True), columns)


def _warped(factor: Tensor, bands: int) -> Tensor:
    """Where the bands of a speaker come from whose vocal tract is `factor` [B, 1] times as long: [B, bands]."""
    lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (LOWEST, HIGHEST))
    mels = torch.linspace(lowest, highest, bands + 2)[1:-1]
    hertz = 700 * (10 ** (mels / 2595) - 1) * factor
    place = (2595 * torch.log10(1 + hertz / 700) - mels[0]) / (mels[1] - mels[0])
    return place.clamp(0, bands - 1.001)
