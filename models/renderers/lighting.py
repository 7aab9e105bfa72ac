"""Light taken off a face and put on again, as LipSync3D does (Lahiri et al. 2021, section 3.1.2).

Two textures of one face that lie on each other differ by a smooth gain of luma, estimated where they agree to be the
same skin (iteratively reweighted least squares), and by one gain and offset for each colour. Turned about, the same
gives a painted texture the light of the frame it goes into.

Textures are [B, 3, H, W] in 0…1; a skin mask is [1 or B, 1, H, W]. The paper takes 16 × 16 patches of a 256 × 256
atlas, a temperature of 0.1, and 5 to 10 rounds.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH_SHARE: Final = 16 / 256
TEMPERATURE: Final = 0.1
ROUNDS: Final = 8
SHINY: Final = 0.9
"""Brighter than this quantile of the skin counts as a highlight."""
LEAST: Final = 1e-3
FAR: Final = 0.1
"""What a neighbour twice as far off says, beside a nearer one."""

_YUV: Final = torch.tensor([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.100]])
_RGB: Final = torch.linalg.inv(_YUV)


class Light(NamedTuple):
    """What makes one texture as bright as another."""

    gain: Tensor  # [B, 1, H, W] of luma, smooth
    scale: Tensor  # [B, 3, 1, 1] of colours
    offset: Tensor

    def on(self, texture: Tensor) -> Tensor:
        yuv = _mixed(texture, _YUV)
        lit = _mixed(torch.cat([yuv[:, :1] * self.gain, yuv[:, 1:]], 1), _RGB)
        return self.scale * lit + self.offset


def light(texture: Tensor, like: Tensor, rounds: int = ROUNDS) -> Light:
    """The light that makes `texture` like `like`, which lies on it."""
    gain, weights = luma_gain(texture, like, rounds)
    lit = Light(gain, texture.new_ones(1, 3, 1, 1), texture.new_zeros(1, 3, 1, 1)).on(texture)
    total = weights.sum((2, 3), keepdim=True).clamp(min=1e-6)
    mean_lit, mean_like = (((weights * x).sum((2, 3), keepdim=True) / total) for x in (lit, like))
    spread = (weights * (lit - mean_lit).square()).sum((2, 3), keepdim=True)
    joint = (weights * (lit - mean_lit) * (like - mean_like)).sum((2, 3), keepdim=True)
    scale = torch.where(spread > LEAST, joint / spread.clamp(min=LEAST), torch.ones_like(spread))
    return Light(gain, scale, mean_like - scale * mean_lit)


def luma_gain(texture: Tensor, like: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """(gain, weights), [B, 1, H, W] each. Equations 1 and 2: errors are summed over a patch round each pixel. The error
    that a weight is made of is itself unweighted: else a place without weight has no error, and comes back."""
    f, r = (_mixed(x, _YUV)[:, :1] for x in (texture, like))
    rf, ff, rr = (_patch_sums(product) for product in (r * f, f * f, r * r))
    weights = torch.ones_like(f)
    for number in range(rounds + 1):
        gain = _share(weights * r * f, weights * f * f)
        if number < rounds:
            error = rr - 2 * gain * rf + gain.square() * ff
            weights = torch.exp(-error.clamp(min=0) / TEMPERATURE)
    return gain, weights


def evened(texture: Tensor) -> Tensor:
    """A reference atlas, symmetric about its middle column, as if lit alike from both sides: of two mirrored places
    the darker is made to match the brighter. (The paper writes max(G, its mirror image), which would brighten both.)"""
    gain, _ = luma_gain(texture, texture.flip(-1))
    for _ in range(2):  # light has no edges, though patches have
        gain = _patch_sums(gain) / 256
    yuv = _mixed(texture, _YUV)
    return _mixed(torch.cat([yuv[:, :1] * gain.clamp(min=1), yuv[:, 1:]], 1), _RGB).clamp(0, 1)


def matt(texture: Tensor, skin: Tensor) -> Tensor:
    """Without highlights: I = α + (1 − α) I_c, equation 3."""
    size = max(3, round(texture.shape[-1] * PATCH_SHARE / 4) | 1)
    soft = F.avg_pool2d(F.pad(texture, (size // 2,) * 4, mode="replicate"), size, 1)
    bright = _mixed(texture, _YUV)[:, :1]
    skin = skin.expand_as(bright)
    brightest = bright.new_tensor(torch.inf)  # where no skin is seen, nothing shines
    limits = [
        torch.quantile(b[s > 0.5], SHINY) if (s > 0.5).any() else brightest for b, s in zip(bright, skin, strict=True)
    ]
    shines = (soft.amin(1, True) > torch.stack(limits)[:, None, None, None]) & (skin > 0.5)
    clean = filled(texture, ~shines)
    alpha = ((texture - clean) / (1 - clean).clamp(min=LEAST)).mean(1, True).clamp(0, 0.95) * shines
    return ((texture - alpha) / (1 - alpha)).clamp(0, 1)


def filled(texture: Tensor, known: Tensor) -> Tensor:
    """Unknown places from known ones, the nearest first, ever wider until all are known."""
    weight = known.to(texture.dtype).expand(-1, 1, -1, -1)
    result, have = texture * weight, weight
    size = 3
    while bool((have == 0).any()) and size < 2 * max(texture.shape[-2:]):
        blurred = F.avg_pool2d(texture * weight, size, 1, size // 2)
        share = F.avg_pool2d(weight, size, 1, size // 2)
        reached = (share > 0) & (have == 0)
        result = torch.where(reached, blurred / share.clamp(min=1e-9), result)
        have = torch.where(reached, torch.ones_like(have), have)
        size = 2 * size + 1
    return result


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole over the patch round each pixel. A patch without weight asks ever farther neighbours, a little; so
    that light goes on across a mouth, and where nothing is seen, nothing is gained."""
    above, below = part.new_tensor(LEAST), part.new_tensor(LEAST)
    for wider in (8, 4, 2, 1):
        above = wider**-3.0 * _patch_sums(part, wider) + FAR * above
        below = wider**-3.0 * _patch_sums(whole, wider) + FAR * below
    return above / below


def _patch_sums(x: Tensor, wider: int = 1) -> Tensor:
    """Over the patch round each pixel, as if it were of 16 × 16: so a temperature means the same at any size."""
    size = max(3, round(x.shape[-1] * PATCH_SHARE * wider) | 1)  # odd, so that it has a middle
    rows = F.avg_pool2d(x, (1, size), 1, (0, size // 2), count_include_pad=False)  # a mean of means is the mean
    return F.avg_pool2d(rows, (size, 1), 1, (size // 2, 0), count_include_pad=False) * 256


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("oc,bchw->bohw", matrix.to(x), x)
