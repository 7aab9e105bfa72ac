"""The voice encoder's school: `liveface studio voice OUT`.

It listens to the studio's corpus, clean and augmented, and learns phone classes, closures and articulation at every
look-ahead at once. What counts is measured on voices that it never heard, since the score on training voices is no
guide (an encoder without augmentation scores highest there and hears nobody else). A run that was stopped goes on from
its checkpoint, which lies beside the corpus.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from models import voice
from models.mel import Mel
from models.studio.corpus import Plan, corpus
from models.studio.examination import Report, calibrated, draw_lookaheads, draw_progress, examine, sweep, table
from models.studio.festival import FESTIVAL_VOICES, Saying, festival, missing
from models.studio.lessons import Lesson, lesson
from models.studio.sentences import pseudo, sentences
from models.studio.speech import FLITE_VOICES, Espeak, MissingVoiceError, Utterance, augment, flite
from models.studio.teaching import RATE, Course

UNHEARD = ("slt", "espeak:en-us+quincy", "espeak:en-us+shelby")
NEVER = ", never heard"
KNOWN = "voices in training, other sentences"


def held_out(without: Iterable[str], usual: Sequence[str] = UNHEARD) -> tuple[str, ...]:
    """The voices that stay unheard besides the usual ones. A synthesiser's name means the whole of it. Raises
    MissingVoiceError for a name that is nobody's: it would be heard after all."""
    without = tuple(without)
    groups = {"flite": FLITE_VOICES, "espeak": ("espeak:",), "festival": ("festival:",)}
    for name in without:
        if name not in groups and name not in FLITE_VOICES and not name.startswith(("espeak:", "festival:")):
            known = ", ".join([*groups, *FLITE_VOICES])
            raise MissingVoiceError(f"--without {name}: it is none of {known}, espeak:VOICE, festival:VOICE")
    return tuple(dict.fromkeys([*usual, *(name for one in without for name in groups.get(one, (one,)))]))


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
        said[name.rstrip(":") + NEVER] = list(_says(name, sentences(number, seed), seed))
    return said


def _says(name: str, texts: Sequence[str], seed: int) -> Iterator[Utterance]:
    synthesiser, _, voice_name = name.rpartition(":")
    if synthesiser == "festival":
        there = [one for one in FESTIVAL_VOICES if one.startswith(voice_name) and one not in missing()]
        for one in there:
            words = pseudo(-(-len(texts) // len(there)), str(seed), FESTIVAL_VOICES[one].language)
            yield from festival([Saying(text) for text in words], one)
        return
    voices = (voice_name,) if voice_name else ("en-us", "en-us+f2", "en+m3")
    for index, text in enumerate(texts):
        speaker = voices[index % len(voices)]
        yield Espeak().say(text, speaker) if synthesiser else flite(text, speaker)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.studio.listening", description=__doc__)
    parser.add_argument("out", type=Path, help="directory that the encoder is shipped in")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/liveface/speech")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--flite", type=int, default=600)
    parser.add_argument("--espeak", type=int, default=2400)
    parser.add_argument("--festival", type=int, default=160, help="of each of its voices that is installed")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--without", nargs="*", default=[], metavar="VOICE", help="flite, espeak, or a voice of theirs")
    parser.add_argument("--everybody", action="store_true", help="hold nobody out: what ships may know its own demo")
    parser.add_argument("--twice", nargs="*", default=[], metavar="VOICE", help="heard twice as often as the others")
    parser.add_argument("--rate", type=float, default=RATE, help="of learning; less for whoever has learnt already")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console()
    absent = missing()
    if absent:
        console.print(f"festival's voices that are not installed are left out: {', '.join(absent)}", markup=False)
    away = held_out(chosen.without, () if chosen.everybody else UNHEARD)
    plan = Plan(chosen.seed, chosen.flite, chosen.espeak, per_festival_voice=chosen.festival, hold_out=away)
    mel = Mel()
    said = unheard(held_out(chosen.without), plan.seed + 1)
    tests = {name: [lesson(one, mel) for one in spoken] for name, spoken in said.items()}
    training, tests[KNOWN] = prepare(plan, chosen.cache, chosen.copies)
    training += [one for one in training if one.voice in chosen.twice]
    start = voice.load(chosen.start) if chosen.start else None
    run = chosen.cache / f"{chosen.out.name}-{'-'.join([str(chosen.seed), *chosen.without])}"
    kept = run.with_suffix(".safetensors")
    course = Course(training, seed=chosen.seed, start=start, checkpoint=kept, rate=chosen.rate)
    history: list[tuple[int, Report]] = []

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
