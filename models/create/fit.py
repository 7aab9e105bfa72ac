"""The personal networks, fitted to tracks: a landmark head on the shipped voice encoder, and a renderer.

Both trainers draw their examples from the seed and the step's number and keep checkpoints, so that a fit that was
killed goes on where it was. The head is measured on held-out footage now and then; what is kept is the best, not the
last, and it ends when it no longer becomes better.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.create.film import Floats, Picture, pictures
from models.create.rule import Rule, features
from models.create.speaker import encoder_of
from models.create.track import Track
from models.create.watch import MOST_SIDE
from models.landmarks.head import Head
from models.rates import FRAME_RATE
from models.renderers import fit as painting
from models.renderers.patch import Patch
from models.runtime.eager import VOICE
from models.train import Clip, Config, Trainer, conditions_of, hear, late
from models.voice import CODE, Heard

HEARING: Final = "voice+mel"
RATE: Final = 4e-3
LOOK_EVERY: Final = 100
"""Steps of the head between two looks at what is held out."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How much is done. Steps are the most; both fits stop when they no longer become better."""

    head_steps: int
    renderer_steps: int
    patch: int
    patience: int
    """Looks without anything better before the head ends."""


QUALITIES: Final = {
    "draft": Quality(head_steps=600, renderer_steps=1_500, patch=128, patience=3),
    "good": Quality(head_steps=900, renderer_steps=12_000, patch=128, patience=5),
    "best": Quality(head_steps=1_500, renderer_steps=30_000, patch=192, patience=8),
}


@dataclass(frozen=True, slots=True)
class Told:
    """Where a fit is: for a progress bar."""

    step: int
    steps: int
    cost: float
    held: float
    """The head: cost on held-out footage. The renderer: decibels over held-out lips."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Frames of a film that are one example of the person."""

    path: Path
    track: Track
    frames: slice

    @property
    def clip(self) -> Clip:
        whole = Clip(
            f"{self.path.stem}-{self.frames.start:05d}", self.track.points, self.track.audio, self.track.speech
        )
        return whole.cut(self.frames.start, self.frames.stop)


def fit_head(
    learned: Sequence[Piece],
    held: Sequence[Piece],
    out: Path,
    quality: Quality,
    lookahead: int,
    device: str,
    told: Callable[[Told], None] = lambda told: None,
) -> Trainer:
    """The trainer with the best head in it. Goes on from `out` when it was cut off there."""
    config = Config(
        clips=out,
        out=out,
        hearing=HEARING,
        voice=VOICE,
        lookahead=lookahead,
        steps=quality.head_steps,
        rate=RATE,
        checkpoint_every=LOOK_EVERY,
    )
    clips = [piece.clip for piece in learned]
    trainer = Trainer(config, clips, device)
    try:
        trainer.resume()
    except (ValueError, RuntimeError) as older:
        if isinstance(older, RuntimeError) and "state_dict" not in str(older):
            raise  # a GPU that is full, say: what was learned is kept
        shutil.rmtree(out)  # of an older version's settings or layers: begun anew
        trainer = Trainer(config, clips, device)
    best_path = out / "best.safetensors"
    best, stale = float("inf"), 0
    if best_path.is_file():
        with safe_open(best_path, "pt") as file:
            facts = json.loads(file.metadata()["best"])
        if facts["step"] <= trainer.at:
            best, stale = facts["cost"], (trainer.at - facts["step"]) // LOOK_EVERY
    rows = [(piece.clip, hear(trainer.hearing, piece.clip, lookahead)) for piece in held]
    if stale < quality.patience:
        for cost in trainer.run():
            if trainer.at % LOOK_EVERY and not trainer.done:
                continue
            now = _held_cost(trainer, rows)
            told(Told(trainer.at, quality.head_steps, cost, now))
            if now < best:
                best, stale = now, 0
                _keep(trainer, best_path, best)
            else:
                stale += 1
                if stale >= quality.patience:
                    break
    with safe_open(best_path, "pt") as file:
        trainer.network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 - no dict
    trainer.network.eval()
    return trainer


@torch.no_grad()
def fit_rule(trainer: Trainer, learned: Sequence[Piece], held: Sequence[Piece]) -> Rule:
    """The rule beside the head, and how far held-out footage lets the head be trusted."""
    head, ahead = trainer.network, trainer.network.lookahead
    assert isinstance(head, Head)

    def told(clip: Clip) -> tuple[Tensor, Heard, Tensor]:
        """What the head says, what the encoder hears and where the lips are, in the frames of the clip."""
        row = hear(trainer.hearing, clip, ahead)
        conditions = conditions_of(clip.points, trainer.mesh).to(trainer.device)
        true = head.truth(torch.tensor(clip.points, device=trainer.device)[None], conditions)
        said, _ = head.components(row, head.begin(conditions.identity))
        heard = encoder_of(trainer.hearing).hear(row[..., :CODE], ahead)
        return said[:, ahead:], Heard(*(part[:, ahead:] for part in heard)), true

    examples = [told(piece.clip) for piece in learned]
    rule = Rule(len(head.spread)).to(trainer.device)
    rule.fit([features(heard)[0] for _, heard, _ in examples], [head.weights(true)[0] for _, _, true in examples])
    rule.judge(head, [told(piece.clip) for piece in held])
    return rule


@torch.no_grad()
def _held_cost(trainer: Trainer, rows: Sequence[tuple[Clip, torch.Tensor]]) -> float:
    network = trainer.network.eval()
    total, frames = 0.0, 0
    for clip, code in rows:
        conditions = late(conditions_of(clip.points, trainer.mesh), network.lookahead).to(trainer.device)
        points = torch.tensor(clip.points)[None]
        points = torch.cat([points[:, :1].expand(-1, network.lookahead, -1, -1), points], dim=1)
        cost = network.cost(code, conditions, points.to(trainer.device), network.begin(conditions.identity))
        total, frames = total + cost.item() * len(clip.points), frames + len(clip.points)
    return total / frames


def _keep(trainer: Trainer, path: Path, cost: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in trainer.network.state_dict().items()
    }
    save_file(tensors, beside, {"best": json.dumps({"step": trainer.at, "cost": cost})})
    beside.replace(path)


def fit_renderer(
    learned: Sequence[Piece],
    held: Sequence[Piece],
    out: Path,
    quality: Quality,
    told: Callable[[Told], None] = lambda told: None,
) -> Patch:
    """The renderer, sharpened as the footage is. Goes on from `out` when it was cut off there."""
    settings = painting.Settings(
        size=quality.patch, steps=quality.renderer_steps, checkpoint_every=250, patience=2 * quality.patience
    )

    def fitted() -> Patch:
        return painting.fit(seen(learned), out, settings, seen(held), tell)

    def tell(now: painting.Progress) -> None:
        told(Told(now.step, now.steps, now.cost, now.lips_psnr))

    try:
        return fitted()
    except (ValueError, RuntimeError):  # of an older version's settings or layers: begun anew
        if not out.is_dir():
            raise
        shutil.rmtree(out)
        return fitted()


def seen(pieces: Sequence[Piece]) -> list[painting.Clip]:
    """Pieces with their pictures, which are decoded once, in order."""
    frames = _frames(pieces)
    return [painting.Clip(_next(frames, piece), scaled_points(piece)) for piece in pieces]


def scaled_points(piece: Piece) -> Floats:
    """[T, 478, 3] of the pictures that `seen` gives: each picture's own, not those of the moment between two."""
    track = piece.track
    own = track.points if abs(track.rate - FRAME_RATE) < 0.1 or track.labelled else track.raw
    points = own[piece.frames]
    lost = ~np.isfinite(points).all((1, 2))
    points = np.where(lost[:, None, None], track.points[piece.frames], points)
    return shrunk(points, track)


def shrunk(points: Floats, track: Track) -> Floats:
    """The film's pixels → those of its pictures, which come no larger than `MOST_SIDE`."""
    scale = min(1.0, MOST_SIDE / max(track.width, track.height))
    return np.asarray(points * scale + np.array([0.5, 0.5, 0.0]) * (scale - 1), np.float32)


def _next(frames: Iterator[Picture], piece: Piece) -> Iterator[Picture]:
    for _ in range(piece.frames.stop - piece.frames.start):
        yield next(frames)


def _frames(pieces: Sequence[Piece]) -> Iterator[Picture]:
    """The pictures of all pieces, one after the other. Pieces of one film are in its order, one after the other."""
    open_film: Path | None = None
    film: Iterator[tuple[int, Picture]] = iter(())
    number, picture = -1, None
    for piece in pieces:
        wanted = piece.track.picture[piece.frames].tolist()
        if piece.path != open_film or (wanted and wanted[0] < number):
            open_film, number = piece.path, -1
            film = enumerate(one for _, one in pictures(piece.path, MOST_SIDE))
        for want in wanted:
            while number < want or picture is None:
                number, picture = next(film)
            yield picture
