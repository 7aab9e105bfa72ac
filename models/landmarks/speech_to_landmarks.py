"""Nocentini et al. 2023, "Learning landmarks motion from speech" (S2L): a pre-trained speech encoder, a 3-layer BiLSTM
of 64 and one linear layer to the displacements of 68 landmarks from a neutral face, whoever's face it is.

The faithful encoder is Wav2Vec 2.0, whose frames (50 a second) are resampled to the picture's rate by linear
interpolation: `Wav2Vec2` loads a checkpoint in the hub's format, from a local directory or by name where a network and
the hub's library are there. The same slot takes our own causal voice encoder, and the streaming form must: Wav2Vec 2.0
hears the whole utterance. Displacements live in the pose-normal space, so that no head needs to be told.
"""

import importlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import face, losses
from ..rates import CHUNK, LOOKAHEAD_DEFAULT
from ..streaming import State
from . import Conditions, LandmarkNetwork, faces_of
from .forms import STREAMING, Form

HIDDEN, LAYERS = 64, 3
POINTS = len(face.DLIB)
MOUTH = (*range(17), *range(48, 68))
"""Of the 68, what L_mouth looks at: the jaw and the mouth."""

_IN_MESH = face.DLIB.tolist()
_IN_HOUSE = face.DLIB_IN_HOUSE.tolist()


class SpeechToLandmarks(LandmarkNetwork):
    """`code`: width of the encoder's frames."""

    posed = False
    neutral = True

    def __init__(
        self,
        code: int = 768,
        form: Form = STREAMING,
        lookahead: int = LOOKAHEAD_DEFAULT,
        with_cosine: bool = True,
    ) -> None:
        super().__init__(own=POINTS, lookahead=lookahead if form.causal else 0)
        self.with_cosine = with_cosine
        self.recurrent = form.recurrent(code, HIDDEN, LAYERS, 0.0)
        self.displace = nn.Linear(HIDDEN * form.directions, 3 * POINTS)
        nn.init.normal_(self.displace.weight, std=0.01)
        nn.init.zeros_(self.displace.bias)  # begins at the neutral face
        self.unit: Tensor
        self.mouth: Tensor
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("mouth", torch.tensor(MOUTH), persistent=False)

    def begin(self, identity: Tensor) -> State:
        """Displacements need the neutral face they start from: it is part of the state, and never changes."""
        neutral = faces_of(identity)[:, 0, _IN_HOUSE]
        return (neutral, self.recurrent.silence(len(identity)))

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        neutral, before = state
        y, after = self.recurrent(code, before)
        moved = self.displace(y)
        moved = moved.reshape(*moved.shape[:2], POINTS, 3) * self.unit
        return neutral[:, None] + moved, (neutral, after)

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        return conditions.pose.to_normal(points[:, :, _IN_MESH])

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        neutral = state[0][:, None]
        said = (self.speak(code, conditions, state)[0] - neutral)[:, self.lookahead :] / self.unit
        true = (self.truth(points, conditions) - neutral)[:, self.lookahead :] / self.unit
        return losses.speech_to_landmarks(said, true, self.mouth, self.with_cosine)

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        """The unit is how far this face's landmarks move: the paper's weights then mean what they did in its units."""
        super().fit(points, conditions)
        self.unit.copy_(self.truth(points, conditions)[0].std(0).mean())

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        return own


class Wav2Vec2(nn.Module):
    """Wav2Vec 2.0's contextual frames at the picture's rate: pcm [B, samples] → [B, T, width]. Offline: it hears all.

    `checkpoint` is a directory in the hub's format, or a name on the hub. Needs `pip install transformers`.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        super().__init__()
        try:
            hub = importlib.import_module("transformers")
        except ImportError as missing:
            raise ImportError("Wav2Vec 2.0 needs `pip install transformers`; or use our own voice encoder") from missing
        self.encoder = hub.Wav2Vec2Model.from_pretrained(str(checkpoint)).eval().requires_grad_(False)
        self.width = int(self.encoder.config.hidden_size)

    @torch.no_grad()
    def forward(self, pcm: Tensor) -> Tensor:
        level = (pcm - pcm.mean(1, keepdim=True)) / (pcm.var(1, keepdim=True, unbiased=False) + 1e-7).sqrt()
        frames = self.encoder(level).last_hidden_state
        return F.interpolate(frames.mT, size=pcm.shape[1] // CHUNK, mode="linear", align_corners=True).mT
