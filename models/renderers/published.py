"""The trainer of the three published renderers: one loop, two optimisers where there is an adversary.

    school = School(FacemapCourse(renderer, film, held), Path("out"), Settings(minutes=12))
    school.resume()
    for _ in school.run(print):
        pass

What is learned is the course's affair (`courses`); how long, how fast, what is kept and what is shown, is this file's.
A run ends by the clock and not by the step: the learning rate falls to nothing as the minutes are spent, however busy
the machine. Steps draw from the seed and their own number, and a checkpoint holds the minutes that are spent, so that a
run that was killed goes on.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .. import checkpoint
from ..halves import halves
from . import Renderer
from .adversary import Adversary, alike, convincing, unmasked
from .fit import draw_curve, save_png

Rows = npt.NDArray[np.int64]
Lesson = Mapping[str, Tensor]
"""`true` [B, 3, H, W], where its lips are `lips` [B, 1, H, W], and what a course needs besides; `given` [B, C, H, W]
when there is an adversary."""


class Course(Protocol):
    """What one system is taught."""

    renderer: Renderer
    name: str
    judged: int
    """Planes of `given` that its adversary sees beside a picture; 0: it has none."""
    convincing: float
    alike: float
    """What the adversary's two terms weigh."""

    def __len__(self) -> int: ...
    def odds(self) -> npt.NDArray[np.float64]:
        """How often each row is drawn."""

    def lesson(self, rows: Rows, rng: np.random.Generator) -> Lesson: ...
    def held_out(self, most: int) -> Lesson:
        """So many frames that are never learned from, from shut to open."""

    def paint(self, renderer: Renderer, lesson: Lesson) -> Mapping[str, Tensor]:
        """`picture` [B, 3, H, W], and what the cost needs besides."""

    def cost(self, lesson: Lesson, painted: Mapping[str, Tensor]) -> Tensor: ...


@dataclass(frozen=True)
class Settings:
    minutes: float = 12.0
    batch: int = 8
    rate: float = 1e-3
    seed: int = 0
    alone: float = 0.6
    """Share of the minutes before the adversary has a say."""
    judge_width: int = 16
    judge_rate: float = 4e-4
    decay: float = 0.995
    """Of the running mean of weights, which is what is kept."""
    checkpoint_seconds: float = 60.0
    sheet_seconds: float = 180.0


@dataclass(frozen=True)
class Progress:
    step: int
    share: float
    """Of the minutes that are spent."""
    cost: float
    lips_psnr: float
    """Decibels over the lips of held-out frames, in the course's own space."""


HELD: Final = 24


class School:
    """A run. `clock` counts the seconds that are spent: the processor's, so that a busy machine costs nothing."""

    def __init__(
        self, course: Course, out: Path, settings: Settings, clock: Callable[[], float] = process_time
    ) -> None:
        if not len(course):
            raise ValueError("there is nothing to learn from")
        self.course, self.out, self.settings, self._clock = course, out, settings, clock
        torch.manual_seed(settings.seed)
        self.renderer = course.renderer
        for parameter in self.renderer.parameters():
            if parameter.dim() == 4:  # a CPU learns convolutions fastest with channels last
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.renderer).eval()
        self.optimizer = torch.optim.Adam(self.renderer.parameters(), settings.rate, betas=(0.5, 0.99))
        self.adversary = Adversary(course.judged + 3, width=settings.judge_width) if course.judged else None
        self.other = (
            torch.optim.Adam(self.adversary.parameters(), settings.judge_rate, betas=(0.5, 0.99))
            if self.adversary
            else None
        )
        self.at, self.spent = 0, 0.0
        self._since = clock()
        self.curve: list[float] = []
        self.kept: list[tuple[int, float]] = []
        """Step and held-out decibels of the lips, at each checkpoint."""
        odds = course.odds()
        self._odds = odds / odds.sum()
        self._held = course.held_out(HELD)

    @property
    def share(self) -> float:
        return min(1.0, self.spent / (60 * self.settings.minutes))

    @property
    def done(self) -> bool:
        return self.share >= 1

    def step(self) -> float:
        """One step of either optimiser; the renderer's cost, but for what its adversary says."""
        settings, course = self.settings, self.course
        rng = np.random.default_rng([settings.seed, self.at])
        lesson = course.lesson(rng.choice(len(self._odds), settings.batch, p=self._odds), rng)
        rate = (
            settings.rate * min(1.0, (self.at + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.share)))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(rng.integers(2**31)))
        with halves("cpu"):
            painted = course.paint(self.renderer.train(), lesson)
        painted = {name: tensor.float() for name, tensor in painted.items()}
        cost = course.cost(lesson, painted)
        total = cost
        if self.adversary is not None and self.other is not None and self.share >= settings.alone:
            total = total + self._argue(self.adversary, self.other, lesson, painted["picture"])
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.renderer.parameters(), 1.0)
        self.optimizer.step()
        self._average()
        self.at += 1
        now = self._clock()
        self.spent, self._since = self.spent + now - self._since, now
        self.curve.append(cost.item())
        return self.curve[-1]

    def _argue(self, adversary: Adversary, other: torch.optim.Optimizer, lesson: Lesson, picture: Tensor) -> Tensor:
        """The adversary learns; what the renderer then owes it."""
        given, true = lesson["given"], lesson["true"]
        with halves("cpu"):
            verdicts = adversary(given, true), adversary(given, picture.detach())
        wrong = unmasked(*verdicts)
        other.zero_grad()
        wrong.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        other.step()
        with halves("cpu"):
            real, said = adversary(given, true), adversary(given, picture)
        return self.course.convincing * convincing(said) + self.course.alike * alike(real, said)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.decay, (self.at + 1) / (self.at + 10))
        for ours, theirs in zip(self.averaged.state_dict().values(), self.renderer.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, 1 - decay)

    def run(self, report: Callable[[Progress], None] | None = None) -> Iterator[float]:
        """Steps until the minutes are spent; checkpoints, curve and sheets on the way."""
        saved = looked = self.spent
        while not self.done:
            yield self.step()
            if self.spent - saved >= self.settings.checkpoint_seconds or self.done:
                saved = self.spent
                self.kept.append((self.at, self.lips_psnr()))
                self.save()
                draw_curve(self.out / "curve.png", self.curve, self.kept)
                if report:
                    report(Progress(self.at, self.share, float(np.mean(self.curve[-100:])), self.kept[-1][1]))
            if self.spent - looked >= self.settings.sheet_seconds or self.done:
                looked = self.spent
                self.draw_sheet(self.out / "sheet.png")
            self._since = self._clock()  # what is shown costs the run nothing

    # --- How good it is

    @torch.no_grad()
    def painted(self) -> Tensor:
        return self.course.paint(self.averaged, self._held)["picture"].float().clamp(0, 1)

    def lips_psnr(self) -> float:
        wrong = (self.painted() - self._held["true"]).square() * self._held["lips"]
        return float(10 * math.log10(3 * float(self._held["lips"].sum()) / max(float(wrong.sum()), 1e-12)))

    def draw_sheet(self, path: Path, columns: int = 8) -> None:
        """Truth above, painted below, at held-out frames from shut to open."""
        painted, strips = self.painted(), []
        for first in range(0, len(painted), columns):
            for pictures in (self._held["true"], painted):
                strips.append(torch.cat(list(pictures[first : first + columns]), 2))
        save_png(path, torch.cat([strip for strip in strips if strip.shape == strips[0].shape], 1))

    # --- Checkpoints

    @property
    def path(self) -> Path:
        return self.out / "checkpoint.safetensors"

    def save(self) -> None:
        """A kill at any time leaves the old one whole."""
        figures = {"curve": torch.tensor(self.curve, dtype=torch.float64)}
        figures["kept"] = torch.tensor(self.kept, dtype=torch.float64).reshape(-1, 2)
        facts = {"step": str(self.at), "spent": repr(self.spent), "settings": json.dumps(self._identity())}
        checkpoint.save(self.path, self._parts(), figures, facts)

    def resume(self) -> bool:
        """Goes on from the checkpoint if there is one of this very run but for its length; False if there is none."""
        if not self.path.exists():
            return False
        kept = checkpoint.load(self.path)
        if json.loads(kept.facts["settings"]) != self._identity():
            raise ValueError(f"{self.path} is of a run with other settings or films: choose another directory")
        kept.into(self._parts())
        self.at, self.spent, self._since = int(kept.facts["step"]), float(kept.facts["spent"]), self._clock()
        self.curve = kept.figures["curve"].tolist()
        self.kept = [(int(step), psnr) for step, psnr in kept.figures["kept"].tolist()]
        return True

    def _parts(self) -> dict[str, checkpoint.Part]:
        parts: dict[str, checkpoint.Part] = {
            "renderer": self.renderer,
            "averaged": self.averaged,
            "optimizer": self.optimizer,
        }
        if self.adversary is not None and self.other is not None:
            parts |= {"adversary": self.adversary, "other": self.other}
        return parts

    def _identity(self) -> dict[str, object]:
        told = asdict(self.settings)
        for free in ("minutes", "checkpoint_seconds", "sheet_seconds"):
            del told[free]
        return {**told, "course": self.course.name, "frames": len(self.course)}
