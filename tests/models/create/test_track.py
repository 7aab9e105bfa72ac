"""From a video to frames at 25 a second with all that is wrong with them."""

import json
import resource
import signal

import numpy as np
import pytest

from engine.__main__ import main
from models.create import track as tracking
from models.create.film import FootageError
from models.create.track import Track, faults, track
from models.create.watch import Watched
from models.rates import CHUNK
from models.train import Clip
from tests.models.create.filmed import hum, presenter, shoot
from tests.models.faces import speaking, turned


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    path = shoot(folder / "a.mp4", presenter()[:50], hum(2))
    return path, track(path, kept=folder / "kept")


def seen(points: np.ndarray, seconds: np.ndarray, cut: np.ndarray | None = None) -> Watched:
    count = len(points)
    none = np.zeros(count, bool)
    return Watched(
        seconds, points.astype(np.float32), np.ones(count, int), none, none if cut is None else cut, np.ones(count)
    )


def test_the_presenter_is_tracked_with_her_sound(tracked):
    _, made = tracked
    assert made.points.shape == (50, 478, 3)
    assert len(made.audio) == 50 * CHUNK
    assert made.takes == [slice(0, 50)]
    assert np.abs(made.pose).max() < 10
    assert not made.labelled


def test_the_same_file_is_tracked_once(tracked, monkeypatch):
    path, made = tracked
    monkeypatch.setattr(tracking, "watch", lambda *_: pytest.fail("it looked again"))
    again = track(path, kept=path.parent / "kept")
    assert np.array_equal(again.points, made.points)
    assert again.offset_ms == made.offset_ms


def test_a_kept_track_that_is_damaged_is_made_again(tracked):
    path, made = tracked
    kept = next((path.parent / "kept").glob("*.npz"))
    whole = kept.read_bytes()
    kept.write_bytes(whole[:1000])
    assert np.array_equal(track(path, kept=path.parent / "kept").points, made.points)


def test_a_disk_that_is_full_leaves_the_old_track_and_nothing_beside_it(tracked, tmp_path):
    """Full for real: files of this process may not grow beyond a few kilobytes while it is written."""
    _, made = tracked
    place = tmp_path / "clip.npz"
    place.write_bytes(b"old")
    limit, before = resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(limit, (8192, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            made.save(place)
    finally:
        resource.setrlimit(limit, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert place.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npz"]


def test_the_trainer_reads_what_was_tracked(tracked, tmp_path):
    _, made = tracked
    made.save(tmp_path / "clip.npz")
    clip = Clip.read(tmp_path / "clip.npz")
    assert np.array_equal(clip.points, made.points)
    assert np.array_equal(clip.speech, made.speech)


def test_true_labels_beside_the_video_take_the_trackers_place(tracked):
    path, made = tracked
    labels = path.with_suffix(".labels.npz")
    np.savez(labels, points=made.points + 1, curves=np.zeros((50, 52)), fps=25)
    try:
        labelled = track(path, kept=path.parent / "kept")
        assert np.allclose(labelled.points, made.points + 1)
        assert faults(labelled)["labels"] == "studio"
        np.savez(labels, points=made.points[:20], fps=25)
        with pytest.raises(FootageError, match="does not fit its video"):
            track(path, kept=path.parent / "kept")
    finally:
        labels.unlink()


@pytest.mark.parametrize("rate", [30, 60, 24, 15])
def test_any_rate_becomes_25_by_moving_between_the_pictures(rate):
    seconds = np.arange(2 * rate) / rate
    openings = 10 + 8 * np.sin(2 * np.pi * 1.5 * seconds)
    times = np.arange(49) / 25
    cut = np.zeros(49, bool)
    points = tracking._resampled(seen(speaking(openings), seconds), times, cut)
    gap = np.linalg.norm(points[:, 13] - points[:, 14], axis=-1)
    assert np.abs(gap - (10 + 8 * np.sin(2 * np.pi * 1.5 * times)))[:-2].max() < 0.6


def test_a_face_lost_for_a_moment_is_bridged_and_for_a_second_is_not():
    points = speaking(np.full(100, 8.0))
    points[20:22] = np.nan
    points[50:75] = np.nan
    made = tracking._resampled(seen(points, np.arange(100) / 25), np.arange(100) / 25, np.zeros(100, bool))
    known = np.isfinite(made).all((1, 2))
    assert known[:48].all()
    assert not known[54:71].any()
    assert known[76:].all()


def test_motion_is_never_made_up_across_a_cut():
    points = np.concatenate([speaking(np.full(30, 2.0)), speaking(np.full(30, 20.0)) + 100])
    cut = np.zeros(60, bool)
    cut[30] = True
    made = tracking._resampled(seen(points, np.arange(60) / 30, cut), np.arange(50) / 25, np.zeros(50, bool))
    gap = np.linalg.norm(made[:, 13] - made[:, 14], axis=-1)
    assert ((np.abs(gap - 2) < 0.1) | (np.abs(gap - 20) < 0.1)).all()


def test_a_head_that_turns_away_is_measured():
    yaw = tracking._pose(turned(speaking(np.full(5, 8.0)), [-50, -20, 0, 20, 50]).astype(np.float32))[:, 0]
    assert np.abs(yaw)[[0, 4]].min() > tracking.TURNED_DEGREES
    assert np.abs(yaw)[1:4].max() < 30


def takes(made: Track, **changed) -> list[slice]:
    from dataclasses import replace

    return replace(made, **changed).takes


def test_takes_end_at_cuts_hands_and_lost_faces(tracked):
    _, made = tracked
    mask = np.zeros(50, bool)
    mask[40:] = True
    assert takes(made, covered=mask) == takes(made, missing=mask) == takes(made, second=mask) == [slice(0, 40)]
    cut = np.zeros(50, bool)
    cut[8] = True
    assert takes(made, cut=cut) == [slice(8, 50)]


def test_a_film_without_a_face_is_refused(tmp_path):
    path = shoot(tmp_path / "a.mp4", [np.full((240, 320, 3), 90, np.uint8)] * 10, hum(0.4))
    with pytest.raises(FootageError, match="no face was found"):
        track(path, kept=tmp_path / "kept")
    assert not list(tmp_path.rglob("*.npz"))


def test_the_command_tells_what_it_found(tracked, tmp_path, monkeypatch, capsys):
    path, _ = tracked
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent))
    assert main(["track", str(path), str(tmp_path / "out.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] == 2.0
    assert main(["track", str(tmp_path / "none.mp4"), str(tmp_path / "out.npz")]) == 1
    assert "does not exist" in capsys.readouterr().err
