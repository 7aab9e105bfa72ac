"""Lessons: what is true at each frame, and disguises that keep it true."""

import numpy as np
import torch

from models.mel import Mel
from models.rates import SAMPLE_RATE
from models.studio.lessons import BATCH, FRAMES, _masked, _warped, crops, lesson
from models.voice import COLUMNS, VISEME_OF

from .toys import tones, toy_lessons


def test_a_lesson_says_what_is_true_at_every_frame() -> None:
    one = lesson(tones(["aa", "m", "aa"]), Mel())
    assert len(one.visemes) * COLUMNS == len(one.columns)
    assert list(one.visemes[[2, 7, 12]]) == [VISEME_OF["aa"], VISEME_OF["m"], VISEME_OF["aa"]]
    assert one.closure[7] == 1
    assert one.closure[2] == 0
    assert one.mouth[2, 0] > 2 * one.mouth[7, 0], "the jaw is lower in a than in m"


def test_crops_are_whole_batches_of_finite_columns() -> None:
    columns, visemes, closure, mouth, counts = next(crops(toy_lessons(), np.random.default_rng(0)))
    assert columns.shape == (BATCH, FRAMES * COLUMNS, 80)
    assert visemes.shape == closure.shape == counts.shape == (BATCH, FRAMES)
    assert mouth.shape[:2] == (BATCH, FRAMES)
    assert torch.isfinite(columns).all()
    assert columns.min() >= 0
    assert counts.sum() > 0


def test_a_shorter_vocal_tract_is_heard_higher() -> None:
    """Bands are read from where a tone of 0.8 times the pitch lies: the warp is one of hertz, not of bands."""
    mel = Mel()

    def loudest(hertz: float) -> int:
        time = torch.arange(SAMPLE_RATE // 10) / SAMPLE_RATE
        columns, _ = mel(0.3 * torch.sin(2 * torch.pi * hertz * time)[None], mel.silence(1))
        return int(columns[0, 5].argmax())

    place = _warped(torch.tensor([[0.8]]), 80)[0]
    for hertz in (800.0, 1_500.0, 3_000.0):
        assert abs(float(place[loudest(hertz)]) - loudest(0.8 * hertz)) < 1.0


def test_lost_bands_stand_still_and_the_others_are_as_they_were() -> None:
    torch.manual_seed(0)
    columns = torch.rand(60, 20, 80)
    masked = _masked(columns)
    stands = (masked == columns.mean(1, keepdim=True)).all(1)
    assert torch.equal(masked[:, :, 0][~stands[:, 0]], columns[:, :, 0][~stands[:, 0]])
    assert 0.1 < float(stands.any(1).float().mean()) < 0.5
    assert int(stands.sum(1).max()) <= 13
