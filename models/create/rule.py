"""What the voice encoder says of a mouth, as this person makes it: a linear rule beside the learned head.

The encoder has heard many voices and knows few faces; the head, fitted to one voice, knows the face and that voice. On
five minutes of one voice the head is better; on a minute of several it learns them by heart, and the rule, of 34
numbers a component, does not. So both speak, and held-out footage says how far the head is trusted. Never quite: what
an avatar says live need not be in its own voice.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from models import face
from models.create.drawing import drawn_shut
from models.landmarks import SPOKEN
from models.landmarks.head import COMPONENTS, Head
from models.voice import MOUTH, VISEMES, Heard

WIDTH: Final = 2 * len(MOUTH) + 1 + len(VISEMES)
RIDGE: Final = 0.003
TRUSTS: Final = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
CLOSINGS: Final = ((0.20, 0.40), (0.30, 0.60), (0.45, 0.75), (0.60, 0.90))
"""Probabilities of a closure at which lips begin to be drawn together, and have met."""
NO_WORSE: Final = 1.005
"""Of the lips' distance: what shutting sooner may cost on held-out footage."""


def features(heard: Heard) -> Tensor:
    """[B, T, WIDTH]: the mouth, the closure, the viseme, and the mouth unless it is shut."""
    closure = heard.closure.sigmoid()[..., None]
    return torch.cat([heard.mouth, closure, heard.visemes.softmax(-1), heard.mouth * (1 - closure)], dim=-1)


class Rule(nn.Module):
    """`mixed(weights, heard)`: the head's components, and the rule's."""

    def __init__(self, components: int = COMPONENTS) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.trust: Tensor
        self.closing: Tensor
        self.register_buffer("weight", torch.zeros(WIDTH, components))
        self.register_buffer("bias", torch.zeros(components))
        self.register_buffer("trust", torch.tensor(1.0))
        self.register_buffer("closing", torch.tensor(CLOSINGS[-1]))

    def mixed(self, weights: Tensor, heard: Heard) -> Tensor:
        """[B, T, P], in units of each component's spread."""
        return self.trust * weights + (1 - self.trust) * (features(heard) @ self.weight + self.bias)

    def sealed(self, heard: Heard) -> Tensor:
        """How far lips are drawn together [B, T] in 0…1."""
        return ((heard.closure.sigmoid() - self.closing[0]) / (self.closing[1] - self.closing[0])).clamp(0, 1)

    @torch.no_grad()
    def fit(self, heard: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Ridge regression of components [T, P] on features [T, WIDTH], of all clips."""
        x, y = torch.cat(list(heard)).double(), torch.cat(list(true)).double()
        middle, spread, rest = x.mean(0), x.std(0) + 1e-6, y.mean(0)
        x = (x - middle) / spread
        weight = torch.linalg.solve(x.mT @ x / len(x) + RIDGE * torch.eye(WIDTH).double(), x.mT @ (y - rest) / len(x))
        weight = weight / spread[:, None]
        self.weight.copy_(weight)
        self.bias.copy_(rest - middle @ weight)

    @torch.no_grad()
    def judge(self, head: Head, said: Sequence[tuple[Tensor, Heard, Tensor]]) -> None:
        """Set how far the head is trusted, and how soon lips are drawn together, by held-out clips: components
        [1, T, P] of the head, what was heard, and the true lips and jaw [1, T, 57, 3] of the same frames."""

        def distance() -> float:
            lips, frames = 0.0, 0
            for weights, heard, true in said:
                shown = drawn_shut(head.points_of(self.mixed(weights, heard)), self.sealed(heard))
                lips += float((shown - true)[:, :, : len(face.LIPS)].norm(dim=-1).mean()) * true.shape[1]
                frames += true.shape[1]
            return lips / frames

        costs = []
        for trust in TRUSTS:
            self.trust.fill_(trust)
            costs.append(distance())
        self.trust.fill_(TRUSTS[min(range(len(TRUSTS)), key=costs.__getitem__)])
        for closing in CLOSINGS:
            self.closing.copy_(torch.tensor(closing))
            if distance() <= NO_WORSE * min(costs):
                return


assert len(face.LIPS) < SPOKEN  # lips are the first of what speech moves
