"""The default head: code and mel to lips and jaw."""

import torch

from models import face
from models.landmarks.head import COMPONENTS, Head, mixed

from .conditioned import a_head_that_speaks, conditions_of, prepared, reference
from .systems import check_exports, check_streams


def made() -> Head:
    head = Head(code=8, mel=12)
    truth = spoken_of(head)
    head.fit_basis(truth)
    return head


def spoken_of(head: Head, frames: int = 80) -> torch.Tensor:
    """[T, 57, 3]"""
    head.reference.copy_(reference())
    mesh = a_head_that_speaks(frames)[1]
    return head.truth(torch.tensor(mesh, dtype=torch.float32)[None], conditions_of(mesh))[0]


def test_obeys_the_theorems() -> None:
    check_streams(made, 20)


def test_is_the_same_in_onnx() -> None:
    check_exports(made, 20)


def test_its_components_give_lips_and_jaw_back() -> None:
    head = made()
    spoken = spoken_of(head)
    back = head.points_of(head.weights(spoken[None]))[0]
    assert (back - spoken).norm(dim=-1).mean() < 0.2
    assert head.basis.shape == (COMPONENTS, 171)


@torch.no_grad()
def test_lips_and_jaw_move_in_the_frame() -> None:
    head = prepared(made())
    conditions = conditions_of(a_head_that_speaks(30)[1])
    points, _ = head(5 * torch.randn(1, 30, 20), conditions, head.silence(1))
    assert points.shape == (1, 30, 131, 3)
    torch.testing.assert_close(points[:, :, face.HOUSE_UPPER], conditions.upper)


def test_mel_is_lost_at_random_in_training_only() -> None:
    listener = made().train().listeners[0]
    silence = listener.recurrent.silence(200)
    torch.manual_seed(0)
    row = torch.randn(200, 1, 20)
    other = row.clone()
    other[..., 8:] += 1.0
    listener.enter[2].p = 0.0
    listener.recurrent.cell.dropout = 0.0
    torch.manual_seed(1)
    first, _ = listener(row, silence)
    torch.manual_seed(1)
    second, _ = listener(other, silence)
    unmoved = (first == second).all(-1).float().mean()
    assert 0.3 < unmoved < 0.7
    listener.eval()
    assert (listener(row, silence)[0] != listener(other, silence)[0]).any(-1).all()


@torch.no_grad()
def test_what_is_said_is_the_mean_of_two_who_differ() -> None:
    head = made().eval()
    row = torch.randn(1, 5, 20)
    state = head.silence(1)
    said, after = head.components(row, state)
    one, other = (listener(row, before)[0] for listener, before in zip(head.listeners, state, strict=True))
    torch.testing.assert_close(said, (one + other) / 2)
    assert (one - other).abs().max() > 0.01
    assert len(after) == 2


def test_each_listener_learns_the_lesson_for_itself() -> None:
    """Not the mean: two who may be wrong in opposite directions would have learned nothing that averages out."""
    head = made().train()
    mesh = a_head_that_speaks(20)[1]
    points = torch.tensor(mesh, dtype=torch.float32)[None]
    costs = []
    for bias in (0.0, 3.0):
        for listener, sign in zip(head.listeners, (1, -1), strict=True):
            listener.leave.bias.data.fill_(sign * bias)
        torch.manual_seed(3)
        costs.append(head.cost(torch.randn(1, 20, 20), conditions_of(mesh), points, head.silence(1)).item())
    assert costs[1] > costs[0] + 1


def test_a_mixture_of_voices_is_the_same_mixture_of_mouths() -> None:
    torch.manual_seed(0)
    said = torch.randn(6, 3, 5)
    alone = 0
    for _ in range(40):
        code, true = mixed(said, 2 * said)
        torch.testing.assert_close(true, 2 * code)
        assert code.abs().max() <= said.abs().max()
        alone += torch.equal(code, said)
    assert 8 < alone < 32
