"""The one trainer: clips in, a landmark network's weights out. `python -m models.train CONFIG.toml`.

A clip is an `.npz` of `liveface track`: `points` [T, 478, 3] in pixels at 25 frames a second, `audio` at 16 kHz, `fps`,
`source` (a hash of what was tracked), and, where it is known, `speech` [T]: frames in which someone speaks.

Every step draws its clips, its noise and its dropout from the seed and its own number, so that a run that was killed
goes on from its last checkpoint exactly as if it had not been. Several GPUs: `torchrun -m models.train CONFIG.toml`.
"""

import json
import os
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from . import checkpoint, face, metrics
from .halves import halves
from .landmarks import EYES_APART, Conditions, LandmarkNetwork
from .landmarks.augmentation import lend_lips, partners
from .landmarks.forms import FORMS, Form
from .landmarks.head import Head
from .landmarks.hearing import HEARINGS, Hearing, hearing
from .landmarks.lipsync3d import LipSync3d
from .landmarks.pose_lstm import PoseLstm
from .landmarks.pose_tcn import PoseTcn
from .landmarks.speech_to_landmarks import SpeechToLandmarks
from .landmarks.transformer import Transformer
from .rates import CHUNK, FRAME_RATE, LOOKAHEAD_DEFAULT
from .streaming import Layer, leaves

Floats = npt.NDArray[np.float32]

SYSTEMS: dict[str, Callable[[Hearing, Form, int], LandmarkNetwork]] = {
    "head": lambda heard, form, lookahead: Head(heard.code, heard.mel, lookahead),
    "pose_lstm": lambda heard, form, lookahead: PoseLstm(heard.width, form, lookahead),
    "pose_tcn": lambda heard, form, lookahead: PoseTcn(heard.width, form, lookahead),
    "transformer": lambda heard, form, lookahead: Transformer(heard.width, form, lookahead),
    "speech_to_landmarks": lambda heard, form, lookahead: SpeechToLandmarks(heard.width, form, lookahead),
    "lipsync3d": lambda heard, form, lookahead: LipSync3d(heard.width, form, lookahead),
}
"""(what is heard, form, look-ahead) → network. The default head streams only."""


ALIGNED: Final = {"published": face.DLIB, "rigid": face.RIGID}


@dataclass(frozen=True)
class Config:
    """What a run is. The keys of the TOML file are these names."""

    clips: Path
    """A directory of .npz clips."""
    out: Path
    """A directory for the checkpoint, the curve and the scores."""
    system: str = "head"
    form: str = "streaming"
    hearing: str = "mel"
    voice: Path | None = None
    """The voice encoder's weights, for the hearings that have it."""
    lookahead: int = LOOKAHEAD_DEFAULT
    seed: int = 0
    steps: int = 2000
    batch: int = 16
    frames: int = 75
    """Length of the pieces that clips are cut into."""
    rate: float = 2e-3
    decay: float = 1e-2
    partners: int = 10
    """Heads that each voice borrows in Procrustes lip augmentation; 0 leaves each voice its own. Systems that speak in
    the pose-normal space have no use for it."""
    aligned: str = "rigid"
    """By which points heads are borrowed: `published`, all 68, or those that no mouth moves."""
    copies: int = 0
    """Of each clip, a little faster or slower and between its frames: see `Clip.paced`."""
    noise: float = 0.1
    """Standard deviation of what is added to the hearing, in its own units."""
    half: bool = False
    """bf16 on a CPU that has the instructions, too. Recurrent layers then learn in half the time; not convolutions,
    which answer NaN now and then (torch 2.13)."""
    checkpoint_every: int = 200
    held_out: int = 20
    """Clips, the last by name, that are scored and never trained on."""

    def __post_init__(self) -> None:
        for name, known in (("system", SYSTEMS), ("form", FORMS), ("hearing", HEARINGS), ("aligned", ALIGNED)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} = {getattr(self, name)!r} is none of {', '.join(known)}")

    @staticmethod
    def read(path: Path) -> "Config":
        table = tomllib.loads(path.read_text())
        unknown = set(table) - {field.name for field in fields(Config)}
        if unknown:
            raise ValueError(f"{path}: unknown key {', '.join(sorted(unknown))}")
        for name in {"clips", "out", "voice"} & set(table):
            table[name] = path.parent / table[name]
        return Config(**table)


# --- Clips -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clip:
    """A person speaking: points and sound of the same frames."""

    name: str
    points: Floats  # [T, 478, 3] in pixels
    audio: Floats  # [T * 640]
    speech: npt.NDArray[np.bool_] | None = None  # [T]

    @staticmethod
    def read(path: Path) -> "Clip":
        """Where the file says which frames are `usable`, the longest run of them."""
        with np.load(path, allow_pickle=False) as file:
            points, audio = file["points"].astype(np.float32), file["audio"].astype(np.float32)
            speech = file["speech"].astype(bool) if "speech" in file else None
            if round(float(file["fps"])) != FRAME_RATE:
                raise ValueError(f"{path}: {float(file['fps'])} frames a second; track it at {FRAME_RATE}")
            run = _longest(file["usable"]) if "usable" in file else slice(0, len(points))
        points, audio = points[run], audio[run.start * CHUNK :]
        speech = None if speech is None else speech[run]
        if not np.isfinite(points).all():
            raise ValueError(f"{path}: the face was lost in some frames; cut the clip or track it again")
        return Clip(path.stem, points, audio, speech).cut(0, len(points))

    def cut(self, start: int, stop: int) -> "Clip":
        """Those frames, sound and points equally long: missing sound is silence."""
        points = self.points[start:stop]
        audio = self.audio[start * CHUNK : (start + len(points)) * CHUNK]
        audio = np.pad(audio, (0, len(points) * CHUNK - len(audio)))
        return Clip(self.name, points, audio, None if self.speech is None else self.speech[start:stop])

    def paced(self, pace: float, late: float) -> "Clip":
        """The same said `pace` times as fast, its frames taken `late` (0…1) frames later: other numbers for networks
        that have heard a few minutes, of the same mouth."""
        at = late + pace * np.arange(int((len(self.points) - 1 - late) / pace) + 1)
        before = np.minimum(at.astype(int), len(self.points) - 2)
        part = (at - before).astype(np.float32)[:, None, None]
        points = self.points[before] * (1 - part) + self.points[before + 1] * part
        sample = CHUNK * late + pace * np.arange(len(at) * CHUNK)
        audio = np.interp(sample, np.arange(len(self.audio)), self.audio, right=0.0).astype(np.float32)
        speech = None if self.speech is None else self.speech[np.minimum(np.rint(at).astype(int), len(self.speech) - 1)]
        return Clip(self.name, points, audio, speech)


def _longest(usable: npt.NDArray[np.bool_]) -> slice:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], usable, [False]]).astype(np.int8)))
    runs = [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return max(runs, key=lambda run: run.stop - run.start, default=slice(0, 0))


def read_clips(directory: Path) -> list[Clip]:
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        raise ValueError(f"{directory} holds no .npz clips; make them with `liveface track VIDEO OUT.npz`")
    return [Clip.read(path) for path in paths]


def mean_face(clips: Sequence[Clip], rounds: int = 3) -> npt.NDArray[np.float64]:
    """[478, 3]: the person's mean face, upright as the first frame is; eye corners `EYES_APART`."""
    reference = clips[0].points[0].astype(np.float64)
    for _ in range(rounds):
        seen = np.concatenate([metrics.pose_normal(c.points, reference)(c.points) for c in clips])
        reference = seen.mean(0)
        reference -= reference[face.NOSE_POSE[0]]
    corners = reference[list(face.EYE_CORNERS)]
    scaled: npt.NDArray[np.float64] = reference * (EYES_APART / np.linalg.norm(corners[0] - corners[1]))
    return scaled


def conditions_of(points: Floats, mesh: npt.NDArray[np.float64], identity: Floats | None = None) -> Conditions:
    """Of one clip [T, 478, 3], as a batch of 1; `mesh` is the reference, `identity` [R, 131, 3] the reference faces, or
    else the clip's own first frame, as the first paper has it."""
    normal = metrics.pose_normal(points, mesh)
    if identity is None:
        identity = normal(points)[:1, face.HOUSE].astype(np.float32)
    posed = normal.inverse()
    parts = (
        points[:, face.NOSE_POSE],
        posed.scale[:, None],
        posed.rotation,
        posed.shift,
        points[:, face.CHEEKS, :2],
        points[:, face.HOUSE[face.HOUSE_UPPER]],
    )
    per_frame = (torch.tensor(np.ascontiguousarray(part), dtype=torch.float32)[None] for part in parts)
    return Conditions._make([*per_frame, torch.tensor(identity.reshape(1, -1))])


def late(conditions: Conditions, lookahead: int) -> Conditions:
    """Conditions for the steps at which the frames are answered: K more steps, the first K answer for nothing."""

    def shift(tensor: Tensor) -> Tensor:
        return torch.cat([tensor[:, :1].expand(-1, lookahead, *tensor.shape[2:]), tensor], dim=1)

    return conditions.changed(shift)


# --- Training --------------------------------------------------------------------------------------------------------


class Trainer:
    """A run. `step()` until `done`; `save()` and `resume()` at any step."""

    def __init__(self, config: Config, clips: Sequence[Clip], device: str | None = None) -> None:
        self.config = config
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.clips = list(clips)
        self.mesh = mean_face(self.clips)
        self.lessons = [*self.clips, *(copy for clip in self.clips for copy in _copies(clip, config))]
        torch.manual_seed(config.seed)
        heard = hearing(config.hearing, config.voice)
        self.hearing = heard.layer.to(self.device)
        self.network = SYSTEMS[config.system](heard, FORMS[config.form], config.lookahead)
        lends = config.partners and self.network.posed
        self.partners = partners(len(self.lessons), config.partners, config.seed) if lends else []
        self._fit()
        self.network.to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), config.rate, weight_decay=config.decay)
        self.at = 0
        self.curve: list[float] = []
        self._batches = _Cache(self)

    @property
    def done(self) -> bool:
        return self.at >= self.config.steps

    def step(self) -> float:
        """One step of the optimiser; the cost before it."""
        torch.manual_seed(hash((self.config.seed, self.at, self.rank)) % 2**31)
        rng = np.random.default_rng([self.config.seed, self.at, self.rank])
        code, conditions, points = self._batch(rng)
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * self._warmth()
        with halves(self.device, self.config.half or self.device.type == "cuda"):
            cost = self.network.cost(code, conditions, points, self.network.begin(conditions.identity))
        self.optimizer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.at += 1
        self.curve.append(cost.item())
        return self.curve[-1]

    def run(self) -> Iterator[float]:
        """Steps until done, with a checkpoint now and then and at the end."""
        while not self.done:
            yield self.step()
            if self.done or self.at % self.config.checkpoint_every == 0:
                self.save()

    def conditions(self, points: Floats) -> Conditions:
        """Of a clip's head. The face that a session begins with is one and the same in training and in scoring: the
        person's own at rest, which the stream has; in a faithful form what its paper has."""
        at_rest = self.mesh[None, face.HOUSE].astype(np.float32)
        known = FORMS[self.config.form].causal or self.network.neutral
        return conditions_of(points, self.mesh, at_rest if known else None)

    def _warmth(self) -> float:
        """Of the learning rate: a tenth of the run to warm up, then a cosine down."""
        part = (self.at + 1) / self.config.steps
        return part / 0.1 if part < 0.1 else 0.5 * (1 + float(np.cos(np.pi * (part - 0.1) / 0.9)))

    def _share_gradients(self) -> None:
        if self.world > 1:
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.world

    def _fit(self) -> None:
        self.network.reference.copy_(torch.tensor(self.mesh[face.HOUSE]))
        points = np.concatenate([clip.points for clip in self.clips])
        self.network.fit(torch.tensor(points)[None], conditions_of(points, self.mesh))

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Conditions, Tensor]:
        rows = [self._batches.row(rng) for _ in range(self.config.batch)]
        shortest = min(len(points) for _, _, points in rows)
        frames = min(shortest, self.config.frames)
        codes, conditions, meshes = [], [], []
        for code, condition, points in rows:
            start = int(rng.integers(0, len(points) - frames + 1))
            codes.append(code[start : start + frames + self.network.lookahead])
            conditions.append(late(condition.frames(slice(start, start + frames)), self.network.lookahead))
            early = points[start : start + 1].expand(self.network.lookahead, -1, -1)
            meshes.append(torch.cat([early, points[start : start + frames]]))
        code = torch.stack(codes).to(self.device)
        code = code + self.config.noise * torch.randn_like(code)
        together = Conditions(*(torch.cat(parts) for parts in zip(*conditions, strict=True)))
        return code, together.to(self.device), torch.stack(meshes).to(self.device)

    # --- Checkpoints

    @property
    def path(self) -> Path:
        return self.config.out / "checkpoint.safetensors"

    def save(self) -> None:
        """The network, the optimiser, the step; a kill meanwhile leaves the old one whole."""
        if self.rank:
            return
        figures = {"curve": torch.tensor(self.curve), "mesh": torch.tensor(self.mesh)}
        checkpoint.save(self.path, self._parts, figures, {"step": str(self.at), "config": self._config})

    def resume(self) -> bool:
        """Goes on from the checkpoint if there is one of this very run but for its length; False if there is none."""
        if not self.path.exists():
            return False
        kept = checkpoint.load(self.path)
        theirs, ours = json.loads(kept.facts["config"]), json.loads(self._config)
        differ = [key for key in ours if key not in ("steps", "out", "clips", "voice") and theirs.get(key) != ours[key]]
        if differ:
            raise ValueError(f"{self.path} is of another run ({', '.join(differ)} differ); choose another `out`")
        if not np.allclose(kept.figures["mesh"].numpy(), self.mesh, atol=0.01):  # other clips, or other rigid points
            raise ValueError(f"{self.path} learned in the pose-normal space of another face; choose another `out`")
        kept.into(self._parts)
        self.at, self.curve = int(kept.facts["step"]), kept.figures["curve"].tolist()
        return True

    @property
    def _parts(self) -> dict[str, checkpoint.Part]:
        return {"network": self.network, "optimizer": self.optimizer}

    @property
    def _config(self) -> str:
        return json.dumps(asdict(self.config), default=str)

    def draw_curve(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure((7, 4))
        axes = figure.subplots()
        axes.semilogy(self.curve, linewidth=0.5, color="0.7")
        window = max(1, len(self.curve) // 50)
        if len(self.curve) > window:
            axes.semilogy(np.arange(window - 1, len(self.curve)), _smooth(self.curve, window), linewidth=1.5)
        axes.set_xlabel("step")
        axes.set_ylabel(f"cost of {self.config.system}, {self.config.form}")
        figure.savefig(path, dpi=120)


PACE: Final = 0.1
"""Copies are said up to so much faster or slower."""


def _copies(clip: Clip, config: Config) -> list[Clip]:
    rng = np.random.default_rng([config.seed, zlib.crc32(clip.name.encode())])
    return [clip.paced(1 + PACE * rng.uniform(-1, 1), rng.uniform()) for _ in range(config.copies)]


class _Cache:
    """Rows of training: what is heard, the conditions and the mesh of a voice in a head. Made when asked for, kept."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.heard: dict[int, Tensor] = {}
        self.conditions: dict[int, Conditions] = {}
        self.lips: dict[tuple[int, int], Tensor] = {}

    def row(self, rng: np.random.Generator) -> tuple[Tensor, Conditions, Tensor]:
        trainer = self.trainer
        voice = int(rng.integers(len(trainer.lessons)))
        head = int(rng.choice(trainer.partners[voice])) if trainer.partners else voice
        if voice not in self.heard:
            self.heard[voice] = hear(trainer.hearing, trainer.lessons[voice], trainer.network.lookahead)[0]
        if head not in self.conditions:
            self.conditions[head] = trainer.conditions(trainer.lessons[head].points)
        points = torch.from_numpy(trainer.lessons[head].points)
        if head != voice:
            lips = self._lent(voice, head)
            points = points[: len(lips)].clone()
            points[:, face.LIPS.tolist()] = lips
        return self.heard[voice], self.conditions[head], points

    def _lent(self, voice: int, head: int) -> Tensor:
        """Of a pair the lips alone are kept: all else is the head's."""
        if (voice, head) not in self.lips:
            ours, theirs = (self.trainer.lessons[clip].points for clip in (voice, head))
            lent = lend_lips(ours, theirs, by=ALIGNED[self.trainer.config.aligned])
            self.lips[voice, head] = torch.tensor(lent[:, face.LIPS])
        return self.lips[voice, head]


@torch.no_grad()
def hear(ear: Layer, clip: Clip, lookahead: int) -> Tensor:
    """[1, T + K, C]: a clip's sound as the network hears it, with K frames of silence after it."""
    silence = ear.silence(1)
    pcm = torch.tensor(np.pad(clip.audio, (0, lookahead * CHUNK)), device=leaves(silence)[0].device)
    heard: Tensor = ear(pcm[None], silence)[0]
    return heard


def _smooth(values: Sequence[float], window: int) -> npt.NDArray[np.float64]:
    return np.convolve(values, np.full(window, 1 / window), "valid")


# --- Scores ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def perform(trainer: Trainer, clip: Clip, head: Clip | None = None) -> metrics.Performance:
    """What the network makes of a clip's voice in `head`'s pose and upper face; without one, in the clip's own, which
    gives some of the mouth away. Compared in the pose-normal space; the upper face, which is given, counts as true."""
    network = trainer.network.eval()
    posed = clip if head is None else head
    frames = min(len(clip.points), len(posed.points))
    conditions = trainer.conditions(posed.points[:frames])
    code = hear(trainer.hearing, clip.cut(0, frames), network.lookahead)
    conditions = late(conditions, network.lookahead).to(trainer.device)
    points, _ = network(code, conditions, network.begin(conditions.identity))
    said = points[0, network.lookahead :].cpu().numpy().astype(np.float64)
    said = metrics.pose_normal(posed.points[:frames], trainer.mesh)(said)
    true = metrics.pose_normal(clip.points[:frames], trainer.mesh)(clip.points[:frames])[:, face.HOUSE]
    said[:, face.HOUSE_UPPER] = true[:, face.HOUSE_UPPER]
    return metrics.Performance(true, said, None if clip.speech is None else clip.speech[:frames])


def scores(
    trainer: Trainer, held_out: Sequence[Clip], heads: Sequence[Clip] | None = None
) -> dict[str, dict[str, float]]:
    """The landmark table: the network with conditions from other clips (`heads` in turn), with each clip's own, and the
    static mouth."""
    heads = [*held_out[1:], held_out[0]] if heads is None else heads
    neutral = trainer.mesh[face.HOUSE]
    other = [perform(trainer, clip, heads[i % len(heads)]) for i, clip in enumerate(held_out)]
    own = [perform(trainer, clip) for clip in held_out]
    training = [metrics.pose_normal(c.points, trainer.mesh)(c.points)[:, face.HOUSE] for c in trainer.clips]
    still = metrics.static_mouth([p.truth for p in own], training)
    static = [metrics.Performance(p.truth, points, p.speech) for p, points in zip(own, still, strict=True)]
    rows = {"other clip": other, "own clip": own, "static mouth": static}
    return {name: metrics.landmark_scores(clips, neutral) for name, clips in rows.items()}


def motion_in_silence(trainer: Trainer, heads: Sequence[Clip]) -> float:
    """The first paper's proof of its augmentation: silence goes in, heads move; lips that move have listened to heads.
    Lip speed in percent of the eye-corner distance a frame."""
    still = []
    for head in heads:
        said = perform(trainer, Clip("silence", head.points, np.zeros_like(head.audio)), head).prediction
        still.append((said, np.ones(len(said), bool)))
    return metrics.silence_motion(still)


def main(arguments: Sequence[str] | None = None) -> None:
    from rich.console import Console
    from rich.progress import track

    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1:
        raise SystemExit("usage: python -m models.train CONFIG.toml")
    config = Config.read(Path(arguments[0]))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    clips = read_clips(config.clips)
    if len(clips) <= config.held_out:
        raise SystemExit(
            f"{config.clips} holds {len(clips)} clips; {config.held_out} are held out, none is left to train on"
        )
    trainer = Trainer(config, clips[: len(clips) - config.held_out])
    console = Console(quiet=trainer.rank > 0)
    if trainer.resume():
        console.print(f"goes on from step {trainer.at}")
    for _ in track(trainer.run(), description=config.system, total=config.steps - trainer.at, console=console):
        pass
    if trainer.rank == 0 and config.held_out:
        held_out = clips[len(clips) - config.held_out :]
        table: dict[str, Any] = scores(trainer, held_out)
        table["silent voice"] = {"silence_motion": motion_in_silence(trainer, held_out)}
        (config.out / "scores.json").write_text(json.dumps(table, indent=2))
        trainer.draw_curve(config.out / "curve.png")
        for name, row in table.items():
            console.print(f"{name:14}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
