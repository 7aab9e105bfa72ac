"""One person's hair, beard, brows and lashes: grown and lit once, carried and coloured for every pose."""

from collections.abc import Callable
from typing import Final

import torch

from models.studio.presenter import fibres, head, shade
from models.studio.presenter.fibres import Depth, Fibres
from models.studio.presenter.identity import Identity, Traits
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import Tensor, Triple, smoothstep
from models.studio.presenter.shade import Hit, rgb, unit

HAIRS: Final = 7000
BEARD_HAIRS: Final = 9000  # tried; about a third find a place
LASH: Final = (0.010, 0.007, 0.006)

Light = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points of the neutral head [N, 3] and normals [3, N] → how much of the key and of the ambient light reaches them."""


class Groom:
    """`depth` and `light` look at the neutral face; growing happens on the CPU, the rest on the device of `traits`."""

    def __init__(self, who: Identity, traits: Traits, device: torch.device, depth: Depth, light: Light):
        self._traits, self._device = traits, device
        hair = fibres.grow_hair(who, HAIRS)
        self._hair = fibres.Hair(*(field.to(device) for field in hair))
        self._normals = self._hair.normals.reshape(-1, 3).T
        self._key, self._ambient = light(self._hair.curves.reshape(-1, 3), self._normals)
        self._combed: tuple[Tensor, Fibres] | None = None
        upper, lower = fibres.grow_lashes(who)
        self._upper, self._lower, self._brows = (
            fibres.Stubs(*(field.to(device) for field in stubs))
            for stubs in (upper, lower, fibres.grow_brows(who, depth))
        )

        def density(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
            return shade.beard_mask(x, y, y, z, who.traits)

        self._beard = fibres.grow_beard(who, depth, density, BEARD_HAIRS if who.traits.beard else 1).to(device)

    def worn(self, pose: Pose) -> list[Fibres]:
        """What a batch of one wears, in the order in which it is drawn."""
        lashes = ((self._upper, True, 1.0), (self._lower, False, 0.6))
        brows = fibres.brow_curves(self._brows, pose, self._traits)
        return [
            self._bearded(pose),
            self._plain(brows, self._brows, self._traits.brow, 0.75),
            self._haired(pose),
            *(
                self._plain(fibres.lash_curves(stubs, pose, self._traits, upper), stubs, LASH, strength)
                for stubs, upper, strength in lashes
            ),
        ]

    def _haired(self, pose: Pose) -> Fibres:
        """Only the head's turn is seen in it: while that stays, so does the light on the hair."""
        turn = torch.stack(pose.rotation)
        if self._combed is None or not torch.equal(self._combed[0], turn):
            self._combed = (turn, self._freshly_lit(pose))
        return self._combed[1]

    def _freshly_lit(self, pose: Pose) -> Fibres:
        hair = self._hair
        albedo = rgb(self._traits.hair, self._key) * (0.35 + 1.3 * hair.shade).repeat_interleave(hair.curves.shape[1])
        colour = self._lit(hair.curves, self._normals, self._key, self._ambient, albedo, pose)
        return Fibres(hair.curves, hair.width, colour, hair.fade)

    def _bearded(self, pose: Pose) -> Fibres:
        rest = self._beard
        count, joints, _ = rest.shape
        x, y, z = head.skin_moved(rest.reshape(-1, 3), pose)
        curves = torch.stack([x, y, z], 1).view(rest.shape)
        normals = fibres.directions(curves - rest.new_tensor([0.0, -0.55, -0.2])).reshape(-1, 3).T
        jitter = torch.arange(count, device=self._device).remainder(7).repeat_interleave(joints) / 7
        albedo = rgb(shade.scaled(self._traits.hair, 0.8), jitter) * (0.5 + jitter)
        half_lit = torch.full_like(jitter, 0.45)
        colour = self._lit(curves, normals, half_lit, half_lit, albedo, pose)
        lips = head.Lips(x, y, pose, self._traits)  # the moustache is trimmed to the lips, wherever they are
        trimmed = smoothstep(0.75, 1.15, torch.maximum(lips.tu, lips.tl)) + smoothstep(1.0, 1.06, lips.s)
        taper = torch.linspace(1.0, 0.25, joints, device=self._device)
        fade = taper * trimmed.clamp(max=1).view(count, joints)
        return Fibres(curves, torch.full((count,), 0.0065, device=self._device), colour, fade)

    def _plain(self, curves: Tensor, stubs: fibres.Stubs, colour: Triple, strength: float) -> Fibres:
        count, joints, _ = curves.shape
        painted = rgb(colour, curves)[:, :, None].expand(3, count, joints)
        taper = strength * torch.linspace(1.0, 0.15, joints, device=self._device).expand(count, -1)
        return Fibres(curves, stubs.width, painted, taper)

    def _lit(self, curves: Tensor, normals: Tensor, key: Tensor, ambient: Tensor, albedo: Tensor, pose: Pose) -> Tensor:
        """Kajiya-Kay along curves [S, J, 3] → [3, S, J]."""
        count, joints, _ = curves.shape
        along = torch.cat([curves[:, 1:] - curves[:, :-1], curves[:, -1:] - curves[:, -2:-1]], 1)
        tangent = shade.turned(fibres.directions(along).reshape(-1, 3).T, pose)
        hx, hy, hz = curves.reshape(-1, 3).unbind(1)
        x, y, z = head.to_world(hx, hy, hz, pose, self._traits)
        view = unit(torch.stack([c - p for c, p in zip(head.CAMERA, (x, y, z), strict=True)]))
        hit = Hit(x, y, z, y, shade.turned(normals, pose), view, ambient, key)
        jitter = (albedo.mean(0) / albedo.mean().clamp(min=1e-6)).clamp(0, 1)
        return shade.strand_light(hit, tangent, albedo, self._traits.hair_shine, jitter).view(3, count, joints)
