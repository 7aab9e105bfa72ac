"""A personal avatar's ear and mouth as one step: 40 ms of sound in, posed points and a face out.

What is heard goes through the shipped voice encoder, the person's own head and the rule beside it; where the encoder
hears a closure, lips are drawn together.
"""

from typing import Final

import torch
from torch import Tensor, nn

from models import face
from models.create.drawing import drawn_shut
from models.create.rule import Rule
from models.landmarks.head import Head
from models.landmarks.hearing import Beside
from models.rates import BLENDSHAPES
from models.streaming import Layer, State, leaves, rebuild
from models.voice import CODE, Voice, VoiceEncoder, mouth

_MOUTH: Final = torch.tensor(
    [name.startswith(("jaw", "mouth", "tongue")) or name == "cheekPuff" for name in face.ARKIT_52]
)


def encoder_of(ear: Layer) -> VoiceEncoder:
    """The voice encoder in a hearing of "voice+mel"."""
    assert isinstance(ear, Beside)
    assert isinstance(ear.first, Voice)
    return ear.first.encoder


class Speaker(nn.Module):
    """`x` [B, 640] and the loop frame's pose → (points [B, 131, 3], face [B, 61], state).

    `scale` [B, 1], `rotation` [B, 3, 3], `shift` [B, 3] take the pose-normal space to the frame; `upper` [B, 74, 3],
    `still` [B, 61] are what the frame has and speech does not move.
    """

    def __init__(self, head: Head, ear: Beside, rule: Rule) -> None:
        super().__init__()
        self.head, self.ear, self.rule = head, ear, rule
        self.moved: Tensor
        self.register_buffer("moved", torch.cat([_MOUTH, torch.zeros(9, dtype=torch.bool)]))

    def silence(self, batch: int) -> State:
        return (self.ear.silence(batch), self.head.silence(batch))

    def spoken(self, pcm: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Pcm [B, 640 T] → (lips and jaw [B, T, 57, 3] in the pose-normal space, ARKit weights [B, T, 52], state)."""
        row, ear_state = self.ear(pcm, state[0])
        weights, head_state = self.head.components(row, state[1])
        heard = encoder_of(self.ear).hear(row[..., :CODE], self.head.lookahead)
        return (
            drawn_shut(self.head.points_of(self.rule.mixed(weights, heard)), self.rule.sealed(heard)),
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
