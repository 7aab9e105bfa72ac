"""What goes into the shared memory comes out of it, wherever the ring stands; the loops cannot be written to."""

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rates import CHUNK, DENSE_POINTS, FACE, POINTS
from models.runtime import AvatarCard, Out, Roi, Row, Wants
from models.runtime.rings import Rings, anonymous, card_fields


@pytest.fixture(scope="module")
def rings() -> Iterator[Rings]:
    memory = anonymous("test")
    Rings.resize(memory, 3, 64 * 64 * 3 // 2)
    rings = Rings(memory, 3, 64 * 64 * 3 // 2)
    os.close(memory)
    yield rings
    rings.close()


def numbers(chance: np.random.Generator, *shape: int) -> np.ndarray:
    return chance.normal(size=shape).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 1000), st.sampled_from(list(Wants)), st.booleans())
def test_a_row_comes_out_as_it_went_in(rings: Rings, seed: int, index: int, wants: Wants, reset: bool) -> None:
    pcm = numbers(np.random.default_rng(seed), CHUNK)
    row = Row(slot=7, generation=2**40 + seed, reset=reset, avatar="b", pcm=pcm, loop_index=99, wants=wants)
    rings.write_row(index, seed, row, 1)
    sequence, again = rings.read_row(index, ["a", "b"])
    rings.write_row(index, 0, Row(0, 0, False, "a", np.zeros(CHUNK, np.float32), 0, Wants.NOTHING), 0)
    assert sequence == seed
    assert (again.pcm == pcm).all()  # a copy: the record was written over
    for field in ("slot", "generation", "reset", "avatar", "loop_index", "wants"):
        assert getattr(again, field) == getattr(row, field)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    index=st.integers(0, 1000),
    has=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    half=st.tuples(st.integers(1, 32), st.integers(1, 32)),
)
def test_an_answer_comes_out_as_it_went_in(
    rings: Rings, seed: int, index: int, has: tuple[bool, ...], half: tuple[int, int]
) -> None:
    chance = np.random.default_rng(seed)
    height, width = 2 * half[0], 2 * half[1]
    planes = [chance.integers(0, 256, (height // n, width // n), np.uint8) for n in (1, 2, 2)]
    out = Out(
        slot=3,
        generation=seed,
        points=numbers(chance, POINTS, 3) if has[0] else None,
        face=numbers(chance, FACE) if has[1] else None,
        mesh=numbers(chance, DENSE_POINTS, 3) if has[2] else None,
        roi=Roi(2, 4, *planes) if has[3] else None,
        stage_seconds={"render": 0.5} if has[4] else None,
        held=has[0],
    )
    rings.write_out(index, seed, out, rows=3)
    assert rings.rows_of(index) == 3
    sequence, again = rings.read_out(index)
    rings.write_out(index, 0, Out(0, 0, points=np.zeros((POINTS, 3), np.float32)))
    assert (sequence, again.slot, again.generation, again.held) == (seed, 3, seed, has[0])
    for name in ("points", "face", "mesh"):
        ours, theirs = getattr(out, name), getattr(again, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours == theirs).all()
    assert (again.roi is None) == (out.roi is None)
    if again.roi is not None:
        assert (again.roi.x, again.roi.y) == (2, 4)
        for ours, theirs in zip(planes, (again.roi.luma, again.roi.u, again.roi.v), strict=True):
            assert (ours == theirs).all()
    assert (again.stage_seconds is None) == (not has[4])
    assert again.stage_seconds is None or again.stage_seconds["render"] == 0.5


def test_a_card_without_its_loop_makes_the_same_card() -> None:
    loop = np.zeros((1, 96, 64), np.uint8)
    card = AvatarCard("a", "0" * 64, 64, 64, 3, loop, synthetic=False, label="")
    again = AvatarCard(**card_fields(card), loop=loop)
    assert card_fields(again) == card_fields(card)
    assert set(card_fields(card)) | {"loop"} == set(AvatarCard.__dataclass_fields__)


def test_without_anonymous_memory_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(RuntimeError, match="--runtime inline"):
        anonymous("test")
