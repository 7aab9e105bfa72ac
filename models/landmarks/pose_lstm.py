"""Bigioi et al. 2022, "Pose-aware speech driven facial landmark animation": mel, three nose points and an identity row
through four LSTMs to 20 lip points; with the 48 points that are given, through one linear layer to the 68.

Table 1, to the layer: 4 × BiLSTM 89 → 128, linear 256 → 256, batch norm, leaky ReLU 0.2, linear 256 → 128, dropout 0.5,
batch norm, leaky ReLU, linear 128 → 60, then linear 204 → 204. The widths of the identity's three linear layers are not
given: 204 → 256 → 128 → 89 here. Landmarks are centred and scaled by the size of the face, not turned.

The paper takes all 48 other points from the original video. Of those the jaw speaks: given, it would tell the lips.
Here the jaw is given at rest, in the frame's pose, and the lift moves it after the lips. So are the lips: the network
says how they differ from rest, in the paper's coordinates. (The paper trained for hours on hours of film; six minutes
do not teach where in a picture a mouth is.)

The streaming form has one direction (so 128 → 256 in the first linear layer), layer norms, and K frames of look-ahead.
Its dropout comes after the norm: before it, a batch norm remembers how large things were while some were dropped; a
layer norm does not, and mouths that learned to be right open half as far again when none are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import face, losses
from ..rates import LOOKAHEAD_DEFAULT, MELS
from ..streaming import State
from . import EYES_APART, Conditions, LandmarkNetwork, faces_of, plane_of, rest_in_plane
from .forms import STREAMING, Form

HIDDEN, LAYERS, DROPOUT, SLOPE = 128, 4, 0.5, 0.2
POINTS = len(face.DLIB)
LIP_POINTS = len(face.DLIB[face.DLIB_LIPS])
GIVEN = POINTS - LIP_POINTS
_IN_HOUSE = face.DLIB_IN_HOUSE.tolist()


class PoseLstm(LandmarkNetwork):
    """`code`: the first paper's 40 ms mel, or whatever width the hearing has."""

    def __init__(self, code: int = MELS, form: Form = STREAMING, lookahead: int = LOOKAHEAD_DEFAULT) -> None:
        super().__init__(own=POINTS, lookahead=lookahead if form.causal else 0)
        row = code + 9
        self.identify = nn.Sequential(nn.Linear(3 * POINTS, 256), nn.Linear(256, 128), nn.Linear(128, row))
        self.recurrent = form.recurrent(row, HIDDEN, LAYERS, DROPOUT)
        dropped = (form.norm(128), nn.Dropout(DROPOUT))
        self.connected = nn.Sequential(
            nn.Linear(HIDDEN * form.directions, 256),
            form.norm(256),
            nn.LeakyReLU(SLOPE),
            nn.Linear(256, 128),
            *(dropped if form.causal else reversed(dropped)),
            nn.LeakyReLU(SLOPE),
            nn.Linear(128, 3 * LIP_POINTS),
        )
        self.smooth = nn.Linear(3 * POINTS, 3 * POINTS)
        # The last layer takes jitter out of what it is given: it begins by leaving it alone.
        nn.init.eye_(self.smooth.weight)
        nn.init.zeros_(self.smooth.bias)
        self.unchanged: Tensor
        self.register_buffer("unchanged", torch.eye(3 * POINTS), persistent=False)

    def begin(self, identity: Tensor) -> State:
        first = faces_of(identity)[:, 0, _IN_HOUSE] / EYES_APART
        return self._hear(self.identify(first.flatten(1))[:, None], self.recurrent.silence(len(identity)))[1]

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        plane = plane_of(conditions)
        nose = plane.into(conditions.nose).flatten(2)
        y, state = self._hear(torch.cat([code, nose], dim=-1), state)
        rest = rest_in_plane(conditions, self.reference, _IN_HOUSE[GIVEN:])
        lips = rest.flatten(2) + self.connected(y)
        given = plane.into(self._given(conditions)).flatten(2)
        known = torch.cat([given, lips], dim=-1)
        # As what it changes, so that autocast rounds the change and not the points.
        own = known + F.linear(known, self.smooth.weight - self.unchanged, self.smooth.bias)
        return own.reshape(*own.shape[:2], POINTS, 3), state

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        return plane_of(conditions).into(points[:, :, face.DLIB.tolist()])

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        said, _ = self.speak(code, conditions, state)
        true = self.truth(points, conditions)
        return losses.pose_lstm(said[:, self.lookahead :], true[:, self.lookahead :], face.DLIB_LIPS)

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        """Begins at the mean mouth, moving little: from nowhere, most of training would go into finding it."""
        super().fit(points, conditions)
        last = self.connected[-1]
        assert isinstance(last, nn.Linear)
        rest = rest_in_plane(conditions, self.reference, _IN_HOUSE[GIVEN:])[0]
        moved = (self.truth(points, conditions)[0, :, face.DLIB_LIPS] - rest).flatten(1)
        last.bias.copy_(moved.mean(0))
        last.weight.mul_(moved.std(0)[:, None])

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        return conditions.pose.to_normal(plane_of(conditions).back(own))

    def _hear(self, row: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.recurrent(row, state)
        return y, state

    def _given(self, conditions: Conditions) -> Tensor:
        """[B, T, 48, 3] in pixels: the first 48 of the 68, the jaw at rest."""
        rest = conditions.pose.to_frame(self.reference[face.HOUSE_SPOKEN])
        house = torch.cat([rest, conditions.upper], dim=2)
        return house[:, :, _IN_HOUSE[:GIVEN]]
