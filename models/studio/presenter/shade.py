"""Light and material: what colour a hit point sends to the camera. Everything is linear until `grade`.

Vectors are [3, N]; a colour is a `Triple` until `rgb` makes it [3, 1].
"""

from typing import Final, NamedTuple

import torch

from models.studio.presenter.head import EYE, EYE_R, GAZE_X, GAZE_Y, Lids, Lips, brow, opening, strands
from models.studio.presenter.identity import Traits
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import Number, Tensor, Triple, bump, mix, noise2, ridge, smoothstep

KEY: Final = (-0.52, 0.50, 0.69)
FILL: Final = (0.80, 0.10, 0.59)
RIM: Final = (0.60, 0.42, -0.68)
RIM_L: Final = (-0.75, 0.30, -0.59)
WARM: Final = (1.0, 0.94, 0.86)
COOL: Final = (0.80, 0.90, 1.0)


class Hit(NamedTuple):
    """Where rays met the presenter: head space (cloth: world), the world normal, the way back to the camera, light."""

    x: Tensor
    y: Tensor
    z: Tensor
    jaw_y: Tensor  # where the point is when the mouth is shut
    normal: Tensor  # [3, N]
    view: Tensor  # [3, N]
    ambient: Tensor  # 1 in the open, 0 in a corner
    key: Tensor  # 1 where the key light reaches

    def at(self, index: Tensor) -> "Hit":
        return Hit(*(field[..., index] for field in self))


def unit(v: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v, dim=0)
    return v / size.clamp(min=1e-6)


def rgb(colour: Triple, like: Tensor) -> Tensor:
    parts = [torch.as_tensor(c, dtype=like.dtype, device=like.device) for c in colour]
    return torch.stack(parts)[:, None]


def blend(base: Tensor, colour: Triple, mask: Tensor) -> Tensor:
    return base + (rgb(colour, base) - base) * mask


def scaled(colour: Triple, by: Number) -> Triple:
    return colour[0] * by, colour[1] * by, colour[2] * by


def towards(direction: Triple, like: Tensor) -> Tensor:
    return unit(rgb(direction, like))


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(0)


def turned(v: Tensor, pose: Pose) -> Tensor:
    """A head-space direction [3, N] in the world."""
    r = pose.rotation
    return torch.stack([r[3 * i] * v[0] + r[3 * i + 1] * v[1] + r[3 * i + 2] * v[2] for i in range(3)])


def unturned(v: Tensor, pose: Pose) -> Tensor:
    r = pose.rotation
    return torch.stack([r[i] * v[0] + r[3 + i] * v[1] + r[6 + i] * v[2] for i in range(3)])


def wrap(ndl: Tensor, leak: Triple) -> Tensor:
    """Diffuse light that leaks past the terminator, red the furthest: cheap skin."""
    w = rgb(leak, ndl)
    return ((ndl + w) / (1 + w)).clamp(min=0) ** 1.2


def ggx(n: Tensor, v: Tensor, light: Tensor, rough: Tensor, f0: float) -> Tensor:
    h = unit(v + light)
    nh, nl, nv = dot(n, h).clamp(min=0), dot(n, light).clamp(min=0), dot(n, v).clamp(min=0.05)
    a2 = rough**4
    spread = a2 / (3.1416 * (nh * nh * (a2 - 1) + 1) ** 2)
    k = rough**2 / 2
    visible = 0.25 / ((nl * (1 - k) + k) * (nv * (1 - k) + k))
    fresnel = f0 + (1 - f0) * (1 - dot(v, h).clamp(0, 1)) ** 5
    return spread * visible * fresnel * nl


def light(
    hit: Hit, n: Tensor, albedo: Tensor, rough: Tensor, key: Tensor, ambient: Tensor, leak: Triple, gloss: Number
) -> Tensor:
    """The studio: a big warm key, a cool fill, two rims, a hemisphere."""
    v = hit.view
    keyed, filled, rim, rim_l = (towards(d, n) for d in (KEY, FILL, RIM, RIM_L))
    warm, cool = rgb(WARM, n), rgb(COOL, n)
    soft = key ** rgb((0.75, 1.0, 1.08), n)
    diffuse = 1.92 * warm * wrap(dot(n, keyed), leak) * soft
    diffuse = diffuse + 0.33 * cool * wrap(dot(n, filled), leak) * (0.4 + 0.6 * ambient)
    up = 0.5 + 0.5 * n[1]
    sky = mix(rgb((0.36, 0.27, 0.24), n), rgb((0.48, 0.53, 0.60), n), up) * 0.62
    diffuse = diffuse + sky * ambient ** rgb((0.80, 1.0, 1.05), n)
    back = 1.5 * dot(n, rim).clamp(min=0) + 0.9 * dot(n, rim_l).clamp(min=0)
    open_air = ambient * ambient
    diffuse = diffuse + 0.8 * cool * back * open_air
    shine = 2.3 * ggx(n, v, keyed, rough, 0.030) * key * warm + 0.8 * ggx(n, v, filled, rough, 0.03) * cool * ambient
    facing = smoothstep(0.0, 0.20, dot(n, v))  # finite differences are not to be trusted at the very edge
    rims = 0.9 * ggx(n, v, rim, rough, 0.04) + 0.7 * ggx(n, v, rim_l, rough, 0.04)
    grazing = (1 - dot(n, v).clamp(0, 1)) ** 4
    shine = shine * facing + rims * cool * open_air * facing + 0.22 * grazing * cool * open_air * up
    return albedo * diffuse * 0.62 + shine * gloss


def pores(hit: Hit, amount: Tensor) -> Tensor:
    """The normal, roughened by skin's grain."""

    def grain(a: Tensor, b: Tensor) -> Tensor:
        return noise2(a * 95, b * 95) + 0.6 * noise2(a * 41 + 9, b * 41) + 0.8 * noise2(a * 17, b * 17 + 3)

    e = 0.004
    g = grain(hit.x, hit.y)
    slope = torch.stack([grain(hit.x + e, hit.y) - g, grain(hit.x, hit.y + e) - g, torch.zeros_like(g)])
    return unit(hit.normal - amount * slope)


def skin(hit: Hit, pose: Pose, who: Traits, haircut: str) -> Tensor:
    albedo, rough, wet, inner = skin_albedo(hit, pose, who, haircut)
    n = pores(hit, 0.05 + 0.10 * wet)
    lit = light(hit, n, albedo, rough, hit.key, hit.ambient, (0.42, 0.20, 0.13), who.sheen * (1 + 0.6 * wet))
    dim = 1 - inner * (0.78 - 0.68 * smoothstep(0.35, 0.85, hit.z))
    return lit * dim + albedo * inner * 0.07


def skin_albedo(hit: Hit, pose: Pose, who: Traits, haircut: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """→ albedo, roughness, wetness, how much of it is the inside of the mouth."""
    x, y, z, jaw_y = hit.x, hit.y, hit.z, hit.jaw_y
    base = rgb(who.skin, x).expand(3, x.numel())
    ax = x.abs()
    mottle = noise2(x * 14 + 3, y * 14 + z * 9) * 0.6 + noise2(x * 37, y * 37 + z * 20) * 0.4 - 0.5
    base = base * (1 + mottle * rgb((0.05, 0.09, 0.10), x))
    base = base * (1 + (noise2(x * 110, y * 110) - 0.5) * 0.05)
    flush = 0.42 * bump(ax, y, z, (0.40, -0.30, 0.7), (0.20, 0.16, 0.5))
    flush = flush + 0.35 * bump(ax, y, z, (0, -0.40, 1.0), (0.13, 0.10, 0.25))
    flush = flush + 0.55 * smoothstep(0.68, 0.80, ax) * smoothstep(-0.6, -0.3, y)
    flush = flush + 0.06 * bump(x, jaw_y, z, (0, -1.02, 0.8), (0.15, 0.1, 0.4))
    flush = flush + 0.20 * bump(ax, y, z, (0.335, 0.09, 0.75), (0.20, 0.06, 0.3))
    base = blend(base, who.flush, flush.clamp(0, 1))
    base = base * (1 - 0.14 * bump(ax, y, z, (0.29, -0.14, 0.7), (0.14, 0.06, 0.3)) * rgb((0.8, 1.0, 0.9), base))
    rough = torch.full_like(x, 0.46) - 0.07 * bump(x, y, z, (0, -0.2, 1.0), (0.12, 0.3, 0.4))
    front = smoothstep(0.4, 0.6, z)
    base = lid_paint(base, x, y, front, pose, who)

    h, t = brow(x, y, pose, who)
    hairs = noise2(t * 46 - h * 3.4, h * 0.7 + t * 6 + 5)
    edge = smoothstep(1.0 + 0.35 * (hairs - 0.5), 0.35, h.abs())
    brows = 0.6 * front * edge * smoothstep(-0.02, 0.16, t) * smoothstep(1.06, 0.85, t) * (0.75 + 0.25 * hairs)
    base = blend(base, who.brow, brows)
    rough = mix(rough, torch.full_like(rough, 0.7), brows)

    scalp = smoothstep(-0.055, 0.005, opening(x, y, z, haircut)) * smoothstep(0.1, 0.5, y)
    base = blend(base, scaled(who.hair, 1.5), 0.6 * scalp)

    lips = Lips(x, y, pose, who)
    ends = smoothstep(1.03, 0.93, lips.s)
    facing = smoothstep(0.5, 0.65, z)
    mask = smoothstep(1.06, 0.90, torch.maximum(lips.tu, lips.tl)) * ends * facing
    base, rough = beard(x, y, jaw_y, z, base, rough, mask, who)
    lip = rgb(who.lip, x) * (1 + 0.16 * (noise2(x * 75, y * 9) - 0.5)) * (1 + 0.12 * smoothstep(0.2, 0.8, lips.tl))
    base = mix(base, lip, mask * 0.92)
    line = ridge(lips.slit.clamp(min=0), 0.012) * ends
    base = base * (1 - 0.45 * line * facing)
    rough = mix(rough, torch.full_like(rough, 0.27), mask)
    deep = smoothstep(0.90, 0.84, z) * smoothstep(-0.15, 0.0, z)
    inner = smoothstep(0.006, -0.010, lips.slit) * deep * (lips.s < 1.02)
    return blend(base, (0.30, 0.060, 0.055), inner), rough, mask, inner


def lid_paint(base: Tensor, x: Tensor, y: Tensor, front: Tensor, pose: Pose, who: Traits) -> Tensor:
    """The lid's shadow, the line of the lashes' roots, the waterline."""
    lids = Lids(x, y, pose, who)
    near = smoothstep(1.32, 1.0, lids.s.abs()) * front
    over = lids.y - lids.upper
    shadow = smoothstep(0.075, 0.0, over) * smoothstep(-0.03, 0.0, over) * near
    base = base * (1 - 0.35 * shadow * rgb((0.7, 1.0, 1.0), base))
    wing = who.lash * (0.75 + 0.65 * smoothstep(-0.8, 1.0, lids.s))
    ends = smoothstep(1.15, 1.02, lids.s) * smoothstep(-1.0, -0.85, lids.s)
    hang = 0.06 - 0.05 * smoothstep(0.93, 1.0, lids.s)  # how far below the lid's edge the line may reach
    beneath = smoothstep(-1.0, 0.0, (over + 0.004) / hang)
    lash = smoothstep(wing, wing * 0.5, over) * beneath * ends
    below = lids.lower - lids.y
    under = smoothstep(0.012, 0.003, below.abs()) * smoothstep(1.05, 0.8, lids.s.abs()) * smoothstep(-0.8, 0.6, lids.s)
    waterline = scaled((who.skin[0] + who.flush[0], who.skin[1] + who.flush[1], who.skin[2] + who.flush[2]), 0.5)
    base = blend(base, waterline, 0.6 * smoothstep(0.018, 0.006, (below - 0.004).abs()) * near)
    return blend(base, (0.012, 0.008, 0.007), front * (0.95 * lash + 0.35 * under).clamp(0, 0.95))


def beard(
    x: Tensor, y: Tensor, jaw_y: Tensor, z: Tensor, base: Tensor, rough: Tensor, lip: Tensor, who: Traits
) -> tuple[Tensor, Tensor]:
    mask = beard_mask(x, y, jaw_y, z, who)
    hairs = noise2(x * 85 + y * 12, y * 26 + 7)
    mask = (mask * smoothstep(0.05, 0.55, mask + 0.35 * (hairs - 0.5))) * (0.72 + 0.28 * hairs)
    mask = mask * (1 - lip)
    return blend(base, scaled(who.hair, 0.8), mask * 0.62), mix(rough, torch.full_like(rough, 0.75), mask)


def beard_mask(x: Tensor, y: Tensor, jaw_y: Tensor, z: Tensor, who: Traits) -> Tensor:
    """Where a beard grows, 0…1, in head space."""
    ax = x.abs()
    cheek_line = -0.50 - 0.30 * smoothstep(0.70, 0.25, ax) + 0.28 * smoothstep(0.52, 0.68, ax)
    area = smoothstep(0.66, 0.62, ax) * smoothstep(0.05, -0.05, jaw_y - cheek_line) * smoothstep(-0.15, 0.05, z)
    area = area * smoothstep(-1.22, -1.05, jaw_y - 0.25 * (0.7 - z))
    tache = smoothstep(0.115, 0.02, (y + 0.548 + 0.30 * ax * ax).abs()) * smoothstep(0.36, 0.28, ax)
    tache = tache * smoothstep(0.4, 0.6, z)
    under_lip = 1 - 0.6 * bump(ax, jaw_y, z, (0.13, -0.81, 0.9), (0.06, 0.035, 0.4))
    side = bump(ax, jaw_y, z, (0.31, -0.71, 0.8), (0.07, 0.16, 0.4))
    return torch.maximum(torch.maximum(area * under_lip, tache * 0.95), 0.75 * side).clamp(0, 1) * who.beard


def eye(hit: Hit, pose: Pose, who: Traits) -> Tensor:
    albedo, iris, axis = eye_albedo(hit, pose, who)
    lids = Lids(hit.x, hit.y, pose, who)
    shade = smoothstep(-0.004, 0.062, lids.upper - lids.y) * smoothstep(-0.01, 0.02, lids.y - lids.lower)
    shade = 0.30 + 0.70 * shade
    rough, v = torch.full_like(hit.x, 0.3), hit.view
    lit = light(hit, hit.normal, albedo, rough, 0.55 + 0.45 * hit.key, 0.35 + 0.65 * hit.ambient, (0.3, 0.2, 0.18), 0.0)
    bulge = unit(hit.normal + 0.45 * iris * (hit.normal - turned(axis, pose)))  # the cornea stands out of the ball
    facing = dot(bulge, v)
    mirrored = unit(2 * facing * bulge - v)
    fresnel = 0.05 + 0.6 * (1 - facing.clamp(0, 1)) ** 5
    glint = reflections(mirrored) * fresnel * (2.2 + 1.5 * iris) * rgb((1.0, 0.97, 0.93), lit)
    return lit * shade + glint * smoothstep(0.4, 0.8, shade)


def eye_albedo(hit: Hit, pose: Pose, who: Traits) -> tuple[Tensor, Tensor, Tensor]:
    """→ albedo, iris mask, the gaze's direction in head space."""
    x = hit.x
    side = torch.where(x > 0, 1.0, -1.0)
    gx, gy = GAZE_X * pose.gaze_x - 0.02 * side, GAZE_Y * pose.gaze_y + 0 * x
    axis = unit(torch.stack([torch.sin(gx), torch.sin(gy), torch.cos(gx)]))
    p = unit(torch.stack([x - side * EYE[0], hit.y - EYE[1], hit.z - EYE[2]]))
    along = dot(p, axis)
    r = (p - axis * along).norm(dim=0) * EYE_R  # distance from the gaze's axis, on the ball
    r = torch.where(along > 0, r, torch.ones_like(r))
    height = p[1] - axis[1]
    angle = torch.atan2(height, p[0] - axis[0])
    rim = 0.112
    fibre = noise2(angle * 9 + 40, r * 30) * 0.6 + noise2(angle * 23 + 9, r * 12) * 0.4
    iris = rgb(who.iris, x) * (0.55 + 1.0 * fibre) * (1 + 1.6 * smoothstep(0.03, -0.10, height))
    glow = 1.3 - 0.3 * smoothstep(rim * 0.40, rim * 0.62, r)
    iris = iris * (1 - 0.80 * smoothstep(rim * 0.76, rim, r)) * glow * smoothstep(rim * 0.36, rim * 0.46, r)
    white = rgb((0.66, 0.63, 0.60), x).expand(3, x.numel())
    white = blend(white, (0.62, 0.42, 0.37), 0.55 * smoothstep(0.10, 0.20, (x.abs() - EYE[0]).abs()))
    white = blend(white, (0.50, 0.20, 0.17), smoothstep(0.035, 0.005, x.abs() - (EYE[0] - who.eye_half)))
    mask = smoothstep(rim * 1.06, rim * 0.94, r)
    return mix(white, iris, mask), mask, axis


def reflections(r: Tensor) -> Tensor:
    """What the wet eye mirrors in direction r: a window-like key, a small fill, a dim floor."""
    d = towards((-0.42, 0.52, 0.74), r)
    right = unit(torch.linalg.cross(rgb((0, 1, 0), r), d, dim=0))
    above = torch.linalg.cross(d, right, dim=0)
    a, b = dot(r, right).abs(), dot(r, above).abs()
    box = smoothstep(0.31, 0.23, a) * smoothstep(0.39, 0.29, b) * (dot(r, d) > 0)
    small = smoothstep(0.970, 0.985, dot(r, towards((0.70, -0.05, 0.72), r)))
    return 5.0 * box + 0.8 * small + 0.10 * smoothstep(-0.2, 0.8, r[1])


def wet(hit: Hit, pose: Pose, who: Traits, colour: Triple, roughness: float) -> Tensor:
    """Teeth and tongue: they sink into shade behind the lips, deeper when these are pushed forward."""
    albedo = rgb(colour, hit.x).expand(3, hit.x.numel())
    lips = Lips(hit.x, hit.y, pose, who)
    under = 0.45 + 0.55 * smoothstep(0.0, 0.05, lips.inner_u - hit.y)
    rough = torch.full_like(hit.x, roughness)
    lit = light(hit, hit.normal, albedo, rough, 0.25 + 0.75 * hit.key, hit.ambient**0.8, (0.35, 0.2, 0.15), 0.8)
    glow = 0.16 * albedo * smoothstep(0.2, 0.7, hit.z)
    return (lit * (0.12 + 0.88 * smoothstep(0.45, 0.86, hit.z)) + glow) * under * (1 - 0.5 * pose.round)


def tooth(hit: Hit, pose: Pose, who: Traits) -> Tensor:
    return wet(hit, pose, who, (0.84, 0.79, 0.70), 0.22)


def tongue(hit: Hit, pose: Pose, who: Traits) -> Tensor:
    return wet(hit, pose, who, (0.66, 0.23, 0.21), 0.32)


def hair(hit: Hit, pose: Pose, who: Traits, haircut: str) -> Tensor:
    x, y, z, e = hit.x, hit.y, hit.z, 0.01
    s = strands(x, y, z, haircut)
    slope = torch.stack(
        [strands(x + e, y, z, haircut) - s, strands(x, y + e, z, haircut) - s, strands(x, y, z + e, haircut) - s]
    )
    tangent = turned(unit(torch.linalg.cross(unturned(hit.normal, pose), slope / e, dim=0)), pose)
    along = 2.0 * y + z if haircut == "bob" else 2.5 * z + y
    fine = noise2(s * 260, along) * 0.5 + noise2(s * 120 + 9, along * 0.7) * 0.5
    albedo = rgb(who.hair, x) * (0.45 + 1.1 * fine)
    return strand_light(hit, tangent, albedo, who.hair_shine, fine)


def strand_light(hit: Hit, tangent: Tensor, albedo: Tensor, shine: Triple, jitter: Tensor) -> Tensor:
    """Kajiya-Kay: two highlights, shifted along the strand."""
    n, v = hit.normal, hit.view
    out = torch.zeros_like(n)
    lamps = ((KEY, WARM, 2.0), (FILL, COOL, 0.6), (RIM, (0.9, 0.95, 1.0), 1.6), (RIM_L, (0.9, 0.95, 1.0), 1.1))
    for direction, colour, power in lamps:
        lamp = towards(direction, n)
        reach = hit.key if direction is KEY else hit.ambient
        h = unit(lamp + v)
        facing = (0.25 + 0.75 * dot(n, lamp)).clamp(min=0)
        t1 = unit(tangent + n * (0.10 + 0.25 * (jitter - 0.5)))
        t2 = unit(tangent + n * (-0.12 + 0.25 * (jitter - 0.5)))
        s1 = (1 - dot(t1, h) ** 2).clamp(min=0) ** 45
        s2 = (1 - dot(t2, h) ** 2).clamp(min=0) ** 14
        gate = smoothstep(-0.1, 0.4, dot(n, lamp))
        gloss = gate * (0.16 * sum(shine) * s1 + rgb(shine, n) * 0.42 * s2 * (0.6 + 0.8 * jitter))
        out = out + power * rgb(colour, n) * reach * (albedo * facing + gloss)
    return out * 0.62 + albedo * 0.5 * hit.ambient * (0.6 + 0.4 * n[1])


def cloth(hit: Hit, who: Traits) -> Tensor:
    x, y = hit.x, hit.y
    knit = 0.5 + 0.5 * torch.sin(x * 150 + 1.5 * torch.sin(y * 130))
    albedo = rgb(who.cloth, x) * (0.82 + 0.36 * (knit * 0.6 + 0.4 * noise2(x * 60, y * 60)))
    lit = light(hit, hit.normal, albedo, torch.full_like(x, 0.8), hit.key, hit.ambient, (0.3, 0.3, 0.3), 0.35)
    sheen = (1 - dot(hit.normal, hit.view).clamp(0, 1)) ** 3
    return lit + rgb(who.cloth, x) * sheen * hit.ambient * 1.2


def grade(linear: Tensor) -> Tensor:
    """A filmic curve, and gamma: → 0…1."""
    c = linear.clamp(min=0) * 0.95
    c = (c * (2.51 * c + 0.03)) / (c * (2.43 * c + 0.59) + 0.14)
    return c.clamp(0, 1) ** (1 / 2.2)
