"""Lips of one person, voices of others: the default head fitted on one speaker's film, asked about voices that nobody
filmed. `python -m tests.bench.strangers CLIPS [--film DIR] [--voice WEIGHTS] [--out DIR]`

CLIPS are `.npz` of `liveface track`. One table: a head that hears mel alone, the voice encoder's code alone, and both
(mel lost at random in training); lips on its own held-out clips, and on strangers' voices, in a head that is still.
Then both as an avatar has them: the encoder's flag draws the lips together wherever it hears a closure. Last, the
systems that `tests.bench.film` trained in `--film`, which hear what their papers hear.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from models import checkpoint, face, metrics, train
from models.create.drawing import drawn_shut
from models.create.rule import Rule
from models.landmarks.hearing import AND_MEL
from models.rates import CHUNK
from models.streaming import Layer, State
from models.studio.listening import UNHEARD, unheard
from models.studio.speech import MissingVoiceError, Utterance
from models.train import Clip, Config, Trainer
from models.voice import CODE, LOOKAHEADS, Voice, load
from tests.bench.film import fitted, split
from tests.bench.voices import RECORDINGS, recordings

HEARD: Final = {"mel alone": "mel", "mel less its mean": AND_MEL, "code alone": "voice", "both": "voice+mel"}
OWN: Final = ("ld", "opening_r")
STRANGE: Final = ("lip_auc", "closures_reached", "false_closures")
Scores = dict[str, float]


class WithoutMel(Layer):
    """What stands behind the code says nothing."""

    def __init__(self, heard: Layer) -> None:
        super().__init__()
        self.heard = heard

    def silence(self, batch: int) -> State:
        return self.heard.silence(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        row, state = self.heard(x, state)
        return torch.cat([row[..., :CODE], torch.zeros_like(row[..., CODE:])], dim=-1), state


class Flag:
    """The encoder's closure as avatars use it: it draws together what a head left open."""

    def __init__(self, weights: Path, lookahead: int) -> None:
        self.voice, self.lookahead = Voice(load(weights)).eval(), lookahead

    @torch.no_grad()
    def draw(self, lips: npt.NDArray[np.float64], sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """[T, 131, 3] for the frames of `sound` [T * 640]."""
        pcm = torch.from_numpy(np.pad(sound, (0, self.lookahead * CHUNK)))[None]
        code, _ = self.voice(pcm, self.voice.silence(1))
        heard = self.voice.encoder.hear(code[:, self.lookahead :], self.lookahead)
        drawn = lips.copy()
        spoken = torch.from_numpy(lips[None, :, face.HOUSE_SPOKEN]).float()
        drawn[:, face.HOUSE_SPOKEN] = drawn_shut(spoken, Rule().sealed(heard)[:, : len(lips)])[0].numpy()
        return drawn


def on_strangers(trainer: Trainer, said: Sequence[Utterance], still: Clip, flag: Flag | None) -> Scores:
    """How the lips of a head that is still follow these voices."""
    width = metrics.mouth_width(trainer.mesh[None, face.HOUSE])
    scored = []
    for one in said:
        frames = len(one.sound) // CHUNK
        sound = one.sound[: frames * CHUNK]
        head = replace(still, points=np.repeat(still.points[:1], frames, 0), audio=sound, speech=None)
        lips = train.perform(trainer, head, head).prediction
        lips = lips if flag is None else flag.draw(lips, sound)
        phones = [metrics.Phone(phone.name, phone.start, phone.end) for phone in one.phones]
        scored.append((metrics.relative_opening(lips, width), phones))
    return metrics.lip_auc(scored)


def on_own(trainer: Trainer, held_out: Sequence[Clip], flag: Flag | None) -> Scores:
    """The speaker's own voice, in the pose of another of the clips."""
    played = []
    for clip, head in zip(held_out, [*held_out[1:], held_out[0]], strict=True):
        one = train.perform(trainer, clip, head)
        lips = one.prediction if flag is None else flag.draw(one.prediction, clip.audio[: len(one.prediction) * CHUNK])
        played.append(replace(one, prediction=lips))
    return metrics.landmark_scores(played, trainer.mesh[face.HOUSE])


def configured(out: Path) -> Config:
    """As the run was whose checkpoint lies in `out`."""
    known = json.loads(checkpoint.load(out / "checkpoint.safetensors").facts["config"])
    paths = {key: Path(known[key]) for key in ("clips", "out", "voice") if known[key] is not None}
    return Config(**{**known, **paths})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.strangers", description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--voice", type=Path, default=Path("models/shipped/voice/voice.safetensors"))
    parser.add_argument("--out", type=Path, default=Path("out/strangers"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lookahead", type=int, default=2, choices=LOOKAHEADS)
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--film", type=Path, help="where tests.bench.film trained every system")
    parser.add_argument("--heard", nargs="*", default=list(HEARD), choices=list(HEARD))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=140)
    training, held_out = split(train.read_clips(chosen.clips), chosen.held_out)
    voices = unheard(UNHEARD, seed=2, number=chosen.sentences)
    try:
        voices["real recordings"] = recordings(RECORDINGS) if RECORDINGS.exists() else []
    except MissingVoiceError as missing:
        console.print(f"no real recordings: {missing}", markup=False)
    flag = Flag(chosen.voice, chosen.lookahead)
    rows: dict[str, dict[str, Scores]] = {}

    def score(name: str, trainer: Trainer, flag: Flag | None = None) -> None:
        rows[name] = {"own clips": on_own(trainer, held_out, flag)}
        rows[name] |= {who: on_strangers(trainer, said, held_out[0], flag) for who, said in voices.items() if said}
        shown = Table("heard", "own ld", "opening r", *(f"{who}: auc / reached / false" for who in voices))
        for row, scores in rows.items():
            own = (f"{scores['own clips'][key]:.3f}" for key in OWN)
            strange = (" / ".join(f"{scores[who][key]:.2f}" for key in STRANGE) for who in voices if who in scores)
            shown.add_row(row, *own, *strange)
        console.print(shown)

    for name in chosen.heard:
        config = Config(
            clips=chosen.clips,
            out=chosen.out / name.replace(" ", "-"),
            hearing=HEARD[name],
            voice=chosen.voice if "voice" in HEARD[name] else None,
            lookahead=chosen.lookahead,
            steps=chosen.steps,
        )
        trainer = fitted(config, training)
        score(name, trainer)
        if name == "both":
            score("both, shut by the flag", trainer, flag)
            trainer.hearing = WithoutMel(trainer.hearing)
            score("both, mel taken away", trainer)
            score("both, mel taken away, shut by the flag", trainer, flag)
    for out in sorted(chosen.film.glob(f"*-streaming-K={chosen.lookahead}")) if chosen.film else ():
        score(out.name, fitted(configured(out), training))
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "strangers.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
