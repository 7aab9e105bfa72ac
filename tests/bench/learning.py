"""How much footage is enough: the learning curve of a person's lips, as a plot.

    python -m tests.bench.learning VIDEO… --seconds 60 120 240 --out DIR

Every sixth piece of the footage is held out; for each length, a head and the rule beside it are fitted as `liveface
create --quality draft` fits them, and measured on what is held out: the networks' points, without pictures. Writes
`learning.json` and `learning.png`. Fits that are done are found again in DIR.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models import face, metrics
from models.create.fit import QUALITIES, Piece, fit_head, fit_rule
from models.create.loop import pieces
from models.create.speaker import Speaker
from models.create.track import in_time, tracked
from models.landmarks.head import Head
from models.landmarks.hearing import Beside
from models.rates import CHUNK, FRAME_RATE, LOOKAHEAD_DEFAULT
from models.train import Trainer

HELD_EVERY = 6


def seconds_of(parts: Sequence[Piece]) -> float:
    return sum(part.frames.stop - part.frames.start for part in parts) / FRAME_RATE


def spread(parts: Sequence[Piece], seconds: float) -> list[Piece]:
    """Pieces of the whole footage, evenly, as many as fit."""
    count = min(len(parts), max(1, round(len(parts) * seconds / seconds_of(parts))))
    return [parts[at] for at in np.linspace(0, len(parts) - 1, count).astype(int)]


@torch.no_grad()
def performances(trainer: Trainer, speaker: Speaker, held: Sequence[Piece]) -> list[metrics.Performance]:
    ahead, told = speaker.head.lookahead, []
    for piece in held:
        clip = piece.clip
        pcm = torch.from_numpy(np.pad(clip.audio, (0, ahead * CHUNK)))[None]
        spoken, _, _ = speaker.spoken(pcm, speaker.silence(1))
        truth = metrics.pose_normal(clip.points, trainer.mesh)(clip.points)[:, face.HOUSE]
        said = truth.copy()
        said[:, face.HOUSE_SPOKEN] = spoken[0, ahead:].numpy()
        told.append(metrics.Performance(truth, said, clip.speech))
    return told


def measure(learned: Sequence[Piece], held: Sequence[Piece], out: Path) -> dict[str, float]:
    trainer = fit_head(learned, held, out, QUALITIES["draft"], LOOKAHEAD_DEFAULT, "cpu")
    rule = fit_rule(trainer, learned, held)
    assert isinstance(trainer.network, Head)
    assert isinstance(trainer.hearing, Beside)
    speaker = Speaker(trainer.network, trainer.hearing, rule).eval()
    scores = {"seconds": seconds_of(learned), "trust": float(rule.trust)}
    trusts = (("", float(rule.trust)), ("_head", 1.0), ("_rule", 0.0))
    for name, trust in trusts:
        rule.trust.fill_(trust)
        made = performances(trainer, speaker, held)
        scores |= {f"opening_r{name}": metrics.opening_r(made), f"ld{name}": metrics.ld(made)}
    return scores


def draw(rows: Sequence[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure((6, 3.6))
    axes = figure.subplots()
    seconds = [row["seconds"] for row in rows]
    for name, label, style in (
        ("", "both", "C0o-"),
        ("_head", "head alone", "C1.--"),
        ("_rule", "rule alone", "C2.--"),
    ):
        axes.plot(seconds, [row[f"opening_r{name}"] for row in rows], style, label=label)
    axes.set_xlabel("seconds of footage")
    axes.set_ylabel("opening_r, held out")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="+")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 120.0, 240.0])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tracks = in_time(tracked(asked.video))
    parts = [Piece(asked.video[number], tracks[number], frames) for number, frames in pieces(tracks)]
    held = parts[3::HELD_EVERY]
    learned = [part for part in parts if part not in held]
    rows = []
    for seconds in sorted(asked.seconds):
        if seconds > 1.1 * seconds_of(learned):
            print(f"{seconds:.0f} s: there are only {seconds_of(learned):.0f} s to learn from")
            continue
        rows.append(measure(spread(learned, seconds), held, asked.out / f"head-{seconds:.0f}"))
        print("  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "learning.json").write_text(json.dumps(rows, indent=2))
    draw(rows, asked.out / "learning.png")


if __name__ == "__main__":
    main()
