import torch
from hypothesis import given
from hypothesis import strategies as st

from models.studio.presenter.sdf import bump, cone, ellipsoid, length, noise2, smax, smin, smoothstep, sphere

numbers = st.floats(-2, 2, width=32)


@given(numbers, numbers, st.floats(0.01, 0.5))
def test_a_filleted_union_is_never_outside_the_sharp_one_and_at_most_a_quarter_fillet_inside(a, b, k):
    x, y = torch.tensor(a), torch.tensor(b)
    sharp, soft = torch.minimum(x, y), smin(x, y, k)
    assert sharp - k / 4 - 1e-6 <= soft <= sharp + 1e-6
    assert torch.allclose(smax(x, y, k), -smin(-x, -y, k))


def test_distances_of_round_things_are_true_where_they_can_be():
    x, y, z = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 3.0]), torch.zeros(2)
    assert torch.allclose(sphere(x, y, z, (0, 0, 0), 1.0), torch.tensor([1.0, 2.0]))
    assert torch.allclose(ellipsoid(x, y, z, (0, 0, 0), (1.0, 1.0, 1.0)), torch.tensor([1.0, 2.0]), atol=1e-5)
    assert torch.allclose(cone(x, y, z, (0, 0, 0), (0, 3, 0), 0.5, 1.0), torch.tensor([1.5, -1.0]), atol=1e-5)
    assert torch.allclose(length(x, y), torch.tensor([2.0, 3.0]))


def test_brushes_peak_at_their_centre_and_steps_run_from_nought_to_one():
    at = torch.tensor([0.3])
    assert float(bump(at, at, at, (0.3, 0.3, 0.3), (0.1, 0.1, 0.1))) == 1.0
    assert smoothstep(0.0, 1.0, torch.tensor([-1.0, 0.5, 2.0])).tolist() == [0.0, 0.5, 1.0]
    assert smoothstep(1.0, 0.0, torch.tensor([-1.0, 2.0])).tolist() == [1.0, 0.0], (
        "edges may be given the other way round"
    )


def test_noise_is_bounded_and_continuous():
    u = torch.linspace(-5, 5, 4001)
    n = noise2(u, 0.7 * u)
    assert 0 <= float(n.min()) <= float(n.max()) <= 1
    assert float((n[1:] - n[:-1]).abs().max()) < 0.02
