"""The examination: it tells the deaf from the perfect."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import voice
from models.studio import examination
from models.studio.examination import MEASURED, calibrated, draw_lookaheads, draw_progress, examine, sweep, table, wider
from models.studio.lessons import Lesson

from .toys import toy_lessons


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return toy_lessons(3)


def test_it_tells_a_deaf_encoder(lessons: list[Lesson], tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = examine(voice.VoiceEncoder().eval(), lessons)
    assert set(report) == {"K=0", "K=1", "K=2", "K=3"}
    assert report["K=2"]["viseme_accuracy"] < 0.5
    assert table({"toy": report}).row_count == 4
    draw_progress([(0, {"toy": report}), (1, {"toy": report})], tmp_path / "progress.png")
    draw_lookaheads({"toy": report}, tmp_path / "k.png")
    assert all((tmp_path / name).stat().st_size > 1_000 for name in ("progress.png", "k.png"))


def test_whoever_says_the_truth_has_all_points(lessons: list[Lesson]) -> None:
    answers = [
        voice.Heard(
            20 * torch.nn.functional.one_hot(torch.tensor(one.visemes), len(voice.VISEMES))[None].float(),
            torch.tensor(40 * one.closure[None] - 20),
            torch.tensor(one.mouth[None]),
        )
        for one in lessons
    ]
    figures = examination._figures(answers, lessons, 0.5)
    assert set(figures) == set(MEASURED)
    for key, least in zip(MEASURED, (1, 1, 1, 0.99, 1), strict=True):
        assert figures[key] >= least - 1e-6, key


def test_a_late_encoder_is_found_out(lessons: list[Lesson]) -> None:
    late = [
        voice.Heard(
            torch.zeros(1, len(one.visemes), len(voice.VISEMES)),
            torch.tensor(np.roll(40 * one.closure - 20, 5)[None]),
            torch.tensor(np.roll(one.mouth, 5, 0)[None]),
        )
        for one in lessons
    ]
    figures = examination._figures(late, lessons, 0.5)
    assert figures["closure_precision"] < 0.5
    assert figures["opening_r"] < 0.7


def test_wider_is_the_share_of_pairs() -> None:
    assert wider([0.3, 0.4], [0.0, 0.35]) == 0.75
    assert wider([0.3], [0.3]) == 0.5
    assert np.isnan(wider([], [0.1]))


def test_a_lower_threshold_finds_no_less(lessons: list[Lesson]) -> None:
    torch.manual_seed(0)
    found = [recall for recall, _ in sweep(voice.VoiceEncoder().eval(), lessons).values()]
    assert found == sorted(found, reverse=True)


def test_the_threshold_is_as_low_as_the_truth_of_what_it_says_allows() -> None:
    assert calibrated({0.2: (1.0, 0.5), 0.4: (0.98, 0.94), 0.6: (0.5, 1.0)}) == 0.4
    assert calibrated({0.2: (0.9, 0.5), 0.4: (0.8, 0.8)}) == 0.2
