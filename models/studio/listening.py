"""The voice encoder's school: `liveface studio voice OUT`.

It listens to the studio's corpus, clean and augmented, and learns phone classes, closures and articulation at every
look-ahead at once. What counts is measured on voices that it never heard, since the score on training voices is no
guide (an encoder without augmentation scores highest there and hears nobody else). A run that was stopped goes on from
its checkpoint, which lies beside the corpus.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from models import voice
from models.mel import Mel
from models.studio.examination import Report, calibrated, draw_lookaheads, draw_progress, examine, sweep, table
from models.studio.lessons import Lesson, lesson
from models.studio.sentences import sentences
from models.studio.speech import FLITE_VOICES, Espeak, Plan, Utterance, augment, corpus, flite
from models.studio.teaching import Course

UNHEARD = ("slt", "espeak:en-us+quincy", "espeak:en-us+shelby")
KNOWN = "voices in training, other sentences"


def held_out(without: Iterable[str]) -> tuple[str, ...]:
    """The voices that stay unheard besides the usual ones. "flite" and "espeak" mean the whole synthesiser."""
    groups = {"flite": FLITE_VOICES, "espeak": ("espeak:",)}
    return tuple(dict.fromkeys([*UNHEARD, *(name for one in without for name in groups.get(one, (one,)))]))


def prepare(plan: Plan, cache: Path, copies: int) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons of the voices in training, clean and augmented; and some of their sentences kept for a test."""
    mel = Mel()
    training: list[Lesson] = []
    known: list[Lesson] = []
    for index, spoken in enumerate(track(list(corpus(plan, cache)), description="preparing")):
        if index % 40 == 7:
            known.append(lesson(spoken, mel))
            continue
        training.append(lesson(spoken, mel))
        dice = np.random.default_rng([plan.seed, index])
        training += [lesson(augment(spoken, dice), mel) for _ in range(copies)]
    return training, known


def unheard(names: Iterable[str], seed: int, number: int = 60) -> dict[str, list[Utterance]]:
    """What the voices of a test say."""
    said: dict[str, list[Utterance]] = {}
    for name in names:
        voices = ("en-us", "en-us+f2", "en+m3") if name == "espeak:" else (name.removeprefix("espeak:"),)
        for index, text in enumerate(sentences(number, seed)):
            speaker = voices[index % len(voices)]
            spoken = Espeak().say(text, speaker) if name.startswith("espeak:") else flite(text, speaker)
            said.setdefault(f"{name.rstrip(':')}, never heard", []).append(spoken)
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.studio.listening", description=__doc__)
    parser.add_argument("out", type=Path, help="directory that the encoder is shipped in")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/liveface/speech")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--flite", type=int, default=600)
    parser.add_argument("--espeak", type=int, default=2400)
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--without", nargs="*", default=[], metavar="VOICE", help="flite, espeak, or a voice of theirs")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    plan = Plan(chosen.seed, chosen.flite, chosen.espeak, hold_out=held_out(chosen.without))
    mel = Mel()
    tests = {name: [lesson(u, mel) for u in us] for name, us in unheard(plan.hold_out, plan.seed + 1).items()}
    training, tests[KNOWN] = prepare(plan, chosen.cache, chosen.copies)
    start = voice.load(chosen.start) if chosen.start else None
    run = chosen.cache / f"{chosen.out.name}-{'-'.join([str(chosen.seed), *chosen.without])}"
    course = Course(training, seed=chosen.seed, start=start, checkpoint=run.with_suffix(".safetensors"))
    history: list[tuple[int, Report]] = []
    console = Console()

    def look(step: int, encoder: voice.VoiceEncoder) -> None:
        report = {name: examine(encoder, lessons) for name, lessons in tests.items()}
        history.append((step, report))
        draw_progress(history, run.with_suffix(".png"))
        voice.save(run.with_suffix(".latest"), encoder, steps=str(step))
        console.print(f"step {step}", table({name: {"K=2": rows["K=2"]} for name, rows in report.items()}))

    look(course.at, course.taught())
    encoder = course.teach(minutes=chosen.minutes, every_minutes=10, look=look)
    made = {"seed": str(chosen.seed), "steps": str(course.at), "minutes": str(round(course.seconds / 60))}
    voice.ship(chosen.out, encoder, **made, unheard=",".join(plan.hold_out))
    report = {name: examine(encoder, lessons) for name, lessons in tests.items()}
    console.print(table(report))
    found = sweep(encoder, tests[KNOWN])
    console.print({at: f"{recall:.3f} / {precision:.3f}" for at, (recall, precision) in found.items()})
    console.print(f"calibrated on the voices in training, lips are shut from {calibrated(found)} on: voice.SHUT")
    run.with_suffix(".json").write_text(json.dumps(report, indent=1))
    draw_lookaheads(report, run.with_suffix(".k.png"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
