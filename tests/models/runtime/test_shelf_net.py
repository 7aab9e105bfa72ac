"""Mouths mixed on a device that records: as the shelf on a processor mixes them, in batches of any size."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.avatar import LOOP, MOUTHS, decode_loop, read_avatar
from models.runtime import Floats, Roi, shelf_net
from models.runtime.devices import Unrecorded
from models.runtime.shelf import Shelf
from models.runtime.shelf_net import ResidentShelf, ShelfNet, shelves_on
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.recording import RecordingDevice

SLOTS, FRAMES = 5, 8

NewShelf = Callable[[Unrecorded], ResidentShelf]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shelf, NewShelf]:
    avatar = read_avatar(draw_package(tmp_path_factory.mktemp("shelf") / "ellipse", frames=FRAMES))
    mouths, loop = avatar.tensors("mouths.safetensors", MOUTHS), decode_loop(avatar)
    similarity = avatar.tensors("loop.safetensors", LOOP)["mouth_similarity"]

    def new(device: Unrecorded) -> ResidentShelf:
        made = shelves_on(device, SLOTS)(mouths, similarity, loop)
        assert isinstance(made, ResidentShelf)
        return made

    return Shelf(mouths, similarity, loop), new


@pytest.fixture(scope="module")
def resident(opened: tuple[Shelf, NewShelf]) -> ResidentShelf:
    return opened[1](RecordingDevice())


def apart(one: Roi, other: Roi) -> int:
    assert (one.x, one.y, one.luma.shape) == (other.x, other.y, other.luma.shape)
    planes = zip((one.luma, one.u, one.v), (other.luma, other.u, other.v), strict=True)
    return max(int(np.abs(ours.astype(int) - theirs).max()) for ours, theirs in planes)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, SLOTS), sparse=st.booleans())
def test_a_batch_is_painted_as_the_shelf_paints_one_by_one(
    opened: tuple[Shelf, NewShelf], resident: ResidentShelf, seed: int, rows: int, sparse: bool
) -> None:
    shelf, chance = opened[0], np.random.default_rng(seed)
    weights = chance.dirichlet([0.1 if sparse else 1] * len(shelf.planes), rows).astype(np.float32)
    slots, index = chance.permutation(SLOTS)[:rows].tolist(), chance.integers(0, FRAMES, rows).tolist()
    pairs = zip(resident.paint(slots, weights, index), shelf.paint(slots, weights, index), strict=True)
    assert all(apart(*pair) <= 1 for pair in pairs)


def test_it_is_recorded_once_for_each_size_and_what_it_answers_is_the_callers(
    opened: tuple[Shelf, NewShelf],
) -> None:
    device = RecordingDevice()
    resident = opened[1](device)
    recorded = device.recordings
    assert recorded == 4  # 1, 2, 4, 8
    weights = np.eye(3, len(opened[0].planes), dtype=np.float32)
    (first,) = resident.paint([4], weights[:1], [2])
    before = first.luma.copy()
    resident.paint([0, 1, 2], weights, [3, 4, 5])
    assert (first.luma == before).all()
    assert device.recordings == recorded


def test_more_sessions_than_the_largest_batch_are_painted_in_turns(
    opened: tuple[Shelf, NewShelf], resident: ResidentShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf_net, "batches", lambda rows: [slice(0, 2), slice(2, rows)])
    weights = np.eye(3, len(opened[0].planes), dtype=np.float32)
    pairs = zip(resident.paint([0, 1, 2], weights, [3, 4, 5]), opened[0].paint([0], weights, [3, 4, 5]), strict=True)
    assert all(apart(*pair) <= 1 for pair in pairs)


def test_a_device_that_mixes_otherwise_is_refused(
    opened: tuple[Shelf, NewShelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an f16 that is too coarse to say where a pixel is would."""
    right = ShelfNet._sampled
    monkeypatch.setattr(ShelfNet, "_sampled", lambda self, planes, at: right(self, planes, at + 0.3))
    with pytest.raises(RuntimeError, match=r"its painted mouths differ from the reference by \d+, where 2 is allowed"):
        opened[1](Unrecorded())


def test_the_proof_looks_at_every_number_of_mouths_in_frames_of_the_whole_loop(
    opened: tuple[Shelf, NewShelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    paint = ResidentShelf.paint

    def watched(self: ResidentShelf, slots: Sequence[int], weights: Floats, index: Sequence[int]) -> list[Roi]:
        asked.append((int((weights > 0).sum()), index[0]))
        return paint(self, slots, weights, index)

    monkeypatch.setattr(ResidentShelf, "paint", watched)
    opened[1](Unrecorded())
    assert {count for count, _ in asked} == {1, 2, 3}
    assert {0, FRAMES - 1} < {index for _, index in asked}


def test_loop_pixels_stay_bytes_on_the_device(resident: ResidentShelf, tmp_path: Path) -> None:
    rows = resident._stage.frames.rows
    assert {str(rows[name].dtype) for name in ("luma", "u", "v")} == {"torch.uint8"}
