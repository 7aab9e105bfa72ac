"""The first paper's network: Table 1 to the layer, and its streaming form."""

import torch

from models.landmarks.forms import FAITHFUL
from models.landmarks.pose_lstm import PoseLstm

from .conditioned import a_head_that_speaks, conditions_of, prepared
from .systems import check_exports, check_streams, parameters


def lstm_parameters(into: int, hidden: int, layers: int, directions: int) -> int:
    """PyTorch's LSTM: four gates, two biases each."""
    count = 0
    for layer in range(layers):
        width = into if layer == 0 else hidden * directions
        count += directions * 4 * hidden * (width + hidden + 2)
    return count


def linear(into: int, out: int) -> int:
    return into * out + out


IDENTITY = linear(204, 256) + linear(256, 128) + linear(128, 89)
TAIL = linear(256, 128) + 2 * 128 + linear(128, 60) + linear(204, 204)


def test_faithful_is_table_1_to_the_layer() -> None:
    network = PoseLstm(form=FAITHFUL)
    assert parameters(network.recurrent) == lstm_parameters(89, 128, 4, directions=2)
    kinds = [type(layer).__name__ for layer in network.connected]
    assert kinds == ["Linear", "OverTime", "LeakyReLU", "Linear", "Dropout", "OverTime", "LeakyReLU", "Linear"]
    expected = lstm_parameters(89, 128, 4, 2) + linear(256, 256) + 2 * 256 + TAIL + IDENTITY
    assert parameters(network) == expected


def test_streaming_differs_by_its_second_direction_only() -> None:
    expected = lstm_parameters(89, 128, 4, 1) + linear(128, 256) + 2 * 256 + TAIL + IDENTITY
    assert parameters(PoseLstm()) == expected


@torch.no_grad()
def test_lips_open_as_far_without_dropout_as_they_learned_to_with_it() -> None:
    connected = PoseLstm().connected
    heard = torch.randn(1, 3, 128)
    learning = torch.stack([connected.train()(heard) for _ in range(4000)]).mean(0)
    speaking = connected.eval()(heard)
    still = connected[-1].bias
    assert ((learning - still) * (speaking - still)).sum() / (speaking - still).square().sum() > 0.95


def test_streaming_obeys_the_theorems() -> None:
    check_streams(PoseLstm, 80)


def test_streaming_is_the_same_in_onnx() -> None:
    check_exports(PoseLstm, 80)


@torch.no_grad()
def test_faithful_looks_ahead_and_begins_with_the_identity() -> None:
    network = prepared(PoseLstm(form=FAITHFUL))
    conditions = conditions_of(a_head_that_speaks(8)[1])
    code = torch.randn(1, 8, 80)
    before, _ = network(code, conditions, network.silence(1))
    other = conditions.identity + torch.randn_like(conditions.identity) * 5
    someone, _ = network(code, conditions, network.begin(other))
    assert not torch.allclose(someone, before)
    code[:, -1] += 1.0
    after, _ = network(code, conditions, network.silence(1))
    assert not torch.allclose(after[:, 0], before[:, 0])


@torch.no_grad()
def test_upper_face_is_the_frames_own() -> None:
    network = prepared(PoseLstm())
    conditions = conditions_of(a_head_that_speaks(8)[1])
    points, _ = network(torch.randn(1, 8, 80), conditions, network.silence(1))
    torch.testing.assert_close(points[:, :, 57:], conditions.upper)


@torch.no_grad()
def test_what_it_should_say_comes_back_through_pose_and_lift() -> None:
    """Were the network perfect, the lips in the frame would be the true ones."""
    network = prepared(PoseLstm())
    _, mesh = a_head_that_speaks(60)
    conditions = conditions_of(mesh)
    own = network.truth(torch.tensor(mesh, dtype=torch.float32)[None], conditions)
    normal = network.normal(own, conditions)
    back = normal[0, :, 48:].std(0).max()
    assert back > 0.5  # the lips still speak
    turned_back = normal[0, :, 36] - normal[0, :1, 36]  # an eye corner does not move
    assert turned_back.abs().max() < 0.3
