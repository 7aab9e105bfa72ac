"""Zheng et al.'s renderer (2021): a map of the full face, landmarks and edges, translated into the picture.

As published: the new mouth and jaw are drawn into the template frame's landmarks, and the frame's own Canny edges
beside them; pix2pixHD (Wang et al. 2018) with blocks of self-attention turns that into the picture, up to 720 pixels.
Where the drawn mouth and jaw may be, edges of the template's are left out: they would show the old mouth. Lines have no
colour, and white balance differs from film to film: the painted face is given the template's, by its nose and cheeks.

pix2pixHD as its paper gives it: a global generator at half size (7 × 7, strides of 2 to 1024 channels, 9 residual
blocks, back up) and a local enhancer round it, whose features are added before its 3 residual blocks. Attention (SAGAN;
Zhang et al. 2019) sits where the global generator is smallest: its cost goes with the fourth power of the size.
"""

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import face
from ..streaming import State
from . import Features, Renderer
from .canny import edges
from .lines import PLANES, lines
from .placing import defined, into_patch

SIZE: Final = 256
WIDTH: Final = 32
"""Of the enhancer; the global generator begins twice as wide: 64, as published."""
HALVINGS: Final = 4
BLOCKS: Final = 9
ENHANCER_BLOCKS: Final = 3
ATTENTIONS: Final = 2
NOSE_DOWN: Final = (0.27, 0.5)
NOSE_ACROSS: Final = (0.3, 0.7)
"""Of a patch: where nose and cheeks are."""
MOST_TONED: Final = 2.0


class Attention(nn.Module):
    """Every place asks every other; begins by adding nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(width // 8, 1)
        self.ask, self.key = nn.Conv2d(width, narrow, 1), nn.Conv2d(width, narrow, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        # One head, said so: the exporter of attention asks for heads.
        q, k, v = (layer(x).flatten(2).transpose(1, 2)[:, None] for layer in (self.ask, self.key, self.value))
        return x + self.share * F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_reflected(width, width, 3), nn.ReLU(), _reflected(width, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.layers(x))


class Global(nn.Module):
    """The coarse generator, without its last layer: features [B, width, S, S]."""

    def __init__(self, into: int, width: int, halvings: int, blocks: int, attentions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_reflected(into, width, 7), nn.ReLU()]
        for level in range(halvings):
            layers += [_halved(width << level), nn.ReLU()]
        deepest = width << halvings
        every = blocks // attentions if attentions else blocks + 1
        for number in range(blocks):
            layers.append(Residual(deepest))
            if (number + 1) % every == 0 and (number + 1) // every <= attentions:
                layers.append(Attention(deepest))
        for level in reversed(range(halvings)):
            layers += [_doubled(width << level), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


class Facemap(Renderer):
    """A patch shows the whole head. `mask` [S, S] is the person's; where `spoken` [S, S] is 1, edges are left out."""

    def __init__(
        self,
        size: int = SIZE,
        width: int = WIDTH,
        halvings: int = HALVINGS,
        blocks: int = BLOCKS,
        attentions: int = ATTENTIONS,
    ) -> None:
        super().__init__(size)
        if size % (2 << halvings):
            raise ValueError(f"a map is some {2 << halvings}s of pixels wide, not {size}")
        into = PLANES + 1
        self.whole = Global(into, 2 * width, halvings, blocks, attentions)
        self.enter = nn.Sequential(_reflected(into, width, 7), nn.ReLU(), _halved(width), nn.ReLU())
        self.enhance = nn.Sequential(*(Residual(2 * width) for _ in range(ENHANCER_BLOCKS)), _doubled(width), nn.ReLU())
        self.write = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7))
        self.face: Tensor
        self.mask: Tensor
        self.spoken: Tensor
        self.register_buffer("face", torch.zeros(478, 2))
        self.register_buffer("mask", torch.ones(size, size))
        self.register_buffer("spoken", torch.zeros(size, size))

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        return {"edges": edges(patches) * (1 - self.spoken), "tone": self.tone(patches)}

    def tone(self, patches: Tensor) -> Tensor:
        """[N, 3]: the mean colour of nose and cheeks, where no mouth is painted."""
        down, across = (slice(int(low * self.size), int(high * self.size)) for low, high in (NOSE_DOWN, NOSE_ACROSS))
        seen = 1 - self.spoken[down, across]
        return (patches[..., down, across] * seen).sum((2, 3)) / seen.sum().clamp(min=1)

    def toned(self, painted: Tensor, tone: Tensor) -> Tensor:
        gain = (tone / self.tone(painted).clamp(min=1e-3)).clamp(1 / MOST_TONED, MOST_TONED)
        return painted * gain[..., None, None]

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        drawn = lines(defined(into_patch(points, rows["similarity"]), self.face[face.HOUSE.tolist()]), self.size)
        patch = self.toned(self.paint_by(torch.cat([drawn, rows["edges"]], 1)), rows["tone"]).clamp(0, 1)
        return patch, self.mask.expand(patch.shape[0], 1, -1, -1), ()

    def paint_by(self, maps: Tensor) -> Tensor:
        """Face maps [B, 4, S, S] → [B, 3, S, S] in 0…1."""
        coarse = self.whole(F.avg_pool2d(maps, 3, 2, 1, count_include_pad=False))
        return (1 + torch.tanh(self.write(self.enhance(self.enter(maps) + coarse)))) / 2


def _reflected(into: int, out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(into, out, kernel), nn.InstanceNorm2d(out))


def _halved(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width))


def _doubled(width: int) -> nn.Sequential:
    """From 2 × width to width, at twice the size."""
    return nn.Sequential(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(width))
