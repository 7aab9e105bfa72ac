"""The calmest stretch is chosen, its join measured, and footage parted into what is learned and what is held out."""

from dataclasses import replace

import numpy as np
import pytest

from models.create.film import FootageError
from models.create.loop import FADE_FRAMES, choose, cross_faded, faded_points, held_out, pieces
from models.create.track import Track
from tests.models.faces import speaking, turned


def footage(frames: int = 1000, calm: slice = slice(0, 0), yaw: np.ndarray | None = None) -> Track:
    """Somebody who speaks and sways, but for a calm stretch."""
    time = np.arange(frames) / 25
    openings = 8 + 8 * np.sin(2 * np.pi * 3 * time)
    sway = 8 * np.sin(2 * np.pi * 0.7 * time) if yaw is None else yaw
    openings[calm], sway[calm] = 0.5, 0.0
    points = turned(speaking(openings), sway).astype(np.float32)
    none, pose = np.zeros(frames, bool), np.stack([sway, 0 * sway, 0 * sway], 1).astype(np.float32)
    speech = np.ones(frames, bool)
    speech[calm] = False
    return Track(
        "0" * 64, 512, 512, 25.0, points, points, np.arange(frames), pose, np.zeros((frames, 2), np.float32),
        np.zeros(frames * 640, np.float32), speech, none, none, none, none, none, 0.0, 0.0, 0.6, 0.8, False,
    )  # fmt: skip


def test_the_calm_stretch_is_chosen():
    stretch = choose([footage(calm=slice(500, 850))])
    assert stretch.start >= 495
    assert stretch.stop <= 855
    assert stretch.seam < 0.2


def test_the_loop_leads_from_its_end_to_its_beginning():
    stretch = choose([footage(calm=slice(500, 850))])
    order = stretch.order
    if not stretch.fades:
        assert np.abs(np.diff(np.concatenate([order, order[:1]]))).max() == 1
    forth = replace(stretch, fades=False)
    assert np.abs(np.diff(np.concatenate([forth.order, forth.order[:1]]))).max() == 1


def test_no_loop_goes_over_a_cut_or_a_hand():
    track = footage()
    cut, hand = np.zeros(1000, bool), np.zeros(1000, bool)
    cut[[300, 600]] = True
    hand[700:] = True
    stretch = choose([replace(track, cut=cut, covered=hand)])
    assert not any(stretch.start < at < stretch.stop for at in (300, 600))
    assert stretch.stop <= 700


def test_a_stretch_may_be_given_and_is_checked():
    track = footage()
    assert choose([track], (2.0, 14.0)).start == 50
    for begin, end, says in ((2, 5, "10 to 40 seconds"), (30, 50, "not within"), (-1, 12, "not within")):
        with pytest.raises(FootageError, match=says):
            choose([track], (begin, end))
    cut = np.zeros(1000, bool)
    cut[100] = True
    with pytest.raises(FootageError, match="has a cut in it"):
        choose([replace(track, cut=cut)], (2.0, 14.0))


def test_a_cross_fade_ends_where_it_began():
    pictures = np.repeat(np.arange(60, 160, dtype=np.uint8)[:, None], 4, 1)
    faded = cross_faded(pictures)
    assert len(faded) == len(pictures) - FADE_FRAMES
    assert abs(int(faded[0, 0]) - int(pictures[-FADE_FRAMES, 0])) <= 12
    assert np.array_equal(faded[FADE_FRAMES:], pictures[FADE_FRAMES : len(faded)])
    points = np.arange(100, dtype=np.float32)[:, None, None] * np.ones((1, 478, 3), np.float32)
    assert faded_points(points).shape == (100 - FADE_FRAMES, 478, 3)


def test_pieces_are_short_and_some_are_held_out():
    tracks = [footage(), footage(60)]
    cut = pieces(tracks)
    assert sum(part.stop - part.start for _, part in cut) == 1060
    learned, held = held_out(cut, tracks)
    assert sorted([*learned, *held]) == list(range(len(cut)))
    assert held


@pytest.mark.parametrize("silent", [slice(0, 1000), slice(1000, 2000)])
def test_what_is_held_out_speaks_as_much_as_the_rest(silent):
    """Eight pieces of ten seconds, four of them silent; then twenty-four, of which three are held out."""
    track = footage(2000, silent)
    track.speech[500:600] = track.speech[1500:1600] = True
    cut = pieces([track])
    _, held = held_out(cut, [track])
    assert [track.speech[cut[n][1]].mean() for n in held] == [pytest.approx(0.4)]
    tracks = [track] * 3
    assert [cut[n % 8][1] for n in held_out(pieces(tracks), tracks)[1]] == 3 * [cut[held[0]][1]]


def test_footage_that_cannot_be_parted_is_refused():
    with pytest.raises(FootageError, match="film at least a minute"):
        held_out(pieces([footage(60)]), [footage(60)])
