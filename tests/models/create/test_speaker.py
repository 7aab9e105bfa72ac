"""One step of a person: streamed is the same as whole, and lips that must meet do."""

import pytest
import torch

from models import face
from models.create.rule import Rule
from models.create.speaker import Flat, Speaker
from models.landmarks.head import Head
from models.landmarks.hearing import hearing
from models.rates import CHUNK, FACE
from models.runtime.eager import VOICE
from models.streaming import leaves
from tests.models.faces import speaking


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    torch.manual_seed(0)
    heard = hearing("voice+mel", VOICE)
    head = Head(heard.code, heard.mel)
    spoken = torch.tensor(speaking([0, 5, 10, 15, 20] * 20)[:, face.HOUSE[face.HOUSE_SPOKEN]]).float()
    head.fit_basis(spoken)
    return Speaker(head.eval(), heard.layer, Rule()).eval()


def pose(batch: int) -> tuple[torch.Tensor, ...]:
    turn = torch.eye(3).expand(batch, 3, 3)
    return torch.full((batch, 1), 2.0), turn, torch.zeros(batch, 3), torch.zeros(batch, 74, 3), torch.zeros(batch, FACE)


@torch.no_grad()
def test_step_by_step_is_the_same_as_all_at_once(speaker):
    pcm = 0.1 * torch.randn(1, 12 * CHUNK)
    whole, weights, _ = speaker.spoken(pcm, speaker.silence(1))
    state = speaker.silence(1)
    for step in range(12):
        points, said, state = speaker(pcm[:, step * CHUNK : (step + 1) * CHUNK], *pose(1), state)
        assert torch.allclose(points[0, :57] / 2, whole[0, step], atol=1e-3)
        assert torch.allclose(said[0, face.ARKIT_52.index("jawOpen")], weights[0, step, 17], atol=1e-4)


@torch.no_grad()
def test_neighbours_in_a_batch_change_nothing(speaker):
    pcm = 0.1 * torch.randn(3, CHUNK)
    together = speaker(pcm, *pose(3), speaker.silence(3))[0]
    alone = speaker(pcm[1:2], *pose(1), speaker.silence(1))[0]
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_the_flat_form_gives_its_state_leaf_by_leaf(speaker):
    state = leaves(speaker.silence(2))
    answers = Flat(speaker)(torch.zeros(2, CHUNK), *pose(2), *state)
    assert [leaf.shape for leaf in answers[2:]] == [leaf.shape for leaf in state]
