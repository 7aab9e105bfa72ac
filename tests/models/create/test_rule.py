"""The rule beside the head: what it learns, and how far held-out footage lets the head be trusted."""

import pytest
import torch

from models import face
from models.create.rule import CLOSINGS, TRUSTS, WIDTH, Rule, features
from models.landmarks.head import Head
from models.voice import MOUTH, VISEMES, Heard
from tests.models.faces import speaking


def heard(frames: int, seed: int, shut: torch.Tensor | None = None) -> Heard:
    torch.manual_seed(seed)
    closure = torch.full((1, frames), -9.0) if shut is None else shut
    return Heard(torch.randn(1, frames, len(VISEMES)), closure, torch.rand(1, frames, len(MOUTH)))


def head() -> Head:
    made = Head(256, 320)
    opening = [float(at % 20) for at in range(200)]
    made.fit_basis(torch.tensor(speaking(opening)[:, face.HOUSE[face.HOUSE_SPOKEN]]).float())
    return made.eval()


def said_by(network: Head, sound: Heard) -> torch.Tensor:
    """[1, T, P]: a mouth that opens with the first of MOUTH, in components."""
    weights = torch.zeros(1, sound.mouth.shape[1], len(network.spread))
    weights[..., 0] = 3 * sound.mouth[..., 0] - 1.5
    return weights


def test_the_rule_is_learned_and_heard():
    network, sound = head(), heard(400, 0)
    assert features(sound).shape == (1, 400, WIDTH)
    rule = Rule(len(network.spread))
    rule.fit([features(sound)[0]], [said_by(network, sound)[0]])
    rule.trust.fill_(0.0)
    other = heard(100, 1)
    expected = said_by(network, other)
    assert (rule.mixed(torch.randn_like(expected), other) - expected).abs().max() < 0.1
    rule.trust.fill_(1.0)
    assert torch.equal(rule.mixed(expected, other), expected)


@pytest.mark.parametrize(
    ("noise", "trust"), [(3.0, 0.0), (0.0, TRUSTS[-1])], ids=["a head that errs", "one that knows"]
)
def test_held_out_footage_says_how_far_the_head_is_trusted(noise, trust):
    network, sound = head(), heard(200, 2)
    true = said_by(network, sound)
    rule = Rule(len(network.spread))
    rule.fit([features(sound)[0]], [true[0] if noise else torch.zeros_like(true[0])])
    rule.judge(network, [(true + noise * torch.randn_like(true), sound, network.points_of(true))])
    assert rule.trust.item() == pytest.approx(trust, abs=0.13)


def test_lips_shut_as_soon_as_it_costs_nothing():
    """Closures heard at 0.35 where the lips truly meet; then where they stand open."""
    network, frames = head(), 100
    closures = torch.full((1, frames), -9.0)
    closures[:, ::4] = torch.logit(torch.tensor(0.35))
    sound = heard(frames, 3, closures)
    weights = said_by(network, sound)
    truth = network.points_of(weights)
    rule = Rule(len(network.spread))
    rule.judge(network, [(weights, sound, truth)])
    soonest = next(closing for closing in CLOSINGS if closing[0] > 0.35)
    assert rule.closing.tolist() == pytest.approx(soonest)
    rule.closing.copy_(torch.tensor(CLOSINGS[0]))
    from models.create.drawing import drawn_shut

    rule.judge(network, [(weights, sound, drawn_shut(truth, rule.sealed(sound)))])
    assert rule.closing.tolist() == pytest.approx(CLOSINGS[0])
