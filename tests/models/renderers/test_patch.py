"""The default renderer: defined for any landmarks, the same for any neighbours, small enough to be quick."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from models.rates import POINTS
from models.renderers import Loop, Renderer
from models.renderers.patch import PAINT, SKETCH, Patch, _Brush
from tests.models.renderers.people import loop, patch, points

MOST_MACS = 400e6
"""For a patch of 128 pixels: what fits into the bar of 5.5 ms of one core in f32."""
VECTOR = 16
"""Floats of 32 bits in 512."""


@pytest.fixture(scope="module")
def renderer() -> Patch:
    return patch(128)


@pytest.fixture(scope="module")
def frames(renderer: Patch) -> Loop:
    return loop(renderer)


def painted(renderer: Renderer, frames: Loop, where: torch.Tensor, index: list[int] | None = None) -> torch.Tensor:
    at = torch.tensor(index or [n % len(frames.patches) for n in range(len(where))])
    with torch.no_grad():
        made, mask, state = renderer.paint(renderer.prepare(frames), at, where, torch.zeros(len(where), 0), ())
    assert state == ()
    assert mask.shape == (len(where), 1, renderer.size, renderer.size)
    return made


@pytest.mark.parametrize("size", [128, 192, 256])
def test_every_size_paints(size: int) -> None:
    one = patch(size)
    made = painted(one, loop(one), points(one, 2))
    assert made.shape == (2, 3, size, size)
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


@settings(max_examples=8, deadline=None)
@given(count=st.integers(2, 5), turn=st.integers(0, 4))
def test_neighbours_change_nothing(renderer: Patch, frames: Loop, count: int, turn: int) -> None:
    where = points(renderer, count)
    together = painted(renderer, frames, where)
    row = turn % count
    alone = painted(renderer, frames, where[row : row + 1], [row % len(frames.patches)])
    torch.testing.assert_close(alone[0], together[row], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.fill_(torch.nan),
        lambda p: p[:, 3].fill_(torch.inf),
        lambda p: p.add_(5e3),
        lambda p: p.mul_(-1e9),
        lambda p: p[:, :57].copy_(p[:, :1].expand(-1, 57, -1)),
        lambda p: p[:, 30:40, 1].add_(90),
    ],
    ids=["not a number", "one infinite", "beyond the frame", "absurd", "all in one place", "torn open"],
)
def test_landmarks_of_any_kind_paint_a_defined_picture(renderer: Patch, frames: Loop, spoil: object) -> None:
    where = points(renderer, 1)
    spoil(where)  # type: ignore[operator]
    made = painted(renderer, frames, where)
    assert bool(made.isfinite().all())
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_what_is_not_a_number_is_at_rest(renderer: Patch, frames: Loop) -> None:
    lost = torch.full((1, POINTS, 3), torch.nan)
    sketch = renderer.sketch(lost, frames.similarity[:1])
    torch.testing.assert_close(sketch, renderer.sketched(renderer.rest[None]))


def test_the_loops_own_mouth_is_not_seen(renderer: Patch, frames: Loop) -> None:
    """Or it would shine through what is painted."""
    other = frames._replace(patches=torch.where(renderer.hole > 0, 1 - frames.patches, frames.patches))
    where = points(renderer, 2)
    torch.testing.assert_close(painted(renderer, frames, where), painted(renderer, other, where))


def test_the_rectangle_keeps_the_loop_where_nothing_is_painted(renderer: Patch, frames: Loop) -> None:
    features = renderer.prepare(frames)
    index = torch.tensor([1, 0])
    made, mask, _ = renderer.paint(features, index, points(renderer, 2), torch.zeros(2, 0), ())
    placed = renderer.place(features, index, made, torch.zeros_like(mask))
    assert bool((placed.luma == frames.luma[index]).all())
    assert bool((placed.u == frames.u[index]).all())
    assert bool((placed.v == frames.v[index]).all())


@torch.no_grad()
def test_sharpening_makes_edges_steeper_and_leaves_what_is_even(renderer: Patch, frames: Loop) -> None:
    sketch = renderer.sketch(points(renderer, 1), frames.similarity[:1])
    rows = renderer.look(frames.patches[:1])
    soft = renderer.write(rows, sketch)
    renderer.sharpen.fill_(0.4)
    try:
        crisp = renderer.write(rows, sketch)
    finally:
        renderer.sharpen.zero_()
    assert float(crisp.diff(dim=-1).abs().mean()) > float(soft.diff(dim=-1).abs().mean())
    assert float(crisp.mean()) == pytest.approx(float(soft.mean()), abs=0.02)


def test_it_is_as_small_as_the_bar_of_its_cost_allows(renderer: Patch) -> None:
    rows, sketch = renderer.look(torch.rand(1, 3, 128, 128)), renderer.sketched(renderer.rest[None])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        renderer.write(rows, sketch)
    assert 300e6 < counter.get_total_flops() / 2 < MOST_MACS


def test_widths_are_what_a_convolution_computes_anyway() -> None:
    assert all(width % VECTOR == 0 for width in (*SKETCH, *PAINT))


@torch.no_grad()
def test_a_convolution_that_is_done_in_parts_is_the_one_of_all_side_by_side() -> None:
    torch.manual_seed(0)
    brush = _Brush(3, 4, 5, 6).eval()
    looked, read, below = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8), torch.randn(2, 5, 4, 4)
    entered = brush.enter(torch.cat([looked, read, F.interpolate(below, scale_factor=2.0)], 1))
    whole = F.relu(entered + brush.second(brush.first(entered)))
    parted = brush(brush.looked(looked), read, below, torch.zeros(1, 6, 8, 8))
    torch.testing.assert_close(parted, whole, atol=1e-5, rtol=1e-5)


def test_a_patch_that_cannot_be_halved_four_times_is_refused() -> None:
    with pytest.raises(ValueError, match="some sixteens of pixels wide, not 100"):
        Patch(100)
