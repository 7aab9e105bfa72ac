"""LipSync3D's renderer (Lahiri et al. 2021): the texture round the lips is said by the sound and by the last texture.

As published: a fully connected layer and five convolutions, each after a doubling, write a 128 × 128 difference from
the person's reference atlas (Table 4); what was painted last goes back in as a code of two numbers (Table 5), which
stills the flicker of sounds that leave the mouth undecided. Taught with the true last atlas, and with black in a
fifth of cases, which is how every session begins; the loss is SSIM.

The texture is in no light: it was made even (`lighting`), and takes on the loop frame's own. It goes back by the
smooth map of the frame (`unwrap`), and the frame's neck moves with the new chin, so that no second chin shows below.
"""

import itertools
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import face
from ..streaming import State
from . import Features, Loop, Renderer
from .placing import defined, into_patch
from .unwrap import CROP, corner_of_crop, mapped

CODE: Final = 32
"""N_s: what the sound says."""
MEMORY: Final = 2
"""N_a: what the last atlas says."""
FORGET: Final = 0.2
"""How often training shows no last atlas."""
WRITE: Final = (1024, 512, 256, 128, 64)
READ: Final = (128, 256, 512, 1024, 2048)
LIGHTS: Final = 16
"""A light is smooth: so many places a side are kept of its gain."""
FEATHER: Final = 0.06
NECK: Final = 0.30
"""Of a patch's side: over how much the painted face fades into the frame, and how far below the chin the neck moves."""
WIDE_OPEN: Final = 10.0
ABSURD: Final = 1e3
SPOKEN: Final = len(face.HOUSE[face.HOUSE_SPOKEN])
NEAR: Final = 0.05
"""How near, across, a jaw point must be to say how far the neck moves."""


class TextureDecoder(nn.Module):
    """Table 4, with all widths divided by `thinner`."""

    def __init__(self, code: int = CODE + MEMORY, thinner: int = 1) -> None:
        super().__init__()
        widths = [width // thinner for width in WRITE]
        self.spread = nn.Linear(code, 16 * widths[0])
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(widths):
            layers += [_Doubled(), nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _Doubled(), nn.Conv2d(widths[-1], 3, 5, padding=2), nn.Tanh())

    def forward(self, code: Tensor) -> Tensor:
        """[B, C] → the difference [B, 3, 128, 128]"""
        return cast(Tensor, self.layers(F.relu(self.spread(code)).reshape(code.shape[0], -1, 4, 4)))


class AtlasEncoder(nn.Module):
    """Table 5, likewise."""

    def __init__(self, code: int = MEMORY, thinner: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        into = 3
        for width in READ:
            layers += [nn.Conv2d(into, width // thinner, 5, 2, 2), nn.ReLU()]
            into = width // thinner
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * into, code), nn.Tanh())

    def forward(self, atlas: Tensor) -> Tensor:
        return cast(Tensor, self.layers(atlas))


class Texture(nn.Module):
    """(what the sound says, the last atlas) → this atlas. `reference` [3, 128, 128] is the person's."""

    def __init__(self, heard: int = CODE, thinner: int = 1) -> None:
        super().__init__()
        # The published audio encoder says 32 numbers; any other code is brought to as many.
        self.hear = nn.Identity() if heard == CODE else nn.Linear(heard, CODE)
        self.write = TextureDecoder(thinner=thinner)
        self.remember = AtlasEncoder(thinner=thinner)
        self.reference: Tensor
        self.register_buffer("reference", torch.zeros(3, CROP, CROP))

    def forward(self, code: Tensor, last: Tensor) -> Tensor:
        told = torch.cat([self.hear(code), self.remember(last)], 1)
        return self.reference + cast(Tensor, self.write(told))


class Atlas(Renderer):
    """Of each loop frame it keeps the smooth map, the light and where its own jaw is: see `dress`.

    `heard`: the width of the code. None: the paper's decoder has no points between sound and texture; here what lips
    and jaw are to be is known before, and is brought to as many numbers as the sound says.
    """

    def __init__(self, size: int = CROP, heard: int | None = CODE, thinner: int = 1, lights: bool = True) -> None:
        """`lights`: False where textures were taken, and are given back, in whatever light they were filmed."""
        super().__init__(size)
        self.lights = lights
        self.by_points = heard is None
        self.texture = Texture(2 * SPOKEN if heard is None else heard, thinner)
        self.face: Tensor
        self.rest: Tensor
        self.vertices: Tensor
        self.register_buffer("face", torch.zeros(478, 2))
        self.register_buffer("rest", torch.zeros(SPOKEN, 2))
        self.register_buffer("vertices", torch.zeros(468, 3))

    def silence(self, batch: int) -> State:
        return (torch.zeros(batch, 3, CROP, CROP, device=self.texture.reference.device),)

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        return {"patch": patches}

    def dress(self, loop: Loop, maps: Tensor, gain: Tensor, colour: Tensor, points: Tensor) -> dict[str, Tensor]:
        """`prepare`, with what only this renderer asks of a loop: polynomials [N, 2, 10] from patch to atlas, the light
        of each frame as a gain [N, 1, 16, 16] and colours' scale and offset [N, 2, 3], its house points [N, 131, 2] in
        patch pixels."""
        jaw = points[:, face.JAW_LINE_IN_HOUSE.tolist(), :2]
        return {**self.prepare(loop), "map": maps, "gain": gain, "colour": colour, "jaw": jaw}

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        places = into_patch(points, rows["similarity"])
        atlas = self.texture(self.told(places[:, face.HOUSE_SPOKEN]) if self.by_points else code, state[0])
        jaw = defined(places[:, face.JAW_LINE_IN_HOUSE.tolist()], self.rest[face.JAW_LINE_IN_HOUSE.tolist()])
        painted, within = self.reprojected(lit(atlas, rows["gain"], rows["colour"]), rows["map"])
        inside = self.inside(jaw) * within
        patch = inside * painted + (1 - inside) * self.neck(rows["patch"], rows["jaw"], jaw)
        return patch.clamp(0, 1), self.border.expand(patch.shape[0], 1, -1, -1), (atlas.clamp(0, 1),)

    def told(self, spoken: Tensor) -> Tensor:
        """Lips and jaw in patch pixels [B, 57, 2] → [B, 114], about 1 where a mouth is wide open; 0 at rest, and for
        what is not a number."""
        moved = (spoken - self.rest) * (WIDE_OPEN / self.size)
        return torch.where(moved.abs() < ABSURD, moved, torch.zeros_like(moved)).flatten(1)

    def reprojected(self, atlas: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Atlas crops [B, 3, 128, 128] → patches [B, 3, S, S], and how far they are within the crop: 1, fading out
        towards its edges."""
        places = mapped(maps, self._pixels(), self.size)
        corner = places.new_tensor(corner_of_crop())
        grid = ((places - corner + 0.5) * 2 / CROP - 1).reshape(-1, self.size, self.size, 2)
        within = ((1 - grid.abs().amax(-1)) / (2 * FEATHER)).clamp(0, 1)[:, None]
        return F.grid_sample(atlas, grid, padding_mode="border", align_corners=False), within

    def inside(self, jaw: Tensor) -> Tensor:
        """How much of each pixel is the new face: 1 above the jaw line [B, 17, 2], fading out along it."""
        depth = self._across(jaw, jaw[..., 1])[..., None, :] - self._side()[:, None]
        return (depth / (FEATHER * self.size)).clamp(0, 1)[:, None]

    def neck(self, patch: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """The loop frame's patch, its part below the chin brought to the new chin, less and less farther down."""
        down = self._across(new, new[..., 1] - old[..., 1])  # [B, S]
        below = self._side()[:, None] - self._across(new, new[..., 1])[:, None]  # [B, S, S]
        share = (1 - below.abs() / (NECK * self.size)).clamp(0, 1)
        y = self._side()[:, None] - share * down[:, None]
        x = self._side().expand_as(y)
        grid = (torch.stack([x, y], -1) + 0.5) * 2 / self.size - 1
        return F.grid_sample(patch, grid, padding_mode="border", align_corners=False)

    @property
    def border(self) -> Tensor:
        """[1, S, S]: fades out towards the patch's edges."""
        edge = (self._side() + 0.5).minimum(self.size - 0.5 - self._side()) / (FEATHER * self.size)
        return (edge[:, None].minimum(edge)).clamp(0, 1)[None]

    def _across(self, jaw: Tensor, values: Tensor) -> Tensor:
        """What the points of a jaw [B, 17, 2] say, at each column [B, S]: the nearest say most."""
        away = (self._side()[:, None] - jaw[:, None, :, 0]) / (NEAR * self.size)
        return (torch.softmax(-away.square(), -1) * values[:, None]).sum(-1)

    def _side(self) -> Tensor:
        return torch.arange(self.size, device=self.texture.reference.device, dtype=torch.float32)

    def _pixels(self) -> Tensor:
        side = self._side()
        return torch.stack(torch.meshgrid(side, side, indexing="ij")[::-1], -1).flatten(0, 1)


def lit(atlas: Tensor, gain: Tensor, colour: Tensor) -> Tensor:
    """An even atlas [B, 3, H, W] in the light of a frame: a gain [B, 1, h, w] of luma, then scale and offset of colours
    [B, 2, 3]. Luma alone is multiplied: every colour is given what luma gains."""
    luma = (atlas * atlas.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, True)
    wide = F.interpolate(gain, atlas.shape[-2:], mode="bilinear", align_corners=False)
    scale, offset = colour[..., None, None].unbind(1)
    return scale * (atlas + luma * (wide - 1)) + offset


class _Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
