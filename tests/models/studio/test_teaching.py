"""Teaching: a little is learnt in seconds, and a killed run goes on where it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.mel import running_mean
from models.studio.lessons import Lesson, crops
from models.studio.teaching import Course, loss_of
from models.voice import VoiceEncoder

from .toys import toy_lessons


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    torch.set_num_threads(1)
    return toy_lessons()


@torch.no_grad()
def loss(encoder: VoiceEncoder, lessons: list[Lesson]) -> float:
    torch.manual_seed(5)
    columns, *truth = next(crops(lessons, np.random.default_rng(9), batch=4))
    normal = running_mean()
    code, _ = encoder(normal(columns, normal.silence(4))[0], encoder.silence(4))
    return float(loss_of(encoder, code, (truth[0], truth[1], truth[2], truth[3])))


def test_a_toy_voice_begins_to_be_learnt_in_seconds(lessons: list[Lesson]) -> None:
    course = Course(lessons, batch=6)
    before = loss(course.taught(), lessons)
    assert loss(course.teach(steps=40), lessons) < 0.8 * before


def test_a_killed_run_goes_on_where_it_was(lessons: list[Lesson], tmp_path: Path) -> None:
    first = Course(lessons, batch=2, checkpoint=tmp_path / "run.safetensors")
    taught = first.teach(steps=3)
    again = Course(lessons, batch=2, checkpoint=tmp_path / "run.safetensors")
    assert again.at == 3
    assert again.seconds == pytest.approx(first.seconds)
    for ours, theirs in zip(again.taught().parameters(), taught.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    moments, back = (course.optimiser.state_dict()["state"] for course in (first, again))
    assert set(moments) == set(back)
    for index in moments:
        torch.testing.assert_close(back[index]["exp_avg"], moments[index]["exp_avg"])
    again.teach(steps=4)
    assert again.at == 4


def test_whoever_looks_sees_what_is_learnt(lessons: list[Lesson]) -> None:
    seen: list[int] = []
    Course(lessons, batch=2).teach(steps=2, every_minutes=0, look=lambda step, _: seen.append(step))
    assert seen == [1, 2]


def test_it_goes_on_from_weights(lessons: list[Lesson]) -> None:
    torch.manual_seed(3)
    start = VoiceEncoder().eval()
    taught = Course(lessons, start=start).taught()
    for ours, theirs in zip(taught.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
