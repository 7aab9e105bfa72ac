"""What each published renderer is taught: its inputs out of a film, its losses as its paper weighs them.

Where a paper measures likeness by VGG, `Perception` does, and says by what. The lips weigh more here than there: films
are short, and lips are what is looked at.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import face, losses
from . import Renderer
from .atlas import FORGET, Atlas
from .facemap import Facemap
from .faces import Faces, lips_boxes
from .lines import PLANES, drawn
from .perception import Perception, Plain
from .prior import AHEAD, SKETCHES, Prior
from .published import Lesson, Rows
from .unrolled import Unrolled
from .unwrap import VERTICES

LIPS: Final = 4.0
"""How much more a pixel of the lips weighs."""
BORROWED: Final = 0.3
"""Share of the lessons whose surroundings are of another frame near by, as they are when a loop is painted."""
STRANGE: Final = 0.5
"""Share of IP-LAP's lessons whose references are of any clip."""
JITTER: Final = 0.15
"""Standard deviation of what is added to points, in pixels of 128."""


def openings(house: Tensor) -> npt.NDArray[np.float64]:
    """How far apart the inner lips are, in pixels: house points [N, 131, 2]."""
    lips = house[:, face.LIPS_IN_HOUSE.tolist()]
    return np.asarray((lips[:, 35] - lips[:, 25]).norm(dim=1).double().numpy())


def more_of_the_open(opening: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 0.4 + np.clip(opening / max(float(np.quantile(opening, 0.9)), 1e-3), 0, 1.5)


def from_shut_to_open(opening: npt.NDArray[np.float64], most: int) -> Rows:
    order = np.argsort(opening, kind="stable")
    return np.asarray(order[np.linspace(0, len(order) - 1, most).astype(int)], np.int64)


def lips_error(said: Tensor, lesson: Lesson) -> Tensor:
    weight = lesson["lips"]
    error = (said - lesson["true"]) * weight
    return (error.abs().sum() + 10 * error.square().sum()) / (3 * weight.sum()).clamp(min=1)


class AtlasCourse:
    """LipSync3D's texture: 1 − SSIM of every colour, and L1 so that so few steps begin somewhere. The last atlas is the
    true one; in a fifth of lessons there is none. `spoken` [N, 57, 2] in patch pixels is the code."""

    judged, convincing, alike = 0, 0.0, 0.0
    name = "atlas"

    def __init__(self, renderer: Atlas, film: tuple[Unrolled, Faces], held: tuple[Unrolled, Faces]) -> None:
        self.renderer: Renderer = renderer
        self.film, self.held = film, held

    def __len__(self) -> int:
        return len(self.film[1])

    def odds(self) -> npt.NDArray[np.float64]:
        return more_of_the_open(openings(self.film[1].house))

    def lesson(self, rows: Rows, rng: np.random.Generator) -> Lesson:
        return self._lesson(self.film, rows, rng)

    def held_out(self, most: int) -> Lesson:
        return self._lesson(self.held, from_shut_to_open(openings(self.held[1].house), most), None)

    def _lesson(self, film: tuple[Unrolled, Faces], rows: Rows, rng: np.random.Generator | None) -> Lesson:
        seen, whole = film
        spoken = whole.house[rows][:, face.HOUSE_SPOKEN]
        last = seen.atlas[whole.near(rows, -1)].float() / 255
        if rng is not None:
            unit = JITTER * whole.patches.shape[-1] / 128
            spoken = spoken + unit * torch.from_numpy(rng.standard_normal(spoken.shape)).float()
            last = last * torch.from_numpy(rng.random(len(rows)) >= FORGET)[:, None, None, None]
        lips = [int(place) for place in face.LIPS if place < VERTICES]
        boxes = lips_boxes(torch.from_numpy(seen.flat[rows][:, lips]), seen.atlas.shape[-1])
        true = seen.atlas[rows].float() / 255
        return {"true": true, "lips": boxes, "spoken": spoken, "last": last, "covered": seen.covered[rows].float()}

    def paint(self, renderer: Renderer, lesson: Lesson) -> Mapping[str, Tensor]:
        assert isinstance(renderer, Atlas)
        return {"picture": renderer.texture(renderer.told(lesson["spoken"]), lesson["last"])}

    def cost(self, lesson: Lesson, painted: Mapping[str, Tensor]) -> Tensor:
        true, covered = lesson["true"], lesson["covered"]
        said = true + covered * (painted["picture"] - true)
        each, theirs = (x.flatten(0, 1)[:, None].expand(-1, 3, -1, -1) for x in (said, true))
        return losses.dissimilarity(each, theirs) + losses.l1(said, true) + lips_error(said, lesson)


class FacemapCourse:
    """Zheng's: pix2pixHD's terms, likeness ten times, features and adversary a tenth of their published share, since
    a narrow generator is soon led astray."""

    judged, convincing, alike = PLANES + 1, 0.1, 1.0
    name = "facemap"

    def __init__(self, renderer: Facemap, film: Faces, held: Faces, perception: Perception | None = None) -> None:
        self.renderer: Renderer = renderer
        self.perception = perception or Plain()
        self.film, self.held = (film, edges_of(renderer, film)), (held, edges_of(renderer, held))

    def __len__(self) -> int:
        return len(self.film[0])

    def odds(self) -> npt.NDArray[np.float64]:
        return more_of_the_open(openings(self.film[0].house))

    def lesson(self, rows: Rows, rng: np.random.Generator) -> Lesson:
        return self._lesson(self.film, rows, rng)

    def held_out(self, most: int) -> Lesson:
        return self._lesson(self.held, from_shut_to_open(openings(self.held[0].house), most), None)

    def _lesson(self, film: tuple[Faces, Tensor], rows: Rows, rng: np.random.Generator | None) -> Lesson:
        whole, lines = film
        around, house = surroundings(whole, rows, rng)
        size = whole.patches.shape[-1]
        given = torch.cat([drawn(house, size), lines[around].float()], 1)
        boxes = lips_boxes(whole.house[rows][:, face.LIPS_IN_HOUSE.tolist()], size)
        assert isinstance(self.renderer, Facemap)
        tone = self.renderer.tone(whole.patches[around].float() / 255)
        return {"true": whole.patches[rows].float() / 255, "lips": boxes, "given": given, "tone": tone}

    def paint(self, renderer: Renderer, lesson: Lesson) -> Mapping[str, Tensor]:
        assert isinstance(renderer, Facemap)
        return {"picture": renderer.toned(renderer.paint_by(lesson["given"]), lesson["tone"])}

    def cost(self, lesson: Lesson, painted: Mapping[str, Tensor]) -> Tensor:
        assert isinstance(self.renderer, Facemap)
        true = lesson["true"]
        weight = 0.2 + 0.8 * self.renderer.spoken
        said = true + weight * (painted["picture"] - true)
        return 10 * self.perception.content(said, true) + LIPS * lips_error(painted["picture"], lesson)


class PriorCourse:
    """IP-LAP's: likeness of the warped references and of the face, style, adversary, features (equation 20). References
    are other frames of the same clip, or of another, as those are that it will meet. Every lesson is seen through other
    colours and half of them in a mirror: one film is one person, and a renderer for all must not learn his skin by
    heart."""

    judged, convincing, alike = PLANES, 0.25, 2.5
    warped, content, style = 2.5, 4.0, 1000.0
    name = "prior"

    def __init__(
        self, renderer: Prior, film: Faces, held: Faces, references: int = 3, perception: Perception | None = None
    ) -> None:
        self.renderer: Renderer = renderer
        self.perception = perception or Plain()
        self.film, self.held, self.references = film, held, references

    def __len__(self) -> int:
        return len(self.film)

    def odds(self) -> npt.NDArray[np.float64]:
        return more_of_the_open(openings(self.film.house))

    def lesson(self, rows: Rows, rng: np.random.Generator) -> Lesson:
        far = rng.integers(5, 70, (self.references, len(rows))) * rng.choice([-1, 1], (self.references, len(rows)))
        others = np.stack([self._other(rows, by) for by in far], 1)
        strange = rng.random(len(rows)) < STRANGE
        away = rng.integers(3, len(self) - 2, (int(strange.sum()), self.references))
        others[strange] = (rows[strange, None] + away) % len(self)
        lesson = self._lesson(self.film, rows, others, rng)
        colours = torch.eye(3) + 0.12 * torch.from_numpy(rng.standard_normal((len(rows), 3, 3))).float()
        seen = {
            name: torch.einsum("boc,b...chw->b...ohw", colours, lesson[name]).clamp(0, 1)
            for name in ("true", "hidden", "pictures")
        }
        lesson = {**lesson, **seen}
        pictures = ("true", "lips", "given", "hidden", "target", "pictures", "sketches")
        if rng.random() < 0.5:
            lesson |= {name: lesson[name].flip(-1) for name in pictures}
        return lesson

    def _other(self, rows: Rows, by: npt.NDArray[np.int64]) -> Rows:
        """So many frames away, on the other side where the clip ends before."""
        there = self.film.near(rows, by)
        return np.where(np.abs(there - rows) < 3, self.film.near(rows, -by), there)

    def held_out(self, most: int) -> Lesson:
        """References are the first frames of the film that is learned from, from shut to open."""
        rows = from_shut_to_open(openings(self.held.house), most)
        return self._lesson(self.held, rows, None, None)

    def _lesson(
        self, whole: Faces, rows: Rows, others: npt.NDArray[np.int64] | None, rng: np.random.Generator | None
    ) -> dict[str, Tensor]:
        size = whole.patches.shape[-1]
        around, house = surroundings(whole, rows, rng)
        source = whole
        if others is None:
            source, usual = self.film, from_shut_to_open(openings(self.film.house), self.references + 2)[1:-1]
            others = np.broadcast_to(usual, (len(rows), self.references))
        frames = np.stack([whole.near(rows, by) for by in range(-AHEAD, AHEAD + 1)], 1)
        spoken = torch.stack([whole.house[frames[:, n]] for n in range(SKETCHES)], 1) + (
            house - whole.house[rows]
        ).unsqueeze(1)
        target = drawn(spoken.flatten(0, 1), size).reshape(len(rows), SKETCHES, PLANES, size, size)
        sketches = drawn(source.house[others.reshape(-1)], size).reshape(*others.shape, PLANES, size, size)
        assert isinstance(self.renderer, Prior)
        return {
            "true": whole.patches[rows].float() / 255,
            "lips": lips_boxes(whole.house[rows][:, face.LIPS_IN_HOUSE.tolist()], size),
            "given": target[:, AHEAD],
            "hidden": self.renderer.look(whole.patches[around].float() / 255)["hidden"],
            "target": target.flatten(1, 2),
            "pictures": source.patches[others.reshape(-1)].reshape(*others.shape, 3, size, size).float() / 255,
            "sketches": sketches,
            "code": whole.code[rows],
        }

    def paint(self, renderer: Renderer, lesson: Lesson) -> Mapping[str, Tensor]:
        assert isinstance(renderer, Prior)
        pictures = lesson["pictures"]
        encoded = renderer.align.encode(pictures.flatten(0, 1), lesson["sketches"].flatten(0, 1))
        fine, coarse = (part.reshape(*pictures.shape[:2], *part.shape[1:]) for part in encoded)
        picture, warped = renderer.paint_by(
            (pictures, fine, coarse), lesson["hidden"], lesson["target"], lesson["code"]
        )
        return {"picture": picture, "warped": warped}

    def cost(self, lesson: Lesson, painted: Mapping[str, Tensor]) -> Tensor:
        true, picture, near = lesson["true"], painted["picture"], self.perception
        total = self.content * near.content(picture, true) + self.warped * near.content(painted["warped"], true)
        total = total + self.style * near.style(picture, true)
        return total + LIPS * lips_error(picture, lesson) + lips_error(painted["warped"], lesson)


def surroundings(whole: Faces, rows: Rows, rng: np.random.Generator | None) -> tuple[Rows, Tensor]:
    """Whose surroundings each frame has, and where its points are then: mouth and jaw its own, the rest theirs."""
    if rng is None:
        return rows, whole.house[rows]
    near = whole.near(rows, rng.integers(-40, 41, len(rows)))
    around = np.where(rng.random(len(rows)) < BORROWED, near, rows)
    house = whole.house[around].clone()
    house[:, face.HOUSE_SPOKEN] = whole.house[rows][:, face.HOUSE_SPOKEN]
    unit = JITTER * whole.patches.shape[-1] / 128
    return around, house + unit * torch.from_numpy(rng.standard_normal(house.shape)).float()


def edges_of(renderer: Facemap, whole: Faces) -> Tensor:
    """[N, 1, S, S] bits: what is left of each frame's edges where no mouth is."""
    parts = [renderer.look(whole.patches[n : n + 64].float() / 255)["edges"] > 0 for n in range(0, len(whole), 64)]
    return torch.cat(parts)
