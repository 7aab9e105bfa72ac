"""Who is being rendered. Lengths in decimetres, colours linear. People differ only in these numbers and in the haircut.

The numbers travel as one tensor, `Traits.packed()`, so that one compiled field serves every person.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from models.studio.presenter.sdf import Number, Tensor, Triple


class Traits(NamedTuple):
    """Proportions, then colours. The defaults are Mira."""

    face_length: Number = 0.865  # of everything below the eyes
    jaw_width: Number = 0.395
    jaw_y: Number = -0.52
    jaw_radius: Number = 0.125
    face_width: Number = 0.600
    chin: Triple = (0.125, 0.100, 0.115)
    muzzle: Triple = (0.32, 0.30, 0.352)
    cheek: Number = 0.062
    brow_ridge: Number = 0.05
    nose_width: Number = 0.074
    nose_tip: Number = 0.060
    nose_bridge: Number = 0.054
    lip_upper: Number = 0.074
    lip_lower: Number = 0.108
    lip_full: Number = 0.056
    mouth_half: Number = 0.235
    eye_half: Number = 0.188
    eye_upper: Number = 0.110
    eye_lower: Number = 0.066
    eye_tilt: Number = 0.036
    lash: Number = 0.021
    neck: Number = 0.38
    shoulder: Number = 1.18
    brow_thick: Number = 0.036
    brow_y: Number = 0.265
    beard: Number = 0.0
    sheen: Number = 1.0  # of the skin's highlights
    skin: Triple = (0.66, 0.40, 0.29)
    flush: Triple = (0.70, 0.26, 0.20)
    lip: Triple = (0.56, 0.17, 0.165)
    iris: Triple = (0.085, 0.042, 0.020)
    hair: Triple = (0.035, 0.020, 0.014)
    hair_shine: Triple = (0.30, 0.19, 0.12)
    brow: Triple = (0.040, 0.021, 0.014)
    cloth: Triple = (0.045, 0.17, 0.19)

    def packed(self, device: str | torch.device = "cpu") -> Tensor:
        """[numbers]: every number in order, the triples spread out."""
        flat: list[float] = []
        for trait in self:
            flat.extend(float(number) for number in (trait if isinstance(trait, tuple) else (trait,)))
        return torch.tensor(flat, device=device)


_DEFAULTS = Traits()


def unpack(packed: Tensor) -> Traits:
    """The inverse of `Traits.packed`; the numbers are tensors of shape (), which broadcast."""
    numbers: Iterator[Tensor] = iter(packed.unbind(0))
    return Traits._make(
        (next(numbers), next(numbers), next(numbers)) if isinstance(t, tuple) else next(numbers) for t in _DEFAULTS
    )


@dataclass(frozen=True)
class Identity:
    name: str
    title: str
    haircut: str  # "bob", "short" or "curls"
    traits: Traits
    seed: int = 0  # of everything random in the person: strands, freckles


MIRA = Identity("mira", "Mira", "bob", Traits())

THEO = Identity(
    "theo",
    "Theo",
    "short",
    Traits(
        face_length=0.95,
        jaw_width=0.49,
        jaw_y=-0.60,
        jaw_radius=0.16,
        face_width=0.635,
        chin=(0.20, 0.13, 0.14),
        muzzle=(0.35, 0.32, 0.365),
        cheek=0.03,
        brow_ridge=0.08,
        nose_width=0.092,
        nose_tip=0.078,
        nose_bridge=0.062,
        lip_upper=0.062,
        lip_lower=0.085,
        lip_full=0.04,
        mouth_half=0.245,
        eye_half=0.180,
        eye_upper=0.090,
        eye_lower=0.056,
        eye_tilt=0.008,
        lash=0.010,
        neck=0.47,
        shoulder=1.38,
        brow_thick=0.055,
        brow_y=0.225,
        beard=1.0,
        skin=(0.50, 0.29, 0.19),
        flush=(0.56, 0.20, 0.14),
        lip=(0.40, 0.185, 0.145),
        iris=(0.055, 0.085, 0.075),
        hair=(0.040, 0.024, 0.016),
        hair_shine=(0.26, 0.18, 0.12),
        brow=(0.03, 0.018, 0.012),
        cloth=(0.08, 0.10, 0.17),
    ),
    seed=1,
)

ADA = Identity(
    "ada",
    "Ada",
    "curls",
    Traits(
        face_length=0.88,
        jaw_width=0.405,
        face_width=0.605,
        nose_width=0.088,
        nose_tip=0.068,
        lip_upper=0.092,
        lip_lower=0.122,
        lip_full=0.066,
        mouth_half=0.25,
        eye_tilt=0.030,
        brow_y=0.255,
        sheen=0.6,
        skin=(0.200, 0.092, 0.052),
        flush=(0.24, 0.070, 0.045),
        lip=(0.26, 0.070, 0.070),
        iris=(0.040, 0.020, 0.012),
        hair=(0.010, 0.0075, 0.007),
        hair_shine=(0.040, 0.031, 0.027),
        brow=(0.010, 0.007, 0.006),
        cloth=(0.42, 0.16, 0.05),
    ),
    seed=2,
)

PRESENTERS = {who.name: who for who in (MIRA, THEO, ADA)}
