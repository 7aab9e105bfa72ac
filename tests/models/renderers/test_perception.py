"""What two pictures have in common, with VGG's weights from a local file and without them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.renderers.perception import MissingWeightsError, Perception, Plain, Vgg


def vgg_file(path: Path) -> Path:
    torch.manual_seed(0)
    weights, into, number = {}, 3, 0
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512):
        if width:
            weights[f"features.{number}.weight"] = torch.randn(width, into, 3, 3) * (2 / (9 * into)) ** 0.5
            weights[f"features.{number}.bias"] = torch.zeros(width)
            into, number = width, number + 1  # its ReLU
        number += 1
    weights["classifier.0.weight"] = torch.zeros(1)  # hubs' files hold more than is needed
    save_file(weights, path)
    return path


@pytest.fixture(scope="module", params=["VGG", "plain"])
def perception(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Perception:
    if request.param == "plain":
        return Plain()
    return Vgg(vgg_file(tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"))


def test_the_truth_costs_nothing_and_worse_costs_more(perception: Perception) -> None:
    torch.manual_seed(1)
    true = torch.rand(1, 3, 32, 32)
    near, far = (true + spread * torch.randn_like(true) for spread in (0.02, 0.2))
    for loss in (perception.content, perception.style):
        assert loss(true, true).abs() < 1e-6
        assert 0 < loss(near, true) < loss(far, true)


def test_a_loss_teaches_the_picture_and_not_the_judge(perception: Perception) -> None:
    said = torch.rand(1, 3, 32, 32, requires_grad=True)
    perception.content(said, torch.rand(1, 3, 32, 32)).backward()
    assert said.grad is not None
    assert said.grad.abs().sum() > 0
    if isinstance(perception, Vgg):
        assert all(p.grad is None for p in perception.parameters())


def test_a_file_of_other_weights_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(MissingWeightsError, match="is not VGG-19"):
        Vgg(tmp_path / "other.safetensors")


def test_a_report_can_say_that_there_were_no_weights() -> None:
    assert "no VGG weights" in Plain().name
