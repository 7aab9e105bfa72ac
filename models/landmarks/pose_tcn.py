"""Zheng et al. 2021, "A pose-adaptive cascaded TCN": audio and head pose to the mouth's principal components (G1),
these with pose and cheeks to 20 mouth and 9 jaw points in the picture's plane (G2).

As published: 26 log filter banks, four columns a frame; pose twice, as 3 numbers; 8 cheek points in the second phase;
dilations 1, 2, 4, 8, kernel 3; 13 components; coordinates relative to the middle of the nose, scaled, not turned. The
paper gives no widths: 128 here, two convolutions a block as in the TCN it cites. What both phases say is how the mouth
differs from the person at rest in the frame's pose: the paper's hours of film taught it the pose as well.

The faithful form is centred; the streaming form is causal, with K frames of look-ahead.
"""

import torch
from torch import Tensor, nn

from .. import face, losses
from ..mel import HEARINGS
from ..rates import LOOKAHEAD_DEFAULT
from ..streaming import Chain, Pointwise, Residual, State
from . import Conditions, LandmarkNetwork, plane_of, rest_in_plane
from .forms import STREAMING, Form

WIDTH, KERNEL, DILATIONS, DROPOUT = 128, 3, (1, 2, 4, 8), 0.2
COMPONENTS = 13
SAID = (*range(face.DLIB_LOWER_JAW.start, face.DLIB_LOWER_JAW.stop), *range(face.DLIB_LIPS.start, face.DLIB_LIPS.stop))
"""Of the 68: 9 of the jaw, then the 20 of the mouth."""
POINTS, JAW_POINTS = len(SAID), face.DLIB_LOWER_JAW.stop - face.DLIB_LOWER_JAW.start
POSE, CHEEKS = 3, 16

_IN_MESH = face.DLIB[list(SAID)].tolist()
_IN_HOUSE = face.DLIB_IN_HOUSE[list(SAID)].tolist()


class PoseTcn(LandmarkNetwork):
    """`with_pose` and `with_cheeks` are the paper's ablation: what is left out is fed as zeros."""

    def __init__(
        self,
        code: int = HEARINGS["fbank26"][0],
        form: Form = STREAMING,
        lookahead: int = LOOKAHEAD_DEFAULT,
        with_pose: tuple[bool, bool] = (True, True),
        with_cheeks: bool = True,
    ) -> None:
        super().__init__(own=POINTS, lookahead=lookahead if form.causal else 0)
        self.with_pose, self.with_cheeks = with_pose, with_cheeks
        self.first = temporal(code + POSE, COMPONENTS, form)
        self.second = temporal(COMPONENTS + POSE + CHEEKS, 2 * POINTS, form)
        self.basis: Tensor
        self.rest: Tensor
        self.spread: Tensor
        self.mean: Tensor
        self.register_buffer("basis", torch.zeros(COMPONENTS, 2 * (POINTS - JAW_POINTS)))
        self.register_buffer("rest", torch.zeros(2 * (POINTS - JAW_POINTS)))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("mean", torch.zeros(2 * POINTS))
        self.register_buffer("scale", torch.ones(()))
        self.scale: Tensor

    def begin(self, identity: Tensor) -> State:
        return (self.first.silence(len(identity)), self.second.silence(len(identity)))

    def phases(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, Tensor, State]:
        """Mouth features [B, T, 13] in units of the first; how far the points are from rest, [B, T, 29, 2] in the
        plane; the state."""
        pose = pose_angles(conditions.rotation)
        cheeks = plane_of(conditions).into(conditions.cheeks).flatten(2)
        first, second = (pose * float(given) for given in self.with_pose)
        mouth, after_first = self.first(torch.cat([code, first], dim=-1), state[0])
        into = torch.cat([mouth, second, cheeks * float(self.with_cheeks)], dim=-1)
        flat, after_second = self.second(into, state[1])
        moved = (flat * self.scale + self.mean).reshape(*flat.shape[:2], POINTS, 2)
        return mouth, moved, (after_first, after_second)

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        _, moved, state = self.phases(code, conditions, state)
        return moved + self._rest(conditions), state

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        return plane_of(conditions).into(points[:, :, _IN_MESH, :2])

    def _rest(self, conditions: Conditions) -> Tensor:
        return rest_in_plane(conditions, self.reference, _IN_HOUSE)[..., :2]

    def mouth_features(self, moved: Tensor) -> Tensor:
        """[B, T, 29, 2] from rest → [B, T, 13]: what the first phase is compared with."""
        return (moved[:, :, JAW_POINTS:].flatten(2) - self.rest) @ self.basis.mT / self.spread

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        mouth, said, _ = self.phases(code, conditions, state)
        true = self.truth(points, conditions) - self._rest(conditions)
        features = self.mouth_features(true)
        said, true = said / self.scale, true / self.scale
        heard = slice(self.lookahead, None)
        return losses.pose_tcn(said[:, heard], true[:, heard], mouth[:, heard], features[:, heard])

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        """Principal components of the mouth in the plane, and how far points go; then the lift."""
        moved = (self.truth(points, conditions) - self._rest(conditions))[0]
        mouth = moved[:, JAW_POINTS:].flatten(1).double()
        middle = mouth.mean(0)
        _, strength, basis = torch.linalg.svd(mouth - middle, full_matrices=False)
        self.rest.copy_(middle)
        self.basis.copy_(basis[:COMPONENTS])
        self.spread.copy_(strength[0] / len(mouth) ** 0.5)
        self.mean.copy_(moved.flatten(1).mean(0))
        self.scale.copy_(moved.std(0).mean())
        super().fit(points, conditions)

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        return raised(plane_of(conditions).back(own), conditions, self.reference, _IN_HOUSE)


def temporal(into: int, out: int, form: Form) -> Chain:
    """A TCN: for each dilation two convolutions around which the input passes by."""

    def block(dilation: int) -> Residual:
        return Residual(
            Chain(
                form.conv(WIDTH, WIDTH, KERNEL, dilation),
                Pointwise(nn.Sequential(nn.ReLU(), nn.Dropout(DROPOUT))),
                form.conv(WIDTH, WIDTH, KERNEL, dilation),
                Pointwise(nn.Sequential(nn.ReLU(), nn.Dropout(DROPOUT))),
            )
        )

    blocks = (block(dilation) for dilation in DILATIONS)
    return Chain(Pointwise(nn.Linear(into, WIDTH)), *blocks, Pointwise(nn.Linear(WIDTH, out)))


def pose_angles(rotation: Tensor) -> Tensor:
    """[B, T, 3, 3] → [B, T, 3]: the sines of yaw, pitch and roll, which heads on camera keep monotone and small."""
    return torch.stack([rotation[..., 0, 2], rotation[..., 1, 2], rotation[..., 1, 0]], dim=-1)


def raised(flat: Tensor, conditions: Conditions, reference: Tensor, places: list[int]) -> Tensor:
    """[B, T, N, 2] in pixels → [B, T, N, 3] pose-normal, for systems that predict a picture's plane: the depth is that
    of the person at rest; what the lift learns corrects it."""
    pose = conditions.pose
    rest = pose.to_frame(reference[places].expand(*flat.shape[:2], -1, -1))
    return pose.to_normal(torch.cat([flat, rest[..., 2:]], dim=-1))
