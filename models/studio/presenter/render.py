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
from models.studio.presenter.shade import KEY, Hit, grade, rgb, towards, unit

FOCUS_Z: Final = 0.4
HALF: Final = 1.56  # half the picture's height at FOCUS_Z, decimetres
NEAR: Final = 7.9
FAR: Final = 10.9
NOTHING: Final = -1  # the material of the background
COARSE: Final = 4  # pixels along the side of a block of the first, coarse march

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

    def pose(self, weights: Tensor, angles: Tensor | None = None, breath: Tensor | None = None) -> Pose:
        """Weights [B, 52], angles [B, 3] in degrees, breath [B] in 0…1 → the pose of this person's face."""
        moved = [None if t is None else t.to(self.device) for t in (angles, breath)]
        return rig.pose(weights.to(self.device), self.traits.mouth_half, *moved)

    @torch.no_grad()
    def pictures(self, pose: Pose, size: int = 512, crop: Crop | None = None, antialias: bool = True) -> Picture:
        crop = crop or Crop(0, 0, size, size)
        table = pose.table()
        batch, (height, width) = table.shape[1], (crop.height, crop.width)
        rays = self._grid(crop, batch)
        start, maybe = self._coarse(table, size, crop)
        u, v, _ = self._through(rays, size)
        image = room(u, v)
        material = torch.full_like(u, NOTHING)
        depth = torch.full_like(u, FAR)
        m = maybe.nonzero()[:, 0]
        image[:, m], material[m], depth[m] = self._colour(rays.at(m), start[m], table, size, 16)
        alpha = (material != NOTHING).to(u.dtype)
        if antialias:
            planes = (p.view(batch, height, width) for p in (material, depth, image.clamp(0, 1.5).sqrt().mean(0)))
            kinds, depths, tones = planes
            plain = (kinds != HAIR) & (kinds != CLOTH)  # strands and knitting cover their own tone
            edge = (spread(kinds, 3) > 0) | (spread(depths, 3) > 0.05) | (plain & (spread(tones, 3) > 0.10))
            e = edge.flatten().nonzero()[:, 0]
            nearest = -F.max_pool2d(-depths[:, None], 5, 1, 2).flatten()[e] - 0.03
            image[:, e], alpha[e] = self._smooth(rays.at(e), nearest, table, size)
            image, alpha = self._combed(image, alpha, depth, pose, size, crop)
        pixels = (grade(image) * 255 + 0.5).to(torch.uint8).view(3, batch, height, width).permute(1, 2, 3, 0)
        shape = (batch, height, width)
        return Picture(pixels.contiguous(), material.to(torch.int8).view(shape), depth.view(shape), alpha.view(shape))

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
        t, _, _ = self._march(d, torch.full_like(px, NEAR), 60, pose.table())
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
            for kind, samples in self._groom.worn(row):
                hx, hy, hz = kind.curves.unbind(-1)
                x, y, z = head.to_world(hx, hy, hz, row, self.traits)
                pixels = self.to_pixels(x, y, z, size)[..., :2] - corner
                away = torch.stack([x - CAMERA[0], y - CAMERA[1], z - CAMERA[2]])
                distance: Tensor = torch.linalg.vector_norm(away, dim=0)
                canvas = fibres.draw(canvas, pixels, distance, kind, size / 2 / HALF, max(4, samples * size // 512))
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

    def _march(
        self, d: Tensor, t: Tensor, steps: int, table: Tensor, finish: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """→ distance travelled, nearest approach, last distance. `table` has one column, or one a ray."""
        stride = 0.8  # the fields are bent by the jaw and the brushes: full steps would overshoot
        near = h = torch.full_like(t, 9.0)
        for _ in range(steps):
            h = self._field(*self._point(d, t), table)
            near = torch.minimum(near, h)
            t = t + h * stride
        slow = ((h.abs() > 0.004) & (t < FAR)).nonzero()[:, 0]  # grazing rays and holes get more steps, alone
        if finish and slow.numel():
            ts, hs, ds = t[slow], h[slow], d[:, slow]
            own = _columns(table, slow)
            for _ in range(40):
                hs = self._field(*self._point(ds, ts), own)
                ts = ts + hs * stride
            t, h = t.clone(), h.clone()
            t[slow], h[slow] = ts, hs
        return t, near, h

    def _coarse(self, table: Tensor, size: int, crop: Crop) -> tuple[Tensor, Tensor]:
        """A depth to start from and a mask of what may be hit, from a march of one ray to a block."""
        batch, rows, columns = table.shape[1], crop.height // COARSE, crop.width // COARSE
        rays = self._grid(crop, batch, COARSE)
        _, _, d = self._through(rays, size)
        t, near, _ = self._march(d, torch.full_like(rays.px, NEAR), 30, _columns(table, rays.frame), finish=False)
        block = 2 * HALF / size * COARSE
        hit = ((near < 1.6 * block) & (t < FAR + 1)).float()
        shape = (batch, 1, rows, columns)
        t = -F.max_pool2d(-t.clamp(max=FAR).view(shape), 3, 1, 1) - 2.0 * block
        hit = F.max_pool2d(hit.view(shape), 3, 1, 1)
        t, hit = (F.interpolate(p, scale_factor=COARSE, mode="nearest").flatten() for p in (t, hit))
        return t, hit > 0

    def _colour(self, rays: Rays, start: Tensor, table: Tensor, size: int, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """→ linear RGB [3, N], material, depth."""
        u, v, d = self._through(rays, size)
        own = _columns(table, rays.frame)
        image = room(u, v)
        t, _, last = self._march(d, start, steps, own)
        hit = (t < FAR) & (last < 0.05)
        material = torch.full_like(u, NOTHING)
        index = hit.nonzero()[:, 0]
        if index.numel():
            image[:, index], material[index] = self._shaded(d[:, index], t[index], _columns(own, index))
        return image, material, torch.where(hit, t, torch.full_like(t, FAR))

    def _smooth(self, rays: Rays, start: Tensor, table: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Four rays to a pixel, on a rotated grid → linear RGB, coverage."""
        image = torch.zeros(3, len(start), device=self.device)
        alpha = torch.zeros_like(start)
        for dx, dy in ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375)):
            moved = Rays(rays.px + dx, rays.py + dy, rays.frame)
            colour, material, _ = self._colour(moved, start, table, size, 14)
            image += colour.clamp(max=1.6) / 4
            alpha += (material != NOTHING) / 4
        return image, alpha

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

    def _shaded(self, d: Tensor, t: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Surface points along directions [3, N] → linear RGB, material."""
        who, haircut = self.traits, self.who.haircut
        x, y, z = self._point(d, t)
        n = self._normal(x, y, z, table)
        pose = rig.unpack(table)
        hx, hy, hz = head.to_head(x, y, z, pose, who)
        _, jaw_y, _ = head.jaw_rest(hx, hy, hz, pose)
        lit = (self._ambient(x, y, z, n, table), self._shadow(x, y, z, n, table))
        hits = Hit(hx, hy, hz, jaw_y, n, -d, *lit)
        two = max(2, len(x))  # see `_field`
        kinds = self._parts(x.expand(two), y.expand(two), z.expand(two), table, self.packed, haircut)
        material = torch.stack(kinds).argmin(0)[: len(x)]
        image = torch.zeros_like(d)
        paints: dict[int, Callable[[Hit, Pose], Tensor]] = {
            SKIN: lambda hit, p: shade.skin(hit, p, who, haircut),
            EYES: lambda hit, p: shade.eye(hit, p, who),
            TEETH: lambda hit, p: shade.tooth(hit, p, who),
            TONGUE: lambda hit, p: shade.tongue(hit, p, who),
            HAIR: lambda hit, p: shade.hair(hit, p, who, haircut),
            CLOTH: lambda hit, _: shade.cloth(hit, who),
        }
        for kind, paint in paints.items():
            m = (material == kind).nonzero()[:, 0]
            if m.numel():
                hit = hits.at(m)
                if kind == CLOTH:
                    hit = hit._replace(x=x[m], y=y[m], z=z[m])
                image[:, m] = paint(hit, rig.unpack(_columns(table, m)))
        return image, material.to(d.dtype)


def _columns(table: Tensor, index: Tensor) -> Tensor:
    """The pose of each ray; a single pose is left to broadcast."""
    return table if table.shape[1] == 1 else table[:, index]
