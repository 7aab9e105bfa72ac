"""ARKit weights and head angles → the few numbers that the geometry is drawn from.

Shapes: weights [B, 52] in the order of `face.ARKIT_52`, angles [B, 3] in degrees, a pose's table [P, B].
Not drawn, so without effect: jawForward, noseSneer, mouthShrugUpper.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from models.face import ARKIT_52
from models.studio.presenter.sdf import Number, Tensor

_AT = {name: i for i, name in enumerate(ARKIT_52)}


class Pose(NamedTuple):
    """Each [B], or gathered to one value a ray."""

    rotation: tuple[Tensor, ...]  # nine, row by row: head → world
    jaw_rot: Tensor  # radians
    jaw_drop: Tensor  # the condyle's slide, decimetres
    jaw_side: Tensor  # to the viewer's right
    width_l: Tensor  # mouth half width, person's left
    width_r: Tensor
    corner_l: Tensor  # corner height relative to the rest line
    corner_r: Tensor
    up: Tensor  # upper inner lip above the rest line, at the centre
    down: Tensor  # lower inner lip below it
    shift: Tensor  # the whole mouth to the viewer's right
    thick_u: Tensor  # vermilion scale
    thick_l: Tensor
    protrude: Tensor  # forward push around the mouth
    round: Tensor  # 0 lens-shaped opening, 1 round
    smile_l: Tensor
    smile_r: Tensor
    puff: Tensor
    tongue: Tensor
    blink_l: Tensor
    blink_r: Tensor
    squint_l: Tensor
    squint_r: Tensor
    wide: Tensor  # eyes held open
    gaze_x: Tensor  # 1 is about 26 degrees to the viewer's right
    gaze_y: Tensor  # 1 is about 23 degrees up
    brow_in: Tensor
    brow_out_l: Tensor
    brow_out_r: Tensor
    brow_down_l: Tensor
    brow_down_r: Tensor
    breath: Tensor  # 0 out … 1 in
    follow: Tensor  # radians that the shoulders turn with the head

    def table(self) -> Tensor:
        """[P, B]: what the compiled fields take."""
        return torch.stack([*self.rotation, *self[1:]])

    def row(self, index: int) -> "Pose":
        """One frame of a batch, still a batch of one."""
        return Pose(tuple(r[index : index + 1] for r in self.rotation), *(p[index : index + 1] for p in self[1:]))


def unpack(table: Tensor) -> Pose:
    rows = table.unbind(0)
    return Pose(rows[:9], *rows[9:])


def weights(*faces: Mapping[str, float], device: str | torch.device = "cpu") -> Tensor:
    """[len(faces), 52]. A name without its side ("mouthSmile") stands for both sides."""
    rows = torch.zeros(len(faces), len(ARKIT_52))
    for row, face in zip(rows, faces, strict=True):
        for name, value in face.items():
            for side in (name,) if name in _AT else (name + "Left", name + "Right"):
                row[_AT[side]] = value
    return rows.to(device)


def rotation(angles: Tensor) -> Tensor:
    """[B, 3] yaw (to the viewer's right), pitch (down), roll (to the viewer's left) → [B, 3, 3]."""
    (ca, cb, cc), (sa, sb, sc) = (f(angles * (math.pi / 180)).unbind(1) for f in (torch.cos, torch.sin))
    one, nil = torch.ones_like(ca), torch.zeros_like(ca)
    yaw = (ca, nil, sa, nil, one, nil, -sa, nil, ca)
    pitch = (one, nil, nil, nil, cb, -sb, nil, sb, cb)
    roll = (cc, -sc, nil, sc, cc, nil, nil, nil, one)
    a, b, c = (torch.stack(entries, 1).view(-1, 3, 3) for entries in (yaw, pitch, roll))
    return a @ b @ c


def pose(weights: Tensor, mouth_half: Number, angles: Tensor | None = None, breath: Tensor | None = None) -> Pose:
    """Weights [B, 52] in 0…1, angles [B, 3] in degrees, breath [B] in 0…1."""

    def w(name: str) -> Tensor:
        return weights[:, _AT[name]]

    def both(name: str) -> Tensor:
        return (w(name + "Left") + w(name + "Right")) / 2

    zero = torch.zeros_like(weights[:, 0])
    angles = torch.zeros(len(weights), 3, device=weights.device) if angles is None else angles
    jaw, funnel, pucker, press = w("jawOpen"), w("mouthFunnel"), w("mouthPucker"), both("mouthPress")
    close = torch.minimum(w("mouthClose"), jaw)
    drop = 0.33 * jaw
    # ARKit's mouthClose undoes the jaw's opening: equal to jawOpen, the lips meet. Pressed lips meet whatever else is
    # asked. This is a constraint on the curves, not a vote: at sealed = 1 the gap is zero exactly.
    sealed = torch.maximum((w("mouthClose") / (0.97 * jaw + 1e-3)).clamp(0, 1), (press / 0.6).clamp(0, 1))
    ajar = 1 - sealed
    apart = drop * (1 - 0.25 * pucker)
    raised = (
        0.015 * jaw + 0.060 * both("mouthUpperUp") + 0.045 * funnel + 0.018 * both("mouthSmile") - 0.02 * pucker * jaw
    )
    lowered = apart + 0.070 * both("mouthLowerDown") + 0.050 * funnel + 0.010 * both("mouthSmile")
    held = torch.maximum(close / (jaw + 1e-3), sealed)  # how far closed lips ride down with the jaw
    ride = 0.25 * held * drop - 0.02 * w("mouthShrugLower")
    up, down = raised * ajar - ride, lowered * ajar + ride

    def side(s: str) -> tuple[Tensor, Tensor]:
        smile, stretch, dimple = w("mouthSmile" + s), w("mouthStretch" + s), w("mouthDimple" + s)
        spread = 1 + 0.20 * smile + 0.17 * stretch + 0.08 * dimple
        width = mouth_half * (spread - 0.42 * pucker - 0.30 * funnel - 0.10 * jaw)
        corner = 0.032 + 0.085 * smile - 0.02 * stretch - 0.05 * w("mouthFrown" + s)
        return width, corner - 0.40 * drop * (1 - 0.35 * held)

    (width_l, corner_l), (width_r, corner_r) = side("Left"), side("Right")
    smile, stretch = both("mouthSmile"), both("mouthStretch")
    thin = 1 - 0.12 * smile - 0.12 * stretch - 0.10 * jaw - 0.35 * press
    gaze_x = ((w("eyeLookOutLeft") - w("eyeLookInLeft")) + (w("eyeLookInRight") - w("eyeLookOutRight"))) / 2
    gaze_y = both("eyeLookUp") - both("eyeLookDown")
    lid = 0.35 * (-gaze_y).clamp(min=0) + 0.12 * smile
    turn = rotation(angles)
    return Pose(
        rotation=tuple(turn.reshape(-1, 9).unbind(1)),
        jaw_rot=0.27 * jaw,
        jaw_drop=0.14 * jaw,
        jaw_side=0.05 * (w("jawLeft") - w("jawRight")),
        width_l=width_l,
        width_r=width_r,
        corner_l=corner_l,
        corner_r=corner_r,
        up=up,
        down=down,
        shift=0.07 * (w("mouthLeft") - w("mouthRight")),
        thick_u=thin * (1 - 0.75 * w("mouthRollUpper")) * (1 + 0.15 * pucker + 0.15 * funnel),
        thick_l=thin * (1 - 0.75 * w("mouthRollLower")) * (1 + 0.10 * pucker + 0.12 * funnel),
        protrude=0.10 * pucker + 0.075 * funnel - 0.015 * smile,
        round=(pucker + 0.8 * funnel).clamp(max=1),
        smile_l=w("mouthSmileLeft"),
        smile_r=w("mouthSmileRight"),
        puff=w("cheekPuff"),
        tongue=w("tongueOut"),
        blink_l=(w("eyeBlinkLeft") + lid).clamp(max=1),
        blink_r=(w("eyeBlinkRight") + lid).clamp(max=1),
        squint_l=(w("eyeSquintLeft") + 0.7 * w("cheekSquintLeft") + 0.6 * w("mouthSmileLeft")).clamp(max=1),
        squint_r=(w("eyeSquintRight") + 0.7 * w("cheekSquintRight") + 0.6 * w("mouthSmileRight")).clamp(max=1),
        wide=both("eyeWide") + 0.3 * gaze_y.clamp(min=0),
        gaze_x=gaze_x,
        gaze_y=gaze_y,
        brow_in=w("browInnerUp"),
        brow_out_l=w("browOuterUpLeft"),
        brow_out_r=w("browOuterUpRight"),
        brow_down_l=w("browDownLeft"),
        brow_down_r=w("browDownRight"),
        breath=zero if breath is None else breath,
        follow=0.10 * (math.pi / 180) * angles[:, 0],
    )
