"""Figures of a likeness: of the served avatar and of the repainted film, beside a mouth that never moves."""

import json

import numpy as np
import pytest

from engine.__main__ import main
from models.create.evaluate import Scores, _filled, evaluate, table
from models.create.fit import Piece


@pytest.fixture(scope="module")
def scores(small) -> Scores:
    piece = Piece(small.film, small.track, slice(0, 25))
    return evaluate(small.avatar, [piece], [small.track.points])


def test_every_row_stands_beside_the_trivial_one(scores):
    assert {"live", "repainted", "networks alone", "static mouth", "truth"} == set(scores.motion)
    assert {"repainted", "static mouth"} == set(scores.pictures)
    assert scores.motion["static mouth"]["opening_r"] == 0
    assert scores.pictures["repainted"]["lips_psnr"] > 15
    assert scores.seconds == 1


def test_there_is_something_to_look_at(scores):
    assert len(scores.film) == 25
    true, ours = scores.sheet[0]
    assert true.shape == ours.shape
    assert len(scores.openings[0][0]) == 25


def test_the_figures_are_json(scores):
    assert json.loads(json.dumps(scores.facts()))["motion"]["live"]["ld"] > 0


def test_without_phones_no_closures_are_claimed(scores):
    assert scores.phones == {}


def test_a_face_that_is_lost_stands_still():
    points = np.arange(5.0)[:, None, None] * np.ones((5, 478, 3))
    points[[0, 3]] = np.nan
    filled = _filled(points)
    assert filled[:, 0, 0].tolist() == [1, 1, 2, 2, 4]
    with pytest.raises(ValueError, match="finds no face"):
        _filled(points * np.nan)


def test_a_table_has_a_column_for_every_figure():
    assert len(table("t", {"a": {"x": 1.0}, "b": {"y": 2.0}}).columns) == 3


def test_the_command_refuses_in_one_line(small, tmp_path, capsys):
    shelf = ["--avatars-dir", str(small.shelf.root)]
    assert main(["eval", "nobody", str(small.film), *shelf]) == 1
    assert "no avatar is called" in capsys.readouterr().err
    assert main(["eval", "small", str(tmp_path / "none.mp4"), *shelf]) == 1
    assert "does not exist" in capsys.readouterr().err
