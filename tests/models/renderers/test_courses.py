"""What each published renderer is taught: its lessons hold what its paper asks for, and they teach."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from models import face
from models.renderers.atlas import FORGET, Atlas
from models.renderers.courses import AtlasCourse, FacemapCourse, PriorCourse, openings, surroundings
from models.renderers.facemap import Facemap
from models.renderers.faces import Faces, lower_face, whole_face
from models.renderers.lines import PLANES
from models.renderers.prior import SKETCHES, Prior
from models.renderers.published import Course
from models.renderers.unrolled import Unrolled
from models.renderers.unwrap import CROP
from tests.models.renderers.people import speaks
from tests.models.renderers.test_lines import drawn_face

SIZE = 32
ROWS = np.array([1, 5, 9])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@cache
def film(seed: int = 0, frames: int = 10) -> Faces:
    """Two clips of a drawn face whose lips part more and more; the pictures are noise with a dark mouth."""
    draw = torch.Generator().manual_seed(seed)
    house = (drawn_face() * SIZE / 128).repeat(2 * frames, 1, 1)
    lower = [face.LIPS_IN_HOUSE[n] for n in range(20, 30)]
    house[:, lower, 1] += (torch.arange(2 * frames) % frames)[:, None] * 0.4
    patches = torch.randint(0, 256, (2 * frames, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
    clip = np.repeat([0, 1], frames)
    return Faces(
        patches, house, torch.randn(2 * frames, 4, generator=draw), clip, np.zeros((2 * frames, 4), np.float32)
    )


def unrolled(seed: int = 0) -> Unrolled:
    count = len(film())
    atlas = (20 + 5 * torch.arange(count))[:, None, None, None].expand(-1, 3, CROP, CROP).byte()
    flat = np.random.default_rng(seed).uniform(40, 90, (count, 468, 2)).astype(np.float32)
    one = torch.ones(count, 1, CROP, CROP, dtype=torch.bool)
    return Unrolled(atlas, one, flat, torch.zeros(count, 2, 10), torch.ones(count, 1, 16, 16), torch.ones(count, 2, 3))


def atlas() -> AtlasCourse:
    torch.manual_seed(0)
    renderer = Atlas(SIZE, None, 64)
    renderer.texture.reference.fill_(0.5)
    return AtlasCourse(renderer, (unrolled(), film()), (unrolled(1), film(1)))


def facemap() -> FacemapCourse:
    torch.manual_seed(0)
    renderer = Facemap(SIZE, width=4, halvings=1, blocks=1, attentions=1)
    renderer.spoken[SIZE // 2 :] = 1
    return FacemapCourse(renderer, film(), film(1))


def prior() -> PriorCourse:
    torch.manual_seed(0)
    return PriorCourse(Prior(2, SIZE, 8, 4), film(), film(1), references=2)


@pytest.mark.parametrize("make", [atlas, facemap, prior])
def test_it_teaches(make: Callable[[], Course]) -> None:
    """The same few frames, again and again: their cost falls."""
    course = make()
    lesson = course.lesson(ROWS, np.random.default_rng(0))
    optimizer = torch.optim.Adam(course.renderer.parameters(), 3e-3)
    costs = []
    for _ in range(12):
        cost = course.cost(lesson, course.paint(course.renderer, lesson))
        optimizer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        costs.append(float(cost.detach()))
    assert costs[-1] < 0.95 * costs[0]
    assert len(course.odds()) == len(course) == 20
    painted = course.paint(course.renderer.eval(), course.held_out(4))["picture"]
    assert painted.shape == course.held_out(4)["true"].shape
    assert painted.isfinite().all()


def test_the_last_atlas_is_the_true_one_and_sometimes_there_is_none() -> None:
    course, rng = atlas(), np.random.default_rng(0)
    rows = np.full(200, 5)
    last = course.lesson(rows, rng)["last"]
    gone = (last.flatten(1) == 0).all(1)
    assert float(gone.float().mean()) == pytest.approx(FORGET, abs=0.08)
    torch.testing.assert_close(last[~gone][0], course.film[0].atlas[4].float() / 255)
    first = course.held_out(20)["last"]
    assert not (first.flatten(1) == 0).all(1).any()


def test_a_map_shows_no_edge_where_the_mouth_is() -> None:
    lesson = facemap().lesson(ROWS, np.random.default_rng(0))
    assert lesson["given"].shape == (3, PLANES + 1, SIZE, SIZE)
    assert lesson["given"][:, PLANES, SIZE // 2 :].sum() == 0 < lesson["given"][:, PLANES, : SIZE // 2].sum()


def test_references_are_other_frames_and_the_lower_half_is_hidden() -> None:
    course = prior()
    lesson = course._lesson(course.film, ROWS, np.array([[7, 8], [1, 9], [2, 3]]), None)
    torch.testing.assert_close(lesson["pictures"][0, 1], course.film.patches[8].float() / 255)
    assert lesson["hidden"][:, :, SIZE // 2 :].abs().max() == 0
    assert lesson["target"].shape == (3, SKETCHES * PLANES, SIZE, SIZE)
    torch.testing.assert_close(lesson["target"][:, 2 * PLANES : 3 * PLANES], lesson["given"])
    drawn = course.lesson(np.arange(20), np.random.default_rng(1))
    same = (drawn["pictures"] - drawn["true"][:, None]).abs().amax((2, 3, 4)) == 0
    assert not same.any()


def test_surroundings_come_from_the_same_clip_and_the_mouth_stays() -> None:
    whole, rows = film(), np.repeat(np.arange(20), 10)
    around, house = surroundings(whole, rows, np.random.default_rng(0))
    assert (whole.clip[around] == whole.clip[rows]).all()
    assert 0.1 < (around != rows).mean() < 0.4
    assert openings(house) == pytest.approx(openings(whole.house[rows]), abs=0.5)


def test_a_film_of_a_person_is_a_course_as_it_is() -> None:
    """From pictures and points to a picture, nothing made by hand."""
    from models.renderers.faces import faces

    points = [speaks(8).points]
    mean = whole_face(points, SIZE)
    renderer = Facemap(SIZE, width=4, halvings=1, blocks=1, attentions=0)
    hole, mask = lower_face(points, mean, SIZE)
    renderer.spoken.copy_(hole)
    renderer.mask.copy_(mask)
    seen = faces([speaks(8)], mean, SIZE)
    lesson = FacemapCourse(renderer, seen, seen).held_out(3)
    assert lesson["lips"].sum((1, 2, 3)).min() > 9
    assert lesson["true"].shape == (3, 3, SIZE, SIZE)
