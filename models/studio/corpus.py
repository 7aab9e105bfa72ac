"""A corpus of synthetic speech with exact phone times: `liveface studio speech OUT`.

The same seed gives the same corpus; what was spoken once is kept and found again.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from models.studio.articulation import Phone
from models.studio.festival import FESTIVAL_VOICES, Saying, festival, missing
from models.studio.sentences import FOREIGN, nonsense, pseudo, sentences
from models.studio.speech import (
    ESPEAK_ACCENTS,
    ESPEAK_MEN,
    ESPEAK_WOMEN,
    FLITE_VOICES,
    Espeak,
    MissingVoiceError,
    Utterance,
    flite,
)


@dataclass(frozen=True)
class Plan:
    """Who says what. `hold_out` are voices, or the beginnings of their names, that must not be heard in training."""

    seed: int = 1
    per_flite_voice: int = 120
    espeak_utterances: int = 700
    foreign: bool = True
    invented: float = 0.3
    """Share of the sentences whose words do not exist."""
    per_festival_voice: int = 60
    hold_out: tuple[str, ...] = ()

    def sayings(self, voice: str) -> int:
        """How many sentences a flite voice says; kal and kal16 are one man."""
        return math.ceil(self.per_flite_voice / 2) if voice.startswith("kal") else self.per_flite_voice


def corpus(plan: Plan, cache: Path | None = None) -> Iterator[Utterance]:
    """The clean utterances of a plan, in an order of its seed. Voices that are not installed are an error, but for
    festival's, which are left out."""
    dice = np.random.default_rng(plan.seed)
    number = max(plan.per_flite_voice, 300)
    texts, invented = sentences(number, plan.seed), nonsense(number, plan.seed)
    for voice in FLITE_VOICES:
        for index in range(0 if _held(voice, plan) else plan.sayings(voice)):
            text = (invented if dice.random() < plan.invented else texts)[index]
            high = math.exp(dice.uniform(math.log(0.85), math.log(1.9))) if dice.random() < 0.7 else 1.0
            how = (round(high, 3), round(float(dice.uniform(0.75, 1.25)), 3))
            yield _kept(cache, ("flite", voice, text, *how), partial(flite, text, voice, *how))
    yield from _of_festival(plan, cache)
    if _held("espeak:", plan):
        return
    espeak = Espeak()
    made = 0
    while made < plan.espeak_utterances:
        language, text = str(dice.choice(ESPEAK_ACCENTS)), str(dice.choice(texts))
        if dice.random() < plan.invented:
            text = str(dice.choice(invented))
        if plan.foreign and dice.random() < 0.2:
            language = str(dice.choice(list(FOREIGN)))
            text = str(dice.choice(FOREIGN[language]))
        voice = language + str(dice.choice(ESPEAK_WOMEN if dice.random() < 0.5 else ESPEAK_MEN))
        pace = (int(dice.integers(125, 215)), int(dice.integers(15, 95)), int(dice.integers(25, 80)))
        if _held(f"espeak:{voice}", plan):
            continue
        made += 1
        try:
            yield _kept(cache, ("espeak", voice, text, *pace), partial(espeak.say, text, voice, *pace))
        except MissingVoiceError:
            continue  # not every variant exists in every release


def _of_festival(plan: Plan, cache: Path | None) -> Iterator[Utterance]:
    """In English as the others, in its own languages words that nobody says."""
    absent = missing()
    for voice, speaker in FESTIVAL_VOICES.items():
        if voice in absent or _held(f"festival:{voice}", plan):
            continue
        dice = np.random.default_rng([plan.seed, *voice.encode()])
        sayings: dict[tuple[object, ...], Saying] = {}
        for text in pseudo(plan.per_festival_voice, f"{plan.seed} {voice}", speaker.language):
            high = math.exp(dice.uniform(math.log(0.8), math.log(1.5))) if dice.random() < 0.7 else 1.0
            one = Saying(text, round(high, 3), round(float(dice.uniform(0.8, 1.35)), 3))
            sayings["festival", voice, one.text, one.pitch, one.pace] = one
        lacking = [key for key in sayings if cache is None or not _path(cache, key).exists()]
        spoken = festival([sayings[key] for key in lacking], voice) if lacking else []
        fresh = dict(zip(lacking, spoken, strict=True))
        for key in sayings:
            yield _kept(cache, key, partial(fresh.__getitem__, key))


def _held(voice: str, plan: Plan) -> bool:
    return any(voice.startswith(name) for name in plan.hold_out)


def _kept(cache: Path | None, key: tuple[object, ...], speak: Callable[[], Utterance]) -> Utterance:
    if cache is None:
        return speak()
    path = _path(cache, key)
    if path.exists():
        return load(path)
    spoken = speak()
    save(path, spoken)
    return spoken


def _path(cache: Path, key: tuple[object, ...]) -> Path:
    return cache / (hashlib.sha256(repr(key).encode()).hexdigest()[:24] + ".npz")


def save(path: Path, spoken: Utterance) -> None:
    """One utterance as .npz, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + f".{os.getpid()}.part")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            voice=np.array(spoken.voice),
            text=np.array(spoken.text),
            sound=(spoken.sound * 32767).astype(np.int16),
            names=np.array([phone.name for phone in spoken.phones]),
            times=np.array([(phone.start, phone.end) for phone in spoken.phones], np.float32),
        )
    unfinished.replace(path)


def load(path: Path) -> Utterance:
    with np.load(path, allow_pickle=False) as kept:
        phones = tuple(
            Phone(str(name), float(start), float(end))
            for name, (start, end) in zip(kept["names"], kept["times"], strict=True)
        )
        sound = kept["sound"].astype(np.float32) / 32767
        return Utterance(str(kept["voice"]), str(kept["text"]), sound, phones)
