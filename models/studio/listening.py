"""The voice encoder's lessons: `liveface studio voice OUT`.

It listens to the studio's corpus, clean and augmented, and learns phone classes, closures and articulation at every
look-ahead at once. What counts is measured on voices that it never heard, since the score on training voices is no
guide (an encoder without augmentation scores highest there and hears nobody else).
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from torch import Tensor

from models import voice
from models.face import ARKIT_52
from models.mel import Mel, running_mean
from models.rates import CHUNK, FRAME_RATE, MELS
from models.studio import articulation
from models.studio.sentences import sentences
from models.studio.speech import Espeak, Plan, Utterance, augment, corpus, flite

Floats = npt.NDArray[np.float32]

UNHEARD = ("slt", "espeak:en-us+quincy", "espeak:en-us+shelby")
FRAMES = 72
"""Of a training crop: 2.9 s."""

BATCH = 32
EMA = 0.995
"""Of the weights that are kept."""


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
    curves = articulation.articulate(spoken.phones, FRAME_RATE, frames)
    mouth = curves[:, np.array([ARKIT_52.index(group[0]) for group in voice.MOUTH])]
    return Lesson(
        spoken.voice,
        columns[0].numpy().astype(np.float16),
        visemes,
        articulation.closure(spoken.phones, FRAME_RATE, frames),
        mouth,
        spoken.phones,
    )


def crops(
    lessons: Sequence[Lesson], dice: np.random.Generator, batch: int = BATCH
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Endless batches: columns [B, 4 F, 80], visemes, closure, mouth, and which frames count."""
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
    band = torch.arange(bands, dtype=torch.float32)
    place = (band * torch.empty(batch, 1).uniform_(0.84, 1.20)).clamp(0, bands - 1.001)
    low = place.long()
    part = (place - low)[:, None]
    index = low[:, None].expand(-1, steps, -1)
    columns = columns.gather(2, index) * (1 - part) + columns.gather(2, index + 1) * part
    unit = band / (bands - 1)
    tilt = torch.randn(batch, 1) * 0.8 * (unit - 0.5)
    for ripple in (1, 2, 3, 4):
        tilt = tilt + torch.randn(batch, 1) * 0.35 * torch.cos(math.pi * ripple * unit + torch.rand(batch, 1) * 6.28)
    columns = columns + tilt[:, None] + torch.randn(batch, 1, 1) * 1.3
    columns = torch.where(silent, torch.zeros(()), columns.clamp(min=0))
    floor = torch.empty(batch, 1, 1).uniform_(1.0, 7.0) + 0.5 * tilt[:, None] + 0.3 * torch.randn(batch, steps, bands)
    return torch.where(torch.rand(batch, 1, 1) < 0.45, torch.logaddexp(columns, floor), columns).clamp(min=0)


def loss_of(encoder: voice.VoiceEncoder, code: Tensor, truth: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """All look-aheads at once. Closures have a push of their own, hardest where the tongue closes instead (t d n l)."""
    total = torch.zeros(())
    for lookahead in voice.LOOKAHEADS:
        steps = code.shape[1] - lookahead
        heard = encoder.hear(code[:, lookahead:], lookahead)
        visemes, closure, mouth, counts = (part[:, :steps] for part in truth)
        classes = F.cross_entropy(heard.visemes.transpose(1, 2), visemes, reduction="none", label_smoothing=0.05)
        confusable = 1.0 + (visemes == voice.VISEME_OF["t"]).float()
        closing = F.binary_cross_entropy_with_logits(heard.closure, closure, reduction="none") * confusable
        weights = torch.tensor([4.0, 2, 2, 1, 1, 1.5, 1, 1.5, 1, 1])
        curves = ((heard.mouth - mouth) ** 2 * weights).sum(-1)
        total = total + ((classes + 2.5 * closing + 5 * curves) * counts).sum() / counts.sum()
    return total / len(voice.LOOKAHEADS)


def teach(
    lessons: Sequence[Lesson],
    minutes: float = math.inf,
    steps: float = math.inf,
    seed: int = 0,
    batch: int = BATCH,
    start: voice.VoiceEncoder | None = None,
) -> voice.VoiceEncoder:
    """Train for so many minutes of this machine's time, or so many steps, whichever ends first; on from `start`."""
    torch.manual_seed(seed)
    encoder = voice.VoiceEncoder(dropout=0.12).train()
    if start is not None:
        encoder.load_state_dict(start.state_dict())
    normal = running_mean()
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=2.5e-3, weight_decay=1e-2)
    average = torch.optim.swa_utils.AveragedModel(encoder, avg_fn=_mix)
    begun, smooth = time.monotonic(), 0.0
    with Progress() as progress:
        task = progress.add_task("listening", total=100)
        for step, (columns, *truth) in enumerate(crops(lessons, np.random.default_rng(seed), batch)):
            done = max(step / steps, (time.monotonic() - begun) / (60 * minutes)) if steps and minutes else 1.0
            if done >= 1:
                break
            for group in optimiser.param_groups:
                group["lr"] = (
                    2.5e-3 * min(1, done / 0.06 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * max(0, done - 0.1) / 0.9))
                )
            columns, _ = normal(columns, normal.silence(batch))
            with torch.autocast("cpu", torch.bfloat16):  # 1.6 times as many lessons in the same time
                code, _ = encoder(columns, encoder.silence(batch))
            loss = loss_of(encoder, code.float(), (truth[0], truth[1], truth[2], truth[3]))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimiser.step()
            average.update_parameters(encoder)
            smooth = loss.item() if not step else 0.98 * smooth + 0.02 * loss.item()
            progress.update(task, completed=100 * done, description=f"listening, step {step}, loss {smooth:.3f}")
    taught = voice.VoiceEncoder()
    taught.load_state_dict(average.module.state_dict())
    return taught.eval()


def _mix(kept: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
    """An average that forgets its beginning first."""
    return kept + (new - kept) * max(1 - EMA, 9 / (10 + int(count)))


@torch.no_grad()
def examine(encoder: voice.VoiceEncoder, lessons: Sequence[Lesson]) -> dict[str, dict[str, float]]:
    """For each K: viseme accuracy in speech, closure recall and precision (±40 ms), correlation of the opening."""
    normal = running_mean()
    report: dict[str, dict[str, float]] = {}
    for lookahead in voice.LOOKAHEADS:
        right = spoken = hit = closures = true_alarms = alarms = 0
        opened: list[Floats] = []
        truly: list[Floats] = []
        for one in lessons:
            columns = torch.from_numpy(one.columns.astype(np.float32))[None]
            rest = torch.zeros(1, max(voice.LOOKAHEADS) * voice.COLUMNS, MELS)
            plain, _ = normal(torch.cat([columns, rest], 1), normal.silence(1))
            code, _ = encoder(plain, encoder.silence(1))
            heard = encoder.hear(code[:, lookahead : lookahead + len(one.visemes)], lookahead)
            named = heard.visemes[0].argmax(-1).numpy()
            speech = one.visemes != 0
            right += int((named == one.visemes)[speech].sum())
            spoken += int(speech.sum())
            shut = (heard.closure[0].sigmoid() > 0.5).numpy()
            middles = (np.arange(len(shut)) + 0.5) / FRAME_RATE
            near = np.zeros(len(shut), bool)
            for phone in one.phones:
                if phone.name in articulation.CLOSED_PHONES:
                    around = (middles > phone.start - 0.06) & (middles < phone.end + 0.06)
                    near |= around
                    closures += 1
                    hit += bool((shut & around).any())
            alarms += int((shut & speech).sum())
            true_alarms += int((shut & speech & near).sum())
            weights = voice.mouth(heard)[0].numpy()
            opened.append(articulation.opening(weights)[speech])
            truly.append(articulation.opening(articulation.articulate(one.phones, FRAME_RATE, len(shut)))[speech])
        report[f"K={lookahead}"] = {
            "viseme_accuracy": right / max(1, spoken),
            "closure_recall": hit / max(1, closures),
            "closure_precision": true_alarms / max(1, alarms),
            "opening_r": float(np.corrcoef(np.concatenate(opened), np.concatenate(truly))[0, 1]),
        }
    return report


def prepare(plan: Plan, cache: Path, copies: int, seed: int) -> tuple[list[Lesson], dict[str, list[Lesson]]]:
    """Lessons of the voices in training, clean and augmented; and tests of voices that are not in it."""
    mel, dice = Mel(), np.random.default_rng(seed)
    training: list[Lesson] = []
    known: list[Lesson] = []
    for index, spoken in enumerate(track(list(corpus(plan, cache)), description="preparing")):
        if index % 20 == 7:
            known.append(lesson(spoken, mel))
            continue
        training.append(lesson(spoken, mel))
        training += [lesson(augment(spoken, dice), mel) for _ in range(copies)]
    tests = {"voices in training, other sentences": known}
    for name in plan.hold_out:
        for text in sentences(60, plan.seed + 1):
            spoken = (
                Espeak().say(text, name.removeprefix("espeak:")) if name.startswith("espeak:") else flite(text, name)
            )
            tests.setdefault(f"{name}, never heard", []).append(lesson(spoken, mel))
    return training, tests


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.studio.listening", description=__doc__)
    parser.add_argument("out", type=Path, help="directory that the encoder is shipped in")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/liveface/speech")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--flite", type=int, default=300)
    parser.add_argument("--espeak", type=int, default=1100)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--hold-out", nargs="*", default=list(UNHEARD), help="voices that stay unheard")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = Plan(chosen.seed, chosen.flite, chosen.espeak, hold_out=tuple(chosen.hold_out))
    training, tests = prepare(plan, chosen.cache, chosen.copies, chosen.seed)
    start = voice.load(chosen.start) if chosen.start else None
    encoder = teach(training, minutes=chosen.minutes, seed=chosen.seed, start=start)
    voice.ship(chosen.out, encoder, seed=str(chosen.seed), minutes=str(chosen.minutes), unheard=",".join(plan.hold_out))
    report = {name: examine(encoder, lessons) for name, lessons in tests.items()}
    table = Table("voice", "K", "visemes", "closure recall", "precision", "opening r")
    for name, rows in report.items():
        for k, row in rows.items():
            table.add_row(name, k, *(f"{value:.3f}" for value in row.values()))
    Console().print(table)
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
