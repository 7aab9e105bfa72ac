"""The presenter as distance fields. Decimetres; x is the viewer's right (the person's left), y up, z to the camera.

The eye line is y = 0, the mouth line y = MOUTH_Y. `parts` gives one distance per material; everything that moves is
written in terms of the pose: the jaw by warping the sample point back to rest, lips and lids as curves from which shape
and colour both come.
"""

from typing import Final

import torch

from models.studio.presenter.identity import Traits
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import (
    Tensor,
    bump,
    cone,
    ellipsoid,
    length,
    mix,
    ridge,
    smax,
    smin,
    smoothstep,
    sphere,
)

CAMERA: Final = (0.0, -0.20, 9.5)
MOUTH_Y: Final = -0.665
EYE: Final = (0.328, 0.0, 0.540)
EYE_R: Final = 0.225
GAZE_X: Final = 0.45  # radians that a gaze of 1 turns the eyes
GAZE_Y: Final = 0.40
PIVOT: Final = (0.0, -0.95, -0.15)  # the head turns about this point of the neck
BODY_UP: Final = 0.31
HINGE: Final = (-0.15, 0.0)  # y, z of the jaw joint

WALL: Final = 0.05  # of flesh between the mouth's inside and the air

SKIN, EYES, TEETH, TONGUE, HAIR, CLOTH = range(6)


def to_head(x: Tensor, y: Tensor, z: Tensor, pose: Pose, who: Traits) -> tuple[Tensor, Tensor, Tensor]:
    """World → head space (the inverse of the head's rotation about the neck)."""
    r = pose.rotation
    x, y, z = x - PIVOT[0], y - PIVOT[1], z - PIVOT[2]
    hx = r[0] * x + r[3] * y + r[6] * z + PIVOT[0]
    hy = r[1] * x + r[4] * y + r[7] * z + PIVOT[1]
    hz = r[2] * x + r[5] * y + r[8] * z + PIVOT[2]
    return hx, torch.where(hy < 0, hy / who.face_length, hy), hz


def to_world(x: Tensor, y: Tensor, z: Tensor, pose: Pose, who: Traits) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of `to_head`."""
    r = pose.rotation
    y = torch.where(y < 0, y * who.face_length, y)
    x, y, z = x - PIVOT[0], y - PIVOT[1], z - PIVOT[2]
    return (
        r[0] * x + r[1] * y + r[2] * z + PIVOT[0],
        r[3] * x + r[4] * y + r[5] * z + PIVOT[1],
        r[6] * x + r[7] * y + r[8] * z + PIVOT[2],
    )


def to_body(x: Tensor, y: Tensor, z: Tensor, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """World → shoulders, which follow the head a little and rise with the breath."""
    c, s = torch.cos(pose.follow), torch.sin(pose.follow)
    low = smoothstep(-0.9, -1.5, y)
    turned_x, turned_z = c * x - s * (z + 0.2), s * x + c * (z + 0.2) - 0.2
    chest = bump(x, y, z, (0.0, -1.9, 0.2), (0.9, 0.6, 0.6))
    return mix(x, turned_x, low), y - 0.014 * pose.breath * low, mix(z, turned_z, low) - 0.02 * pose.breath * chest


def jaw_rest(x: Tensor, y: Tensor, z: Tensor, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """Head space → where that point of the jaw was at rest: a hinge, and the condyle's slide."""
    y, z = y + pose.jaw_drop - HINGE[0], z - 0.6 * pose.jaw_drop - HINGE[1]
    s, c = torch.sin(pose.jaw_rot), torch.cos(pose.jaw_rot)
    return x - pose.jaw_side, c * y + s * z + HINGE[0], c * z - s * y + HINGE[1]


def jaw_share(y: Tensor, z: Tensor) -> Tensor:
    """How much of the jaw's movement the skin at this height takes: 0 at the cheekbones, 1 at the chin."""
    return smoothstep(-0.36, -1.12, y + 0.30 * (0.85 - z))


def skin_moved(rest: Tensor, pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """[P, 3] at rest → posed: the inverse of the warp that `skin` draws with, by fixed point."""
    x, y, z = rest.unbind(1)
    qx, qy, qz = x, y, z
    for _ in range(16):
        jx, jy, jz = jaw_rest(qx, qy, qz, pose)
        w = jaw_share(qy, qz)
        qx, qy, qz = qx + x - mix(qx, jx, w), qy + y - mix(qy, jy, w), qz + z - mix(qz, jz, w)
    return qx, qy, qz


class Lips:
    """The lips' four curves at the given x: inner and outer, upper and lower."""

    def __init__(self, x: Tensor, y: Tensor, pose: Pose, who: Traits):
        x = x - pose.shift
        left = smoothstep(-0.12, 0.12, x)
        self.width = mix(pose.width_r, pose.width_l, left)
        corner = MOUTH_Y + mix(pose.corner_r, pose.corner_l, left)
        s = (x / self.width).abs()
        inside = (1 - s * s).clamp(min=0)
        lens = 1 - s * s
        arch = mix(lens, torch.where(s < 1, torch.sqrt(inside + 1e-6), lens), 0.25 + 0.55 * pose.round)
        top, bottom = MOUTH_Y + pose.up - 0.010, MOUTH_Y - pose.down - 0.010
        wave = 0.010 * ridge(s - 0.45, 0.22) * (1 - pose.round)
        self.inner_u = corner + (top - corner) * arch + wave
        self.inner_l = corner + (bottom - corner) * arch + wave
        self.mid = (self.inner_u + self.inner_l) / 2
        self.half = (pose.up + pose.down) * arch / 2 - 0.004 - 1.6 * self.width * (s - 1).clamp(min=0)
        taper = torch.sqrt(inside + 1e-6)
        bow = 1 + 0.16 * ridge(s - 0.25, 0.16) - 0.20 * ridge(s, 0.13)
        self.tall_u = who.lip_upper * pose.thick_u * taper**1.5 * bow + 0.004
        self.tall_l = who.lip_lower * pose.thick_l * taper**1.2 + 0.004
        self.s, self.inside = s, inside
        self.tu = (y - self.inner_u) / self.tall_u
        self.tl = (self.inner_l - y) / self.tall_l
        self.slit = (y - self.mid).abs() - self.half

    def swell(self, y: Tensor, who: Traits) -> Tensor:
        """How far the vermilion stands out of the skin."""

        def profile(t: Tensor) -> Tensor:
            t = t.clamp(0, 1.25)
            bulge = 1 - (t / 1.25) ** 2
            return bulge * bulge * (0.72 + 0.28 * smoothstep(0.0, 0.45, t))

        strength = torch.sqrt(self.inside + 1e-6)
        return strength * who.lip_full * torch.where(y > self.mid, 0.85 * profile(self.tu), 1.05 * profile(self.tl))


class Lids:
    """One eye's aperture at the given point, in eye-local coordinates (outwards, up)."""

    def __init__(self, x: Tensor, y: Tensor, pose: Pose, who: Traits):
        left = (x > 0).to(x.dtype)
        blink = mix(pose.blink_r, pose.blink_l, left)
        self.x = x.abs() - EYE[0]
        self.y = y - EYE[1]
        s = self.x / who.eye_half
        inside = (1 - s * s).clamp(min=0)
        tilt = who.eye_tilt * s
        up = torch.where(s.abs() < 1, (inside + 1e-6) ** 0.62, 0.5 * (1 - s.abs())) * (1 + 0.06 * s)
        low = torch.where(s.abs() < 1, (inside + 1e-6) ** 0.8, 0.5 * (s.abs() - 1)) * (1 + 0.15 * s)
        squint = 0.022 * mix(pose.squint_r, pose.squint_l, left)
        open_u = tilt + who.eye_upper * (1 + 0.22 * pose.wide) * up
        low_y = tilt - (who.eye_lower - squint) * low
        shut = tilt - 0.75 * who.eye_lower * low
        self.upper = mix(open_u, shut - 0.006, blink)
        self.lower = mix(low_y, shut, blink)
        self.open_u = open_u
        self.mid = (self.upper + self.lower) / 2
        self.half = (self.upper - self.lower) / 2 - 0.4 * who.eye_half * (s.abs() - 1).clamp(min=0) - 0.002
        self.slit = (self.y - self.mid).abs() - self.half
        self.s, self.inside, self.blink = s, inside, blink


def brow_line(u: Tensor, x: Tensor, pose: Pose, who: Traits) -> tuple[Tensor, Tensor]:
    """Position 0 inner … 1 outer → (height of the brow's middle, its half thickness)."""
    left = smoothstep(-0.12, 0.12, x)
    outer = mix(pose.brow_out_r, pose.brow_out_l, left)
    down = mix(pose.brow_down_r, pose.brow_down_l, left)
    mid = who.brow_y - 0.012 + 0.075 * torch.sin(u * 2.3) - 0.050 * u * u
    mid = mid + 0.075 * pose.brow_in * (1 - u) ** 1.5 + 0.065 * outer * u - 0.060 * down * (1 - 0.6 * u)
    return mid, who.brow_thick * (1.05 - 0.80 * u**1.6)


def brow(x: Tensor, y: Tensor, pose: Pose, who: Traits) -> tuple[Tensor, Tensor]:
    """(signed height above the brow's middle in units of its half thickness, position 0 inner … 1 outer)."""
    t = (x.abs() - 0.125) / 0.43
    mid, half = brow_line(t.clamp(0, 1), x, pose, who)
    return (y - mid) / half, t


def skin(x: Tensor, y: Tensor, z: Tensor, pose: Pose, who: Traits) -> tuple[Tensor, Tensor]:
    """Head, without neck → as it is seen; as it would be with the mouth sewn shut, to clamp what must stay inside."""
    jx, jy, jz = jaw_rest(x, y, z, pose)
    w = jaw_share(y, z)
    rx, ry, rz = mix(x, jx, w), mix(y, jy, w), mix(z, jz, w)  # rest-space point of the stretched lower face
    soft = torch.sqrt(x * x + 0.0012)  # no crease down the middle
    rax = torch.sqrt(rx * rx + 0.0012)

    d = ellipsoid(x, ry, rz, (0, 0.33, -0.10), (0.73, 0.82, 0.92))
    d = smin(d, ellipsoid(rx, ry, rz, (0, -0.22, 0.16), (who.face_width, 0.72, 0.66)), 0.20)
    corner, point = (who.jaw_width, who.jaw_y, 0.02), (0.05, -0.945, 0.55)
    jaw = cone(rax, ry, rz, corner, point, who.jaw_radius, 0.5 * who.jaw_radius + 0.06)
    d = smin(d, jaw, 0.24)
    d = smin(d, ellipsoid(rx, ry, rz, (0, -0.97, 0.69), who.chin), 0.27)
    d = smin(d, ellipsoid(rx, ry, rz, (0, -0.66, 0.488), who.muzzle), 0.26)

    smile = mix(pose.smile_r, pose.smile_l, smoothstep(-0.12, 0.12, x))
    d = d - who.cheek * bump(rax, ry, rz, (0.42, -0.20, 0.62), (0.22, 0.18, 0.40))
    d = d - (0.025 + 0.050 * smile) * bump(rax, ry, rz, (0.37, -0.33, 0.72), (0.17, 0.15, 0.4))
    fold = rax + 0.35 * (ry + 0.60).clamp(-0.25, 0.25)
    d = d + (0.003 + 0.022 * smile) * bump(fold, ry, rz, (0.27, -0.58, 0.8), (0.035, 0.15, 0.4))
    d = d - 0.09 * pose.puff * bump(rax, ry, rz, (0.42, -0.66, 0.6), (0.22, 0.22, 0.5))
    d = d - who.brow_ridge * bump(soft, y, z, (0.30, 0.21, 0.78), (0.26, 0.10, 0.4))
    d = d + 0.045 * bump(soft, y, z, (0.20, 0.02, 0.75), (0.10, 0.11, 0.3))
    d = d + 0.030 * bump(soft, y, z, (0.70, 0.22, 0.40), (0.16, 0.22, 0.3))
    d = d + 0.022 * bump(rx, ry, rz, (0, -0.83, 0.85), (0.17, 0.055, 0.3))
    frown = (pose.brow_down_l + pose.brow_down_r) / 2
    d = d - 0.030 * bump(soft, y, z, (0.12, 0.24, 0.8), (0.09, 0.09, 0.3)) * frown

    d = smin(d, nose(x, soft, y, z, who), 0.125)
    nostril = ellipsoid(soft, y - 0.12 * (soft - 0.06), z, (0.050, -0.440, 0.915), (0.028, 0.024, 0.046))
    d = smax(d, -nostril, 0.03)
    d = d + 0.012 * bump(x, y, z, (0, -0.535, 0.92), (0.028, 0.06, 0.2))
    d = smin(d, ear(soft, y, z), 0.05)

    # eyes: a lid shell over the ball, then the almond cut through it
    lids = Lids(x, y, pose, who)
    d = smin(d, sphere(soft, y, z, EYE, EYE_R + 0.024), 0.075)
    crease = ridge(lids.y - lids.open_u - 0.052, 0.020) * smoothstep(0, 0.35, lids.inside)
    d = d + 0.013 * crease * (1 - 0.7 * lids.blink)
    d = d - 0.003 * ridge(lids.y - lids.lower + 0.040, 0.022) * smoothstep(0, 0.5, lids.inside)
    d = smax(d, -torch.maximum(lids.slit, 0.45 - z), 0.020)

    # mouth
    lips = Lips(x, y, pose, who)
    front = smoothstep(0.45, 0.70, z)
    middle = MOUTH_Y + (pose.up - pose.down) / 2  # not the curve: its ends would crease the cheek
    push = bump(x - pose.shift, y - middle, z, (0, 0, 0.9), (0.26, 0.20, 0.5))
    d = d - front * (lips.swell(y, who) + pose.protrude * push)
    end = MOUTH_Y + mix(pose.corner_r, pose.corner_l, smoothstep(-0.1, 0.1, x))
    d = d + front * 0.007 * bump(soft, y, z, (lips.width + 0.012, end, 0.8), (0.040, 0.035, 0.4))
    cavity = ellipsoid(x, (y + jy) / 2, (z + jz) / 2, (0, MOUTH_Y - 0.02, 0.48), (0.26, 0.07, 0.27))
    cavity = torch.minimum(cavity, ellipsoid(jx, jy, jz, (0, MOUTH_Y - 0.03, 0.46), (0.24, 0.075, 0.25)))
    cavity = smax(cavity, d + WALL, 0.03)  # no mix of weights may wear the cheek or the chin through
    hole = smin(torch.maximum(lips.slit, 0.40 - z), cavity, 0.05)
    return smax(d, -hole, 0.055), d


def nose(x: Tensor, soft: Tensor, y: Tensor, z: Tensor, who: Traits) -> Tensor:
    d = cone(x, y, z, (0, 0.13, 0.735), (0, -0.31, 0.945), who.nose_bridge, who.nose_tip * 0.9)
    d = smin(d, sphere(x, y, z, (0, -0.340, 0.968), who.nose_tip), 0.09)
    wing = (who.nose_tip * 0.74, who.nose_tip * 0.76, who.nose_tip * 1.15)
    return smin(d, ellipsoid(soft, y, z, (who.nose_width, -0.383, 0.862), wing), 0.06)


def ear(soft: Tensor, y: Tensor, z: Tensor) -> Tensor:
    d = ellipsoid(soft - 0.18 * (y + 0.1), y, z + 0.15 * y, (0.735, -0.13, -0.08), (0.065, 0.255, 0.155))
    d = d + 0.075 * bump(soft, y, z, (0.82, -0.16, -0.02), (0.12, 0.10, 0.060))
    return d + 0.035 * bump(soft, y, z, (0.82, 0.04, -0.09), (0.12, 0.07, 0.045))


def teeth(x: Tensor, y: Tensor, z: Tensor, pose: Pose) -> Tensor:
    """The upper arch is fixed to the skull, the lower to the jaw."""

    def arch(x: Tensor, y: Tensor, z: Tensor, rx: float, rz: float, low: float, high: float) -> Tensor:
        q = length(x / rx, (z - 0.44) / rz)
        d = ((q - 1) * rx).abs() - 0.022
        t = torch.atan2(x / rx, (z - 0.44) / rz) * 5.2
        gap = ridge(t - torch.floor(t) - 0.5, 0.09)
        mid = (low + high) / 2
        d = smax(d, (y - mid).abs() - (high - low) / 2 + 0.006 * gap, 0.03)
        return torch.maximum(d + 0.0035 * gap, 0.45 - z)

    upper = arch(x, y, z, 0.25, 0.335, MOUTH_Y - 0.060, MOUTH_Y + 0.13)
    lower = arch(*jaw_rest(x, y, z, pose), 0.228, 0.300, MOUTH_Y - 0.18, MOUTH_Y - 0.085)
    return torch.minimum(upper, lower)


def tongue(x: Tensor, y: Tensor, z: Tensor, pose: Pose) -> Tensor:
    jx, jy, jz = jaw_rest(x, y, z, pose)
    out = pose.tongue
    d = ellipsoid(jx, jy - 0.06 * out, jz - 0.32 * out, (0, MOUTH_Y - 0.105, 0.46), (0.175, 0.085, 0.28))
    return d + 0.018 * ridge(jx, 0.035)


def eyes(x: Tensor, y: Tensor, z: Tensor, who: Traits) -> Tensor:
    ball = sphere(x.abs(), y, z, EYE, EYE_R)
    caruncle = sphere(x.abs(), y, z, (EYE[0] - who.eye_half + 0.012, -0.004, 0.665), 0.034)
    return smin(ball, caruncle, 0.02)


def opening(x: Tensor, y: Tensor, z: Tensor, haircut: str) -> Tensor:
    """Level sets of the hair's edge in front view: negative over the face. Strands run along them."""
    if haircut == "bob":
        yy = y + 0.25 * (torch.sqrt((x - 0.18) ** 2 + 0.010)) + 0.165
        wide = 0.60 - 0.05 * smoothstep(-0.2, -0.9, y)
        q = ((x / wide).abs() ** 2.4 + (yy.abs() / 0.97) ** 2.4 + 1e-6) ** (1 / 2.4)
        return (q - 1) * 0.6
    if haircut == "curls":
        brow = 0.60 - 0.30 * x * x - 0.25 * x**4 - 2.0 * (0.30 - z).clamp(min=0)
        return smax(x.abs() - 0.60 - 0.10 * smoothstep(0.3, 0.7, y), y - brow, 0.25)
    line = 0.665 - 0.10 * (x / 0.5) ** 2 + 0.05 * ridge(x.abs() - 0.42, 0.12) - 2.0 * (0.30 - z).clamp(min=0)
    return smax(x.abs() - 0.62 - 0.10 * smoothstep(0.3, 0.7, y), y - line, 0.15)


def strands(x: Tensor, y: Tensor, z: Tensor, haircut: str) -> Tensor:
    """A coordinate that is constant along a strand."""
    if haircut == "bob":
        o = opening(x, y, z, haircut)
        return o + 0.25 * z * smoothstep(0.7, -0.3, z) + 0.02 * torch.sin(3 * y + 5 * x)
    if haircut == "curls":
        return 0.05 * (torch.sin(23 * x + 3 * torch.sin(17 * y)) + torch.sin(21 * z + 2 * torch.sin(19 * x + 11 * y)))
    round_z = torch.atan2(x, y + 0.55)  # swept back: strands run front to rear all over
    return round_z + 0.12 * z + 0.03 * torch.sin(4 * z + 3 * round_z)


def hair(x: Tensor, y: Tensor, z: Tensor, haircut: str) -> Tensor:
    o = opening(x, y, z, haircut)
    u = strands(x, y, z, haircut)
    if haircut == "bob":
        d = ellipsoid(x, y, z, (0, 0.38, -0.12), (0.85, 0.90, 0.98))
        d = smin(d, ellipsoid(x, y, z, (0, -0.22, -0.16), (0.90, 0.95, 0.84)), 0.25)
        d = smax(d, -0.86 - 0.10 * z - y, 0.14)
        d = smax(d, -torch.maximum(o, 0.02 - z), 0.13)
        clumps = 0.010 * torch.sin(u * 55 + 2.0 * torch.sin(u * 9)) + 0.005 * torch.sin(u * 131 + 1.3 * y)
        return d + clumps * smoothstep(0.02, 0.14, o)
    if haircut == "curls":
        edge = smoothstep(-0.10, 0.24, o)
        d = ellipsoid(x, y, z, (0, 0.34, -0.10), (0.73, 0.81, 0.91)) - 0.125 * edge + 0.05 * (1 - edge)
        d = smax(d, -0.16 - 0.5 * smoothstep(0.2, -0.5, z) - y, 0.10)
        d = smax(d, -ellipsoid(x.abs(), y, z, (0.84, -0.14, -0.03), (0.17, 0.27, 0.19)), 0.06)
        tufts = torch.sin(27 * x + 2 * torch.sin(13 * y)) * torch.sin(25 * y + 2 * torch.sin(15 * z))
        return d + 0.014 * tufts * torch.sin(26 * z + 2 * torch.sin(14 * x)) * smoothstep(0.08, 0.30, o)
    # a shell over the skull, full on top, cropped at the sides, thinning to nothing at the hairline
    edge = smoothstep(-0.06, 0.50, o) ** 0.7
    full = 0.040 + 0.150 * smoothstep(0.55, 1.05, y) * smoothstep(-0.5, 0.35, z)
    d = ellipsoid(x, y, z, (0, 0.33, -0.10), (0.73, 0.82, 0.92)) - full * edge + 0.05 * (1 - edge)
    d = smax(d, -0.05 - 0.5 * smoothstep(0.2, -0.5, z) - y, 0.06)
    d = smax(d, -ellipsoid(x.abs(), y, z, (0.80, -0.12, -0.05), (0.16, 0.30, 0.20)), 0.05)
    clumps = 0.007 * torch.sin(u * 34 + 2.0 * torch.sin(u * 13 + 3 * z)) + 0.003 * torch.sin(u * 103 + 5 * z)
    cropped = 0.25 + 0.75 * smoothstep(0.72, 0.45, x.abs())  # at the sides
    return d + clumps * smoothstep(0.02, 0.20, o) * cropped


def neck(x: Tensor, y: Tensor, z: Tensor, who: Traits) -> Tensor:
    y = y - BODY_UP
    d = cone(x, y, z, (0, -0.90, -0.12), (0, -1.75, -0.22), who.neck, who.neck * 1.06)
    slope = cone(torch.sqrt(x * x + 0.02), y, z, (0.20, -1.50, -0.15), (who.shoulder * 0.80, -1.98, -0.30), 0.22, 0.20)
    d = smin(d, slope, 0.30)
    d = d - 0.018 * bump(x.abs() - 0.35 * (y + 1.3), y, z, (0.22, -1.35, 0.25), (0.07, 0.40, 0.3))
    collarbone = cone(torch.sqrt(x * x + 0.01), y, z, (0.16, -1.83, 0.17), (0.75, -1.76, -0.02), 0.05, 0.05)
    d = smin(d, collarbone, 0.14)
    return smin(d, ellipsoid(x, y, z, (0, -2.5, -0.12), (who.shoulder * 0.95, 0.85, 0.52)), 0.18)


def cloth(x: Tensor, y: Tensor, z: Tensor, who: Traits) -> Tensor:
    y = y - BODY_UP
    d = cone(x.abs(), y, z, (0.28, -1.62, -0.22), (who.shoulder - 0.08, -2.05, -0.28), 0.26, 0.27)
    d = smin(d, ellipsoid(x, y, z, (0, -2.6, -0.12), (who.shoulder * 1.02, 1.02, 0.60)), 0.30)
    arm = cone(x.abs(), y, z, (who.shoulder - 0.05, -2.1, -0.28), (who.shoulder + 0.12, -3.2, -0.2), 0.29, 0.25)
    d = smin(d, arm, 0.15)
    neckline = length(x * 0.92, y + 1.28, (z - 0.10) * 0.6) - 0.60  # what this ball cuts away
    d = smax(d, -neckline, 0.02)
    collar = length(d - 0.01, neckline - 0.03) - 0.038
    folds = 0.010 * torch.sin(7 * x + 5 * y + 2 * torch.sin(3 * y - 2 * x)) * smoothstep(0.1, 0.6, neckline)
    return smin(d + folds, collar, 0.03)


def parts(x: Tensor, y: Tensor, z: Tensor, pose: Pose, who: Traits, haircut: str) -> tuple[Tensor, ...]:
    """World point → distances to skin, eyes, teeth, tongue, hair, cloth."""
    hx, hy, hz = to_head(x, y, z, pose, who)
    bx, by, bz = to_body(x, y, z, pose)
    seen, sewn = skin(hx, hy, hz, pose, who)
    return (
        smin(seen, neck(bx, by, bz, who), 0.10),
        eyes(hx, hy, hz, who),
        torch.maximum(teeth(hx, hy, hz, pose), sewn + 0.4 * WALL),
        torch.maximum(tongue(hx, hy, hz, pose), sewn + 0.4 * WALL - pose.tongue),
        hair(hx, hy, hz, haircut),
        cloth(bx, by, bz, who),
    )


def scene(x: Tensor, y: Tensor, z: Tensor, pose: Pose, who: Traits, haircut: str) -> Tensor:
    nearest, *others = parts(x, y, z, pose, who, haircut)
    for other in others:
        nearest = torch.minimum(nearest, other)
    return nearest


def lip_gap(pose: Pose) -> Tensor:
    """[B]: the true opening between the inner lip curves at the centre, decimetres. At m, b and p it is 0."""
    return pose.up + pose.down
