"""Toy voices: every phone a tone of its own, closures silent."""

import numpy as np

from models.mel import Mel
from models.rates import SAMPLE_RATE
from models.studio.articulation import Phone
from models.studio.lessons import Lesson, lesson
from models.studio.speech import Utterance


def tones(names: list[str], seconds: float = 0.2) -> Utterance:
    phones = tuple(Phone(name, n * seconds, (n + 1) * seconds) for n, name in enumerate(names))
    pitch = {"aa": 700.0, "iy": 2_500.0, "uw": 400.0, "s": 5_500.0}
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    quiet = np.zeros_like(time)
    pieces = [0.3 * np.sin(2 * np.pi * pitch[n] * time) if n in pitch else quiet for n in names]
    return Utterance("toy", " ".join(names), np.concatenate(pieces).astype(np.float32), phones)


def toy_lessons(number: int = 12) -> list[Lesson]:
    dice = np.random.default_rng(0)
    return [lesson(tones(list(dice.choice(["aa", "iy", "uw", "s", "m"], 16))), Mel()) for _ in range(number)]
