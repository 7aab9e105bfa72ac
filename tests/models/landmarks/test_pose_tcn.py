"""The cascaded TCN: two phases, and what each is told."""

import pytest
import torch

from models.landmarks.forms import FAITHFUL
from models.landmarks.pose_tcn import COMPONENTS, DILATIONS, KERNEL, WIDTH, PoseTcn, pose_angles

from .conditioned import a_head_that_speaks, conditions_of, reference
from .systems import check_exports, check_streams, parameters


def fitted(**settings: object) -> PoseTcn:
    torch.manual_seed(0)
    network = PoseTcn(**settings)  # type: ignore[arg-type]
    network.reference.copy_(reference())
    mesh = a_head_that_speaks(60)[1]
    network.fit(torch.tensor(mesh, dtype=torch.float32)[None], conditions_of(mesh))
    return network.eval()


def test_both_forms_have_the_papers_phases() -> None:
    for network in (PoseTcn(), PoseTcn(form=FAITHFUL)):
        convolution = WIDTH * WIDTH * KERNEL + WIDTH
        body = 2 * len(DILATIONS) * convolution
        first = (104 + 3) * WIDTH + WIDTH + body + WIDTH * COMPONENTS + COMPONENTS
        second = (COMPONENTS + 3 + 16) * WIDTH + WIDTH + body + WIDTH * 58 + 58
        assert parameters(network) == first + second


def test_streaming_obeys_the_theorems() -> None:
    check_streams(PoseTcn, 104)


@pytest.mark.slow
def test_streaming_is_the_same_in_onnx() -> None:
    check_exports(PoseTcn, 104)


@torch.no_grad()
def test_the_faithful_form_hears_as_far_ahead_as_back() -> None:
    network = fitted(form=FAITHFUL)
    mesh = a_head_that_speaks(80)[1]
    conditions, code = conditions_of(mesh), torch.randn(1, 80, 104)
    before, _, _ = network.phases(code, conditions, network.silence(1))
    code[:, 40] += 1.0
    after, _, _ = network.phases(code, conditions, network.silence(1))
    touched = (after - before).abs().amax((0, 2)) > 0
    reach = 2 * sum(DILATIONS)
    assert touched.nonzero().flatten().tolist() == list(range(40 - reach, 40 + reach + 1))


@torch.no_grad()
def test_ablations_are_deaf_to_what_they_are_not_told() -> None:
    mesh = a_head_that_speaks(20)[1]
    conditions, code = conditions_of(mesh), torch.randn(1, 20, 104)
    elsewhere = conditions._replace(cheeks=conditions.cheeks + 20.0)
    turned = conditions._replace(rotation=conditions.rotation.mT)

    def says(network: PoseTcn, told: object) -> torch.Tensor:
        return network.phases(code, told, network.silence(1))[1]  # type: ignore[arg-type]

    whole, blind, stiff = fitted(), fitted(with_cheeks=False), fitted(with_pose=(False, False))
    assert not torch.equal(says(whole, elsewhere), says(whole, conditions))
    assert torch.equal(says(blind, elsewhere), says(blind, conditions))
    assert not torch.equal(says(whole, turned), says(whole, conditions))
    assert torch.equal(says(stiff, turned), says(stiff, conditions))


def test_the_truth_comes_back_through_the_plane_and_the_lift() -> None:
    network = fitted()
    mesh = a_head_that_speaks(60)[1]
    conditions = conditions_of(mesh)
    own = network.truth(torch.tensor(mesh, dtype=torch.float32)[None], conditions)
    normal = network.normal(own, conditions)[0]
    upper_lip, lower_lip = normal[:, 9 + 14], normal[:, 9 + 18]
    opening = (lower_lip - upper_lip).norm(dim=-1)
    true = torch.tensor(a_head_that_speaks(60)[0], dtype=torch.float32)
    assert torch.corrcoef(torch.stack([opening, true]))[0, 1] > 0.98


def test_pose_is_the_sines_of_three_angles() -> None:
    yaw = torch.tensor([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    torch.testing.assert_close(pose_angles(yaw), torch.tensor([0.6, 0.0, 0.0]))
