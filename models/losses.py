"""What each published system is trained by, term by term with the paper's weights, and what the default head is.

Points are [B, T, N, D] in whatever space the network speaks; a frame-to-frame difference is along T. Every function is
pure and returns a scalar. Papers disagree on what a norm is summed over: here a distance is per point, and means are
taken over everything else, so that weights mean the same at any batch, length or number of points; where the paper's
norm spans the frame, that is said.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

# --- Terms -----------------------------------------------------------------------------------------------------------


def l1(said: Tensor, true: Tensor) -> Tensor:
    return (said - true).abs().mean()


def l2(said: Tensor, true: Tensor) -> Tensor:
    """Mean square."""
    return (said - true).square().mean()


def frame_distance(said: Tensor, true: Tensor) -> Tensor:
    """The norm of a whole frame's error, over frames: ‖d − d̂‖₂ where the paper takes the frame as one vector."""
    return _norm((said - true).flatten(2)).mean()


def point_distance(said: Tensor, true: Tensor) -> Tensor:
    """The distance of each point, over points and frames."""
    return _norm(said - true).mean()


def velocity(said: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Both as frame-to-frame differences, for any of the terms above."""
    return said.diff(dim=1), true.diff(dim=1)


def cosine(said: Tensor, true: Tensor) -> Tensor:
    """1 − cos of the angle between whole-frame displacements: Nocentini et al., equation 5."""
    a, b = said.flatten(2), true.flatten(2)
    return (1 - (a * b).sum(-1) / (_norm(a) * _norm(b))).mean()


def _norm(x: Tensor) -> Tensor:
    return (x.square().sum(-1) + 1e-12).sqrt()  # differentiable at 0


# --- Systems ---------------------------------------------------------------------------------------------------------

LIP_SHARE: Final = 0.9


def pose_lstm(said: Tensor, true: Tensor, lips: slice | Tensor) -> Tensor:
    """Bigioi et al.: L1, nine tenths of it over the lips, one tenth over the whole face."""
    return LIP_SHARE * l1(said[:, :, lips], true[:, :, lips]) + (1 - LIP_SHARE) * l1(said, true)


PCA_WEIGHT: Final = 0.05
INTER_FRAME_WEIGHT: Final = 0.6


def pose_tcn(said: Tensor, true: Tensor, mouth_said: Tensor, mouth_true: Tensor) -> Tensor:
    """Zheng et al., equations 1 to 4: L2 of the points, of the first phase's mouth features, of motion."""
    return l2(said, true) + PCA_WEIGHT * l2(mouth_said, mouth_true) + INTER_FRAME_WEIGHT * l2(*velocity(said, true))


def transformer(said: Tensor, true: Tensor, lips: slice, continuity: float = 1.0) -> Tensor:
    """IP-LAP, equations 10 to 12: L1 of lips and of jaw, and the continuity of each, with a weight of 1."""
    jaw = slice(lips.stop, said.shape[2])
    total = said.new_zeros(())
    for part in (lips, jaw):
        a, b = said[:, :, part], true[:, :, part]
        total = total + l1(a, b) + continuity * point_distance(*velocity(a, b))
    return total


S2L_WEIGHTS: Final = {"rec": 0.1, "mouth": 1.0, "cos": 1e-4, "vel": 10.0}


def speech_to_landmarks(said: Tensor, true: Tensor, mouth: Tensor, with_cosine: bool = True) -> Tensor:
    """Nocentini et al., equations 2 to 6, of displacements from the neutral face; `mouth` indexes mouth and jaw."""
    total = S2L_WEIGHTS["rec"] * frame_distance(said, true)
    total = total + S2L_WEIGHTS["mouth"] * frame_distance(said[:, :, mouth], true[:, :, mouth])
    total = total + S2L_WEIGHTS["vel"] * frame_distance(*velocity(said, true))
    return total + S2L_WEIGHTS["cos"] * cosine(said, true) if with_cosine else total


S2D_WEIGHTS: Final = {"rec": 0.1, "cos": 1e-4, "weighted": 1.0}


def sparse_to_dense(said: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """Nocentini et al., equations 7 to 9, of dense displacements; `weights` [N] from `nearness`."""
    total = S2D_WEIGHTS["rec"] * frame_distance(said, true) + S2D_WEIGHTS["cos"] * cosine(said, true)
    return total + S2D_WEIGHTS["weighted"] * (weights * _norm(said - true)).mean()


def nearness(vertices: Tensor, landmarks: Tensor, least: float = 1.0) -> Tensor:
    """[N]: 1 / distance of each vertex [N, 3] to its nearest landmark [L, 3]. A landmark is itself a vertex, so that
    distances under `least` count as `least`."""
    return 1.0 / torch.cdist(vertices, landmarks).amin(-1).clamp(min=least)


def vertices(said: Tensor, true: Tensor, lips: Tensor | None = None) -> Tensor:
    """LipSync3D's geometry: ‖V − V̂‖₂ of a whole frame. With `lips`, theirs is nine tenths of it, as with the first
    paper: among 468 vertices 40 hardly count, and the tracker's jitter of all others drowns them."""
    whole = frame_distance(said, true)
    if lips is None:
        return whole
    return LIP_SHARE * frame_distance(said[:, :, lips], true[:, :, lips]) + (1 - LIP_SHARE) * whole


def blendshapes(said: Tensor, true: Tensor) -> Tensor:
    """LipSync3D's: L1, for sparse weights."""
    return l1(said, true)


def components(said: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """The default head's: mean square of principal components [B, T, P], each by its share, and of their motion. (Under
    L1 the mouth goes where it most often is; the mean follows the voice better.)"""
    said, true = said * weights, true * weights
    return l2(said, true) + l2(*velocity(said, true))


# --- Pictures --------------------------------------------------------------------------------------------------------
# [B, 3, H, W] in 0…1


def gradients(said: Tensor, true: Tensor, scales: int = 3) -> Tensor:
    """L1 of the slopes of the error, at the full size and at halves of it: edges, before they are pixels."""
    total = said.new_zeros(())
    error = said - true
    for scale in range(scales):
        if scale:
            error = F.avg_pool2d(error, 2)
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return total


_LUMA: Final = (0.299, 0.587, 0.114)


def dissimilarity(said: Tensor, true: Tensor, window: int = 7) -> Tensor:
    """1 − SSIM of luma under a flat window, where it fits: quick enough to train with. `metrics.ssim` is the figure."""
    weights = said.new_tensor(_LUMA).view(1, 3, 1, 1)
    a, b = (said * weights).sum(1, True), (true * weights).sum(1, True)
    mean_a, mean_b, aa, bb, ab = torch.unbind(F.avg_pool2d(torch.cat([a, b, a * a, b * b, a * b], 1), window, 1), 1)
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    unlike: Tensor = 1 - (likeness / ((mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2))).mean()
    return unlike
