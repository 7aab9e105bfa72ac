"""A personal avatar's ear and mouth as one step: 40 ms of sound in, posed points and a face out.

What is heard goes through the shipped voice encoder and the person's own head, as in training. A head that was fitted
to one voice shuts the lips of another too seldom; the encoder, which knows many voices, says when they must meet, and
then they do.
"""

from typing import Final

import torch
from torch import Tensor, nn

from models import face
from models.landmarks.head import Head
from models.landmarks.hearing import Beside
from models.rates import BLENDSHAPES
from models.streaming import State, leaves, rebuild
from models.voice import CODE, Voice, VoiceEncoder, mouth

CLOSES, SHUT = 0.45, 0.75
"""Probability of a closure at which the lips begin to be drawn together; at the second they have met. Later than where
there is no head: a head shuts its own person's lips by itself, and lower ones cost that person more than they give.
"""
UPPER_SHARE: Final = 0.35
"""Of the gap: what the upper lip comes down; the lower lip, which the jaw carries, comes up by the rest."""
CHIN_SHARE: Final = 0.5
"""Of the lower lip's way: what the chin goes along."""

_INNER_UPPER: Final = list(range(21, 30))
_INNER_LOWER: Final = list(range(39, 30, -1))
_OUTER_UPPER: Final = list(range(1, 10))
_OUTER_LOWER: Final = list(range(19, 10, -1))
"""Places in HOUSE's lips, each from the person's right to the left, so that those of one column stand opposite."""
_CHIN: Final = 40
_MOUTH: Final = torch.tensor(
    [name.startswith(("jaw", "mouth", "tongue")) or name == "cheekPuff" for name in face.ARKIT_52]
)


def drawn_shut(spoken: Tensor, closure: Tensor) -> Tensor:
    """Lips and jaw [B, T, 57, 3], pose-normal, with the lips drawn together by `closure` [B, T] in 0…1."""
    amount = closure[..., None, None]
    gap = spoken[:, :, _INNER_LOWER] - spoken[:, :, _INNER_UPPER]  # [B, T, 9, 3]
    down, up = amount * UPPER_SHARE * gap, amount * (UPPER_SHARE - 1) * gap
    move = torch.zeros_like(spoken)
    move[:, :, _INNER_UPPER], move[:, :, _OUTER_UPPER] = down, down
    move[:, :, _INNER_LOWER], move[:, :, _OUTER_LOWER] = up, up
    move[:, :, _CHIN] = CHIN_SHARE * up[:, :, 4]
    return spoken + move


class Speaker(nn.Module):
    """`x` [B, 640] and the loop frame's pose → (points [B, 131, 3], face [B, 61], state).

    `scale` [B, 1], `rotation` [B, 3, 3], `shift` [B, 3] take the pose-normal space to the frame; `upper` [B, 74, 3],
    `still` [B, 61] are what the frame has and speech does not move.
    """

    def __init__(self, head: Head, ear: Beside) -> None:
        super().__init__()
        self.head, self.ear = head, ear
        self.moved: Tensor
        self.register_buffer("moved", torch.cat([_MOUTH, torch.zeros(9, dtype=torch.bool)]))

    @property
    def encoder(self) -> VoiceEncoder:
        voice = self.ear.first
        assert isinstance(voice, Voice)
        return voice.encoder

    def silence(self, batch: int) -> State:
        return (self.ear.silence(batch), self.head.silence(batch))

    def spoken(self, pcm: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Pcm [B, 640 T] → (lips and jaw [B, T, 57, 3] in the pose-normal space, ARKit weights [B, T, 52], state)."""
        row, ear_state = self.ear(pcm, state[0])
        weights, head_state = self.head.components(row, state[1])
        heard = self.encoder.hear(row[..., :CODE], self.head.lookahead)
        return (
            drawn_shut(self.head.points_of(weights), heard.sealed(CLOSES, SHUT)),
            mouth(heard),
            (ear_state, head_state),
        )

    def forward(
        self,
        x: Tensor,
        scale: Tensor,
        rotation: Tensor,
        shift: Tensor,
        upper: Tensor,
        still: Tensor,
        state: State,
    ) -> tuple[Tensor, Tensor, State]:
        spoken, weights, after = self.spoken(x, state)
        turned = (spoken[:, 0, :, None] * rotation[:, None]).sum(-1)
        points = torch.cat([scale[:, None] * turned + shift[:, None], upper], dim=1)
        said = torch.cat([weights[:, 0], torch.zeros_like(still[:, BLENDSHAPES:])], dim=1)
        return points, torch.where(self.moved, said, still), after


class Flat(nn.Module):
    """The same with its state as a row of tensors, as graphs have it."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__()
        self.speaker, self.pattern = speaker, speaker.silence(1)

    def forward(
        self, x: Tensor, scale: Tensor, rotation: Tensor, shift: Tensor, upper: Tensor, still: Tensor, *state: Tensor
    ) -> tuple[Tensor, ...]:
        points, face_said, after = self.speaker(
            x, scale, rotation, shift, upper, still, rebuild(self.pattern, list(state))
        )
        return (points, face_said, *leaves(after))
