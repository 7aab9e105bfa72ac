"""The landmark systems on one speaker's film: `python -m tests.bench.film CLIPS [SYSTEM …] [--form streaming]`

CLIPS are `.npz` of `liveface track`. Each system hears what its paper hears, unless `--hearing` says otherwise; it is
trained on all but twenty clips and scored on those, in another clip's head and in its own. Stopped runs go on.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models import train
from models.landmarks.forms import FORMS
from models.landmarks.hearing import AND_MEL, HEARINGS
from models.train import Clip, Config, Trainer
from models.voice import LOOKAHEADS

HEARS: Final = {
    "head": "mel",
    "pose_lstm": "mel40",
    "pose_tcn": "fbank26",
    "speech_to_landmarks": AND_MEL,
    "transformer": "mel",
    "lipsync3d": "spectrum",
}
SHOWN: Final = ("ld", "lvd", "m_ld", "f_ld", "opening_r", "sync_ms")


def split(clips: Sequence[Clip], held_out: int) -> tuple[list[Clip], list[Clip]]:
    """To train on and to score, by a fixed seed."""
    order = np.random.default_rng(0).permutation(len(clips))
    return [clips[i] for i in order[held_out:]], [clips[i] for i in order[:held_out]]


def fitted(config: Config, clips: Sequence[Clip]) -> Trainer:
    """Trained, or trained further when there is a checkpoint of the same run."""
    trainer = Trainer(config, clips, device="cpu")
    trainer.resume()
    for _ in track(trainer.run(), description=config.out.name, total=config.steps - trainer.at):
        pass
    return trainer


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.film", description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("systems", nargs="*", default=list(HEARS), metavar="SYSTEM", help=", ".join(HEARS))
    parser.add_argument("--form", default="streaming", choices=FORMS)
    parser.add_argument("--lookahead", type=int, default=2, choices=(*LOOKAHEADS, 5))
    parser.add_argument("--hearing", choices=HEARINGS)
    parser.add_argument("--voice", type=Path, default=Path("models/shipped/voice/voice.safetensors"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/film"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    training, held_out = split(train.read_clips(chosen.clips), chosen.held_out)
    everything: dict[str, Any] = {}
    shown = Table("system", "heard in", *SHOWN, "silence_motion", "voice silent", "CPU s")
    for system in chosen.systems:
        hearing = chosen.hearing or HEARS[system]
        name = "-".join((system, chosen.form, hearing, f"k{chosen.lookahead}"))
        config = Config(
            clips=chosen.clips,
            out=chosen.out / name,
            system=system,
            form=chosen.form,
            hearing=hearing,
            voice=chosen.voice if hearing.startswith("voice") else None,
            lookahead=chosen.lookahead,
            steps=chosen.steps,
        )
        begun = time.process_time()
        trainer = fitted(config, training)
        spent = time.process_time() - begun
        scores = train.scores(trainer, held_out)
        still = train.motion_in_silence(trainer, held_out)
        everything[name] = {**scores, "cpu_seconds": spent, "voice_silent": still}
        for row, figures in scores.items():
            values = [f"{figures[key]:.3f}" for key in (*SHOWN, "silence_motion")]
            shown.add_row(name, row, *values, f"{still:.2f}", f"{spent:.0f}")
        Console(width=150).print(shown)
        chosen.out.mkdir(parents=True, exist_ok=True)
        (chosen.out / "film.json").write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
