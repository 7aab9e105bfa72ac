"""Real lips, end to end: synthetic speech whose phones are known goes to a server over the socket, faces come back, and
what they do is held against what each phone asks for: `python -m tests.bench.lips [--sentences N] [--lookahead K]`

The server is `liveface serve` as it is shipped, with the shipped voice encoder. One row a voice: closures at m b p
(lips meet within 40 ms; and how many meetings in speech are at one), rounding at uw ow w against spread vowels and s
(how often it is greater), correlation of the opening with the articulation model's, and what lips do 200 ms after the
last word. Voices that the encoder was trained on stand beside voices that it never heard.
"""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from clients.python import Event, Face, connect
from engine.bench.launch import own_server, stream_url
from engine.clock import RealClock
from models import metrics
from models.rates import CHUNK_SECONDS, FRAME_RATE, SAMPLE_RATE
from models.studio.articulation import ROUND_PHONES, TAUGHT, Phone, articulate, opening, rounding
from models.studio.examination import wider
from models.studio.listening import UNHEARD, unheard
from models.studio.speech import Utterance

TRAINED: Final = ("rms", "awb", "kal16", "espeak:en-us", "espeak:en-us+f2")
SPREAD_PHONES: Final = frozenset(("iy", "ih", "ey", "eh", "ae", "s", "z"))
REST_AFTER_SECONDS: Final = 0.2
REST_SECONDS: Final = 0.8
AT_ONE_TIME: Final = 20
WIDTHS_OF_A_JAW: Final = 0.6
"""By how many of a mouth's widths a jaw that is all open parts the lips: metrics count openings in these."""

SEED: Final = 7
"""Of the sentences; those of a test, not of training."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a face did while a voice said something: [T, 52] from its first sample on, rest included."""

    spoken: Utterance
    weights: Floats


async def watch(url: str, spoken: Utterance) -> Seen:
    """Say it in a session of its own, and keep the faces from its first sample to REST_SECONDS after its last."""
    pcm = (np.clip(spoken.sound, -1, 1) * 32_767).astype("<i2").tobytes()
    count = round((spoken.seconds + REST_SECONDS) * FRAME_RATE)
    faces: dict[int, Face] = {}
    began: int | None = None
    async with connect(url, sample_rate=SAMPLE_RATE, pacing="burst") as avatar:
        await avatar.push(pcm, end=True)
        async for message in avatar:
            if isinstance(message, Face):
                faces[message.pts_us] = message
            elif isinstance(message, Event) and message.type == "speech.started":
                began = message.fields["pts_us"]
            if began is not None and faces and max(faces) >= began + count * CHUNK_SECONDS * 1e6:
                break
    assert began is not None
    dates = [round(began + i * CHUNK_SECONDS * 1e6) for i in range(count)]
    missing = [at for at in dates if at not in faces]
    if missing:
        raise RuntimeError(f"{len(missing)} of {count} faces never came: measure on a machine that has time")
    return Seen(spoken, np.array([faces[at].values for at in dates], np.float32))


def score(seen: Sequence[Seen]) -> dict[str, float]:
    """One row of the table."""
    clips, said, truly, rest = [], list[Floats](), list[Floats](), list[float]()
    round_, spread = list[float](), list[float]()
    for one in seen:
        frames = round(one.spoken.seconds * FRAME_RATE)
        lips = opening(one.weights)
        # A face shows the middle of its 40 ms; metrics count frames from the beginning of theirs.
        half = CHUNK_SECONDS / 2
        phones = [Phone(phone.name, phone.start - half, phone.end - half) for phone in one.spoken.phones]
        clips.append((lips * WIDTHS_OF_A_JAW, phones))
        said.append(lips[:frames])
        truly.append(opening(articulate(one.spoken.phones, FRAME_RATE, frames, TAUGHT)))
        over = max(phone.end for phone in one.spoken.phones if phone.name not in metrics.PAUSES)
        rest.append(float(lips[round((over + REST_AFTER_SECONDS) * FRAME_RATE) + 1 :].max()))
        for phone in one.spoken.phones:
            at = min(len(lips) - 1, int((phone.start + phone.end) / 2 * FRAME_RATE))
            if phone.name in ROUND_PHONES:
                round_.append(float(rounding(one.weights[at])))
            elif phone.name in SPREAD_PHONES:
                spread.append(float(rounding(one.weights[at])))
    return {
        **metrics.closures(clips),
        "opening_r": float(np.corrcoef(np.concatenate(said), np.concatenate(truly))[0, 1]),
        "round": wider(round_, spread),
        "round_mean": float(np.mean(round_)),
        "spread_mean": float(np.mean(spread)),
        "rest_most": max(rest),
    }


async def measure(voices: Sequence[str], sentences: int, lookahead: int) -> dict[str, dict[str, float]]:
    words = ["--avatar", "demo", "--slots", str(AT_ONE_TIME), "--lookahead", str(lookahead)]
    found: dict[str, dict[str, float]] = {}
    async with own_server(words, RealClock()) as serving:
        url = await stream_url(serving)
        for name, spoken in unheard(voices, SEED, sentences).items():
            seen: list[Seen] = []
            for first in range(0, len(spoken), AT_ONE_TIME):
                seen += await asyncio.gather(*(watch(url, one) for one in spoken[first : first + AT_ONE_TIME]))
            found[name.partition(",")[0]] = score(seen)
    return found


def table(found: dict[str, dict[str, float]]) -> Table:
    shown = Table("voice", *next(iter(found.values())))
    for name, row in found.items():
        unknown = "*" if name in UNHEARD else ""
        shown.add_row(name + unknown, *(f"{value:.3f}" for value in row.values()))
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lips", description=__doc__)
    parser.add_argument("--sentences", type=int, default=20, help="of each voice (default: 20)")
    parser.add_argument("--lookahead", type=int, default=2, metavar="K")
    parser.add_argument("--voices", nargs="+", default=[*TRAINED, *UNHEARD])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    found = asyncio.run(measure(chosen.voices, chosen.sentences, chosen.lookahead))
    if chosen.json:
        print(json.dumps(found, indent=1))
    else:
        Console(width=140).print(table(found), "* held out when it was examined; its card says whom it knows")


if __name__ == "__main__":
    main()
