"""The default head, personal and small: the voice encoder's code and mel in, this person's lips and jaw out.

A code of speech closes the lips of voices never heard; mel knows this person's own best (design: a head on the code
alone costs 12 % on the own voice). So it takes both, side by side, and loses the mel at random while it learns, that it
may not lean on one voice. It speaks principal components of lips and jaw in the pose-normal space.

Two listeners, who share nothing but the lesson, are asked, and their mean is said: what one of them has learned by
heart the other has not.
"""

from typing import cast

import torch
from torch import Tensor, nn

from .. import face, losses
from ..rates import LOOKAHEAD_DEFAULT
from ..streaming import Layer, State, lstm
from . import SPOKEN, Conditions, LandmarkNetwork

WIDTH, HIDDEN, LAYERS, DROPOUT = 128, 128, 2, 0.3
COMPONENTS = 20
LISTENERS = 2

MIX = 0.4


def mixed(code: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Half of the batches as a mixture of each row and another (mixup, Zhang et al. 2017): between two things said, a
    mouth between two mouths. A few minutes of film are learned by heart otherwise."""
    if torch.rand(()) < 0.5:
        return code, true
    part = torch.distributions.Beta(MIX, MIX).sample().to(code)
    other = torch.randperm(len(code), device=code.device)
    return torch.lerp(code[other], code, part), torch.lerp(true[other], true, part)


class Listener(nn.Module):
    """Rows [B, T, code + mel] → components [B, T, P]."""

    def __init__(self, code: int, mel: int, components: int, lose_mel: float) -> None:
        super().__init__()
        self.code, self.lose_mel = code, lose_mel if code and mel else 0.0
        self.enter = nn.Sequential(nn.Linear(code + mel, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT))
        self.recurrent: Layer = lstm(WIDTH, HIDDEN, LAYERS, DROPOUT)
        self.leave = nn.Linear(HIDDEN, components)

    def forward(self, row: Tensor, state: State) -> tuple[Tensor, State]:
        if self.training and self.lose_mel:
            kept = (torch.rand(len(row), 1, 1, device=row.device) >= self.lose_mel).to(row.dtype)
            row = torch.cat([row[..., : self.code], row[..., self.code :] * kept], dim=-1)
        y, state = self.recurrent(self.enter(row), state)
        return self.leave(y), state


class Head(LandmarkNetwork):
    """`code`: width of the encoder's code; `mel`: width of the mel that follows it in the same row. Either may be 0."""

    posed = False

    def __init__(
        self,
        code: int,
        mel: int = 0,
        lookahead: int = LOOKAHEAD_DEFAULT,
        components: int = COMPONENTS,
        lose_mel: float = 0.5,
        listeners: int = LISTENERS,
    ) -> None:
        super().__init__(own=SPOKEN, lookahead=lookahead)
        self.listeners = nn.ModuleList(Listener(code, mel, components, lose_mel) for _ in range(listeners))
        self.basis: Tensor
        self.spread: Tensor
        self.rest: Tensor
        self.register_buffer("basis", torch.zeros(components, 3 * SPOKEN))
        self.register_buffer("spread", torch.ones(components))
        self.register_buffer("rest", torch.zeros(3 * SPOKEN))
        self.lift[:-1] = torch.eye(3 * SPOKEN)  # its points are the house's

    def begin(self, identity: Tensor) -> State:
        return tuple(listener.recurrent.silence(len(identity)) for listener in self._listeners())

    def components(self, row: Tensor, state: State) -> tuple[Tensor, State]:
        """[B, T, P] in units of each component's spread: the mean of what the listeners say."""
        said, after = zip(*(each(row, before) for each, before in zip(self.listeners, state, strict=True)), strict=True)
        return torch.stack(said).mean(0), after

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        weights, state = self.components(code, state)
        return self.points_of(weights), state

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        """Of the 478 [B, T, 478, 3] in pixels: lips and jaw in the pose-normal space."""
        spoken = points[:, :, face.HOUSE[face.HOUSE_SPOKEN].tolist()]
        return conditions.pose.to_normal(spoken)

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        true = self.weights(self.truth(points, conditions))
        share = self.spread / self.spread.mean()

        def missed(said: Tensor, true: Tensor) -> Tensor:
            return losses.components(said[:, self.lookahead :], true[:, self.lookahead :], share)

        if not self.training:
            return missed(self.components(code, state)[0], true)
        costs = []
        for listener, before in zip(self.listeners, state, strict=True):
            heard, wanted = mixed(code, true)
            costs.append(missed(listener(heard, before)[0], wanted))
        return torch.stack(costs).mean()

    def _listeners(self) -> list[Listener]:
        return [cast(Listener, listener) for listener in self.listeners]

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        self.fit_basis(self.truth(points, conditions)[0])

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        return own

    def points_of(self, weights: Tensor) -> Tensor:
        flat = (weights * self.spread) @ self.basis + self.rest
        return flat.reshape(*flat.shape[:2], SPOKEN, 3)

    @torch.no_grad()
    def fit_basis(self, spoken: Tensor) -> None:
        """Principal components of true lips and jaws [N, 57, 3], pose-normal."""
        x = spoken.flatten(1).double()
        middle = x.mean(0)
        _, strength, basis = torch.linalg.svd(x - middle, full_matrices=False)
        found = len(self.spread)
        self.rest.copy_(middle)
        self.basis.copy_(basis[:found])
        self.spread.copy_(strength[:found] / len(x) ** 0.5)

    def weights(self, spoken: Tensor) -> Tensor:
        """[B, T, 57, 3] → [B, T, P]: the target of training."""
        return ((spoken.flatten(2) - self.rest) @ self.basis.mT).div(self.spread)
