"""The landmark systems on one speaker's film: `python -m tests.bench.film CLIPS [SYSTEM …]`

CLIPS are `.npz` of `liveface track`. Each system is trained on all but twenty clips and scored on those, in another
clip's head and in its own: first every system faithful and streaming at K = 2, then the other K. What is done is in
film.json, and is not done again; a stopped row goes on from its checkpoint. After each row film.md and film.png tell
what is known; `--then first` stops before the other K.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn

from models import face, metrics, train
from models.create import agree
from models.landmarks.forms import FAITHFUL
from models.landmarks.head import DROPOUT, HIDDEN, LAYERS, WIDTH, Head
from models.metrics import Performance
from models.train import Clip, Config, Trainer

PLAIN: Final = "plain BiLSTM"
"""The yardstick: the head's own layers both ways, offline."""

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "head": {"hearing": "mel", "steps": 600, "batch": 16, "rate": 2e-3, "copies": 0, "half": True},
    "pose_lstm": {"hearing": "mel40", "steps": 1000, "batch": 8, "rate": 3e-3, "copies": 1, "half": True},
    "speech_to_landmarks": {"hearing": "mel-mean", "steps": 1200, "batch": 8, "rate": 4e-3, "copies": 3, "half": True},
    "pose_tcn": {"hearing": "fbank26", "steps": 500, "batch": 8, "copies": 1},
    PLAIN: {"hearing": "mel", "steps": 600, "batch": 16, "rate": 2e-3, "half": True},
    "lipsync3d": {"hearing": "spectrum", "steps": 900, "batch": 2, "frames": 25, "rate": 1e-3},
    "transformer": {"hearing": "mel", "steps": 420, "batch": 2, "frames": 25, "rate": 3e-4},
}
"""What each paper hears, and what a minute or so of one CPU core is best spent on."""

STREAMED: Final[dict[str, dict[str, Any]]] = {"lipsync3d": {"hearing": "spectrum-pressed"}}
"""What the streaming form has otherwise than its paper, where that learns sooner."""

LOOKAHEADS: Final = (2, 0, 1, 3, 5)
SCORES: Final = tuple("ld lvd m_ld m_lvd f_ld f_lvd le de dae opening_r opening_r_always silence_motion".split())
TOLD: Final = ("ld", "lvd", "opening_r", "opening_r_always")
Rows = dict[str, dict[str, Any]]


class PlainBiLstm(Head):
    """A listener of the default head, alone, its recurrent layers both ways."""

    def __init__(self, code: int, mel: int) -> None:
        super().__init__(code, mel, lookahead=0, listeners=1)
        both = self.listeners[0]
        both.recurrent = FAITHFUL.recurrent(WIDTH, HIDDEN, LAYERS, DROPOUT)
        both.leave = nn.Linear(2 * HIDDEN, len(self.spread))


class Row(NamedTuple):
    """One line of the table."""

    system: str
    form: str
    lookahead: int

    def __str__(self) -> str:
        return f"{self.system} {self.form}" + (f" K={self.lookahead}" if self.form == "streaming" else "")


def rows(systems: Sequence[str], first: bool = False) -> Iterator[Row]:
    """In the order of what one would know first."""
    faithful = [Row(system, "faithful", 0) for system in systems if system != "head"]
    streaming = [[Row(system, "streaming", k) for system in systems if system != PLAIN] for k in LOOKAHEADS]
    yield from streaming[0]
    yield from faithful
    if not first:
        for others in streaming[1:]:
            yield from others


def split(clips: Sequence[Clip], held_out: int, fold: int = 0) -> tuple[list[Clip], list[Clip]]:
    """To train on and to score, by a fixed seed; the folds' clips to score have none in common."""
    order = np.random.default_rng(0).permutation(len(clips))
    scored = order[fold * held_out : (fold + 1) * held_out]
    return [clips[i] for i in order if i not in scored], [clips[i] for i in scored]


def in_time(clips: Sequence[Clip]) -> list[Clip]:
    """Each clip's sound where most clips have theirs beside the picture, as `liveface create` has it. The judge is the
    voice encoder, which knows none of the systems and never saw these lips."""
    offsets = agree.apart([(agree.heard_opening(clip.audio), agree.seen_opening(clip.points)) for clip in clips])
    return [replace(clip, audio=agree.delayed(clip.audio, by)) for clip, by in zip(clips, offsets, strict=True)]


def fitted(config: Config, clips: Sequence[Clip]) -> Trainer:
    """Trained, or trained further when there is a checkpoint of the same run."""
    trainer = Trainer(config, clips, device="cpu")
    trainer.resume()
    for _ in track(trainer.run(), description=config.out.name, total=config.steps - trainer.at):
        pass
    return trainer


def with_rest_known(clip: Performance) -> Performance:
    """The mouth moved, point by point, to where this clip's own lies while nobody speaks. No voice tells that, and an
    avatar's loop shows it: what is left over is what was heard wrongly."""
    assert clip.speech is not None
    lips, rest = face.HOUSE_SPOKEN, ~clip.speech
    said = clip.prediction.copy()
    said[:, lips] += (clip.truth[rest][:, lips] - clip.prediction[rest][:, lips]).mean(0)
    return replace(clip, prediction=said)


def measured(config: Config, training: Sequence[Clip], held_out: Sequence[Clip]) -> dict[str, Any]:
    """A row's scores, what it cost, how far its lips move when the voice is silent, and how far they would be astray if
    each clip's mouth at rest were known."""
    begun = time.process_time()
    trainer = fitted(config, training)
    spent = time.process_time() - begun
    own = [with_rest_known(train.perform(trainer, clip)) for clip in held_out]
    return {
        **train.scores(trainer, held_out),
        "rest known": metrics.landmark_scores(own, trainer.mesh[face.HOUSE]),
        "voice silent": train.motion_in_silence(trainer, held_out),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "cpu_seconds": spent,
        "steps": config.steps,
        "hearing": config.hearing,
        "seed": config.seed,
    }


@dataclass(frozen=True)
class Book:
    """What is known so far: film.json, and film.md and film.png made of it."""

    out: Path

    @property
    def rows(self) -> Rows:
        path = self.out / "film.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def add(self, name: str, row: dict[str, Any]) -> None:
        known = {**self.rows, name: row}
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "film.json").write_text(json.dumps(known, indent=1))
        (self.out / "film.md").write_text(markdown(known))
        draw(known, self.out / "film.png")


def markdown(known: Rows) -> str:
    """Two tables, one for each condition, the static mouth in both."""
    told = []
    for condition in ("other clip", "own clip"):
        told.append(f"In the head of {'another' if condition == 'other clip' else 'its own'} clip:\n")
        extra = ("voice silent", "ld, rest known", "parameters", "CPU s")
        told.append("| system | " + " | ".join((*SCORES, *extra)) + " |")
        told.append("| --- " * (len(SCORES) + len(extra) + 1) + "|")
        still = next(iter(known.values()))["static mouth"]
        told.append("| static mouth | " + " | ".join(f"{still[key]:.3f}" for key in SCORES) + " | 0 | – | – | – |")
        for name, row in known.items():
            figures = " | ".join(f"{row[condition][key]:.3f}" for key in SCORES)
            rest, size = row["rest known"]["ld"], row["parameters"]
            cost = f"{row['voice silent']:.2f} | {rest:.3f} | {size:,} | {row['cpu_seconds']:.0f}"
            told.append(f"| {name} | {figures} | {cost} |")
        told.append("")
    return "\n".join(told)


def draw(known: Rows, path: Path) -> None:
    """Quality against look-ahead; the faithful form of each as a line across."""
    from matplotlib.figure import Figure

    figure = Figure((10, 4.2), layout="constrained")
    for axes, score in zip(figure.subplots(1, 2), ("ld", "opening_r_always"), strict=True):
        for number, system in enumerate(SETTINGS):
            curve = sorted(
                (k, known[name]["other clip"][score])
                for k in LOOKAHEADS
                if (name := str(Row(system, "streaming", k))) in known
            )
            colour = f"C{number}"
            if curve:
                axes.plot(*zip(*curve, strict=True), "o-", color=colour, label=system, markersize=4)
            if (whole := str(Row(system, "faithful", 0))) in known:
                height = known[whole]["other clip"][score]
                axes.axhline(height, color=colour, linestyle=":", label=None if curve else system)
        axes.set_xlabel("look-ahead K, frames of 40 ms (dotted: faithful, offline)")
        axes.set_title({"ld": "ld, % of the eye corners' distance", "opening_r_always": "opening_r, all frames"}[score])
        axes.set_xlim(-0.3, 5.3)
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.film", description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("systems", nargs="*", default=list(SETTINGS), metavar="SYSTEM", help=", ".join(SETTINGS))
    parser.add_argument("--then", default="all", choices=("all", "first"))
    parser.add_argument("--hearing", help="instead of what each paper hears")
    parser.add_argument("--voice", type=Path, default=Path("models/shipped/voice/voice.safetensors"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--fold", type=int, default=0, help="which clips are scored")
    parser.add_argument(
        "--timed", action="store_true", help="clips whose sound is beside that of others are put in time"
    )
    parser.add_argument("--until", help="HH:MM after which no row is begun")
    parser.add_argument("--out", type=Path, default=Path("out/film"))
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.systems) - set(SETTINGS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(SETTINGS)}")
    torch.set_num_threads(1)
    train.SYSTEMS[PLAIN] = lambda heard, form, lookahead: PlainBiLstm(heard.code, heard.mel)
    clips = train.read_clips(chosen.clips)
    training, held_out = split(in_time(clips) if chosen.timed else clips, chosen.held_out, chosen.fold)
    book, console = Book(chosen.out), Console(width=150)
    for row in rows(chosen.systems, chosen.then == "first"):
        if str(row) in book.rows:
            continue
        if chosen.until and time.strftime("%H:%M") >= chosen.until:
            break
        given = {"hearing": chosen.hearing, "steps": chosen.steps}
        own = STREAMED.get(row.system, {}) if row.form == "streaming" else {}
        settings = SETTINGS[row.system] | own | {key: value for key, value in given.items() if value is not None}
        if settings["hearing"].startswith("voice"):
            settings["voice"] = chosen.voice
        out = chosen.out / str(row).replace(" ", "-")
        config = Config(chosen.clips, out, row.system, row.form, lookahead=row.lookahead, seed=chosen.seed, **settings)
        book.add(str(row), measured(config, training, held_out))
        done = book.rows[str(row)]
        told = (f"{c}: " + " ".join(f"{key} {done[c][key]:.3f}" for key in TOLD) for c in ("other clip", "own clip"))
        console.print(f"{row}, {done['cpu_seconds']:.0f} CPU s; " + "; ".join(told))


if __name__ == "__main__":
    main()
