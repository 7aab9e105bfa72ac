"""What the papers say that a part of their systems brings, taken away: `python -m tests.bench.ablations CLIPS [ROW …]`

Streaming, K = 2, otherwise as in tests.bench.film, with fewer steps: signs are compared, not figures. `voice silent` is
the first paper's proof of its augmentation: silence is heard, heads move, lips that move have listened to heads.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from models import losses, train
from models.landmarks import Conditions, LandmarkNetwork
from models.landmarks.forms import Form
from models.landmarks.hearing import Hearing
from models.landmarks.pose_lstm import PoseLstm
from models.landmarks.pose_tcn import PoseTcn
from models.landmarks.speech_to_landmarks import SpeechToLandmarks
from models.streaming import State
from models.train import Config
from tests.bench.film import SETTINGS, measured, split

SHOWN: Final = ("ld", "lvd", "f_ld", "le", "de", "dae", "opening_r", "opening_r_always")
Make = Callable[[Hearing, Form, int], LandmarkNetwork]


class EvenLstm(PoseLstm):
    """The first paper's network under a loss that does not favour lips."""

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        said, _ = self.speak(code, conditions, state)
        heard = slice(self.lookahead, None)
        return losses.l1(said[:, heard], self.truth(points, conditions)[:, heard])


class Variant(NamedTuple):
    """A system, what its run is given otherwise, and how it is made if not as usual."""

    system: str
    settings: Mapping[str, Any] = MappingProxyType({})
    make: Make | None = None


VARIANTS: Final[dict[str, Variant]] = {
    "pose_lstm": Variant("pose_lstm"),
    "pose_lstm, no borrowed heads": Variant("pose_lstm", {"partners": 0}),
    "pose_lstm, heads aligned by all 68": Variant("pose_lstm", {"aligned": "published"}),
    "pose_lstm, lips count as the face": Variant("pose_lstm", {}, lambda h, f, k: EvenLstm(h.width, f, k)),
    "pose_tcn": Variant("pose_tcn"),
    "pose_tcn, no pose": Variant("pose_tcn", {}, lambda h, f, k: PoseTcn(h.width, f, k, (False, False))),
    "pose_tcn, no cheeks": Variant("pose_tcn", {}, lambda h, f, k: PoseTcn(h.width, f, k, with_cheeks=False)),
    "S2L": Variant("speech_to_landmarks"),
    "S2L, no cosine": Variant(
        "speech_to_landmarks", {}, lambda h, f, k: SpeechToLandmarks(h.width, f, k, with_cosine=False)
    ),
    "head, which hears no pose": Variant("head"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ablations", description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("rows", nargs="*", default=list(VARIANTS), metavar="ROW", help="; ".join(VARIANTS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    training, held_out = split(train.read_clips(chosen.clips), chosen.held_out)
    chosen.out.mkdir(parents=True, exist_ok=True)
    kept = chosen.out / "ablations.json"
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in chosen.rows:
        if name in known:
            continue
        variant = VARIANTS[name]
        system = variant.system
        if variant.make is not None:
            train.SYSTEMS[system := name] = variant.make
        settings = SETTINGS[variant.system] | {"steps": chosen.steps} | dict(variant.settings)
        out = chosen.out / name.replace(" ", "-")
        known[name] = measured(Config(chosen.clips, out, system, seed=chosen.seed, **settings), training, held_out)
        kept.write_text(json.dumps(known, indent=1))
        shown = Table("", *SHOWN, "own ld", "voice silent", "CPU s")
        for row, figures in known.items():
            other = (f"{figures['other clip'][key]:.3f}" for key in SHOWN)
            own = f"{figures['own clip']['ld']:.3f}"
            shown.add_row(row, *other, own, f"{figures['voice silent']:.3f}", f"{figures['cpu_seconds']:.0f}")
        Console(width=150).print(shown)


if __name__ == "__main__":
    main()
