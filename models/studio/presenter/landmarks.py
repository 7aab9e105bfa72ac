"""True landmarks: MediaPipe's 478 points carried by the presenter's own curves and surface.

A tracker names the points once, on one rest picture (`bind`); from then on no tracker is asked. Lips and lids follow
the very curves that the face is drawn from, jaw and brows follow the rig, everything else the skull.
"""

from dataclasses import dataclass

import numpy as np
import torch

from models import face
from models.rates import MESH_POINTS
from models.studio.presenter import head, rig
from models.studio.presenter.head import EYE, EYE_R, GAZE_X, GAZE_Y, Lids, Lips
from models.studio.presenter.identity import Traits
from models.studio.presenter.render import Presenter
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import Tensor, mix, smoothstep

_UPPER_OUTER, _LOWER_OUTER = face.LIPS_OUTER[:11], face.LIPS_OUTER[11:]
_UPPER_INNER, _LOWER_INNER = face.LIPS_INNER[:11], face.LIPS_INNER[11:]
_UPPER_LIDS = np.concatenate([face.EYE_RIGHT[:9], face.EYE_LEFT[:9]])
_LOWER_LIDS = np.concatenate([face.EYE_RIGHT[9:], face.EYE_LEFT[9:]])


@dataclass(frozen=True)
class Landmarks:
    """Where each of the 478 points lives on one presenter at rest."""

    rest: Tensor  # [478, 3] head space, jaw shut, lips closed

    @staticmethod
    def bind(presenter: Presenter, pixels: Tensor, size: int) -> "Landmarks":
        """`pixels` [478, 2]: what a tracker found on the picture of the neutral face looking straight ahead."""
        pose = neutral(presenter)
        centre = pixels[torch.from_numpy(face.RIGID.copy())].mean(0)
        at, found = pixels.clone(), torch.zeros(len(pixels), dtype=torch.bool)
        rest = torch.zeros(len(pixels), 3)
        for _ in range(25):  # points of the outline may lie just off it: draw them in until the ray meets skin
            lost = (~found).nonzero()[:, 0]
            if not len(lost):
                break
            x, y, z = presenter.surface(at[lost, 0], at[lost, 1], pose, size)
            rest[lost] = torch.stack(head.to_head(x, y, z, pose, presenter.traits), 1)
            found[lost] = rest[lost, 2] > -0.35
            at[lost] = centre + (at[lost] - centre) * 0.98
        return Landmarks(rest)

    def place(self, presenter: Presenter, pose: Pose, size: int) -> Tensor:
        """→ [B, 478, 3] in pixels of the full picture. All frames at once, each point with its own frame's pose."""
        batch, who = len(pose.jaw_rot), presenter.traits
        rest = self.rest.repeat(batch, 1)
        own = rig.unpack(pose.table().repeat_interleave(len(self.rest), 1))
        x, y, z = head.skin_moved(rest, own)
        y = y + _brow_lift(rest, own)
        x, y = _on_lips(rest, x, y, own, neutral(presenter), who)
        x, y = _on_lids(rest, x, y, own, who)
        x, y = _with_gaze(x, y, own, batch)
        mouth = _everywhere(face.LIPS, batch)
        z = z.clone()
        z[mouth] = _front(x[mouth], y[mouth], z[mouth], presenter, _some(own, mouth))
        return presenter.to_pixels(*head.to_world(x, y, z, own, who), size).view(batch, len(self.rest), 3)


def neutral(presenter: Presenter) -> Pose:
    """Lips closed, jaw shut, looking straight ahead."""
    return presenter.pose(torch.zeros(1, len(face.ARKIT_52)))


def _everywhere(ids: face.Indices, batch: int) -> Tensor:
    """Where the points `ids` stand in a flat list of `batch` faces."""
    starts = torch.arange(batch)[:, None] * MESH_POINTS
    return (starts + torch.from_numpy(ids.copy())).flatten()


def _some(pose: Pose, index: Tensor) -> Pose:
    return rig.unpack(pose.table()[:, index])


def _brow_lift(rest: Tensor, pose: Pose) -> Tensor:
    """How far the skin about the brows is raised."""
    x, y, _ = rest.unbind(1)
    u = ((x.abs() - 0.125) / 0.43).clamp(0, 1)
    left = smoothstep(-0.12, 0.12, x)
    outer, down = mix(pose.brow_out_r, pose.brow_out_l, left), mix(pose.brow_down_r, pose.brow_down_l, left)
    lift = 0.075 * pose.brow_in * (1 - u) ** 1.5 + 0.065 * outer * u - 0.060 * down * (1 - 0.6 * u)
    return lift * smoothstep(0.13, 0.22, y) * smoothstep(0.60, 0.34, y)


def _on_lips(rest: Tensor, x: Tensor, y: Tensor, pose: Pose, shut: Pose, who: Traits) -> tuple[Tensor, Tensor]:
    """The rings move along the curves: each point keeps its place between the corner and the middle."""
    x, y = x.clone(), y.clone()
    for ids, inner, upper in (
        (_UPPER_OUTER, False, True),
        (_LOWER_OUTER, False, False),
        (_UPPER_INNER, True, True),
        (_LOWER_INNER, True, False),
    ):
        at = _everywhere(ids, len(rest) // MESH_POINTS)
        x0, p = rest[at, 0], _some(pose, at)
        s = (x0 / Lips(x0, x0, shut, who).width).clamp(-1, 1)
        left = smoothstep(-0.12, 0.12, x0)
        px = p.shift + s * mix(p.width_r, p.width_l, left)
        lips = Lips(px, px, p, who)
        # shut lips have one inner line, not two that cross
        high, low = torch.maximum(lips.inner_u, lips.mid), torch.minimum(lips.inner_l, lips.mid)
        py = (high if inner else high + lips.tall_u) if upper else (low if inner else low - lips.tall_l)
        x[at], y[at] = px, py
    return x, y


def _on_lids(rest: Tensor, x: Tensor, y: Tensor, pose: Pose, who: Traits) -> tuple[Tensor, Tensor]:
    x, y = x.clone(), y.clone()
    for ids, upper in ((_UPPER_LIDS, True), (_LOWER_LIDS, False)):
        at = _everywhere(ids, len(rest) // MESH_POINTS)
        x0 = rest[at, 0]
        across = ((x0.abs() - EYE[0]) / who.eye_half).clamp(-0.985, 0.985)
        px = torch.sign(x0) * (EYE[0] + across * who.eye_half)
        lids = Lids(px, px, _some(pose, at), who)
        x[at], y[at] = px, EYE[1] + (lids.upper if upper else lids.lower)
    return x, y


def _with_gaze(x: Tensor, y: Tensor, pose: Pose, batch: int) -> tuple[Tensor, Tensor]:
    """Irises slide over the eyeball as `shade.eye` turns it."""
    at = _everywhere(np.concatenate([face.IRIS_RIGHT, face.IRIS_LEFT]), batch)
    x, y = x.clone(), y.clone()
    x[at] = x[at] + EYE_R * torch.sin(GAZE_X * pose.gaze_x[at])
    y[at] = y[at] + EYE_R * torch.sin(GAZE_Y * pose.gaze_y[at])
    return x, y


def _front(x: Tensor, y: Tensor, z: Tensor, presenter: Presenter, pose: Pose) -> Tensor:
    """The skin's depth at (x, y) in head space, walking in from the front; between the lips, where none is, z stays."""
    t = torch.full_like(x, 1.25)
    h = t
    for _ in range(40):
        h, _ = head.skin(x, y, t, pose, presenter.traits)
        t = t - 0.7 * h
    return torch.where((h.abs() < 0.02) & (t > 0.45), t, z)
