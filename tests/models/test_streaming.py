"""Both theorems for every layer, and that torch.export, the ONNX exporter and ONNX Runtime agree with them."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import streaming
from models.streaming import (
    Attention,
    Chain,
    Conv,
    Delay,
    Layer,
    Pointwise,
    Residual,
    RunningMean,
    Stack,
    gather_rows,
    gru,
    join_rows,
    leaves,
    lstm,
    rebuild,
    scatter_rows,
)

from .graphs import check_onnx_parity
from .theorems import (
    assert_states_close,
    check_ages_share_a_batch,
    check_chunks_equal_whole,
    check_future_never_changes_past,
    check_reset_touches_one_row,
    cuts,
)

WIDTH = 6


def everything() -> Chain:
    """Each kind of layer at least once, 4 steps in for 1 out."""
    return Chain(
        RunningMean(WIDTH, steps=20, prior_steps=5, prior=0.1, silent_below=-0.5),
        Conv(WIDTH, 8, kernel=5),
        Pointwise(nn.GELU()),
        Conv(8, 8, kernel=6, stride=2),
        Stack(2),
        Pointwise(nn.Linear(16, 8)),
        Residual(Chain(Pointwise(nn.LayerNorm(8)), Attention(8, heads=2, window=5))),
        Residual(Chain(Conv(8, 8, kernel=3, dilation=2, groups=2), Pointwise(nn.Tanh()))),
        lstm(8, 8, layers=2),
        Delay(2, 8),
        gru(8, 4),
    )


LAYERS: dict[str, tuple[Callable[[], Layer], int]] = {
    # name: how to make it, and the steps that it takes in for one out
    "conv": (lambda: Conv(WIDTH, 5, kernel=4), 1),
    "dilated conv": (lambda: Conv(WIDTH, 6, kernel=3, dilation=3, groups=3), 1),
    "strided conv": (lambda: Conv(WIDTH, 5, kernel=7, stride=4), 4),
    "conv without memory": (lambda: Conv(WIDTH, 5, kernel=2, stride=2), 2),
    "lstm": (lambda: lstm(WIDTH, 5, layers=2), 1),
    "gru": (lambda: gru(WIDTH, 5, layers=2), 1),
    "attention": (lambda: Attention(WIDTH, heads=3, window=4), 1),
    "delay": (lambda: Delay(3, WIDTH), 1),
    "no delay": (lambda: Delay(0, WIDTH), 1),
    "running mean": (lambda: RunningMean(WIDTH, steps=9, prior_steps=2, prior=0.5, silent_below=0.0), 1),
    "stack": (lambda: Stack(4), 4),
    "pointwise": (lambda: Pointwise(nn.Sequential(nn.Linear(WIDTH, 4), nn.LayerNorm(4), nn.GELU())), 1),
    "residual": (lambda: Residual(Conv(WIDTH, WIDTH, kernel=3)), 1),
    "everything": (everything, 4),
}
GROUPS = 12
each_layer = pytest.mark.parametrize("name", LAYERS)
few = settings(max_examples=12, deadline=None, derandomize=True)


def made(name: str) -> tuple[Layer, int]:
    torch.manual_seed(0)
    make, steps = LAYERS[name]
    return make().eval(), steps


def speech(steps: int, seed: int = 0, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, steps, WIDTH, generator=torch.Generator().manual_seed(seed))


@each_layer
@few
@given(cuts=cuts(GROUPS), seed=st.integers(0, 99))
def test_any_chunking_equals_the_whole(name: str, cuts: list[int], seed: int) -> None:
    layer, steps = made(name)
    check_chunks_equal_whole(layer, speech(GROUPS * steps, seed), [size * steps for size in cuts])


@each_layer
@few
@given(at=st.integers(0, GROUPS - 4), seed=st.integers(0, 99))
def test_the_future_never_changes_the_past(name: str, at: int, seed: int) -> None:
    layer, steps = made(name)
    check_future_never_changes_past(layer, speech(GROUPS * steps, seed), at * steps)


@each_layer
@few
@given(heard=st.integers(1, GROUPS - 1), seed=st.integers(0, 99))
def test_sessions_of_different_ages_share_a_batch(name: str, heard: int, seed: int) -> None:
    layer, steps = made(name)
    check_ages_share_a_batch(layer, speech(GROUPS * steps, seed), heard * steps)


@each_layer
@few
@given(heard=st.integers(1, GROUPS), row=st.integers(0, 2))
def test_resetting_a_row_leaves_the_others(name: str, heard: int, row: int) -> None:
    layer, steps = made(name)
    check_reset_touches_one_row(layer, speech(GROUPS * steps), heard * steps, row)


@pytest.mark.parametrize(
    "name", ["everything", *(pytest.param(name, marks=pytest.mark.slow) for name in LAYERS if name != "everything")]
)
def test_onnx_runtime_agrees_over_50_chunks(name: str) -> None:
    """The chain of every kind of layer each time; each by itself where there is time."""
    layer, steps = made(name)
    check_onnx_parity(layer, speech(steps))


def test_gradients_reach_every_weight() -> None:
    chain = everything()
    y, _ = chain(speech(40), chain.silence(3))
    y.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in chain.parameters())


def test_a_long_whole_is_summed_in_blocks() -> None:
    mean = RunningMean(WIDTH, steps=50, prior_steps=5, prior=0.0, silent_below=0.0)
    steps = 2 * RunningMean.BLOCK + 40
    check_chunks_equal_whole(mean, speech(steps), [steps - 40, 40])


def test_the_running_mean_forgets_nothing_in_silence_and_follows_a_gain() -> None:
    mean = RunningMean(WIDTH, steps=40, prior_steps=5, prior=0.0, silent_below=-8.0)
    voice = speech(400) * 0.1
    _, heard = mean(voice + 3.0, mean.silence(3))
    _, rested = mean(torch.full((3, 4000, WIDTH), -16.0), heard)
    for now, then in zip(leaves(rested), leaves(heard), strict=True):
        torch.testing.assert_close(now, then, rtol=1e-3, atol=0.0)
    louder, _ = mean(voice + 5.0, rested)
    assert louder[:, :5].mean() > 1.5
    assert louder[:, 200:].mean().abs() < 0.1


def test_rows_move_between_banks_as_values() -> None:
    chain = everything().eval()
    _, bank = chain(speech(8), chain.silence(3))
    before = [tensor.clone() for tensor in leaves(bank)]
    rows = torch.tensor([2, 0])
    pair = gather_rows(bank, rows)
    assert_states_close(gather_rows(pair, torch.tensor([1, 0])), gather_rows(bank, torch.tensor([0, 2])))
    _, moved = chain(speech(4)[:2], pair)
    after = scatter_rows(bank, rows, moved)
    assert_states_close(gather_rows(after, rows), moved)
    assert_states_close(gather_rows(after, torch.tensor([1])), gather_rows(bank, torch.tensor([1])))
    assert_states_close(bank, rebuild(bank, before))  # nobody wrote to it
    ones = [gather_rows(bank, torch.tensor([i])) for i in range(3)]
    assert_states_close(join_rows(ones), bank)


def test_a_state_of_the_wrong_size_is_refused() -> None:
    chain = everything()
    state = chain.silence(1)
    with pytest.raises(ValueError, match="more tensors"):
        rebuild(state, [*leaves(state), torch.zeros(1)])


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Conv(1, 1, kernel=2, stride=3), "skip input"),
        (lambda: Attention(6, heads=4, window=3), "do not divide"),
        (lambda: streaming.Recurrent(nn.LSTM(2, 2, bidirectional=True, batch_first=True)), "one way"),
        (lambda: Stack(4)(torch.zeros(1, 6, 2), ()), "whole groups"),
    ],
)
def test_what_cannot_stream_is_refused(build: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        build()
