"""What this mouth looked like when lips and jaw were so: remembered from the whole of the footage, in closed form.

    recall = Recall(128)
    folds = learn(recall, patches, spoken, mean, hole, near, pieces(lengths))

A picture is the mean patch and a sum of some dozens of pictures (`basis`), each by an amount that follows from where
lips and jaw are: by how near they are to a thousand mouths of the footage (a Gaussian of distance), and linearly, also
from the colours that are seen round the mouth. The amounts are the least squares of all the footage (ridge), which
takes seconds where descent takes a quarter of an hour, and is what a network finds its way to: on GRID's speaker it
alone is as near to the truth as a network after 4,000 steps (LOG.md, 2026-11-28).

What has been learned by heart is better remembered than what has not. So that a network learns to mend what it will be
given, `learn` leaves out each piece of the footage in turn: `folds` says what would be recalled of it.
"""

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import face

MOUTHS: Final = 1000
"""Of the footage, as unlike one another as can be."""
NUMBERS: Final = 1 << 20
"""Pictures of the basis times pixels of a patch: 64 pictures of 128 pixels a side, 28 of 192, 16 of 256."""
DOWN: Final = (3 / 16, 14 / 16)
ACROSS: Final = (5 / 32, 27 / 32)
"""Of a patch: from below the nose to below the chin. What is recalled fades out towards its edges."""
FADE: Final = 1 / 16
TONES: Final = 12
"""Principal components of the colours round the mouth."""
DIM: Final = 0.02
"""A component that differs less, in 0…1, differs by noise."""
STRANGE: Final = 3.0
"""Standard deviations: light beyond is taken for that."""
BLOCKS: Final = 8
"""A side: of so many places is the colour asked."""
SEEN: Final = 0.3
"""Of a block that no mouth hides, for its colour to count."""
LEANS: Final = 16
"""Principal components of lips and jaw that amounts follow linearly."""
NEAR: Final = 1.2
"""Standard deviation of nearness, in pixels of a patch of 128, root mean square over points."""
JAW: Final = 0.4
"""What the distance of a jaw point counts beside that of a point of the lips."""
RIDGE: Final = 0.05
LINEAR: Final = 0.3
"""What linear features weigh beside nearness: the less, the more they are held back."""
STILL: Final = 1e-3
"""Pixels: a component of lips and jaw that moves less is none."""
BEYOND: Final = 0.25
"""Of each coordinate's range in the footage: how far beyond it a mouth is believed."""
FOLDS: Final = 4
PIECE_FRAMES: Final = 125
SPACE: Final = 160
"""Principal components of the pictures, in which the least squares are found."""

SPOKEN: Final = len(face.HOUSE[face.HOUSE_SPOKEN])


class Recall(nn.Module):
    """Lips and jaw [B, 57, 2] in patch pixels and what `toned` says of a loop frame → the amounts → the picture."""

    def __init__(self, size: int, mouths: int = MOUTHS) -> None:
        super().__init__()
        self.size = size
        rank = NUMBERS // size**2
        self.box = _box(size)
        shapes = {
            "mouths": (mouths, 2 * SPOKEN),
            "middle": (2 * SPOKEN,),
            "low": (2 * SPOKEN,),
            "high": (2 * SPOKEN,),
            "toning": (3 * BLOCKS**2, TONES),
            "usual": (TONES,),
            "amounts": (mouths, rank),
            "slope": (2 * SPOKEN, rank),
            "tones": (TONES, rank),
            "offset": (rank,),
            "basis": (rank, 3, self.box[0].stop - self.box[0].start, self.box[1].stop - self.box[1].start),
            "seen": (size, size),
            "gap": (),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.mouths: Tensor
        self.middle: Tensor
        self.low: Tensor
        self.high: Tensor
        self.toning: Tensor
        self.usual: Tensor
        self.amounts: Tensor
        self.slope: Tensor
        self.tones: Tensor
        self.offset: Tensor
        self.basis: Tensor
        self.seen: Tensor
        self.gap: Tensor

    def toned(self, patches: Tensor) -> Tensor:
        """Patches [B, 3, S, S] in 0…1 → [B, 12]: the colours that are seen round the mouth."""
        return (_blocks(patches, self.seen) @ self.toning - self.usual).clamp(-STRANGE, STRANGE)

    def amount(self, spoken: Tensor, tone: Tensor) -> Tensor:
        """[B, rank]; `spoken` is finite. A mouth beyond all of the footage is taken for the nearest that there is."""
        near, leaning = self.features(spoken)
        return near @ self.amounts + leaning @ self.slope + tone @ self.tones + self.offset

    def features(self, spoken: Tensor) -> tuple[Tensor, Tensor]:
        """Nearness to each mouth [B, M], and how far coordinates are from the middle [B, 114]."""
        x = weighed(spoken, self.size).maximum(self.low).minimum(self.high) - self.middle
        away = (x[:, None] - self.mouths).square().sum(-1)
        away = away - (away.amin(1, keepdim=True) - self.gap).clamp(min=0)
        return torch.exp(-away / (2 * NEAR**2)), x

    def picture(self, amount: Tensor) -> Tensor:
        """What is added to the mean patch: [B, 3, S, S]."""
        (down, across), (high, wide) = self.box, self.basis.shape[-2:]
        edges = (across.start, self.size - across.stop, down.start, self.size - down.stop)
        return F.pad((amount @ self.basis.flatten(1)).reshape(-1, 3, high, wide), edges)


class Folds(NamedTuple):
    """What each part of the footage would be recalled by, had it not been seen."""

    of: Tensor  # [N]: which part a frame is of
    weights: Tensor  # [FOLDS, M + 114 + 12 + 1, rank]

    def to(self, device: torch.device) -> "Folds":
        return Folds(self.of, self.weights.to(device))

    def amount(self, recall: Recall, rows: Tensor, spoken: Tensor, tone: Tensor) -> Tensor:
        """Of frames `rows` [B] of the footage, their mouths and tones given as `Recall.amount` is."""
        near, leaning = recall.features(spoken)
        features = torch.cat([near, leaning, tone, torch.ones_like(tone[:, :1])], 1)
        amount: Tensor = features[:, None] @ self.weights[self.of[rows]]
        return amount.squeeze(1)


def weighed(spoken: Tensor, size: int) -> Tensor:
    """[B, 57, 2] in patch pixels → [B, 114] whose distances are of points, in pixels of a patch of 128."""
    lips = len(face.LIPS)
    weight = torch.full((SPOKEN, 1), JAW, dtype=spoken.dtype, device=spoken.device)
    weight[:lips] = 1
    return (spoken * weight * (128 / size / math.sqrt(lips))).flatten(1)


def pieces(lengths: list[int]) -> Tensor:
    """[N]: of clips of so many frames, which part of the footage each frame is of. Pieces go round the parts; they are
    as long as some seconds where there are enough of them."""
    longest = max(1, min(PIECE_FRAMES, sum(lengths) // (2 * FOLDS)))
    numbers, number = [], 0
    for length in lengths:
        for first in range(0, length, longest):
            numbers.append(torch.full((min(longest, length - first),), number % FOLDS))
            number += 1
    return torch.cat(numbers)


@torch.no_grad()
def learn(
    recall: Recall, patches: Tensor, spoken: Tensor, mean: Tensor, hole: Tensor, near: Tensor, parts: Tensor
) -> Folds:
    """Fills `recall` from patches uint8 [N, 3, S, S] and their lips and jaws [N, 57, 2]. Pictures are recalled as they
    differ from `mean` [3, S, S], where `hole` [S, S] is 1; `near` [S, S] says how much more a pixel matters, beyond 1.
    `parts` [N] are `pieces`."""
    count, size = len(patches), recall.size
    x = weighed(spoken, size)
    spread = x.amax(0) - x.amin(0)
    recall.low.copy_(x.amin(0) - BEYOND * spread)
    recall.high.copy_(x.amax(0) + BEYOND * spread)
    recall.middle.copy_(x.mean(0))
    recall.seen.copy_(1 - hole)
    chosen, gap = _unlike(x, len(recall.mouths))
    recall.mouths.copy_(x[chosen] - recall.middle)
    recall.gap.copy_(gap)
    tone = _taught_tones(recall, patches)
    leaning = x - recall.middle
    directions = torch.linalg.svd(leaning[:: max(1, count // 4000)], full_matrices=False)[2][:LEANS].mT
    spreads = (leaning @ directions).std(0)
    directions = F.pad(directions / spreads * (spreads > STILL), (0, LEANS - directions.shape[1]))
    space = _Pictures(patches, mean, hole, near, recall.box)
    features, told = [], []
    for first in range(0, count, 256):
        rows = slice(first, first + 256)
        close, far = recall.features(spoken[rows])
        linear = torch.cat([far @ directions, tone[rows], torch.ones(len(far), 1)], 1)
        features.append(torch.cat([close, LINEAR * linear], 1))
        told.append(space.coordinates(patches[rows]))
    known, wanted = torch.cat(features), torch.cat(told)
    within = [parts == fold for fold in range(FOLDS)]
    squares = [known[some].mT @ known[some] for some in within]
    products = [known[some].mT @ wanted[some] for some in within]
    everything, all_wanted = torch.stack(squares).sum(0), torch.stack(products).sum(0)
    whole = _ridge(everything, all_wanted)
    rank = recall.basis.shape[0]
    turn = torch.linalg.svd((known @ whole)[:: max(1, count // 4000)], full_matrices=False)[2][:rank].mT
    turn = F.pad(turn, (0, rank - turn.shape[1]))  # of very little footage
    recall.basis.copy_(space.pictures(turn, size))
    folds = [
        _ridge(everything - square, all_wanted - product) for square, product in zip(squares, products, strict=True)
    ]
    weights = [_unfolded(weights @ turn, directions) for weights in (whole, *folds)]
    ends = torch.tensor([len(recall.mouths), 2 * SPOKEN, TONES]).cumsum(0).tolist()
    for name, part in zip(("amounts", "slope", "tones"), weights[0].tensor_split(ends)[:3], strict=True):
        getattr(recall, name).copy_(part)
    recall.offset.copy_(weights[0][-1])
    return Folds(parts, torch.stack(weights[1:]))


def _unlike(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows of x [N, C], each the farthest from all before it; the square of how far the farthest other is from them."""
    chosen = [0]
    away = (x - x[0]).square().sum(1)
    for _ in range(count - 1):
        chosen.append(int(away.argmax()))
        away = torch.minimum(away, (x - x[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen), away.amax()


def _taught_tones(recall: Recall, patches: Tensor) -> Tensor:
    """Fills `toning` and `usual`; the tones of the footage [N, 12], each of variance 1."""
    seen = F.avg_pool2d(recall.seen[None, None], recall.size // BLOCKS).flatten() > SEEN
    parts = (patches[first : first + 256] for first in range(0, len(patches), 256))
    every = torch.cat([_blocks(some.float() / 255, recall.seen) for some in parts])
    every = every * seen.repeat(3)
    middle = every.mean(0)
    directions = torch.linalg.svd((every - middle)[:: max(1, len(every) // 4000)], full_matrices=False)[2][:TONES].mT
    directions = F.pad(directions, (0, TONES - directions.shape[1]))
    scale = ((every - middle) @ directions).std(0)
    recall.toning.copy_(directions * seen.repeat(3)[:, None] / scale.clamp(min=DIM))
    recall.usual.copy_(middle @ recall.toning)
    return (every @ recall.toning - recall.usual).clamp(-STRANGE, STRANGE)


def _blocks(patches: Tensor, seen: Tensor) -> Tensor:
    """[B, 3 × 64]: the mean colour of what is seen of each block."""
    side = seen.shape[-1] // BLOCKS
    share = F.avg_pool2d(seen[None, None], side)
    return (F.avg_pool2d(patches * seen, side) / share.clamp(min=1e-3)).flatten(1)


class _Pictures:
    """Principal components of the footage within the hole and the box, pixels weighed by how much they matter."""

    def __init__(self, patches: Tensor, mean: Tensor, hole: Tensor, near: Tensor, box: tuple[slice, slice]) -> None:
        self.box, self.hole = box, hole[box]
        self.inside = (self.hole > 0).flatten().repeat(3)
        self.weight = (1 + near[box]).flatten().repeat(3)[self.inside].sqrt()
        self.mean = mean[(..., *box)].flatten()[self.inside]
        flat = self._weighed(patches[:: max(1, len(patches) // 2000)])
        with torch.random.fork_rng(devices=[]):  # it draws where to begin, which is nobody else's affair
            torch.manual_seed(0)
            components = torch.svd_lowrank(flat, q=min(SPACE, *flat.shape), niter=2)[2]
        self.components = F.pad(components, (0, SPACE - components.shape[1]))

    def _weighed(self, patches: Tensor) -> Tensor:
        return (patches[(..., *self.box)].flatten(1)[:, self.inside].float() / 255 - self.mean) * self.weight

    def coordinates(self, patches: Tensor) -> Tensor:
        return self._weighed(patches) @ self.components

    def pictures(self, turn: Tensor, size: int) -> Tensor:
        """[160, rank] → [rank, 3, h, w], fading out towards the edges of the box."""
        high, wide = self.hole.shape
        basis = torch.zeros(turn.shape[1], len(self.inside))
        basis[:, self.inside] = (self.components @ turn).mT / self.weight
        down, across = (
            (torch.arange(side).minimum(side - 1 - torch.arange(side)) + 0.5).div(FADE * size).clamp(max=1)
            for side in (high, wide)
        )
        return basis.reshape(-1, 3, high, wide) * down[:, None].minimum(across)


def _box(size: int) -> tuple[slice, slice]:
    down, across = (slice(round(low * size), round(high * size)) for low, high in (DOWN, ACROSS))
    return down, across


def _ridge(squares: Tensor, products: Tensor) -> Tensor:
    """Least squares in double precision: mouths that are near one another say nearly the same."""
    held = RIDGE * torch.eye(len(squares), dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(squares.double() + held, products.double())
    return weights.float()


def _unfolded(weights: Tensor, directions: Tensor) -> Tensor:
    """From weights of (near, principal components, tones, 1) to weights of (near, coordinates, tones, 1)."""
    near, leans, rest = weights.tensor_split([len(weights) - LEANS - TONES - 1, len(weights) - TONES - 1])
    return torch.cat([near, LINEAR * (directions @ leans), LINEAR * rest])
