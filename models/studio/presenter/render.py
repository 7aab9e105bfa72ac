"""The camera: coarse-to-fine marching, anti-aliasing where it shows, pictures and true labels.

The rays of all frames go in one flat list [N] with the frame that each belongs to; a rectangle of the picture can be
rendered alone.
"""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Final, NamedTuple

import torch
from torch.nn import functional as F

from models.studio.presenter import fibres, head, rig, shade
from models.studio.presenter.background import room
from models.studio.presenter.fibres import Canvas
from models.studio.presenter.groom import Groom
from models.studio.presenter.head import CAMERA, CLOTH, EYES, HAIR, SKIN, TEETH, TONGUE
from models.studio.presenter.identity import Identity, unpack
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import Tensor, smoothstep
from models.studio.presenter.shade import KEY, Hit, dot, grade, rgb, towards, unit

FOCUS_Z: Final = 0.4
HALF: Final = 1.56  # half the picture's height at FOCUS_Z, decimetres
NEAR: Final = 7.9
FAR: Final = 10.9
NOTHING: Final = -1  # the material of the background
COARSE: Final = 4  # pixels along the side of a block of the first, coarse march

ARRIVED: Final = 0.0008  # decimetres, an eighth of a pixel of 512; the last step leaves a part of it
AROUND: Final = tuple((y, x) for y in (0, -1, 1) for x in (0, -1, 1))

Shape = tuple[int, int, int]
Field = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, str], Tensor]
Fields = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, str], tuple[Tensor, ...]]


class Crop(NamedTuple):
    """The rectangle of the full picture that is rendered, in pixels; sides are multiples of COARSE."""

    x: int
    y: int
    width: int
    height: int


class Picture(NamedTuple):
    """Pictures with their true labels."""

    rgb: Tensor  # uint8 [B, H, W, 3]
    material: Tensor  # int8 [B, H, W]: head.SKIN …, or NOTHING
    depth: Tensor  # float32 [B, H, W]: decimetres from the camera along the ray
    alpha: Tensor  # float32 [B, H, W]: how much of the pixel is presenter


class Rays(NamedTuple):
    """[N] each: pixel centre (the full picture's), frame."""

    px: Tensor
    py: Tensor
    frame: Tensor

    def at(self, index: Tensor) -> "Rays":
        return Rays(self.px[index], self.py[index], self.frame[index])


class Met(NamedTuple):
    """Where rays met the presenter: [N], or [3, N]."""

    ray: Tensor  # which of the rays
    frame: Tensor
    d: Tensor
    t: Tensor
    place: Tensor  # x, y, z in the world
    normal: Tensor
    kind: Tensor  # head.SKIN …

    def at(self, index: Tensor) -> "Met":
        return Met(*(field[..., index] for field in self))


class Seen(NamedTuple):
    """What was met at each pixel of the grid, to borrow light from: [P], or [3, P]."""

    kind: Tensor  # NOTHING where nobody was met
    place: Tensor
    normal: Tensor
    light: Tensor  # [2, P] key and ambient; below 0 where not known

    @staticmethod
    def of(met: Met, pixels: int) -> "Seen":
        like = met.t
        kind = torch.full((pixels,), NOTHING, device=like.device)
        place, normal = like.new_zeros(3, pixels), like.new_zeros(3, pixels)
        kind[met.ray], place[:, met.ray], normal[:, met.ray] = met.kind, met.place, met.normal
        return Seen(kind, place, normal, like.new_full((2, pixels), -1.0))

    def borrowed(self, met: Met, near: Tensor) -> tuple[Tensor, Tensor]:
        """`near` [K, N]: pixels to ask → [2, N] their light, and how much of it comes from the same surface, 0…1."""
        total, trust = torch.zeros(2, near.shape[1], device=near.device), torch.zeros_like(met.t)
        for pixel in near:
            light, normal = self.light[:, pixel], self.normal[:, pixel]
            off = dot(met.normal, self.place[:, pixel] - met.place).abs()
            share = (1 - off / 0.015).clamp(min=0) * ((dot(met.normal, normal) - 0.8) / 0.2).clamp(0, 1)
            share = share * (self.kind[pixel] == met.kind) * (light[0] >= 0)
            total, trust = total + share * light, trust + share
        return total / trust.clamp(min=1e-6), trust / len(near)


def scene(x: Tensor, y: Tensor, z: Tensor, table: Tensor, packed: Tensor, haircut: str) -> Tensor:
    return head.scene(x, y, z, rig.unpack(table), unpack(packed), haircut)


def parts(x: Tensor, y: Tensor, z: Tensor, table: Tensor, packed: Tensor, haircut: str) -> tuple[Tensor, ...]:
    return head.parts(x, y, z, rig.unpack(table), unpack(packed), haircut)


@cache
def compiled_fields() -> tuple[Field, Fields]:
    """Compiled once a process for everybody; a new haircut adds a graph."""
    return torch.compile(scene, dynamic=True), torch.compile(parts, dynamic=True)


def spread(plane: Tensor, size: int) -> Tensor:
    """[B, H, W] → how much a neighbourhood of size × size differs within itself."""
    highest, lowest = (F.max_pool2d(p[:, None], size, 1, size // 2)[:, 0] for p in (plane, -plane))
    return highest + lowest


class Presenter:
    """One person before the camera.

    `pictures(pose)` owes a pose of any batch; on a CPU batches of one are fastest, on a GPU large ones.
    """

    def __init__(self, who: Identity, device: str | torch.device = "cpu", compiled: bool = True):
        self.who = who
        self.device = torch.device(device)
        self.packed = who.traits.packed(device)
        self.traits = unpack(self.packed)
        self._scene, self._parts = compiled_fields() if compiled else (scene, parts)
        self._rooms: dict[tuple[int, Crop], Tensor] = {}

    def pose(self, weights: Tensor, angles: Tensor | None = None, breath: Tensor | None = None) -> Pose:
        """Weights [B, 52], angles [B, 3] in degrees, breath [B] in 0…1 → the pose of this person's face."""
        moved = [None if t is None else t.to(self.device) for t in (angles, breath)]
        return rig.pose(weights.to(self.device), self.traits.mouth_half, *moved)

    @torch.no_grad()
    def pictures(self, pose: Pose, size: int = 512, crop: Crop | None = None, antialias: bool = True) -> Picture:
        crop = crop or Crop(0, 0, size, size)
        table = pose.table()
        batch, (height, width) = table.shape[1], (crop.height, crop.width)
        shape = (batch, height, width)
        rays = self._grid(crop, batch)
        start, maybe = self._coarse(table, size, crop)
        image = self._room(size, crop).repeat(1, batch)
        m = maybe.nonzero()[:, 0]
        met = self._meet(rays.at(m), start[m], table, size)
        met = met._replace(ray=m[met.ray])
        seen = Seen.of(met, len(start))
        seen.light[:, met.ray] = self._light(met, seen, table, shape)
        image[:, met.ray] = self._painted(met, seen.light[:, met.ray], table)
        depth = torch.full_like(start, FAR)
        depth[met.ray] = met.t
        alpha = (seen.kind != NOTHING).to(start.dtype)
        if antialias:
            planes = (p.view(shape) for p in (seen.kind.to(start.dtype), depth, image.clamp(0, 1.5).sqrt().mean(0)))
            kinds, depths, tones = planes
            plain = (kinds != HAIR) & (kinds != CLOTH)  # strands and knitting cover their own tone
            edge = (spread(kinds, 3) > 0) | (spread(depths, 3) > 0.05) | (plain & (spread(tones, 3) > 0.10))
            e = edge.flatten().nonzero()[:, 0]
            nearest = -F.max_pool2d(-depths[:, None], 5, 1, 2).flatten()[e] - 0.03
            image[:, e], alpha[e] = self._smooth(rays.at(e), e, nearest, seen, table, size, shape)
            image, alpha = self._combed(image, alpha, depth, pose, size, crop)
        pixels = (grade(image) * 255 + 0.5).to(torch.uint8).view(3, *shape).permute(1, 2, 3, 0)
        material = seen.kind.to(torch.int8).view(shape)
        return Picture(pixels.contiguous(), material, depth.view(shape), alpha.view(shape))

    def to_pixels(self, x: Tensor, y: Tensor, z: Tensor, size: int) -> Tensor:
        """World points → [..., 3]: x right, y down, z in pixels of the focal plane, smaller is nearer."""
        scale = (CAMERA[2] - FOCUS_Z) / (CAMERA[2] - z) / HALF
        px = ((x - CAMERA[0]) * scale + 1) * size / 2 - 0.5
        py = (1 - (y - CAMERA[1]) * scale) * size / 2 - 0.5
        return torch.stack([px, py, -z * size / 2 / HALF], -1)

    def surface(self, px: Tensor, py: Tensor, pose: Pose, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where the rays through these pixels [N] of a batch of one meet the presenter, in the world."""
        rays = Rays(px, py, torch.zeros_like(px, dtype=torch.long))
        _, _, d = self._through(rays, size)
        t, _, _ = self._march(d, torch.full_like(px, NEAR), 100, pose.table())
        return self._point(d, t)

    def front(self, x: Tensor, y: Tensor) -> Tensor:
        """The neutral skin's z at (x, y) in head space, walking in from the front."""
        still, z = self.pose(rig.weights({})), torch.full_like(x, 1.25)
        for _ in range(40):
            z = z - 0.7 * head.skin(x, y, z, still, self.traits)[0]
        return z.clamp(min=-1.0)

    @cached_property
    def _groom(self) -> Groom:
        still = self.pose(rig.weights({}))
        near = self if self.device.type == "cpu" else Presenter(self.who, compiled=False)

        def light(points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
            hx, hy, hz = points.unbind(1)
            x, y, z = head.to_world(hx, hy, hz, still, self.traits)
            table = still.table()
            key, ambient = self._shadow(x, y, z, normals, table), self._ambient(x, y, z, normals, table)
            return key, ambient.clamp(min=0.2)

        return Groom(self.who, self.traits, self.device, near.front, light)

    def _combed(
        self, image: Tensor, alpha: Tensor, depth: Tensor, pose: Pose, size: int, crop: Crop
    ) -> tuple[Tensor, Tensor]:
        """Fibres over the marched picture, frame by frame."""
        batch, shape = len(pose.jaw_rot), (crop.height, crop.width)
        images, alphas, depths = image.view(3, batch, *shape), alpha.view(batch, *shape), depth.view(batch, *shape)
        corner = torch.tensor([crop.x, crop.y], device=self.device)
        for b in range(batch):
            row = pose.row(b)
            canvas = Canvas(images[:, b], alphas[b], depths[b])
            for kind in self._groom.worn(row):
                hx, hy, hz = kind.curves.unbind(-1)
                x, y, z = head.to_world(hx, hy, hz, row, self.traits)
                pixels = self.to_pixels(x, y, z, size)[..., :2] - corner
                away = torch.stack([x - CAMERA[0], y - CAMERA[1], z - CAMERA[2]])
                distance: Tensor = torch.linalg.vector_norm(away, dim=0)
                canvas = fibres.draw(canvas, pixels, distance, kind, size / 2 / HALF)
            images[:, b], alphas[b] = canvas.image, canvas.alpha
        return image, alpha

    def _grid(self, crop: Crop, batch: int, block: int = 1) -> Rays:
        sides = ((crop.height, crop.y), (crop.width, crop.x))
        steps = [torch.arange(n // block, device=self.device) * block + (block - 1) / 2 + start for n, start in sides]
        py, px = torch.meshgrid(*steps, indexing="ij")
        n = px.numel()
        frame = torch.arange(batch, device=self.device).repeat_interleave(n)
        return Rays(px.flatten().float().repeat(batch), py.flatten().float().repeat(batch), frame)

    def _through(self, rays: Rays, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """→ u, v in -1…1, unit directions [3, N]."""
        u, v = (rays.px + 0.5) / size * 2 - 1, 1 - (rays.py + 0.5) / size * 2
        return u, v, unit(torch.stack([u * HALF, v * HALF, torch.full_like(u, -(CAMERA[2] - FOCUS_Z))]))

    def _point(self, d: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return CAMERA[0] + d[0] * t, CAMERA[1] + d[1] * t, CAMERA[2] + d[2] * t

    def _field(self, x: Tensor, y: Tensor, z: Tensor, table: Tensor) -> Tensor:
        if len(x) == 1:  # a size of one would be compiled anew, for a minute
            return self._field(x.expand(2), y.expand(2), z.expand(2), table)[:1]
        return self._scene(x, y, z, table, self.packed, self.who.haircut)

    def _march(self, d: Tensor, t: Tensor, steps: int, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """→ distance travelled, nearest approach, last distance. `table` has one column, or one a ray.

        Far from a surface a step goes 0.8 of the distance, since the fields are bent by the jaw and the brushes. Near
        one it is Newton's, by how fast the last step brought the surface nearer: rays that graze would creep. Who has
        arrived, or left the scene, takes no more steps.
        """
        t, near, last = t.clone(), torch.full_like(t, 9.0), torch.full_like(t, 9.0)
        going = torch.arange(len(t), device=t.device)
        step, before = torch.ones_like(t), torch.ones_like(t)
        for _ in range(steps):
            at = t[going]
            h = self._field(*self._point(d[:, going], at), _columns(table, going))
            near[going], last[going] = torch.minimum(near[going], h), h
            closing = ((before - h) / step).clamp(0.4, 1.25)
            step = torch.minimum(h / closing, 0.8 * h + 0.02)
            at = at + step
            t[going] = at
            more = ((h.abs() > ARRIVED) & (at < FAR)).nonzero()[:, 0]
            if not more.numel():
                break
            going, step, before = going[more], step[more], h[more]
        return t, near, last

    def _coarse(self, table: Tensor, size: int, crop: Crop) -> tuple[Tensor, Tensor]:
        """A depth to start from and a mask of what may be hit, from a march of one ray to a block."""
        batch, rows, columns = table.shape[1], crop.height // COARSE, crop.width // COARSE
        rays = self._grid(crop, batch, COARSE)
        _, _, d = self._through(rays, size)
        t, near, _ = self._march(d, torch.full_like(rays.px, NEAR), 30, _columns(table, rays.frame))
        block = 2 * HALF / size * COARSE
        hit = (near < 1.6 * block).float()
        shape = (batch, 1, rows, columns)
        t = -F.max_pool2d(-t.clamp(max=FAR).view(shape), 3, 1, 1) - 2.0 * block
        hit = F.max_pool2d(hit.view(shape), 3, 1, 1)
        t, hit = (F.interpolate(p, scale_factor=COARSE, mode="nearest").flatten() for p in (t, hit))
        return t, hit > 0

    def _room(self, size: int, crop: Crop) -> Tensor:
        """[3, H · W]: the room behind, which never changes."""
        if (size, crop) not in self._rooms:
            u, v, _ = self._through(self._grid(crop, 1), size)
            self._rooms[size, crop] = room(u, v)
        return self._rooms[size, crop]

    def _meet(self, rays: Rays, start: Tensor, table: Tensor, size: int) -> Met:
        _, _, d = self._through(rays, size)
        own = _columns(table, rays.frame)
        t, _, last = self._march(d, start, 56, own)
        ray = ((t < FAR) & (last < 0.05)).nonzero()[:, 0]
        d, t, frame, own = d[:, ray], t[ray], rays.frame[ray], _columns(own, ray)
        x, y, z = self._point(d, t)
        two = max(2, len(x))  # see `_field`
        kinds = self._parts(x.expand(two), y.expand(two), z.expand(two), own, self.packed, self.who.haircut)
        kind = torch.stack(kinds).argmin(0)[: len(x)]
        return Met(ray, frame, d, t, torch.stack([x, y, z]), self._normal(x, y, z, own), kind)

    def _light(self, met: Met, seen: Seen, table: Tensor, shape: Shape) -> Tensor:
        """[2, N] key and ambient light. Both are soft: every other pixel of every other row is asked, and the others
        borrow from it where they lie on the same surface."""
        _, height, width = shape
        row, column = met.ray // width % height, met.ray % width
        small = (met.kind == EYES) | (met.kind == TEETH) | (met.kind == TONGUE)  # with shadows as sharp as they are
        asked = small | ((row % 2 == 0) & (column % 2 == 0))
        a = asked.nonzero()[:, 0]
        seen.light[:, met.ray[a]] = self._asked(met.at(a), table)
        up, down = row % 2, (row % 2) * (row + 1 < height)
        left, right = column % 2, (column % 2) * (column + 1 < width)
        near = torch.stack([met.ray + y * width + x for y in (-up, down) for x in (-left, right)])
        light, trust = seen.borrowed(met, near)
        b = (~asked & (trust < 0.5)).nonzero()[:, 0]
        light[:, b] = self._asked(met.at(b), table)
        return light

    def _asked(self, met: Met, table: Tensor) -> Tensor:
        """[2, N] key and ambient light by asking the field."""
        own = _columns(table, met.frame)
        x, y, z = met.place.unbind(0)
        return torch.stack([self._shadow(x, y, z, met.normal, own), self._ambient(x, y, z, met.normal, own)])

    def _smooth(
        self, rays: Rays, pixel: Tensor, start: Tensor, seen: Seen, table: Tensor, size: int, shape: Shape
    ) -> tuple[Tensor, Tensor]:
        """Four rays to each of these pixels, on a rotated grid → linear RGB, coverage."""
        offsets = torch.tensor([[-0.375, 0.125, 0.375, -0.125], [-0.125, -0.375, 0.125, 0.375]], device=self.device)
        dx, dy = (row.repeat_interleave(len(pixel)) for row in offsets)
        moved = Rays(rays.px.repeat(4) + dx, rays.py.repeat(4) + dy, rays.frame.repeat(4))
        met = self._meet(moved, start.repeat(4), table, size)
        _, height, width = shape
        at = pixel.repeat(4)[met.ray]
        row, column = at // width % height, at % width
        steps = [((row + y).clamp(0, height - 1) - row, (column + x).clamp(0, width - 1) - column) for y, x in AROUND]
        light, trust = seen.borrowed(met, torch.stack([at + y * width + x for y, x in steps]))
        alone = (trust < 0.1).nonzero()[:, 0]
        light[:, alone] = self._asked(met.at(alone), table)
        alpha = torch.zeros_like(moved.px)
        missed = torch.ones_like(moved.px, dtype=torch.bool)
        missed[met.ray] = False
        colour = torch.zeros(3, len(moved.px), device=self.device)
        u, v, _ = self._through(moved.at(missed.nonzero()[:, 0]), size)
        colour[:, missed] = room(u, v)
        colour[:, met.ray] = self._painted(met, light, table)
        alpha[met.ray] = 1.0
        return colour.clamp(max=1.6).view(3, 4, -1).mean(1), alpha.view(4, -1).mean(0)

    def _normal(self, x: Tensor, y: Tensor, z: Tensor, table: Tensor, e: float = 0.0035) -> Tensor:
        slopes = torch.zeros(3, len(x), device=self.device)
        for a, b, c in ((1, -1, -1), (-1, -1, 1), (-1, 1, -1), (1, 1, 1)):
            slopes = slopes + rgb((a, b, c), x) * self._field(x + a * e, y + b * e, z + c * e, table)
        return unit(slopes)

    def _ambient(self, x: Tensor, y: Tensor, z: Tensor, n: Tensor, table: Tensor) -> Tensor:
        closed, total = torch.zeros_like(x), 0.0
        for i, h in enumerate((0.035, 0.10, 0.24, 0.55)):
            d = self._field(x + n[0] * h, y + n[1] * h, z + n[2] * h, table)
            closed = closed + 0.75**i * ((h - d) / h).clamp(0, 1)
            total += 0.75**i
        return (1 - 0.95 * closed / total).clamp(0.02, 1)

    def _shadow(self, x: Tensor, y: Tensor, z: Tensor, n: Tensor, table: Tensor) -> Tensor:
        """1 where the key light, a wide box, is fully in view."""
        lamp = towards(KEY, x)
        softness = 5.0
        seen, t = torch.ones_like(x), torch.full_like(x, 0.03)
        x, y, z = x + n[0] * 0.015, y + n[1] * 0.015, z + n[2] * 0.015
        for _ in range(11):
            h = self._field(x + lamp[0] * t, y + lamp[1] * t, z + lamp[2] * t, table)
            seen = torch.minimum(seen, 0.5 + 0.5 * softness * h / t)
            t = t + h.clamp(0.03, 0.22)
        return smoothstep(0.0, 1.0, seen.clamp(0, 1))

    def _painted(self, met: Met, light: Tensor, table: Tensor) -> Tensor:
        """→ linear RGB [3, N]."""
        who, haircut = self.traits, self.who.haircut
        own = _columns(table, met.frame)
        x, y, z = met.place
        hx, hy, hz = head.to_head(x, y, z, rig.unpack(own), who)
        _, jaw_y, _ = head.jaw_rest(hx, hy, hz, rig.unpack(own))
        hits = Hit(hx, hy, hz, jaw_y, met.normal, -met.d, ambient=light[1], key=light[0])
        image = torch.zeros_like(met.d)
        paints: dict[int, Callable[[Hit, Pose], Tensor]] = {
            SKIN: lambda hit, p: shade.skin(hit, p, who, haircut),
            EYES: lambda hit, p: shade.eye(hit, p, who),
            TEETH: lambda hit, p: shade.tooth(hit, p, who),
            TONGUE: lambda hit, p: shade.tongue(hit, p, who),
            HAIR: lambda hit, p: shade.hair(hit, p, who, haircut),
            CLOTH: lambda hit, _: shade.cloth(hit, who),
        }
        for kind, paint in paints.items():
            m = (met.kind == kind).nonzero()[:, 0]
            if m.numel():
                hit = hits.at(m)
                if kind == CLOTH:
                    hit = hit._replace(x=x[m], y=y[m], z=z[m])
                image[:, m] = paint(hit, rig.unpack(_columns(own, m)))
        return image


def _columns(table: Tensor, index: Tensor) -> Tensor:
    """The pose of each ray; a single pose is left to broadcast."""
    return table if table.shape[1] == 1 else table[:, index]
