"""LipSync3D's encoder and geometry (Lahiri et al. 2021): a complex spectrogram of 240 ms through twelve convolutions
to a code of 32 numbers; from the code the 468 vertices of the pose-normal face, and the 52 blendshapes.

As published: 256 × 24 × 2, windows of 30 ms every 10 ms; six convolutions along frequency (3 × 1, stride 2), six
along time (1 × 3, stride 2), leaky ReLU; decoder 32 → 150 → dropout → 1404 on top of the reference vertices, linear,
the last layer begun with PCA; blendshapes by one layer under an L1 loss. Channels are those of Karras et al. 2017, on
which the paper's encoder is modelled. (The texture decoder belongs to the renderer.)

The faithful form centres the 240 ms on its frame; the streaming form ends them with what it has heard, K frames
after. The six convolutions along frequency look at one column at a time: a column is taken through them once, when it
is heard, though six windows hold it. That is exact, and a sixth of the work; the state is columns so far.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import face, losses
from ..mel import Spectrum
from ..rates import BLENDSHAPES, DENSE_POINTS, LOOKAHEAD_DEFAULT
from ..streaming import State
from . import Conditions, LandmarkNetwork
from .forms import STREAMING, Form

COLUMNS, A_FRAME = 24, 4
ALONG = 6
"""Convolutions along frequency, and as many along time; each with its rectifier."""
CODE, HIDDEN, SLOPE, DROPOUT = 32, 150, 0.2, 0.5
CHANNELS = (72, 108, 162, 243, 256, 256)

_IN_HOUSE = face.HOUSE.tolist()


class LipSync3d(LandmarkNetwork):
    """`code`: four complex columns a frame. `speak` gives the vertices; `describe` the blendshapes as well."""

    posed = False

    def __init__(
        self,
        code: int = 2 * Spectrum.BINS * A_FRAME,
        form: Form = STREAMING,
        lookahead: int = LOOKAHEAD_DEFAULT,
        channels: tuple[int, ...] = CHANNELS,
    ) -> None:
        super().__init__(own=DENSE_POINTS, lookahead=lookahead if form.causal else 0)
        if code != 2 * Spectrum.BINS * A_FRAME:
            raise ValueError(
                f"a frame of sound is {A_FRAME} complex columns of {Spectrum.BINS} bins, not {code} numbers"
            )
        around = COLUMNS - A_FRAME
        # What the faithful form is taught by is as published.
        self.lips = torch.from_numpy(face.LIPS.copy()) if form.causal else None
        self.after = 0 if form.causal else around // 2
        self.before = around - self.after
        layers: list[nn.Module] = []
        into = 2
        for out in channels:
            layers += [nn.Conv2d(into, out, (3, 1), (2, 1), (1, 0)), nn.LeakyReLU(SLOPE)]
            into = out
        for _ in range(ALONG):
            layers += [nn.Conv2d(into, into, (1, 3), (1, 2), (0, 1)), nn.LeakyReLU(SLOPE)]
        self.encode = nn.Sequential(*layers, nn.Flatten(), nn.Linear(into * Spectrum.BINS // 2**ALONG, CODE))
        for layer in self.encode:
            if isinstance(layer, nn.Conv2d):
                # Twelve layers begun as torch begins them would let a seven-hundredth of the sound through.
                nn.init.kaiming_normal_(layer.weight, SLOPE)
        self.spread = nn.Linear(CODE, HIDDEN)
        self.dropout = nn.Dropout(DROPOUT)
        self.geometry = nn.Linear(HIDDEN, 3 * DENSE_POINTS)
        self.blendshapes = nn.Linear(CODE, BLENDSHAPES)
        self.vertices: Tensor
        self.unit: Tensor
        self.register_buffer("vertices", torch.zeros(DENSE_POINTS, 3))
        self.register_buffer("unit", torch.ones(()))
        self.lift.zero_()

    def begin(self, identity: Tensor) -> State:
        silence = self._columns(self.vertices.new_zeros(1, 1, 2 * Spectrum.BINS))
        return (silence.repeat(len(identity), self.before, 1),)

    def listen(self, code: Tensor, state: State) -> tuple[Tensor, State]:
        """[B, T, 32]: the code of each frame."""
        batch, steps = code.shape[:2]
        heard = F.pad(code.reshape(batch, A_FRAME * steps, 2 * Spectrum.BINS), (0, 0, 0, self.after))
        columns = torch.cat([state[0], self._columns(heard)], dim=1)
        kept = columns[:, columns.shape[1] - self.before - self.after : columns.shape[1] - self.after]
        windows = columns.unfold(1, COLUMNS, A_FRAME)  # [B, T, C * bins, 24]
        pictures = windows.reshape(batch * steps, -1, Spectrum.BINS // 2**ALONG, COLUMNS)
        said: Tensor = self.encode[2 * ALONG :](pictures)
        return said.reshape(batch, steps, CODE), (kept,)

    def _columns(self, heard: Tensor) -> Tensor:
        """[B, N, 512] → [B, N, C * bins]: each column through the convolutions along frequency."""
        picture = heard.mT.reshape(heard.shape[0], 2, Spectrum.BINS, heard.shape[1])
        seen: Tensor = self.encode[: 2 * ALONG](picture)
        return seen.flatten(1, 2).mT

    def vertices_of(self, heard: Tensor) -> Tensor:
        """[B, T, 32] → [B, T, 468, 3], pose-normal."""
        moved: Tensor = self.geometry(self.dropout(self.spread(heard)))
        return self.vertices + moved.reshape(*moved.shape[:2], DENSE_POINTS, 3) * self.unit

    def describe(self, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """Vertices and blendshapes [B, T, 52] in 0…1."""
        heard, state = self.listen(code, state)
        return self.vertices_of(heard), self.blendshapes(heard).clamp(0, 1), state

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        heard, state = self.listen(code, state)
        return self.vertices_of(heard), state

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        return conditions.pose.to_normal(points[:, :, :DENSE_POINTS])

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        said, _ = self.speak(code, conditions, state)
        true = self.truth(points, conditions)
        heard = slice(self.lookahead, None)
        return losses.vertices(said[:, heard] / self.unit, true[:, heard] / self.unit, self.lips)

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        """Reference vertices, and the last layer begun with PCA; the lift is a choice of vertices."""
        true = self.truth(points, conditions)[0].flatten(1).double()
        middle = true.mean(0)
        _, strength, basis = torch.linalg.svd(true - middle, full_matrices=False)
        self.vertices.copy_(middle.reshape(DENSE_POINTS, 3))
        self.unit.copy_(true.std(0).mean())
        found = min(HIDDEN, len(basis))
        deviations = strength[:found, None] / len(true) ** 0.5 * basis[:found] / self.unit
        self.geometry.weight.zero_()
        self.geometry.weight[:, :found] = deviations.mT.to(self.geometry.weight)
        self.geometry.bias.zero_()
        self.lift.zero_()
        for place, index in enumerate(_IN_HOUSE[face.HOUSE_SPOKEN]):
            for axis in range(3):
                self.lift[3 * index + axis, 3 * place + axis] = 1.0

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        return own
