"""Phones of a piece, and shut lips in landmarks and in pixels."""

from itertools import islice

import numpy as np
import pytest

from models import face, metrics
from models.avatar import LOOP, loop_frames
from models.create.fit import Piece
from models.create.package import rgb_of
from models.create.phones import closures, complexion_of, gaps_seen, phones_of
from tests.models.create.test_loop import footage
from tests.models.faces import speaking
from tests.models.test_metrics import seen

SAID = [(0.4, 0.8, "pau"), (0.8, 0.9, "m"), (0.9, 1.2, "aa"), (1.2, 1.3, "b"), (2.9, 3.1, "p")]


def test_a_pieces_phones_are_those_within_it_from_its_own_beginning(tmp_path):
    piece = Piece(tmp_path / "film.mp4", footage(100), slice(20, 75))
    assert phones_of(piece) == []
    np.savez(tmp_path / "film.labels.npz", phones=np.array(SAID, [("start", "f4"), ("end", "f4"), ("name", "U4")]))
    told = phones_of(piece)
    assert [phone.name for phone in told] == ["m", "aa", "b"]
    assert told[0].start == pytest.approx(0.0, abs=1e-6)


def test_labels_without_phones_tell_of_none(tmp_path):
    np.savez(tmp_path / "film.labels.npz", points=np.zeros(1))
    assert phones_of(Piece(tmp_path / "film.mp4", footage(100), slice(0, 75))) == []


def test_lips_that_meet_at_their_phone_are_counted():
    opening = np.full(25, 12.0)
    opening[5:7] = 0.0
    phones = (metrics.Phone("m", 0.2, 0.28), metrics.Phone("p", 0.7, 0.76), metrics.Phone("aa", 0.44, 0.6))
    points = seen(speaking(opening))
    scores = closures([metrics.Performance(points, points, None, phones)])
    assert scores["closure_recall"] == 0.5
    assert scores["closure_precision"] == 1.0


def test_a_resting_mouth_has_no_gap_and_a_dark_hole_is_one(small):
    complexion = complexion_of(small.avatar)
    house = small.avatar.tensors("loop.safetensors", LOOP)["points"][:4]
    points = np.zeros((4, 478, 3), np.float32)
    points[:, face.HOUSE] = house
    resting = [rgb_of(frame) for frame in islice(loop_frames(small.avatar), 4)]
    assert gaps_seen(resting, points, complexion).max() < metrics.GAP_SHUT
    for picture, lips in zip(resting, points[:, face.LIPS], strict=True):
        x, y = lips[:, :2].mean(0).astype(int)
        picture[y - 3 : y + 4, x - 30 : x + 31] = (20, 120, 20)
    assert gaps_seen(resting, points, complexion).min() > 0.9
