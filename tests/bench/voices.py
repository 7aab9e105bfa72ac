"""How well the voice encoder hears voices that it never met: every look-ahead, every line, and real recordings.

`python -m tests.bench.voices [--voice WEIGHTS] [--out DIR]` prints three tables and writes them with a plot. Real
recordings are those of `../shared/data/speech`, aligned to their transcripts (extra `align`); without, they are left
out with a word. Which of the voices training left out is asked of the weights themselves.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import av
import numpy as np
import torch
from rich.console import Console
from safetensors import safe_open

from models import voice
from models.mel import Mel
from models.rates import SAMPLE_RATE
from models.studio.align import UnspokenError, aligned
from models.studio.examination import Report, draw_lookaheads, examine, table
from models.studio.lessons import lesson
from models.studio.listening import NEVER, UNHEARD, unheard
from models.studio.speech import MissingVoiceError, Sound, Utterance, noisy, room, through_opus, through_telephone

RECORDINGS: Final = Path(__file__).parents[3] / "shared/data/speech"
KENNEDY: Final = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
)

LINES: Final[dict[str, Callable[[Sound, np.random.Generator], Sound]]] = {
    "clean": lambda sound, dice: sound,
    "12 dB quieter": lambda sound, dice: sound * 0.25,
    "noise 20 dB": lambda sound, dice: noisy(sound, 20, 0.9, dice),
    "noise 10 dB": lambda sound, dice: noisy(sound, 10, 0.9, dice),
    "noise 5 dB": lambda sound, dice: noisy(sound, 5, 0.9, dice),
    "room": room,
    "opus 24 kbit/s": lambda sound, dice: through_opus(sound, 24_000),
    "opus 12 kbit/s": lambda sound, dice: through_opus(sound, 12_000),
    "telephone": lambda sound, dice: through_telephone(sound),
}


def over_lines(encoder: voice.VoiceEncoder, spoken: Sequence[Utterance]) -> Report:
    """What is left over each line."""
    report: Report = {}
    for line, carry in LINES.items():
        dice, mel = np.random.default_rng(0), Mel()
        carried = [replace(one, sound=carry(one.sound, dice).astype(np.float32)) for one in spoken]
        report[line] = examine(encoder, [lesson(one, mel) for one in carried])
    return report


def as_taught(said: Mapping[str, list[Utterance]], weights: Path) -> dict[str, list[Utterance]]:
    """The same under names that are true of these weights: what one encoder never heard, another was taught with."""
    with safe_open(weights, framework="np") as file:
        left_out = json.loads((file.metadata() or {})["made"])["unheard"].split(",")
    named = {}
    for name, spoken in said.items():
        speaker = name.removesuffix(NEVER)
        named[name if speaker in left_out else f"{speaker}, taught, other sentences"] = spoken
    return named


def recordings(directory: Path) -> list[Utterance]:
    """Real people, with the times of their phones. What cannot be aligned is left out with a word."""
    told = {path: text for path, text in transcripts(directory).items() if path.exists()}
    spoken: list[Utterance] = []
    for path, text in sorted(told.items()):
        try:
            spoken.append(aligned(_read(path), text, path.stem))
        except UnspokenError as wrong:
            print(f"left out: {wrong}")
    return spoken


def transcripts(directory: Path) -> dict[Path, str]:
    told = {directory / "whisper__jfk.flac": KENNEDY}
    for line in (directory / "pocketsphinx__transcription.txt").read_text().splitlines():
        found = re.match(r"<s> (.*) </s> \(.*-(\d+)\)", line)
        if found:
            told[directory / f"pocketsphinx__sense_{found[2]}.wav"] = found[1]
    for name, facts in json.loads((directory / "speechbrain__ASR_train.json").read_text()).items():
        told[directory / f"speechbrain__{name}.wav"] = facts["words"]
    return told


def _read(path: Path) -> Sound:
    with av.open(str(path)) as file:
        mono = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        pieces = [piece for frame in file.decode(audio=0) for piece in mono.resample(frame)]
        pieces += mono.resample(None)
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.voices", description=__doc__)
    parser.add_argument("--voice", type=Path, default=Path("models/shipped/voice/voice.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("out/voices"))
    parser.add_argument("--sentences", type=int, default=60)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    encoder, mel, console = voice.load(chosen.voice), Mel(), Console(width=120)
    said = as_taught(unheard(UNHEARD, seed=2, number=chosen.sentences), chosen.voice)
    report = {name: examine(encoder, [lesson(one, mel) for one in spoken]) for name, spoken in said.items()}
    try:
        real = recordings(RECORDINGS) if RECORDINGS.exists() else []
    except MissingVoiceError as missing:
        console.print(f"no real recordings: {missing}", markup=False)
        real = []
    if real:
        report[f"real recordings ({len(real)})"] = examine(encoder, [lesson(one, mel) for one in real])
    console.print(table(report))
    chosen.out.mkdir(parents=True, exist_ok=True)
    draw_lookaheads(report, chosen.out / "lookaheads.png")
    everything = {"voices": report}
    for name, spoken in said.items():
        lines = over_lines(encoder, spoken)
        console.print(name)
        console.print(table({line: {"K=2": rows["K=2"]} for line, rows in lines.items()}))
        everything[name] = lines
    (chosen.out / "voices.json").write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
