"""Speech, head pose and identity in, posed landmarks out: what the published systems have in common.

`forward(code, conditions, state) → (points, state)`: code [B, T, C] from the voice encoder or stacked mel, points
[B, T, 131, 3] of `face.HOUSE` in loop-frame pixels. A look-ahead of K frames delays what is asked: at step t the
network has heard t and answers for t − K, so that the conditions given at step t are those of frame t − K.

Each system keeps the set of points and the coordinates of its paper (`speak`). One linear map, fitted on the person's
own frames and kept in the package, lifts that set to the house's lips and jaw in the pose-normal space; the pose puts
them into the frame; the upper face is what the frame has.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import face
from ..streaming import State

SPOKEN = len(face.HOUSE[face.HOUSE_SPOKEN])
UPPER = len(face.HOUSE[face.HOUSE_UPPER])
EYES_APART = 100.0
"""The pose-normal space counts in percent of the reference's outer eye-corner distance, as the metrics do."""

JITTER = 0.3
"""How far a tracker's points lie beside themselves, in the same percent."""

_UPPER_POINTS = face.HOUSE[face.HOUSE_UPPER].tolist()
_CORNERS = [_UPPER_POINTS.index(index) for index in face.EYE_CORNERS]


class Pose(NamedTuple):
    """frame = scale · rotation · normal + shift, for every frame."""

    scale: Tensor  # [B, T, 1, 1]
    rotation: Tensor  # [B, T, 3, 3]
    shift: Tensor  # [B, T, 1, 3]

    def to_frame(self, points: Tensor) -> Tensor:
        """[B, T, N, 3] pose-normal → pixels."""
        return self.scale * _turned(points, self.rotation) + self.shift

    def to_normal(self, points: Tensor) -> Tensor:
        """[B, T, N, 3] pixels → pose-normal."""
        return _turned(points - self.shift, self.rotation.mT) / self.scale


def _turned(points: Tensor, rotation: Tensor) -> Tensor:
    """[..., N, 3] by [B, T, 3, 3]. Products and sums, no matrix product: autocast would make that of half precision,
    in which a pixel of 300 is known to one."""
    return (points[..., None, :] * rotation[:, :, None]).sum(-1)


class Conditions(NamedTuple):
    """What the loop frame says, per answered frame, in its pixels; a network uses what its paper uses.

    Scale, rotation and shift take the pose-normal space to the frame. They are measured once, where the whole mesh is
    known, from all of `face.RIGID`, as the metrics do: HOUSE holds only some of these points, and a pose found again
    from those few would lay a mouth elsewhere than the metrics look for it.
    """

    nose: Tensor  # [B, T, 3, 3]: the three points of `face.NOSE_POSE`
    scale: Tensor  # [B, T, 1]
    rotation: Tensor  # [B, T, 3, 3]
    shift: Tensor  # [B, T, 3]
    cheeks: Tensor  # [B, T, 8, 2]: `face.CHEEKS`
    upper: Tensor  # [B, T, 74, 3]: the pose points of HOUSE
    identity: Tensor  # [B, R * 393]: R reference faces, HOUSE in the pose-normal space

    @property
    def pose(self) -> Pose:
        return Pose(self.scale[..., None], self.rotation, self.shift[:, :, None])

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        """What `change` makes of each part that has frames; identity has none."""
        return Conditions._make([*map(change, self[:-1]), self.identity])

    def frames(self, part: slice) -> "Conditions":
        return self.changed(lambda tensor: tensor[:, part])

    def to(self, device: torch.device | str) -> "Conditions":
        return Conditions(*(tensor.to(device) for tensor in self))


class Plane(NamedTuple):
    """The first paper's normalisation, and the TCN's: moved to the nose's root, scaled, never turned."""

    middle: Tensor  # [B, T, 1, 3]
    unit: Tensor  # [B, T, 1, 1]

    def into(self, points: Tensor) -> Tensor:
        """Pixels → the paper's coordinates; 2 or 3 of them."""
        return (points - self.middle[..., : points.shape[-1]]) / self.unit

    def back(self, points: Tensor) -> Tensor:
        return points * self.unit + self.middle[..., : points.shape[-1]]


def plane_of(conditions: Conditions) -> Plane:
    """Scaled by the eye-corner distance in three dimensions: the width of the face that no turn shortens."""
    corners = conditions.upper[:, :, _CORNERS]
    unit = (corners[:, :, :1] - corners[:, :, 1:]).square().sum(-1, keepdim=True).sqrt()
    return Plane(conditions.nose[:, :, :1], unit)


def rest_in_plane(conditions: Conditions, reference: Tensor, places: list[int]) -> Tensor:
    """[B, T, N, 3]: `places` of the person at rest, in the frame's pose, in the plane's coordinates. What a network of
    the plane has to say is how the mouth differs from it: where the head is, the conditions have said."""
    posed = conditions.pose.to_frame(reference[places].expand(*conditions.nose.shape[:2], -1, -1))
    return plane_of(conditions).into(posed)


def faces_of(identity: Tensor) -> Tensor:
    """[B, R * 393] → [B, R, 131, 3]"""
    return identity.reshape(identity.shape[0], -1, len(face.HOUSE), 3)


class LandmarkNetwork(nn.Module):
    """What a system owes: `speak`, and where its points stand in the pose-normal space. Gives `forward`.

    `reference`: the person at rest. `lift`: [3 * own + 1, 171], the last row a constant; see `fit_lift`.
    """

    posed = True
    """Whether its own points are in the head's pose, so that a head might tell it the lips."""

    neutral = False
    """Whether as published it begins with the person's neutral face; the others do with the first frame of a film."""

    def __init__(self, own: int, lookahead: int) -> None:
        super().__init__()
        self.own, self.lookahead = own, lookahead
        self.reference: Tensor
        self.lift: Tensor
        self.register_buffer("reference", torch.zeros(len(face.HOUSE), 3))
        self.register_buffer("lift", torch.zeros(3 * own + 1, 3 * SPOKEN))

    def silence(self, batch: int) -> State:
        """The state of a session that has heard nothing and looks like the reference."""
        return self.begin(self.reference.reshape(1, -1).expand(batch, -1))

    def begin(self, identity: Tensor) -> State:
        """The state of a session that has heard nothing, of someone who looks like `identity` [B, R * 393]."""
        raise NotImplementedError

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        """The paper's own points in the paper's own coordinates, [B, T, own, 2 or 3]."""
        raise NotImplementedError

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        """What `speak` should have said, from the 478 points [B, T, 478, 3] in pixels: the target of training."""
        raise NotImplementedError

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        """[B, T, own, 3]: what `speak` said, in the pose-normal space."""
        raise NotImplementedError

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        """What training makes small, by the paper's own losses: for an utterance, its conditions and its 478 points,
        all three aligned to the steps of `code`. The first `lookahead` steps answer for nothing and do not count."""
        raise NotImplementedError

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        """Takes from true frames [1, N, 478, 3] of the person what needs no gradient: bases, then the lift.

        The caller has set `reference`.
        """
        own = self.normal(self.truth(points, conditions), conditions)[0]
        spoken = points[:, :, face.HOUSE[face.HOUSE_SPOKEN].tolist()]
        self.fit_lift(own, conditions.pose.to_normal(spoken)[0])

    def forward(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        own, state = self.speak(code, conditions, state)
        known = self.normal(own, conditions).flatten(2)
        spoken = (known @ self.lift[:-1] + self.lift[-1]).reshape(*known.shape[:2], SPOKEN, 3)
        posed = conditions.pose.to_frame(spoken)
        return torch.cat([posed, conditions.upper], dim=2), state

    @torch.no_grad()
    def fit_lift(self, own: Tensor, spoken: Tensor, ridge: float = JITTER**2) -> None:
        """Fits the lift on true frames of the person: `own` [N, own, 3] and `spoken` [N, 57, 3], pose-normal. With less
        of a ridge it would read the tracker's jitter, and make much of what a network gets a little wrong.

        For a system that predicts lips alone this is the linear rule that moves the jaw (the paper's limitation 1).
        """
        x, y = own.flatten(1).double(), spoken.flatten(1).double()
        x_middle, y_middle = x.mean(0), y.mean(0)
        x = x - x_middle
        weight = torch.linalg.solve(x.mT @ x / len(x) + ridge * torch.eye(x.shape[1]), x.mT @ (y - y_middle) / len(x))
        self.lift.copy_(torch.cat([weight, (y_middle - x_middle @ weight)[None]]).to(self.lift))
