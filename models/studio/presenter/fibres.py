"""Hair that is hair: strands, lashes, brows and beard as curves in space, laid over the marched picture as fine lines.

The solid hair of `head.hair` stays beneath as the mass that casts shadow; fibres give it its surface, its edge and its
strays. They are grown once per person from a seed, rigid with the head or riding on the skin, and drawn by sampling
each curve about once a pixel: every sample adds its share to the four pixels around it, unless it is
behind what is nearer to the camera.

Curves are [S, J, 3] in head space: S fibres of J joints.
"""

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import torch

from models.studio.presenter import head
from models.studio.presenter.head import EYE, EYE_R, Lids, brow_line
from models.studio.presenter.identity import Identity, Traits
from models.studio.presenter.rig import Pose, pose, weights
from models.studio.presenter.sdf import Tensor, mix, noise2, smoothstep

Depth = Callable[[Tensor, Tensor], Tensor]  # the neutral skin's front z at (x, y), head space
HAIR_JOINTS: Final = 14
SHORT_JOINTS: Final = 5
SAMPLES_PER_PIXEL: Final = 1.1  # along a fibre
STEP: Final = 24  # fibres are drawn with this many samples, or a multiple


class Fibres(NamedTuple):
    """What is drawn."""

    curves: Tensor  # [S, J, 3] head space
    width: Tensor  # [S] decimetres
    colour: Tensor  # [3, S, J] linear, lit
    fade: Tensor  # [S, J] 0…1: roots and tips thin out


class Hair(NamedTuple):
    """Grown once: strands rigid with the head."""

    curves: Tensor
    normals: Tensor  # [S, J, 3] of the mass beneath, which light falls on
    width: Tensor
    shade: Tensor  # [S] 0…1: each strand's own darkness
    fade: Tensor


class Stubs(NamedTuple):
    """Short fibres: a root that rides on the face, and the tip's offset from it."""

    root: Tensor  # [S, 2] in the coordinates of what carries it
    tip: Tensor  # [S, 3] head space
    z: Tensor  # [S] the root's depth at rest
    width: Tensor  # [S]


def directions(v: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
    return v / size.clamp(min=1e-6)


def slope(p: Tensor, field: Callable[[Tensor], Tensor], e: float = 0.01) -> Tensor:
    """[S, 3] → the field's gradient there."""
    steps = torch.eye(3) * e
    return torch.stack([field(p + step) - field(p - step) for step in steps], 1) / (2 * e)


# --- Growing ---------------------------------------------------------------------------------------------------------


def grow_hair(who: Identity, count: int) -> Hair:
    """Strands over the hair's own surface: most lie close to it, a few stray."""
    random = torch.Generator().manual_seed(who.seed)
    cut = who.haircut

    def chance(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    def field(p: Tensor) -> Tensor:
        return head.hair(p[:, 0], p[:, 1], p[:, 2], cut)

    def lay(p: Tensor) -> Tensor:
        return head.strands(p[:, 0], p[:, 1], p[:, 2], cut)

    low, high = torch.tensor([-1.1, -1.1, -0.8]), torch.tensor([1.1, 1.4, 1.0])
    p = low + (high - low) * chance(5 * count, 3)
    for _ in range(8):
        p = p - 0.9 * field(p)[:, None] * directions(slope(p, field))
    rooted = head.opening(p[:, 0], p[:, 1], p[:, 2], cut) > {"bob": -1.0, "short": 0.02, "curls": -0.06}[cut]
    p = p[rooted & (field(p).abs() < 0.01) & (slope(p, field)[:, 2] > -0.4)][:count]
    n = len(p)
    stray = chance(n) > 0.978
    lift = 0.003 + 0.018 * chance(n) ** 2 + torch.where(stray, 0.03 * chance(n), torch.zeros(n))
    bend = torch.randn(n, 3, generator=random) * torch.where(stray, 0.06, 0.012)[:, None]
    reach = (0.35 + 0.55 * chance(n)) / HAIR_JOINTS * {"bob": 1.0, "short": 0.55, "curls": 0.22}[cut]
    ahead = torch.tensor([0.0, -1.0, 0.0]) if cut == "bob" else torch.tensor([0.0, 0.25, -1.0])
    shade = 0.55 * noise2(lay(p) * 70, p[:, 1] * 2 + p[:, 2]) + 0.45 * chance(n)

    curve, normals, direction, normal = [], [], torch.zeros_like(p), directions(slope(p, field))
    for joint in range(HAIR_JOINTS):
        held = smoothstep(-0.86, -0.78, p[:, 1])[:, None] if cut == "bob" else torch.ones(n, 1)
        normal = directions(held * slope(p, field) + (1 - held) * normal)  # tips hang free below the mass
        normals.append(normal)
        curve.append(p + (lift * (1 + 1.5 * stray * joint / HAIR_JOINTS))[:, None] * normal)
        along = directions(torch.linalg.cross(normal, slope(p, lay), dim=-1))
        along = along * torch.where((along * ahead).sum(1) < 0, -1.0, 1.0)[:, None]
        along = along if joint == 0 else held * (0.55 * along + 0.45 * direction) + (1 - held) * direction
        direction = directions(along + bend)
        p = p + reach[:, None] * direction
        p = p - 0.8 * held * field(p).clamp(-0.06, 0.06)[:, None] * directions(slope(p, field))
    t = torch.linspace(0, 1, HAIR_JOINTS)
    fade = (smoothstep(0.0, 0.15, t) * smoothstep(1.0, 0.6, t)).expand(n, -1)
    curves = torch.stack(curve, 1)
    if cut == "curls":
        curves = coiled(curves, torch.stack(normals, 1), chance(n), chance(n))
    if cut == "bob":
        ends = -0.93 - 0.08 * chance(n)[:, None]  # nobody cuts hair with a ruler
        fade = fade * smoothstep(0.0, 0.06, curves[..., 1] - ends)
    width = torch.where(stray, 0.0020, 0.0060 if cut == "curls" else 0.0040)
    return Hair(curves, torch.stack(normals, 1), width, shade, fade)


def coiled(curves: Tensor, normals: Tensor, phase: Tensor, size: Tensor) -> Tensor:
    """Each strand wound about where it lay, two to three times; `phase` and `size` [S] in 0…1."""
    along = directions(torch.cat([curves[:, 1:] - curves[:, :-1], curves[:, -1:] - curves[:, -2:-1]], 1))
    side = torch.linalg.cross(normals, along, dim=-1)
    wound = 2 * math.pi * (phase[:, None] + (2.0 + size[:, None]) * torch.linspace(0, 1, curves.shape[1]))
    radius = (0.012 + 0.016 * size)[:, None, None]
    across, away = torch.cos(wound)[..., None], 1 + torch.sin(wound)[..., None]
    offset: Tensor = radius * (across * side + away * normals)
    return curves + offset


def grow_lashes(who: Identity) -> tuple[Stubs, Stubs]:
    """Upper and lower; a root is (side, position across the eye: -1 inner … 1 outer)."""
    random = torch.Generator().manual_seed(who.seed + 1)
    rows = []
    for count, size in ((34, 0.088), (20, 0.036)):
        across = torch.linspace(-0.80, 1.0, count).repeat(2)
        side = torch.tensor([-1.0, 1.0]).repeat_interleave(count)
        across = across + 0.02 * torch.randn(2 * count, generator=random)
        bigger = 0.55 + 0.45 * smoothstep(-0.9, 0.7, across) + 0.12 * torch.rand(2 * count, generator=random)
        long = size * bigger * who.traits.lash / 0.021
        fan = across * 0.75 + 0.12 * torch.randn(2 * count, generator=random)
        tip = torch.stack([side * torch.sin(fan) * long, torch.cos(fan) * long, 0.9 * long], 1)
        rows.append(Stubs(torch.stack([side, across], 1), tip, torch.zeros(2 * count), torch.full_like(long, 0.0062)))
    return rows[0], rows[1]


def grow_brows(who: Identity, depth: Depth, count: int = 320) -> Stubs:
    """A root is (position 0 inner … 1 outer, signed by side; height in half thicknesses)."""
    random = torch.Generator().manual_seed(who.seed + 2)
    u = torch.rand(count, generator=random)
    across = (torch.rand(count, generator=random) * 2 - 1) * 0.8
    side = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)
    angle = torch.deg2rad(70 - 62 * u**0.5 - 22 * across * (0.3 + u) + 7 * torch.randn(count, generator=random))
    long = (0.060 + 0.025 * torch.rand(count, generator=random)) * (1 - 0.30 * u)
    x = side * (0.125 + 0.43 * u)
    y = _brow_height(x, u, across, pose(weights({}), who.traits.mouth_half), who.traits)
    tip = torch.stack([side * long * torch.cos(angle), long * torch.sin(angle), -0.3 * long * u + 0.012], 1)
    thick = 0.0060 + 0.002 * torch.rand(count, generator=random)
    return Stubs(torch.stack([side * (u + 1e-3), across], 1), tip, depth(x, y), thick)


def grow_beard(who: Identity, depth: Depth, density: Callable[[Tensor, Tensor, Tensor], Tensor], count: int) -> Tensor:
    """[S, J, 3] at rest, where `density(x, y, z)` lets them; `count` are tried."""
    random = torch.Generator().manual_seed(who.seed + 3)
    low, high = torch.tensor([-0.68, -1.25]), torch.tensor([0.68, -0.30])
    x, y = (low + (high - low) * torch.rand(count, 2, generator=random)).unbind(1)
    z = depth(x, y)
    kept = (density(x, y, z) > 0.15 + 0.75 * torch.rand(count, generator=random)) & (z > -0.2)
    root = torch.stack([x, y, z], 1)[kept]
    n = len(root)
    out = directions(root - torch.tensor([0.0, -0.55, 0.0]))
    down = directions(torch.stack([0.5 * root[:, 0], torch.full((n,), -1.0), torch.zeros(n)], 1))
    aim = directions(down + 0.55 * out + 0.25 * torch.randn(n, 3, generator=random))
    long = 0.045 + 0.05 * torch.rand(n, generator=random)
    t = torch.linspace(0, 1, SHORT_JOINTS)[None, :, None]
    return root[:, None] + long[:, None, None] * (aim[:, None] * t - 0.25 * out[:, None] * t * t)


# --- Carried by the face ---------------------------------------------------------------------------------------------


def _brow_height(x: Tensor, u: Tensor, across: Tensor, pose: Pose, who: Traits) -> Tensor:
    mid, half = brow_line(u, x, pose, who)
    return mid + across * half


def brow_curves(stubs: Stubs, pose: Pose, who: Traits) -> Tensor:
    side, u = torch.sign(stubs.root[:, 0]), stubs.root[:, 0].abs() - 1e-3
    x = side * (0.125 + 0.43 * u)
    root = torch.stack([x, _brow_height(x, u, stubs.root[:, 1], pose, who), stubs.z + 0.004], 1)
    t = torch.linspace(0, 1, SHORT_JOINTS, device=root.device)[None, :, None]
    bend = root.new_tensor([0.0, -0.012, 0.0])
    return root[:, None] + stubs.tip[:, None] * t + bend * t * t


def lash_curves(stubs: Stubs, pose: Pose, who: Traits, upper: bool) -> Tensor:
    """Upper lashes sweep forward and up from the lid's edge, and lie down with it when it shuts."""
    side, across = stubs.root.unbind(1)
    along = across * who.eye_half
    x = side * (EYE[0] + along)
    lids = Lids(x, x, pose, who)
    y = lids.upper - 0.004 if upper else lids.lower - 0.010
    round_z = (EYE_R + 0.022) ** 2 - along * along - y * y
    root = torch.stack([x, y + EYE[1], EYE[2] + torch.sqrt(round_z.clamp(min=1e-4))], 1)
    t = torch.linspace(0, 1, SHORT_JOINTS, device=x.device)[None, :]
    sideways, up, out = (axis[:, None] for axis in stubs.tip.unbind(1))
    raised = (1 - 1.5 * lids.blink)[:, None] if upper else torch.full_like(up, -0.8)
    offset = torch.stack([sideways * t, up * (raised * t**1.6 - 0.12 * t), out * t * (1 - 0.35 * t)], -1)
    return root[:, None] + offset


# --- Drawing ---------------------------------------------------------------------------------------------------------


class Canvas(NamedTuple):
    """What fibres are drawn on: one frame."""

    image: Tensor  # [3, H, W] linear
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W] along the ray


def draw(canvas: Canvas, pixels: Tensor, distance: Tensor, fibres: Fibres, scale: float) -> Canvas:
    """`pixels` [S, J, 2] on the canvas and `distance` [S, J] from the camera; `scale` is pixels to a decimetre."""
    height, width = canvas.depth.shape
    low, high = pixels.amin(1), pixels.amax(1)
    seen = ((high >= 0) & (low < pixels.new_tensor([width - 1, height - 1]))).all(1).nonzero()[:, 0]
    pixels, distance = pixels[seen], distance[seen]
    fibres = Fibres(fibres.curves[seen], fibres.width[seen], fibres.colour[:, seen], fibres.fade[seen])
    reach = (pixels[:, 1:] - pixels[:, :-1]).norm(dim=-1).sum(1)
    ink = Ink(*(torch.zeros(n, height * width, device=pixels.device) for n in (1, 1, 3)))
    samples = ((reach * SAMPLES_PER_PIXEL / STEP).ceil().clamp(min=1) * STEP).long()  # alike go together
    for count in samples.unique().tolist():
        at = (samples == count).nonzero()[:, 0]
        some = Fibres(fibres.curves[at], fibres.width[at], fibres.colour[:, at], fibres.fade[at])
        _splat(ink, canvas, pixels[at], distance[at], some, reach[at] * scale, count)
    opaque = (1 - torch.exp(-1.4 * ink.cover)).view(height, width)
    mean = (ink.paint / ink.weight.clamp(min=1e-9)).view(3, height, width)
    return canvas._replace(image=mix(canvas.image, mean, opaque), alpha=canvas.alpha + (1 - canvas.alpha) * opaque)


class Ink(NamedTuple):
    """What has been splatted so far, [·, H · W]."""

    cover: Tensor
    weight: Tensor
    paint: Tensor


def _splat(
    ink: Ink, canvas: Canvas, pixels: Tensor, distance: Tensor, fibres: Fibres, area: Tensor, samples: int
) -> None:
    """`area` [S]: a fibre's length in pixels times pixels to a decimetre; each sample carries its share of it."""
    height, width = canvas.depth.shape
    place = torch.linspace(0, pixels.shape[1] - 1.001, samples, device=pixels.device)
    first, part = place.floor().long(), (place - place.floor())

    def between(joints: Tensor) -> Tensor:
        """[S, J] → [S · samples]."""
        return (joints[:, first] * (1 - part) + joints[:, first + 1] * part).flatten()

    x, y, far = between(pixels[..., 0]), between(pixels[..., 1]), between(distance)
    share = between(fibres.fade) * (fibres.width * area / samples).repeat_interleave(samples)
    kept = ((x >= 0) & (x < width - 1) & (y >= 0) & (y < height - 1) & (share > 1e-4)).nonzero()[:, 0]
    x, y, far, share = x[kept], y[kept], far[kept], share[kept]
    hidden = canvas.depth.flatten()[(y + 0.5).floor().long() * width + (x + 0.5).floor().long()]
    share = share * smoothstep(0.045, 0.025, far - hidden)
    visible = (share > 1e-4).nonzero()[:, 0]
    x, y, far, share, kept = x[visible], y[visible], far[visible], share[visible], kept[visible]
    column, row = x.floor().long(), y.floor().long()
    colour = torch.stack([between(channel)[kept] for channel in fibres.colour])
    nearer = torch.exp(6 * (9.0 - far))  # of fibres that cross, the nearer one has more say
    fx, fy = x - column, y - row
    for dx, dy, tap in ((0, 0, (1 - fx) * (1 - fy)), (1, 0, fx * (1 - fy)), (0, 1, (1 - fx) * fy), (1, 1, fx * fy)):
        at, part_share = (row + dy) * width + column + dx, tap * share
        ink.cover[0].index_add_(0, at, part_share)
        ink.weight[0].index_add_(0, at, part_share * nearer)
        ink.paint.index_add_(1, at, colour * (part_share * nearer))
