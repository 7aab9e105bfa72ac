"""Any video is read upright and on one timeline, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from models.create.film import FootageError, open_film, pictures, sound
from models.rates import SAMPLE_RATE
from tests.models.create.filmed import hum, shoot


def corner(height: int = 96, width: int = 160) -> np.ndarray:
    """Black, white in the upper left corner."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:20, :20] = 255
    return picture


TURNS = [(0, (160, 96), (5, 5)), (90, (96, 160), (155, 5)), (180, (160, 96), (90, 155))]


@pytest.mark.parametrize(("rotation", "size", "white"), TURNS)
def test_a_phone_held_any_way_is_upright(tmp_path, rotation, size, white):
    film = open_film(shoot(tmp_path / "a.mp4", [corner()] * 5, None, rotation=rotation))
    assert (film.width, film.height) == size
    _, picture = next(pictures(film.path))
    assert picture[white].min() > 200


def test_large_pictures_are_made_smaller_on_the_way(tmp_path):
    path = shoot(tmp_path / "a.mp4", [corner(480, 800)] * 2, None)
    assert next(pictures(path, 400))[1].shape == (240, 400, 3)


def test_pictures_of_a_variable_rate_keep_their_dates(tmp_path):
    dates = [0.0, 0.04, 0.12, 0.3, 0.31]
    path = shoot(tmp_path / "a.mp4", [corner()] * 5, None, dates=dates)
    assert [second for second, _ in pictures(path)] == pytest.approx(dates, abs=0.002)


def test_sound_is_16_khz_on_the_pictures_timeline(tmp_path):
    loud = np.zeros(SAMPLE_RATE, np.float32)
    loud[SAMPLE_RATE // 2 :] = hum(0.5)[: SAMPLE_RATE // 2]
    heard = sound(shoot(tmp_path / "a.mp4", [corner()] * 25, loud))
    assert abs(len(heard) - SAMPLE_RATE) < 2100
    begins = np.flatnonzero(np.abs(heard) > 0.02)[0] / SAMPLE_RATE
    assert begins == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"#EXTM3U\nhttp://a/b"])
def test_a_corrupted_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(FootageError, match="can be opened") as refused:
        open_film(path)
    assert "\n" not in str(refused.value)


def test_a_file_cut_short_is_refused_in_one_line(tmp_path):
    path = shoot(tmp_path / "a.mp4", [corner()] * 5, None)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FootageError, match="export it again"):
        open_film(path)


def damaged(path: Path, share: float) -> Path:
    """A film with a hole of 2,000 bytes, so far into it."""
    chance = np.random.default_rng(0)
    noisy = [chance.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(20)]
    whole = bytearray(shoot(path, noisy, hum(0.8)).read_bytes())
    begin = whole.find(b"mdat") + 4 + round(share * (len(whole) - 3000))
    whole[begin : begin + 2000] = bytes(2000)
    path.write_bytes(whole)
    return path


def test_a_film_whose_first_picture_is_damaged_is_refused_in_one_line(tmp_path):
    """The pictures after it are differences from it; its sound has its time all the same."""
    path = damaged(tmp_path / "a.mp4", 0)
    with pytest.raises(FootageError, match="no picture that can be decoded"):
        open_film(path)
    assert len(sound(path)) > 0.5 * SAMPLE_RATE


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_what_is_damaged_is_left_out_and_the_rest_is_seen_and_heard(tmp_path, share):
    path = damaged(tmp_path / "a.mp4", share)
    film = open_film(path)
    assert 5 < len(list(pictures(film.path))) <= 20
    assert len(sound(path)) > 0.5 * SAMPLE_RATE


def test_a_film_without_sound_and_a_missing_file_say_so(tmp_path):
    with pytest.raises(FootageError, match="has no sound"):
        sound(shoot(tmp_path / "a.mp4", [corner()] * 5, None))
    with pytest.raises(FootageError, match="does not exist"):
        open_film(tmp_path / "b.mp4")
