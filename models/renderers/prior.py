"""IP-LAP's renderer (Zhong et al. 2023): pictures of the person are moved to where a sketch says, and the sketch is
translated into the face by what they show. Person-generic: identity is in the references, not in the weights.

As published: 2k + 1 = 5 sketches round the frame, so two of them lie in the future; alignment encodes a reference and
its sketch at two resolutions, SPADE by the target sketches, PixelShuffle, to a motion field and a weight for each;
warped pictures and features are averaged by weight; translation reads the face with its lower half hidden beside the
sketches, SPADE by the warped features, each followed by AdaIN by what is heard, PixelShuffle, and SPADE by the warped
picture; the result goes back through a Gaussian-smoothed mask. Resolutions, channels (of `width` 64), the batch's norm
in what encodes, and what comes last are as in the authors' code. Each SPADE and AdaIN is one layer here, two there.

What comes last matters: a layer that normalises takes each plane's own brightness away, and of all that is told only
the warped picture knows the face's. With AdaIN after it, tone jumps from frame to frame.

References never change while an avatar lives: they are encoded once, where it is made (`meet`).
"""

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import face
from ..landmarks.transformer import CHANNELS as SOUND_CHANNELS
from ..landmarks.transformer import COLUMNS, SoundEncoder
from ..streaming import State
from . import Features, Renderer
from .lines import PLANES, lines
from .placing import defined, into_patch
from .spade import Adain, Said, Spade

AHEAD: Final = 2
"""The paper's k."""
SKETCHES: Final = 2 * AHEAD + 1
REFERENCES: Final = 3
"""While it is trained; when it serves, as many as its loop shows different mouths."""
SIZE: Final = 128
WIDTH: Final = 64
SOUND: Final = 512
POINTS: Final = len(face.HOUSE)
BANDS: Final = 80
REACH: Final = 0.5
"""A field moves a pixel by half a face at most."""
SIGNED: Final = 6
"""Planes in which a picture is told apart from grey, brighter and darker by themselves."""
DIM: Final = 0.02
"""Added to means of light, so that a black face has a tone."""


class Alignment(nn.Module):
    """References and target sketches → where each pixel comes from in each reference, and what it is worth."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fine = _conv(3 + PLANES, width // 2, 7)
        self.coarse = _conv(width // 2, 4 * width, 3, 2)
        told, hidden = SKETCHES * PLANES, 2 * width
        self.first = Spade(4 * width, told, hidden)
        self.between = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.second = Spade(4 * width, told, hidden)
        self.third = Spade(width, told, hidden)
        self.field = nn.Conv2d(width, 2, 7, padding=3)
        self.worth = nn.Conv2d(width, 1, 7, padding=3)
        for layer in (self.field, self.worth):
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def encode(self, pictures: Tensor, sketches: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, S, S] and [N, P, S, S] → features at the size and at half of it."""
        fine: Tensor = self.fine(torch.cat([pictures, sketches], 1))
        return fine, self.coarse(fine)

    def listen(self, target: Tensor) -> list[Said]:
        """The target sketches [B, 5 P, S, S], heard once for all references."""
        size = target.shape[-1]
        layers = ((self.first, 2), (self.second, 2), (self.third, 1))
        return [layer.listen(target, size // by, size // by) for layer, by in layers]

    def forward(self, coarse: Tensor, said: list[Said]) -> tuple[Tensor, Tensor]:
        """Features of the references [B, N, C, S / 2, S / 2] → fields [B, N, 2, S, S] in shares of the size, and
        weights [B, N, 1, S, S] that sum to 1 over N."""
        x = F.relu(self.first(coarse, said[0]))
        x = F.relu(self.second(_each(self.between, x), said[1]))
        x = F.relu(self.third(_doubled(x), said[2]))
        return REACH * torch.tanh(_each(self.field, x)), torch.softmax(_each(self.worth, x), 1)


class Translation(nn.Module):
    """The masked face, the sketches, the warped references and the sound → the face."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        into = 3 + SKETCHES * PLANES
        self.read = nn.Sequential(_conv(into, width // 2, 7), _conv(width // 2, 4 * width, 3, 2))
        hidden = 2 * width
        self.spades = nn.ModuleList(
            [Spade(4 * width, 4 * width, hidden), Spade(width, width // 2, hidden), Spade(width, 3, hidden)]
        )
        self.adains = nn.ModuleList(Adain(channels, code) for channels in (4 * width, width))
        self.colour = nn.Conv2d(width, 3, 7, padding=3)
        self._begin_as_the_warped(cast(Spade, self.spades[2]))

    def _begin_as_the_warped(self, last: Spade) -> None:
        """The face begins as the warped picture, and is mended from there: six planes of the last SPADE say how much
        brighter or darker than grey each colour is."""
        hear = cast(nn.Conv2d, last.hear[0])
        heard_from, said_from, written_from = (cast(Tensor, one.bias) for one in (hear, last.say, self.colour))
        gain, shift = last.say.weight[:SIGNED], last.say.weight[len(last.say.weight) // 2 :][:SIGNED]
        with torch.no_grad():
            self.colour.weight *= 0.1
            for tensor in (written_from, heard_from[:SIGNED], hear.weight[:SIGNED], gain, shift):
                tensor.zero_()
            self.colour.weight[:, :SIGNED] = 0
            said_from[:SIGNED] = -1
            for number in range(SIGNED):
                sign, colour = 1 - 2 * (number % 2), number // 2
                hear.weight[number, colour, 1, 1], heard_from[number] = sign, -0.5 * sign
                shift[number, number, 1, 1] = 1
                self.colour.weight[colour, number, 3, 3] = 4 * sign  # the sigmoid's slope is a fourth

    def forward(self, hidden: Tensor, target: Tensor, warped: tuple[Tensor, Tensor, Tensor], heard: Tensor) -> Tensor:
        """`warped`: coarse features, fine features, picture."""
        x = self.read(torch.cat([hidden, target], 1))
        for number, (spade, map_) in enumerate(zip(self.spades, warped, strict=True)):
            x = F.pixel_shuffle(x, 2) if number == 1 else x
            x = F.leaky_relu(spade(x, cast(Spade, spade).listen(map_, x.shape[-2], x.shape[-1])), 0.2)
            if number < len(self.adains):
                x = F.leaky_relu(self.adains[number](x, heard), 0.2)
        return torch.sigmoid(self.colour(x))


class Prior(Renderer):
    """`code` [B, 16 × 80]: the mel picture of the frame, as its own landmark network hears it; or what a voice encoder
    says, when `heard` is its width. A patch shows the whole face."""

    lookahead = AHEAD

    def __init__(
        self, references: int = REFERENCES, size: int = SIZE, width: int = WIDTH, heard: int | None = None
    ) -> None:
        super().__init__(size)
        self.heard = COLUMNS * BANDS if heard is None else heard
        self.sound = SoundEncoder(SOUND, SOUND_CHANNELS) if heard is None else nn.Linear(heard, SOUND)
        self.align = Alignment(width)
        self.translate = Translation(width, SOUND)
        shapes = {"pictures": (3, 1), "fine": (width // 2, 1), "coarse": (4 * width, 2)}
        for name, (channels, by) in shapes.items():
            self.register_buffer(name, torch.zeros(references, channels, size // by, size // by))
        self.pictures: Tensor
        self.fine: Tensor
        self.coarse: Tensor
        self.face: Tensor
        self.mask: Tensor
        self.register_buffer("face", torch.zeros(478, 2))
        self.register_buffer("mask", torch.zeros(size, size))

    @torch.no_grad()
    def meet(self, pictures: Tensor, points: Tensor, mask: Tensor) -> None:
        """A person: references [N, 3, S, S], their house points [N, 131, 2] in patch pixels, the mask [S, S]."""
        self.pictures, self.mask = pictures, mask
        self.fine, self.coarse = self.align.encode(pictures, lines(points, self.size))

    def silence(self, batch: int) -> State:
        points = torch.full((batch, SKETCHES - 1, POINTS, 2), torch.nan, device=self.mask.device)
        return points, torch.zeros(batch, AHEAD, self.heard, device=self.mask.device)

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        return {"hidden": patches * (torch.arange(self.size, device=patches.device) < self.size // 2)[:, None]}

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        before, codes = state
        seen = torch.cat([before, points[:, None, :, :2]], 1)
        codes = torch.cat([codes, code[:, None]], 1)
        after = seen[:, 1:], codes[:, 1:]
        told = torch.where(seen.isfinite(), seen, seen[:, -1:])  # before the first: as it is now
        batch = points.shape[0]
        spread = into_patch(told.flatten(1, 2), rows["similarity"]).reshape(batch * SKETCHES, POINTS, 2)
        spread = defined(spread, self.face[face.HOUSE.tolist()])
        target = lines(spread, self.size).reshape(batch, SKETCHES * PLANES, self.size, self.size)
        references = (part.expand(batch, *part.shape) for part in (self.pictures, self.fine, self.coarse))
        patch, _ = self.paint_by(tuple(references), rows["hidden"], target, codes[:, 0])  # type: ignore[arg-type]
        return patch, self.mask.expand(batch, 1, -1, -1), after

    def paint_by(
        self, references: tuple[Tensor, Tensor, Tensor], hidden: Tensor, target: Tensor, code: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The face, and the aggregated warped picture, which has a loss of its own. References, each [B, N, …]:
        pictures, fine, coarse; the target sketches [B, 5 P, S, S]."""
        pictures, fine, coarse = references
        pictures = in_tone_with(pictures, hidden)
        fields, weights = self.align(coarse, self.align.listen(target))
        warped = [gathered(part, fields, weights) for part in (coarse, fine, pictures)]
        mel = code.reshape(-1, COLUMNS, BANDS) if isinstance(self.sound, SoundEncoder) else code
        return self.translate(hidden, target, (warped[0], warped[1], warped[2]), self.sound(mel)), warped[2]


def in_tone_with(pictures: Tensor, hidden: Tensor) -> Tensor:
    """References [B, N, 3, S, S] in the light of a face [B, 3, S, S] by what both show, its upper half: they were
    filmed on other days, and the one that a pixel comes from must not be told by its tone."""
    upper = pictures.shape[-1] // 2
    seen, shown = (part[..., :upper, :].mean((-2, -1), keepdim=True) for part in (hidden[:, None], pictures))
    return pictures * ((seen + DIM) / (shown + DIM))


def gathered(parts: Tensor, fields: Tensor, weights: Tensor) -> Tensor:
    """References [B, N, C, h, w], each moved by its field and averaged by its weight → [B, C, h, w]."""
    height, width = parts.shape[-2:]
    size = (height, width)
    moved = F.interpolate(fields.flatten(0, 1), size, mode="bilinear", align_corners=False)
    y = torch.linspace(-1 + 1 / height, 1 - 1 / height, height, device=parts.device)
    x = torch.linspace(-1 + 1 / width, 1 - 1 / width, width, device=parts.device)
    still = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    grid = still + 2 * moved.permute(0, 2, 3, 1)
    warped = F.grid_sample(parts.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    worth = F.interpolate(weights.flatten(0, 1), size, mode="bilinear", align_corners=False)
    worth = worth.reshape(*parts.shape[:2], 1, height, width)
    return (warped.reshape(parts.shape) * worth).sum(1) / worth.sum(1)


def _doubled(x: Tensor) -> Tensor:
    """[B, N, 4 C, H, W] → [B, N, C, 2 H, 2 W]: pixels out of channels. No graph format shuffles five axes at once."""
    y = F.pixel_shuffle(x.flatten(0, 1), 2)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _each(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer over pictures [B, N, …]."""
    y: Tensor = layer(x.flatten(0, 1))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _conv(into: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU())
