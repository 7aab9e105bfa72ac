import pytest
import torch

from models.studio.presenter.identity import PRESENTERS, Traits, unpack


@pytest.mark.parametrize("who", PRESENTERS.values(), ids=PRESENTERS)
def test_numbers_survive_the_packing(who):
    back = unpack(who.traits.packed())
    for name, given, got in zip(Traits._fields, who.traits, back, strict=True):
        if isinstance(given, tuple):
            assert [float(g) for g in got] == pytest.approx(given), name
        else:
            assert float(got) == pytest.approx(given), name


def test_people_are_one_set_of_numbers_and_differ_in_them():
    packed = [who.traits.packed() for who in PRESENTERS.values()]
    assert len(packed) >= 3
    assert len({len(p) for p in packed}) == 1
    for i, a in enumerate(packed):
        for b in packed[:i]:
            assert int((a != b).sum()) > 10
    assert torch.isfinite(torch.stack(packed)).all()
