"""The two theorems and their corollaries, for any layer: used by the tests of every network."""

from collections.abc import Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from models.streaming import Layer, State, join_rows, leaves, reset_rows

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def assert_states_close(a: State, b: State) -> None:
    for x, y in zip(leaves(a), leaves(b), strict=True):
        torch.testing.assert_close(x, y, **CLOSE)


def stream(layer: Layer, x: Tensor, chunks: Sequence[int], state: State) -> tuple[Tensor, State]:
    """`x` in pieces of `chunks` steps."""
    out = []
    for piece in x.split(list(chunks), dim=1):
        y, state = layer(piece, state)
        out.append(y)
    return torch.cat(out, dim=1), state


def cuts(groups: int) -> st.SearchStrategy[list[int]]:
    """Any way of cutting a sequence of `groups` groups of steps."""
    return st.lists(st.integers(1, groups), min_size=1, max_size=groups).map(lambda sizes: _to_sum(sizes, groups))


def _to_sum(sizes: list[int], total: int) -> list[int]:
    out: list[int] = []
    for size in sizes:
        out.append(min(size, total - sum(out)))
        if sum(out) == total:
            return out
    return [*out, total - sum(out)]


@torch.no_grad()
def check_chunks_equal_whole(layer: Layer, x: Tensor, chunks: Sequence[int]) -> None:
    whole, end = layer(x, layer.silence(len(x)))
    streamed, state = stream(layer, x, chunks, layer.silence(len(x)))
    torch.testing.assert_close(streamed, whole, **CLOSE)
    assert_states_close(state, end)
    assert [s.shape for s in leaves(state)] == [s.shape for s in leaves(layer.silence(len(x)))]


@torch.no_grad()
def check_future_never_changes_past(layer: Layer, x: Tensor, at: int) -> None:
    """Steps from `at` on are changed; outputs of the steps before stay, and the layer does notice the change."""
    changed = x.clone()
    changed[:, at:] = x[:, at:].flip(1) * 0.5 + 0.3
    before, _ = layer(x, layer.silence(len(x)))
    after, _ = layer(changed, layer.silence(len(x)))
    past = at * before.shape[1] // x.shape[1]
    torch.testing.assert_close(after[:, :past], before[:, :past], **CLOSE)
    assert not torch.allclose(after, before)


@torch.no_grad()
def check_ages_share_a_batch(layer: Layer, x: Tensor, heard: int) -> None:
    """Row 0 has heard `heard` steps, row 1 none: together they go on as each would alone."""
    old = layer(x[:1, :heard], layer.silence(1))[1]
    new = layer.silence(1)
    chunk = x[:2, heard:]
    together, after = layer(chunk, join_rows([old, new]))
    alone = [layer(chunk[i : i + 1], state) for i, state in enumerate((old, new))]
    torch.testing.assert_close(together, torch.cat([y for y, _ in alone]), **CLOSE)
    assert_states_close(after, join_rows([state for _, state in alone]))


@torch.no_grad()
def check_reset_touches_one_row(layer: Layer, x: Tensor, heard: int, row: int) -> None:
    _, state = layer(x[:, :heard], layer.silence(len(x)))
    fresh = torch.arange(len(x)) == row
    silence = layer.silence(1)
    after = reset_rows(state, silence, fresh)
    for was, now, silent in zip(leaves(state), leaves(after), leaves(silence), strict=True):
        assert torch.equal(now[~fresh], was[~fresh])
        assert torch.equal(now[fresh], silent)
