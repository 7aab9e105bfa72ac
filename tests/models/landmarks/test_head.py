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
    head = made().train()
    torch.manual_seed(0)
    row = torch.randn(200, 1, 20)
    other = row.clone()
    other[..., 8:] += 1.0
    head.enter[2].p = 0.0
    head.recurrent.cell.dropout = 0.0
    torch.manual_seed(1)
    first, _ = head.components(row, head.recurrent.silence(200))
    torch.manual_seed(1)
    second, _ = head.components(other, head.recurrent.silence(200))
    unmoved = (first == second).all(-1).float().mean()
    assert 0.3 < unmoved < 0.7
    head.eval()
    assert (
        (head.components(row, head.recurrent.silence(200))[0] != head.components(other, head.recurrent.silence(200))[0])
        .any(-1)
        .all()
    )


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
