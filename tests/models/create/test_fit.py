"""The two fits: they begin, they go on after a kill, and they keep the best."""

from dataclasses import replace

import numpy as np
import pytest

from models import train
from models.create import fit
from models.create.fit import Piece, Quality, Told, fit_head, fit_renderer, scaled_points, seen, shrunk
from models.landmarks.head import Head
from tests.models.create.conftest import TINY


@pytest.fixture
def parts(small) -> tuple[list[Piece], list[Piece]]:
    track = small.track
    return [Piece(small.film, track, slice(0, 30)), Piece(small.film, track, slice(30, 60))], [
        Piece(small.film, track, slice(60, 80))
    ]


def test_a_head_that_was_killed_goes_on_and_ends_as_it_would_have(parts, tmp_path):
    learned, held = parts
    told: list[int] = []
    half = Quality(head_steps=4, renderer_steps=4, patch=128, patience=2)
    whole = fit_head(learned, held, tmp_path / "a", half, 2, "cpu", lambda now: told.append(now.step))
    again = fit_head(learned, held, tmp_path / "a", half, 2, "cpu", lambda now: pytest.fail("it learned again"))
    assert told == [4]
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert np.array_equal(one.detach().numpy(), other.detach().numpy())


def test_a_head_that_is_killed_halfway_is_the_same_in_the_end(parts, tmp_path, monkeypatch):
    """Looked at and saved every second step; the kill comes at the fourth, so that the third and fourth are lost."""
    monkeypatch.setattr(fit, "LOOK_EVERY", 2)
    learned, held = parts
    six = Quality(head_steps=6, renderer_steps=4, patch=128, patience=9)
    whole = fit_head(learned, held, tmp_path / "whole", six, 2, "cpu")

    def killed(now: Told) -> None:
        if now.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_head(learned, held, tmp_path / "cut", six, 2, "cpu", killed)
    told: list[int] = []
    again = fit_head(learned, held, tmp_path / "cut", six, 2, "cpu", lambda now: told.append(now.step))
    assert told == [4, 6]
    for one, other in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert np.allclose(one.detach().numpy(), other.detach().numpy(), atol=1e-6)


def test_a_head_of_an_older_version_s_layers_is_begun_anew(parts, tmp_path, monkeypatch):
    learned, held = parts
    few = Quality(head_steps=2, renderer_steps=4, patch=128, patience=2)
    with monkeypatch.context() as older:
        older.setitem(train.SYSTEMS, "head", lambda heard, form, ahead: Head(heard.code, heard.mel, ahead, listeners=1))
        fit_head(learned, held, tmp_path, few, 2, "cpu")
    told: list[int] = []
    fit_head(learned, held, tmp_path, few, 2, "cpu", lambda now: told.append(now.step))
    assert told == [2]


def test_a_renderer_that_is_done_is_not_begun_again(parts, tmp_path):
    learned, held = parts
    fit_renderer(learned[:1], held, tmp_path, TINY)
    told: list[int] = []
    fit_renderer(learned[:1], held, tmp_path, TINY, lambda now: told.append(now.step))
    assert told == []


def test_pictures_come_in_order_with_their_own_points(parts):
    learned, held = parts
    clips = seen([*learned, *held])
    counts = [sum(1 for _ in clip.pictures) for clip in clips]
    assert counts == [30, 30, 20]
    assert [len(clip.points) for clip in clips] == counts
    assert np.isfinite(scaled_points(held[0])).all()
    track = held[0].track
    assert np.array_equal(shrunk(track.points, track), track.points)
    large = replace(track, width=2560, height=1440)
    assert shrunk(np.full((1, 478, 3), 101.0, np.float32), large)[0, 0, :2].tolist() == [50.25, 50.25]
