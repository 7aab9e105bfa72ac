"""States kept apart, padded, and forgotten: in numpy and in torch alike."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.runtime.slots import BUCKETS, Slots, batches, bucket, buckets


def numpy_slots(count: int) -> Slots:
    return Slots({"a": np.full((1, 2), 7.0, np.float32), "b": np.zeros((1, 1, 3), np.float32)}, count)


def torch_slots(count: int) -> Slots:
    silence = {"a": torch.full((1, 2), 7.0), "b": torch.zeros(1, 1, 3)}
    return Slots(silence, count, lambda row, n: row.repeat(n, *[1] * (row.dim() - 1)), torch.tensor)


def test_buckets_hold_what_is_asked_and_no_size_is_skipped() -> None:
    assert [bucket(rows) for rows in (1, 2, 3, 5, 64, 65, 128)] == [1, 2, 4, 8, 64, 128, 128]
    assert buckets(1) == (1,)
    assert buckets(5) == (1, 2, 4, 8)
    assert buckets(8) == (1, 2, 4, 8)
    with pytest.raises(ValueError, match="at most 128"):
        bucket(129)


@given(st.integers(0, 1000))
def test_any_number_of_rows_is_cut_into_batches_that_fit(rows: int) -> None:
    parts = batches(rows)
    assert [n for part in parts for n in range(part.start, part.stop)] == list(range(rows))
    assert all(part.stop - part.start <= BUCKETS[-1] for part in parts)


@given(st.integers(1, 128))
def test_every_batch_that_slots_can_make_has_a_compiled_bucket(slots: int) -> None:
    assert {bucket(rows) for rows in range(1, slots + 1)} == set(buckets(slots))


@pytest.mark.parametrize("new_slots", [numpy_slots, torch_slots])
def test_a_step_pads_to_a_bucket_and_touches_nobody_else(new_slots: Callable[[int], Slots]) -> None:
    slots = new_slots(5)
    states = slots.gather([4, 0, 2], [True, False, False])
    assert states["a"].shape == (4, 2)
    assert (states["a"] == 7).all()
    slots.scatter([4, 0, 2], {name: state * 0 + 1 + n for n, (name, state) in enumerate(states.items())})
    assert (slots.gather([1, 3], [False] * 2)["a"] == 7).all()
    after = slots.gather([0, 4, 1, 2], [False] * 4)
    assert after["a"][:, 0].tolist() == [1, 1, 7, 1]
    assert after["b"][:, 0, 0].tolist() == [2, 2, 0, 2]


@pytest.mark.parametrize("new_slots", [numpy_slots, torch_slots])
def test_what_comes_back_for_the_padding_is_forgotten(new_slots: Callable[[int], Slots]) -> None:
    slots = new_slots(3)
    states = slots.gather([0, 1, 2], [False] * 3)
    slots.scatter([0, 1, 2], {name: state * 0 + float("nan") for name, state in states.items()})
    assert (slots.gather([0, 1, 2], [True] * 3)["a"] == 7).all()


@pytest.mark.parametrize("new_slots", [numpy_slots, torch_slots])
def test_a_reset_forgets_one_session_and_keeps_the_rest(new_slots: Callable[[int], Slots]) -> None:
    slots = new_slots(2)
    states = slots.gather([0, 1], [False] * 2)
    slots.scatter([0, 1], {name: state + 1 for name, state in states.items()})
    assert slots.gather([1, 0], [True, False])["a"][:, 0].tolist() == [7, 8]
    assert slots.gather([0, 1], [False] * 2)["b"][:, 0, 0].tolist() == [1, 0]


def test_what_is_gathered_is_a_copy() -> None:
    slots = numpy_slots(2)
    slots.gather([0], [False])["a"][:] = 99
    assert (slots.gather([0], [False])["a"] == 7).all()
