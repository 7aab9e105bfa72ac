"""Each loss against the paper's formula worked by hand, and its gradient where norms have none."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models import losses

TRUE = torch.randn(2, 6, 5, 3, generator=torch.Generator().manual_seed(0))
ASIDE = torch.tensor([3.0, 0.0, 4.0])  # a distance of 5
LIPS = slice(0, 2)
MOUTH = torch.tensor([0, 1, 4])
ALL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "pose_lstm": lambda a, b: losses.pose_lstm(a, b, LIPS),
    "pose_tcn": lambda a, b: losses.pose_tcn(a, b, a[..., 0], b[..., 0]),
    "transformer": lambda a, b: losses.transformer(a, b, LIPS),
    "speech_to_landmarks": lambda a, b: losses.speech_to_landmarks(a, b, MOUTH),
    "sparse_to_dense": lambda a, b: losses.sparse_to_dense(a, b, torch.ones(5)),
    "vertices": losses.vertices,
    "vertices, lips first": lambda a, b: losses.vertices(a, b, MOUTH),
    "blendshapes": losses.blendshapes,
    "components": lambda a, b: losses.components(a.flatten(2), b.flatten(2), torch.ones(15)),
}


@pytest.mark.parametrize("name", ALL)
def test_truth_costs_nothing_and_error_costs(name: str) -> None:
    assert float(ALL[name](TRUE, TRUE)) == pytest.approx(0.0, abs=1e-4)
    assert float(ALL[name](TRUE + 1.0, TRUE)) > 0.05


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_at_the_truth(name: str) -> None:
    said = TRUE.clone().requires_grad_()
    ALL[name](said, TRUE).backward()
    assert said.grad is not None
    assert said.grad.isfinite().all()


def test_lips_are_nine_tenths() -> None:
    lips_only, rest_only = TRUE.clone(), TRUE.clone()
    lips_only[:, :, LIPS] += 1.0
    rest_only[:, :, 2:] += 1.0
    assert float(losses.pose_lstm(lips_only, TRUE, LIPS)) == pytest.approx(0.9 + 0.1 * 2 / 5)
    assert float(losses.pose_lstm(rest_only, TRUE, LIPS)) == pytest.approx(0.1 * 3 / 5)


def test_of_vertices_the_lips_may_be_nine_tenths() -> None:
    said, mouth, all_five = TRUE + ASIDE, 5 * math.sqrt(3), 5 * math.sqrt(5)
    assert float(losses.vertices(said, TRUE)) == pytest.approx(all_five, rel=1e-4)
    assert float(losses.vertices(said, TRUE, MOUTH)) == pytest.approx(0.9 * mouth + 0.1 * all_five, rel=1e-4)


def test_tcn_weighs_first_phase_and_motion() -> None:
    mouth = torch.zeros(2, 6, 13)
    assert float(losses.pose_tcn(TRUE + 2.0, TRUE, mouth, mouth)) == pytest.approx(4.0, rel=1e-5)
    assert float(losses.pose_tcn(TRUE, TRUE, mouth + 2.0, mouth)) == pytest.approx(0.05 * 4)
    shaken = TRUE.clone()
    shaken[:, ::2] += 1.0  # half the frames off by 1, every difference by 1
    assert float(losses.pose_tcn(shaken, TRUE, mouth, mouth)) == pytest.approx(0.5 + 0.6, rel=1e-5)


def test_transformer_counts_lips_and_jaw_alike() -> None:
    lips_only = TRUE.clone()
    lips_only[:, :, LIPS] += ASIDE
    jaw_only = TRUE.clone()
    jaw_only[:, :, 2:] += ASIDE
    for said in (lips_only, jaw_only):
        assert float(losses.transformer(said, TRUE, LIPS)) == pytest.approx(7 / 3, rel=1e-5)
    moved = TRUE.clone()
    moved[:, 1::2, LIPS] += ASIDE
    assert float(losses.transformer(moved, TRUE, LIPS)) == pytest.approx(0.5 * 7 / 3 + 5.0, rel=1e-5)


def test_speech_to_landmarks_by_hand() -> None:
    said = TRUE + ASIDE
    whole, mouth = 5 * math.sqrt(5), 5 * math.sqrt(3)
    without = float(losses.speech_to_landmarks(said, TRUE, MOUTH, with_cosine=False))
    assert without == pytest.approx(0.1 * whole + mouth, rel=1e-4)
    difference = float(losses.speech_to_landmarks(said, TRUE, MOUTH)) - without
    assert difference == pytest.approx(1e-4 * float(losses.cosine(said, TRUE)), abs=2e-6)


def test_cosine_is_an_angle_not_a_length() -> None:
    assert float(losses.cosine(7 * TRUE, TRUE)) == pytest.approx(0.0, abs=1e-5)
    assert float(losses.cosine(-TRUE, TRUE)) == pytest.approx(2.0, abs=1e-5)


def test_nearness_is_the_inverse_distance() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 10, 0]])
    weights = losses.nearness(vertices, vertices[:1])
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.25, 0.1]))


def picture(shift: int = 0, width: int = 32) -> torch.Tensor:
    """[1, 3, 24, width]: a step, `shift` pixels aside."""
    return (torch.arange(width) >= 12 + shift).float().expand(1, 3, 24, width) * 0.6 + 0.2


def test_slopes_count_edges_and_not_brightness() -> None:
    assert float(losses.gradients(picture() + 0.1, picture())) == pytest.approx(0.0, abs=1e-6)
    near, far = (float(losses.gradients(picture(by), picture())) for by in (1, 6))
    assert 0 < near < far


def test_dissimilarity_is_nothing_for_the_same_and_grows_with_the_fault() -> None:
    assert float(losses.dissimilarity(picture(), picture())) == pytest.approx(0.0, abs=1e-6)
    faults = [float(losses.dissimilarity(picture(by), picture())) for by in (1, 3)]
    assert 0 < faults[0] < faults[1] < 1
