"""OpenVINO mixes mouths as numpy does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.runtime.mixing import Mixing
from models.runtime.shelf import mixed


@pytest.fixture(scope="module")
def mixing() -> Mixing:
    return Mixing()


@settings(max_examples=30, deadline=None)
@given(mouths=st.integers(1, 3), channels=st.integers(1, 2), seed=st.integers(0, 1000))
def test_the_mixture_is_numpys(mixing: Mixing, mouths: int, channels: int, seed: int) -> None:
    """Also where a pixel lies outside of its mouth: the edge goes on."""
    chance = np.random.default_rng(seed)
    planes = chance.uniform(16, 235, (mouths, channels, 20, 31)).astype(np.float32)
    across, down = (
        [chance.uniform(-3, side + 3, (12, 17)).astype(np.float32) for _ in range(mouths)] for side in (31, 20)
    )
    shares = chance.dirichlet([1] * mouths).astype(np.float32)
    expected = mixed(planes, across, down, shares)  # which stops a thousandth of a pixel before the edge
    np.testing.assert_allclose(mixing(planes, across, down, shares), expected, atol=0.45)


def test_what_was_given_is_not_changed(mixing: Mixing) -> None:
    across, down = [np.full((4, 4), 50.0, np.float32)], [np.full((4, 4), -5.0, np.float32)]
    for mix in (mixing, mixed):
        mix(np.ones((1, 1, 8, 8), np.float32), across, down, np.ones(1, np.float32))
        assert (across[0] == 50).all()
        assert (down[0] == -5).all()
