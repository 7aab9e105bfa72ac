"""What the voice encoder hears of voices that it never met: figures for each look-ahead, as a table and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from models import metrics, voice
from models.mel import running_mean
from models.rates import FRAME_RATE, LOOKAHEAD_DEFAULT, MELS
from models.studio import articulation
from models.studio.lessons import Floats, Lesson

Figures = dict[str, float]
Report = dict[str, dict[str, Figures]]
"""Voice → "K=0" … → figures."""

MEASURED: Final = ("viseme_accuracy", "closure_recall", "closure_precision", "opening_r", "lip_auc")

Sweep = dict[float, tuple[float, float]]
"""Threshold → share of closures found, share of closures rightly called."""

THRESHOLDS: Final = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)

LEAST_FOUND: Final = 0.97

NEAR_SECONDS: Final = 0.06
"""Around a closure, in which the flag that says so is right: a frame and a half."""


@torch.no_grad()
def examine(
    encoder: voice.VoiceEncoder, lessons: Sequence[Lesson], threshold: float = voice.SHUT
) -> dict[str, Figures]:
    """For each K: viseme accuracy in speech, closures found and rightly called, correlation of the lips' opening in
    speech, and how often the lips are wider in an open vowel than in a closure."""
    heard = [_hear(encoder, one) for one in lessons]
    return {
        f"K={k}": _figures([answers[k] for answers in heard], lessons, threshold)
        for k, _ in enumerate(voice.LOOKAHEADS)
    }


@torch.no_grad()
def sweep(encoder: voice.VoiceEncoder, lessons: Sequence[Lesson], lookahead: int = LOOKAHEAD_DEFAULT) -> Sweep:
    """Closures found and rightly called, for every threshold of their probability. On voices in training: those of a
    test are not there to be fitted to."""
    answers = [_hear(encoder, one)[lookahead] for one in lessons]
    figures = {threshold: _figures(answers, lessons, threshold) for threshold in THRESHOLDS}
    return {at: (row["closure_recall"], row["closure_precision"]) for at, row in figures.items()}


def calibrated(found: Sweep) -> float:
    """The highest threshold at which `LEAST_FOUND` of the closures are found: everybody sees lips that should have met.
    The lowest of all where none finds so many."""
    return max((at for at, (recall, _) in found.items() if recall >= LEAST_FOUND), default=min(found))


def _hear(encoder: voice.VoiceEncoder, one: Lesson) -> list[voice.Heard]:
    """What each head says of each frame of a lesson."""
    normal, frames = running_mean(), len(one.visemes)
    rest = torch.zeros(max(voice.LOOKAHEADS) * voice.COLUMNS, MELS)
    columns = torch.cat([torch.from_numpy(one.columns.astype(np.float32)), rest])[None]
    code, _ = encoder(normal(columns, normal.silence(1))[0], encoder.silence(1))
    return [encoder.hear(code[:, k : k + frames], k) for k in voice.LOOKAHEADS]


def _figures(answers: Sequence[voice.Heard], lessons: Sequence[Lesson], threshold: float) -> Figures:
    right = spoken = hit = closures = true_alarms = alarms = 0
    opened: list[Floats] = []
    truly: list[Floats] = []
    wide: list[float] = []
    narrow: list[float] = []
    for heard, one in zip(answers, lessons, strict=True):
        speech = one.visemes != 0
        right += int((heard.visemes[0].argmax(-1).numpy() == one.visemes)[speech].sum())
        spoken += int(speech.sum())
        shut = (heard.closure[0].sigmoid() > threshold).numpy()
        lips = articulation.opening(voice.mouth(heard)[0].numpy())
        middles = (np.arange(len(shut)) + 0.5) / FRAME_RATE
        near = np.zeros(len(shut), bool)
        for phone in one.phones:
            frame = min(len(lips) - 1, int((phone.start + phone.end) / 2 * FRAME_RATE))
            if phone.name in articulation.OPEN_PHONES:
                wide.append(float(lips[frame]))
            if phone.name in articulation.CLOSED_PHONES:
                around = (middles > phone.start - NEAR_SECONDS) & (middles < phone.end + NEAR_SECONDS)
                near |= around
                closures += 1
                hit += bool((shut & around).any())
                narrow.append(float(lips[frame]))
        alarms += int((shut & speech).sum())
        true_alarms += int((shut & speech & near).sum())
        opened.append(lips[speech])
        truth = articulation.articulate(one.phones, FRAME_RATE, len(shut), articulation.TAUGHT)
        truly.append(articulation.opening(truth)[speech])
    return {
        "viseme_accuracy": right / max(1, spoken),
        "closure_recall": hit / max(1, closures),
        "closure_precision": true_alarms / max(1, alarms),
        "opening_r": metrics.pearson(_joined(opened), _joined(truly)),
        "lip_auc": wider(wide, narrow),
    }


def _joined(parts: Sequence[Floats]) -> npt.NDArray[np.float64]:
    return np.concatenate(parts).astype(np.float64)


def wider(open_vowels: Sequence[float], closures: Sequence[float]) -> float:
    """How often lips are wider in an open vowel than in a closure, of all pairs of them; a tie counts half."""
    if not open_vowels or not closures:
        return float("nan")
    vowels: npt.NDArray[np.float64] = np.asarray(open_vowels, np.float64)[:, None]
    others = np.asarray(closures, np.float64)[None]
    return float(((vowels > others) + 0.5 * (vowels == others)).mean())


def table(report: Report) -> Table:
    drawn = Table("voice", "K", "visemes", "closures found", "closures right", "opening r", "lip auc")
    for name, rows in report.items():
        for k, row in rows.items():
            drawn.add_row(name, k, *(f"{row[key]:.3f}" for key in MEASURED))
    return drawn


def draw_progress(history: Sequence[tuple[int, Report]], path: Path) -> None:
    """Figures at K = 2 against the steps of training."""
    from matplotlib.figure import Figure  # heavy, and only for whoever wants a picture

    figure = Figure((11, 7), layout="constrained")
    for axes, key in zip(figure.subplots(2, 2).flat, MEASURED[:4], strict=True):
        for name in history[0][1]:
            axes.plot([step for step, _ in history], [report[name]["K=2"][key] for _, report in history], label=name)
        axes.set_title(key)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def draw_lookaheads(report: Mapping[str, Mapping[str, Figures]], path: Path) -> None:
    """Figures against look-ahead, a line for each voice."""
    from matplotlib.figure import Figure

    figure = Figure((11, 7), layout="constrained")
    for axes, key in zip(figure.subplots(2, 2).flat, MEASURED[:4], strict=True):
        for name, rows in report.items():
            axes.plot(voice.LOOKAHEADS, [rows[f"K={k}"][key] for k in voice.LOOKAHEADS], "o-", label=name)
        axes.set_title(key)
        axes.set_xlabel("look-ahead, frames of 40 ms")
        axes.set_xticks(voice.LOOKAHEADS)
        axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)
