"""A shipped avatar driven by any voice, as it is served: `python -m tests.bench.driven [--avatar NAME] [--json]`

Speech whose phones are known goes through the served runtime, 40 ms at a time, at its look-ahead; no socket, no clock.
One row a voice, defined in `models.metrics`:

closures   of the avatar's own lip points: m b p at which the lips meet, and meetings that are at one
gap        of the pictures: m b p at which nothing is seen between the lips, and open vowels at which something is
sync       lag of the opening behind that of the articulation model which speaks with the sound, in milliseconds
rest       the widest opening, in widths of the mouth, from 200 ms after the last word on

Voices are flite's, espeak-ng's in English and six other languages, in sentences that nobody was taught with, and, where
they are, the recordings of people in `../shared/data/speech`, aligned.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from models import metrics
from models.avatar import read_avatar
from models.create.live import opened, performed
from models.create.phones import complexion_of
from models.rates import CHUNK, CHUNK_SECONDS, FRAME_RATE
from models.runtime import Runtime
from models.studio.articulation import TAUGHT, articulate, opening
from models.studio.sentences import SENTENCES, sentences
from models.studio.speech import FLITE_VOICES, Espeak, MissingVoiceError, Utterance, flite
from tests.bench.lips import REST_AFTER_SECONDS, REST_SECONDS, SEED
from tests.bench.voices import RECORDINGS, recordings

Series = npt.NDArray[np.float64]

SHIPPED: Final = Path("models/shipped")
PEOPLE: Final = "recordings of people"

ABROAD: Final[dict[str, tuple[str, ...]]] = {
    "de": ("Am Abend kommt Besuch aus Hamburg.", "Bitte bringen Sie mir ein Bier und ein belegtes Brot."),
    "fr": ("Maman prépare une bonne soupe pour nous.", "Il pleut beaucoup au printemps en Bretagne."),
    "es": ("El barco blanco sale del puerto temprano.", "También me gusta pasear por el campo."),
    "it": ("Il treno per Bologna parte dal primo binario.", "Mi piacerebbe comprare un bel cappello."),
    "nl": ("De buurman komt morgen bij ons op bezoek.", "Het boek lag boven op de kapotte lamp."),
    "pl": ("Babcia piecze bułki na pierwsze śniadanie.", "Proszę podać mi białą piłkę i mapę."),
    "pt": ("O barco pequeno passa por baixo da ponte.", "Bebemos um bom café em Lisboa."),
}
"""Sentences of our own, which no corpus of ours has."""


@dataclass(frozen=True, eq=False)
class Driven:
    """What an avatar did while somebody spoke: a number for each frame from the first sample on, rest included."""

    spoken: Utterance
    lips: Series
    """The opening of its lip points, in widths of the mouth."""
    gaps: Series
    """Of the picture."""

    @property
    def phones(self) -> list[metrics.Phone]:
        """A frame shows the middle of its 40 ms; metrics count frames from the beginning of theirs."""
        half = CHUNK_SECONDS / 2
        return [metrics.Phone(phone.name, phone.start - half, phone.end - half) for phone in self.spoken.phones]


def voices(number: int) -> Iterator[tuple[str, list[Utterance]]]:
    """Everybody who is here, each with what they say."""
    texts = sentences(len(SENTENCES) + number, SEED)[len(SENTENCES) :]
    for name in FLITE_VOICES:
        yield name, [flite(text, name) for text in texts]
    for language, said in {"en-us": tuple(texts), **ABROAD}.items():
        yield f"espeak:{language}", [Espeak().say(text, language) for text in said]
    try:
        if RECORDINGS.exists():
            yield PEOPLE, recordings(RECORDINGS)
    except MissingVoiceError as missing:
        print(f"{PEOPLE} are left out: {missing}")


def drive(runtime: Runtime, complexion: metrics.Complexion, spoken: Utterance) -> Driven:
    rest = np.zeros(round(REST_SECONDS * FRAME_RATE) * CHUNK, np.float32)
    whole = np.pad(spoken.sound, (0, -len(spoken.sound) % CHUNK))
    points, gaps = [], []
    for picture, out in performed(runtime, np.concatenate([whole, rest])):
        assert out.points is not None
        points.append(out.points)
        gaps.append(metrics.gap(picture, complexion, out.points))
    return Driven(spoken, metrics.relative_opening(np.stack(points)), np.array(gaps))


def score(driven: Sequence[Driven]) -> dict[str, float]:
    """One row of the table."""
    rests = []
    for one in driven:
        over = max((phone.end for phone in one.phones if phone.name not in metrics.PAUSES), default=0.0)
        rests.append(float(one.lips[round((over + REST_AFTER_SECONDS) * FRAME_RATE) + 1 :].max()))
    pairs = [
        (opening(articulate(one.spoken.phones, FRAME_RATE, len(one.lips), TAUGHT)).astype(np.float64), one.lips)
        for one in driven
    ]
    return {
        **metrics.closures([(one.lips, one.phones) for one in driven]),
        **metrics.gaps([(one.gaps, one.phones) for one in driven]),
        "sync_ms": metrics.lag_ms(pairs),
        "rest_most": max(rests),
    }


def measure(folder: Path, number: int) -> dict[str, dict[str, float]]:
    complexion = complexion_of(read_avatar(folder))
    runtime = opened(folder)
    try:
        said = voices(number)
        return {name: score([drive(runtime, complexion, one) for one in spoken]) for name, spoken in said if spoken}
    finally:
        runtime.close()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.driven", description=__doc__)
    parser.add_argument("--avatar", default="demo", help="shipped with us, or a folder (default: demo)")
    parser.add_argument("--sentences", type=int, default=10, help="of each English voice (default: 10)")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    shipped = SHIPPED / chosen.avatar
    found = measure(shipped if shipped.is_dir() else Path(chosen.avatar), chosen.sentences)
    if chosen.json:
        print(json.dumps(found, indent=1))
        return
    shown = Table("voice", *next(iter(found.values())))
    for name, row in found.items():
        shown.add_row(name, *(f"{value:.3f}" for value in row.values()))
    Console(width=140).print(shown)


if __name__ == "__main__":
    main()
