"""LipSync3D's encoder and geometry: 240 ms of spectrogram to a mesh."""

import pytest
import torch

from models import face
from models.landmarks.forms import FAITHFUL, STREAMING, Form
from models.landmarks.lipsync3d import CHANNELS, CODE, HIDDEN, LipSync3d
from models.rates import DENSE_POINTS

from .conditioned import a_head_that_speaks, conditions_of, reference
from .systems import check_exports, check_streams, parameters


def made(form: Form = STREAMING) -> LipSync3d:
    return LipSync3d(form=form, channels=(3, 3, 4, 4, 5, 5))


def fitted(form: Form = STREAMING) -> LipSync3d:
    torch.manual_seed(0)
    network = made(form)
    network.reference.copy_(reference())
    mesh = a_head_that_speaks(60)[1]
    network.fit(torch.tensor(mesh, dtype=torch.float32)[None], conditions_of(mesh))
    return network.eval()


def test_twelve_convolutions_a_code_of_32_and_1404_numbers() -> None:
    network = LipSync3d()
    convolutions = [layer for layer in network.encode if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [(3, 1)] * 6 + [(1, 3)] * 6
    assert [layer.out_channels for layer in convolutions[:6]] == list(CHANNELS)
    assert network.encode[-1].out_features == CODE == 32
    assert (network.spread.out_features, network.geometry.out_features) == (150, 1404)
    assert parameters(network) == parameters(LipSync3d(form=FAITHFUL))


def test_streaming_obeys_the_theorems() -> None:
    check_streams(fitted, 2048)


@pytest.mark.slow
def test_streaming_is_the_same_in_onnx() -> None:
    check_exports(fitted, 2048)


@torch.no_grad()
def test_the_faithful_window_is_centred() -> None:
    network = fitted(FAITHFUL)
    code = torch.randn(1, 20, 2048)
    before, _ = network.listen(code, network.silence(1))
    code[:, 10] += 1.0
    after, _ = network.listen(code, network.silence(1))
    touched = (after - before).abs().amax((0, 2)) > 0
    assert touched.nonzero().flatten().tolist() == [7, 8, 9, 10, 11, 12, 13]


@torch.no_grad()
def test_the_last_layer_begins_with_the_persons_components() -> None:
    network = fitted()
    mesh = a_head_that_speaks(60)[1]
    true = network.truth(torch.tensor(mesh, dtype=torch.float32)[None], conditions_of(mesh))[0]
    centred = (true - network.vertices).flatten(1)
    basis = network.geometry.weight.mT[: min(HIDDEN, 60)]
    solution = torch.linalg.lstsq(basis.mT, centred.mT / network.unit, driver="gelsd").solution
    left = centred / network.unit - (basis.mT @ solution).mT
    assert left.square().mean() < 0.01 * (centred / network.unit).square().mean()


@torch.no_grad()
def test_the_house_points_are_vertices() -> None:
    network = fitted()
    conditions, code = conditions_of(a_head_that_speaks(4)[1]), torch.randn(1, 4, 2048)
    own, _ = network.speak(code, conditions, network.silence(1))
    flat = own.flatten(2)
    spoken = (flat @ network.lift[:-1] + network.lift[-1]).reshape(1, 4, 57, 3)
    torch.testing.assert_close(spoken, own[:, :, face.HOUSE[face.HOUSE_SPOKEN].tolist()])


@torch.no_grad()
def test_blendshapes_are_weights() -> None:
    network = fitted()
    vertices, weights, _ = network.describe(torch.randn(1, 4, 2048) * 5, network.silence(1))
    assert vertices.shape == (1, 4, DENSE_POINTS, 3)
    assert weights.shape == (1, 4, 52)
    assert 0 <= weights.min() <= weights.max() <= 1


def test_other_hearing_is_refused() -> None:
    with pytest.raises(ValueError, match="complex columns"):
        LipSync3d(code=320)
