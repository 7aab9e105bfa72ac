"""The articulation model beside one real speaker: `python -m tests.bench.mouths TRACKS ALIGNMENTS [--json]`

TRACKS holds an `.npz` with `points` [T, 478, …] for each clip, as `liveface track` writes them; ALIGNMENTS an `.align`
of the same name, each line "start end word" in 1/25,000 s. Phones within words come from flite, fitted to their spans.
The model's mouth, in the style that recordings are made in, is seen as the tracker would see it: what it reads for a
true opening was measured on studio frames, where both are known. It is blind to small ones, so that closures seem
longer than they are, for both alike.
"""

import argparse
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from models import face
from models.rates import FRAME_RATE
from models.studio.articulation import CLOSED_PHONES, LIKE_FILM, Phone, articulate
from models.studio.presenter import PRESENTERS, rig
from models.studio.presenter.head import EYE, lip_gap
from models.studio.speech import flite

Series = npt.NDArray[np.float64]

ALIGNED_RATE: Final = 25_000
TRUE: Final = (0.0, 0.036, 0.050, 0.055, 0.068, 0.089, 0.103, 1.0)
READ: Final = (0.0, 0.000, 0.007, 0.015, 0.049, 0.082, 0.098, 0.995)
"""In distances of the outer eye corners."""
SHUT: Final = 0.012
STATISTICS: Final = ("opening_mean", "opening_p90", "speed_p95", "closed_ms", "closures_reached")


def words(path: Path) -> list[tuple[float, float, str]]:
    rows = (line.split() for line in path.read_text().splitlines())
    return [(int(a) / ALIGNED_RATE, int(b) / ALIGNED_RATE, word) for a, b, word in rows]


@cache
def pronounced(word: str) -> tuple[tuple[str, float], ...]:
    """(phone, share of the word's time)."""
    phones = [p for p in flite(word.upper() if len(word) == 1 else word, "kal16").phones if p.name != "pau"]
    total = sum(p.end - p.start for p in phones)
    return tuple((p.name, (p.end - p.start) / total) for p in phones)


def phones_of(spoken: Sequence[tuple[float, float, str]]) -> list[Phone]:
    phones: list[Phone] = []
    for start, end, word in spoken:
        if word in ("sil", "sp"):
            phones.append(Phone("pau", start, end))
            continue
        at = start
        for name, share in pronounced(word):
            phones.append(Phone(name, at, at + share * (end - start)))
            at = phones[-1].end
    return phones


def modelled(phones: Sequence[Phone], frames: int) -> Series:
    """The opening a tracker would read, in distances of the outer eye corners."""
    who = PRESENTERS["mira"].traits
    curves = torch.from_numpy(articulate(phones, FRAME_RATE, frames, LIKE_FILM))
    gap = lip_gap(rig.pose(curves, who.mouth_half)).double().numpy()
    eyes = 2 * (EYE[0] + float(who.eye_half))  # type: ignore[arg-type]  # a number here, a tensor when compiled
    return np.asarray(np.interp(gap * float(who.face_length) / eyes, TRUE, READ))  # type: ignore[arg-type]


def tracked(points: npt.NDArray[np.float32]) -> Series:
    at = points[..., :2].astype(np.float64)
    apart = np.linalg.norm(at[:, face.INNER_LOWER] - at[:, face.INNER_UPPER], axis=1)
    return np.asarray(apart / np.linalg.norm(at[:, 33] - at[:, 263], axis=1))


def statistics(opening: Series, phones: Sequence[Phone]) -> dict[str, float]:
    times = (np.arange(len(opening)) + 0.5) / FRAME_RATE
    said = np.zeros(len(opening), bool)
    for phone in phones:
        said |= (phone.name != "pau") & (times >= phone.start) & (times < phone.end)
    closed, reached = [], []
    for phone in phones:
        if phone.name in CLOSED_PHONES:
            near = np.flatnonzero((times > phone.start - 0.06) & (times < phone.end + 0.06))
            if not len(near):
                continue
            middle = int(near[opening[near].argmin()])
            reached.append(float(opening[middle] < SHUT))
            if opening[middle] < SHUT:
                first = last = middle
                while first > 0 and said[first - 1] and opening[first - 1] < SHUT:
                    first -= 1
                while last + 1 < len(opening) and said[last + 1] and opening[last + 1] < SHUT:
                    last += 1
                closed.append((last - first + 1) * 1000 / FRAME_RATE)
    return {
        "opening_mean": float(opening[said].mean()),
        "opening_p90": float(np.quantile(opening[said], 0.9)),
        "speed_p95": float(np.quantile(np.abs(np.diff(opening))[said[1:]], 0.95) * FRAME_RATE),
        "closed_ms": float(np.mean(closed)) if closed else float("nan"),
        "closures_reached": float(np.mean(reached)) if reached else float("nan"),
    }


def compared(tracks: Path, alignments: Path) -> dict[str, Any]:
    real, model, together = [], [], []
    for path in sorted(tracks.glob("*.npz")):
        aligned = alignments / f"{path.stem}.align"
        if not aligned.exists():
            continue
        with np.load(path) as clip:
            seen = tracked(clip["points"])
        if not np.isfinite(seen).all():
            continue  # the face was lost
        phones = phones_of(words(aligned))
        made = modelled(phones, len(seen))
        real.append(statistics(seen, phones))
        model.append(statistics(made, phones))
        together.append(np.corrcoef(seen, made)[0, 1])
    table: dict[str, Any] = {"clips": len(real), "r": float(np.median(together))}
    for name in STATISTICS:
        rows = {"real": [one[name] for one in real], "model": [one[name] for one in model]}
        table[name] = {
            whose: {f"p{q}": float(np.nanquantile(values, q / 100)) for q in (10, 50, 90)}
            for whose, values in rows.items()
        }
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.mouths", description=__doc__)
    parser.add_argument("tracks", type=Path)
    parser.add_argument("alignments", type=Path)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    table = compared(chosen.tracks, chosen.alignments)
    if chosen.json:
        print(json.dumps(table, indent=2))
        return
    shown = Table("", "real p10", "p50", "p90", "model p10", "p50", "p90", title=f"{table['clips']} clips")
    for name in STATISTICS:
        values = [table[name][whose][q] for whose in ("real", "model") for q in ("p10", "p50", "p90")]
        shown.add_row(name, *(f"{value:.3g}" for value in values))
    Console().print(shown, f"the two openings correlate with r = {table['r']:.3f} (median clip)")


if __name__ == "__main__":
    main()
