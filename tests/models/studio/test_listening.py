"""The encoder's lessons: what is true at each frame, and that a few of them are learnt."""

import numpy as np
import pytest
import torch

from models.mel import Mel, running_mean
from models.rates import SAMPLE_RATE
from models.studio.articulation import Phone
from models.studio.listening import BATCH, FRAMES, Lesson, crops, examine, lesson, loss_of, teach
from models.studio.speech import Utterance
from models.voice import COLUMNS, VISEME_OF, VoiceEncoder


def tones(names: list[str], seconds: float = 0.2) -> Utterance:
    """A toy voice: every phone a tone of its own, closures silent."""
    phones = tuple(Phone(name, n * seconds, (n + 1) * seconds) for n, name in enumerate(names))
    pitch = {"aa": 700.0, "iy": 2_500.0, "uw": 400.0, "s": 5_500.0}
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    quiet = np.zeros_like(time)
    pieces = [0.3 * np.sin(2 * np.pi * pitch[n] * time) if n in pitch else quiet for n in names]
    return Utterance("toy", " ".join(names), np.concatenate(pieces).astype(np.float32), phones)


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    dice = np.random.default_rng(0)
    return [lesson(tones(list(dice.choice(["aa", "iy", "uw", "s", "m"], 16))), Mel()) for _ in range(12)]


def test_a_lesson_says_what_is_true_at_every_frame(lessons: list[Lesson]) -> None:
    one = lesson(tones(["aa", "m", "aa"]), Mel())
    assert len(one.visemes) * COLUMNS == len(one.columns)
    assert list(one.visemes[[2, 7, 12]]) == [VISEME_OF["aa"], VISEME_OF["m"], VISEME_OF["aa"]]
    assert one.closure[7] == 1
    assert one.closure[2] == 0
    assert one.mouth[2, 0] > 2 * one.mouth[7, 0], "the jaw is lower in a than in m"


def test_crops_are_whole_batches_of_finite_columns(lessons: list[Lesson]) -> None:
    columns, visemes, closure, mouth, counts = next(crops(lessons, np.random.default_rng(0)))
    assert columns.shape == (BATCH, FRAMES * COLUMNS, 80)
    assert visemes.shape == closure.shape == counts.shape == (BATCH, FRAMES)
    assert mouth.shape[:2] == (BATCH, FRAMES)
    assert torch.isfinite(columns).all()
    assert columns.min() >= 0
    assert counts.sum() > 0


@torch.no_grad()
def loss(encoder: VoiceEncoder, lessons: list[Lesson]) -> float:
    columns, *truth = next(crops(lessons, np.random.default_rng(9), batch=4))
    normal = running_mean()
    code, _ = encoder(normal(columns, normal.silence(4))[0], encoder.silence(4))
    return float(loss_of(encoder, code, (truth[0], truth[1], truth[2], truth[3])))


def test_a_toy_voice_begins_to_be_learnt_in_seconds(lessons: list[Lesson]) -> None:
    torch.set_num_threads(1)
    untaught, taught = teach(lessons, steps=0), teach(lessons, steps=40, batch=6)
    torch.manual_seed(5)
    before = loss(untaught, lessons)
    torch.manual_seed(5)
    assert loss(taught, lessons) < 0.8 * before


def test_the_examination_tells_a_deaf_encoder(lessons: list[Lesson]) -> None:
    report = examine(teach(lessons, steps=0), lessons[:2])
    assert set(report) == {"K=0", "K=1", "K=2", "K=3"}
    assert report["K=2"]["viseme_accuracy"] < 0.5
