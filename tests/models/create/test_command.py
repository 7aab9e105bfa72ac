"""Wrong input, each with its one clear line and nothing left behind; the right one becomes an avatar and a report."""

import argparse
import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.__main__ import main
from models.create import agree, command
from models.create.command import check
from models.create.film import FootageError
from models.create.fit import QUALITIES
from models.create.track import Track, in_time
from models.rates import CHUNK
from tests.models.create.conftest import TINY
from tests.models.create.filmed import hum, presenter, shoot
from tests.models.create.test_loop import footage


def good(frames: int = 1000) -> Track:
    track = footage(frames)
    return replace(track, audio=np.tile(hum(0.04), frames)[: frames * CHUNK].astype(np.float32))


def refused(track: Track | Sequence[Track], says: str) -> None:
    tracks = [track] if isinstance(track, Track) else list(track)
    with pytest.raises(FootageError, match=says) as said:
        check([Path("a.mp4")] * len(tracks), tracks)
    assert "\n" not in str(said.value)


def share(frames: int, part: float) -> np.ndarray:
    return np.arange(frames) < part * frames


def test_good_footage_is_taken():
    check([Path("a.mp4")], [good()])


def test_three_seconds_of_video_are_too_few():
    refused(good(75), "only 3 s of footage can be used: film at least a minute")


def test_two_faces_are_one_too_many():
    refused(replace(good(), second=share(1000, 0.8)), "film one person alone")


def test_a_hand_over_the_mouth_is_refused():
    refused(replace(good(), covered=share(1000, 0.8)), "covers the mouth")


def test_silent_audio_is_refused():
    refused(replace(good(), audio=np.zeros(1000 * CHUNK, np.float32)), "a.mp4 is silent")


def test_hardly_any_speech_is_refused():
    refused(replace(good(), speech=share(1000, 0.1)), "s of speech were heard")


def test_music_or_the_voice_of_another_person_is_refused():
    refused(replace(good(), agreement=0.05), "is it music, the voice of another person, or a mouth that is covered")


def test_ten_pictures_a_second_are_refused():
    refused(replace(good(), rate=10.0), "film at 25 or more")


def test_cuts_every_two_seconds_are_named():
    cut = np.zeros(1000, bool)
    cut[::30] = True
    refused(replace(good(), cut=cut), "as there are 34 cuts in it")


def test_short_films_of_one_camera_are_put_in_time_together_and_each_for_itself(monkeypatch):
    together = agree.Agreement(120.0, 0.7)
    monkeypatch.setattr(agree, "agreement", lambda takes: together)
    monkeypatch.setattr(agree, "apart", lambda takes: [0.0, 0.0, -40.0, 0.0, 0.0, 0.0])
    short = [replace(good(75), source=str(n)) for n in range(6)]
    mended = in_time(short)
    assert [track.offset_ms for track in mended] == [120.0, 120.0, 80.0, 120.0, 120.0, 120.0]
    assert np.array_equal(mended[0].audio[1920:], short[0].audio[:-1920])
    assert np.array_equal(mended[2].audio[1280:], short[2].audio[:-1280])
    assert in_time(short[:2]) == short[:2]


# The command itself


def create(tmp_path: Path, *more: str) -> int:
    words = ["create", "alice", str(tmp_path / "film.mp4"), "--avatars-dir", str(tmp_path / "shelf")]
    return main([*words, "--report", str(tmp_path / "report"), *more])


def one_line(capsys: pytest.CaptureFixture[str], says: str) -> None:
    err = capsys.readouterr().err.strip()
    assert says in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def nothing_left(tmp_path: Path) -> None:
    assert not list((tmp_path / "shelf").rglob("*") if (tmp_path / "shelf").exists() else [])
    assert not (tmp_path / "report").exists()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("option", ["--report", "--avatars-dir"])
def test_where_nothing_can_be_written_is_said_before_anything_is_learned(option, tmp_path, capsys):
    (tmp_path / "film.mp4").touch()
    (tmp_path / "a file").touch()
    words = ["create", "anna", str(tmp_path / "film.mp4"), "--synthetic", option, str(tmp_path / "a file" / "there")]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "is no directory that you may write to" in said
    assert said.count("\n") == 1


def test_without_consent_nothing_is_even_looked_at(tmp_path, capsys, monkeypatch):
    shoot(tmp_path / "film.mp4", presenter()[:3], hum(0.2))
    monkeypatch.setattr(command, "tracked", lambda *_, **__: pytest.fail("it looked"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert create(tmp_path) == 1
    one_line(capsys, "give --consent-file")
    assert create(tmp_path, "--consent-file", str(tmp_path / "none.json")) == 1
    one_line(capsys, "--consent-file")
    nothing_left(tmp_path)


def test_a_film_that_is_not_there_or_is_broken(tmp_path, capsys):
    assert create(tmp_path, "--synthetic") == 1
    one_line(capsys, "does not exist")
    (tmp_path / "film.mp4").write_bytes(b"\0" * 999)
    assert create(tmp_path, "--synthetic") == 1
    one_line(capsys, "is no video that can be opened")
    nothing_left(tmp_path)


def test_a_film_without_a_face_or_without_sound(tmp_path, capsys):
    shoot(tmp_path / "film.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 12, hum(0.5))
    assert create(tmp_path, "--synthetic") == 1
    one_line(capsys, "no face was found")
    shoot(tmp_path / "film.mp4", presenter()[:5], None)
    assert create(tmp_path, "--synthetic") == 1
    one_line(capsys, "has no sound")
    nothing_left(tmp_path)


def test_a_vertical_phone_film_of_three_seconds_is_too_short_and_nothing_else(tmp_path, capsys):
    lying = [np.rot90(np.pad(p, ((0, 0), (100, 100), (0, 0))), -1) for p in presenter()[:45]]
    shoot(tmp_path / "film.mp4", lying, hum(1.8), rotation=90)
    assert create(tmp_path, "--synthetic") == 1
    one_line(capsys, "only 2 s of footage can be used")


def test_a_name_that_is_taken_or_is_none(tmp_path, capsys):
    shoot(tmp_path / "film.mp4", presenter()[:3], hum(0.2))
    words = ["create", "demo", str(tmp_path / "film.mp4"), "--synthetic", "--avatars-dir", str(tmp_path / "shelf")]
    assert main(words) == 1
    one_line(capsys, "called 'demo' already")
    words[1] = "../etc"
    assert main(words) == 1
    one_line(capsys, "an avatar's name is")


def test_a_full_disk_leaves_nothing_and_says_so(small, tmp_path, capsys, monkeypatch):
    """What was learned is there already: the disk fills up while the package is written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(small.cache))
    monkeypatch.setitem(QUALITIES, "draft", TINY)
    monkeypatch.setattr(command, "check", lambda videos, tracks: None)
    monkeypatch.setattr(command.loop, "pieces", partial(command.loop.pieces, seconds=1.0))

    def full(folder: Path, *_: object) -> None:
        (folder / "loop.mp4").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command.package, "write", full)
    words = ["create", "alice", str(small.film), "--synthetic", "--quality", "draft", "--device", "cpu"]
    assert main([*words, "--avatars-dir", str(tmp_path / "shelf"), "--report", str(tmp_path / "report")]) == 1
    assert (
        "the disk is full: free some space and run it again; what was learned so far is kept" in capsys.readouterr().err
    )
    nothing_left(tmp_path)


def test_an_avatar_and_its_report_are_there(small):
    assert small.avatar.name == "small"
    told = json.loads((small.report / "report.json").read_text())
    assert told["loop"]["join"] in ("forth and back", "cross-fade")
    assert not [path for path in small.shelf.root.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("text", ["12", "a:b", ":", "3:"])
def test_a_span_that_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError, match="START:END"):
        command._span(text)


def test_a_span_of_seconds():
    assert command._span("1.5:20") == (1.5, 20.0)
