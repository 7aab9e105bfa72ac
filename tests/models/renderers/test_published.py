"""The trainer of the published renderers: it ends by the clock, goes on after a kill, and argues when it is time."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from models.renderers import Renderer
from models.renderers.published import Lesson, Progress, Rows, School, Settings

SIZE = 32
FEW = Settings(minutes=0.2, batch=2, rate=0.1, judge_width=4, alone=0.5, checkpoint_seconds=3, sheet_seconds=6)
"""Twelve seconds of a clock that takes half of one for each step."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Painter(Renderer):
    def __init__(self) -> None:
        super().__init__(SIZE)
        self.layer = nn.Conv2d(1, 3, 3, padding=1)


class Course:
    """Squares of a grey that the map tells."""

    judged, convincing, alike = 1, 0.1, 1.0
    name = "greys"

    def __init__(self, count: int = 20) -> None:
        torch.manual_seed(0)
        self.renderer: Renderer = Painter()
        self.greys = torch.linspace(0, 1, count)

    def __len__(self) -> int:
        return len(self.greys)

    def odds(self) -> npt.NDArray[np.float64]:
        return np.ones(len(self.greys))

    def lesson(self, rows: Rows, rng: np.random.Generator) -> Lesson:
        maps = self.greys[rows][:, None, None, None].expand(-1, 1, SIZE, SIZE)
        return {"true": (0.2 + 0.6 * maps).expand(-1, 3, -1, -1), "given": maps, "lips": torch.ones_like(maps)}

    def held_out(self, most: int) -> Lesson:
        return self.lesson(np.arange(3, len(self), 4), np.random.default_rng(0))

    def paint(self, renderer: Renderer, lesson: Lesson) -> Mapping[str, Tensor]:
        assert isinstance(renderer, Painter)
        return {"picture": renderer.layer(lesson["given"])}

    def cost(self, lesson: Lesson, painted: Mapping[str, Tensor]) -> Tensor:
        return (painted["picture"] - lesson["true"]).abs().mean()


class Ticking:
    """A second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def school(out: Path, settings: Settings = FEW, count: int = 20) -> School:
    return School(Course(count), out, settings, Ticking())


def test_it_ends_by_the_clock_and_shows_what_it_did(tmp_path: Path) -> None:
    run = school(tmp_path)
    told: list[Progress] = []
    costs = list(run.run(told.append))
    assert run.done
    assert run.spent == pytest.approx(12, abs=1)
    assert len(costs) == run.at
    assert costs[-1] < 0.9 * costs[0]
    assert [progress.share for progress in told] == sorted(progress.share for progress in told)
    assert told[-1].lips_psnr > 0
    for name in ("sheet.png", "curve.png", "checkpoint.safetensors"):
        assert (tmp_path / name).stat().st_size > 500


def test_the_adversary_has_no_say_at_first_and_then_it_learns(tmp_path: Path) -> None:
    run = school(tmp_path)
    assert run.adversary is not None
    before = [p.clone() for p in run.adversary.parameters()]

    def moved() -> bool:
        assert run.adversary is not None
        return any(not torch.equal(a, b) for a, b in zip(before, run.adversary.parameters(), strict=True))

    while run.share < FEW.alone:
        assert not moved()
        run.step()
    run.step()
    assert moved()


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = school(tmp_path / "whole")
    list(whole.run())
    first = school(tmp_path / "cut")
    steps = first.run()
    while first.share < 0.7 or first.kept[-1][0] == first.at:  # killed between two checkpoints, the adversary at work
        next(steps)
    again = school(tmp_path / "cut")
    assert again.resume()
    assert again.at == first.kept[-1][0] < first.at
    again._clock.now = 0  # type: ignore[attr-defined]  # another process counts from nothing
    again._since = 0
    list(again.run())
    shared = min(len(again.curve), len(whole.curve))
    assert again.curve[: shared - 1] == pytest.approx(whole.curve[: shared - 1], rel=2e-2)
    assert again.spent == pytest.approx(whole.spent, abs=1)


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    school(tmp_path).save()
    with pytest.raises(ValueError, match="other settings or films"):
        school(tmp_path, count=21).resume()
    assert not school(tmp_path / "nothing").resume()


def test_nothing_is_learned_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to learn from"):
        School(Course(0), tmp_path, FEW)
