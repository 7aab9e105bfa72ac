"""The trainer: it learns, it can be killed, and what it writes is what it paints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.renderers.fit import Clip, Fitting, Progress, Settings, fit, hole_and_mask, load, pose_normal, save
from models.renderers.patch import Patch
from models.renderers.placing import CHIN, canon
from tests.models.renderers.people import speaks

FEW = Settings(steps=12, batch=2, checkpoint_every=6, sheet_seconds=0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_it_learns_this_person(tmp_path: Path) -> None:
    longer = replace(FEW, steps=60, batch=4, checkpoint_every=20)
    run = Fitting([speaks(60)], tmp_path, longer, held=[speaks(20, seed=3)])
    before = run.lips_psnr()
    seen: list[Progress] = []
    costs = list(run.run(seen.append))
    assert np.mean(costs[-10:]) < 0.75 * np.mean(costs[:10])
    assert run.lips_psnr() > before + 1
    assert [progress.step for progress in seen] == [20, 40, 60]
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = Fitting([speaks(20)], tmp_path / "whole", FEW)
    for _ in whole.run():
        pass
    first = Fitting([speaks(20)], tmp_path / "cut", FEW)
    steps = first.run()
    for _ in range(8):  # killed at the eighth step; the last checkpoint is the sixth
        next(steps)
    again = Fitting([speaks(20)], tmp_path / "cut", FEW)
    assert again.resume()
    assert again.at == 6
    for _ in again.run():
        pass
    assert again.curve == pytest.approx(whole.curve, rel=1e-5)
    for name, tensor in whole.averaged.state_dict().items():
        torch.testing.assert_close(again.averaged.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path: Path) -> None:
    run = Fitting([speaks(20)], tmp_path, FEW)
    run.save()
    with pytest.raises(ValueError, match="with other settings or clips"):
        Fitting([speaks(20)], tmp_path, replace(FEW, seed=1)).resume()
    assert not Fitting([speaks(20)], tmp_path / "new", FEW).resume()


def test_what_is_written_paints_what_was_learned(tmp_path: Path) -> None:
    renderer = fit([speaks(30)], tmp_path, FEW)
    found = load(tmp_path / "renderer.safetensors")
    assert found.size == 128
    assert 0 <= float(found.sharpen) <= 0.5
    rows = found.look(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    sketch = found.sketched(found.rest[None])
    torch.testing.assert_close(found.write(rows, sketch), renderer.write(rows, sketch))


@torch.no_grad()
def test_a_fit_of_other_widths_is_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    older = Patch(128, (36, 56, 80, 112)).eval()
    save(older, tmp_path / "older.safetensors")
    found = load(tmp_path / "older.safetensors")
    rows, sketch = older.look(torch.rand(1, 3, 128, 128)), torch.rand(1, 6, 64, 64)
    assert torch.equal(found.write(rows, sketch), older.write(rows, sketch))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="holds no patch renderer"):
        load(tmp_path / "x.safetensors")


def test_a_run_without_a_better_picture_ends_early(tmp_path: Path) -> None:
    run = Fitting([speaks(20)], tmp_path, replace(FEW, patience=2), held=[speaks(20, seed=1)])
    run.kept = [30.0, 29.0]
    assert not run.done
    run.kept = [30.0, 29.0, 29.5]
    assert run.done


@pytest.mark.parametrize(
    ("clips", "complaint"),
    [
        ([], "no clip to learn from"),
        ([Clip([], np.full((5, 478, 3), np.nan, np.float32))], "the face was lost"),
    ],
)
def test_clips_that_nothing_can_be_learned_from(tmp_path: Path, clips: list[Clip], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Fitting(clips, tmp_path, FEW)


def test_a_size_that_no_patch_has_is_refused() -> None:
    with pytest.raises(ValueError, match="128, 192, 256 pixels wide, not 100"):
        Settings(size=100)


def test_the_hole_holds_the_jaw_at_its_lowest_and_the_mask_lies_in_the_hole() -> None:
    clip = speaks(40)
    mean = canon([clip.points], 128)
    spoken = pose_normal([clip], mean, 128).spoken.numpy()
    hole, mask = hole_and_mask(mean, spoken, 128)
    assert bool((hole[mask > 0] == 1).all())
    assert float(mask.max()) == 1
    x, y = mean[CHIN]
    assert mask[min(127, int(y + 8)), int(x)] > 0.5
    assert hole[0].sum() == hole[:, 0].sum() == hole[-1].sum() == 0
    lips = spoken[:, :40].reshape(-1, 2).round().astype(int)
    assert bool((mask[lips[:, 1], lips[:, 0]] == 1).all())
