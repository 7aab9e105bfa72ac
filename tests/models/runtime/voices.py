"""Sounds that need no corpus: harmonics through formants, hiss, hum. Deterministic. [n, 640] chunks at 16 kHz."""

import numpy as np

from models.rates import CHUNK, SAMPLE_RATE
from models.runtime import Floats

FORMANTS = {
    "a": ((750, 1.0), (1150, 0.6)),
    "i": ((280, 1.0), (2300, 0.4)),
    "u": ((300, 1.0), (700, 0.1)),
    "o": ((450, 1.0), (800, 0.5)),
}
"""Hertz and amplitude of the first two."""


def vowel(name: str, chunks: int, level: float = 0.2, pitch: float = 120.0) -> Floats:
    time = np.arange(chunks * CHUNK) / SAMPLE_RATE
    sound = np.zeros_like(time)
    for harmonic in np.arange(pitch, 7000, pitch):
        gain = sum(gain / (1 + ((harmonic - formant) / 90) ** 2) for formant, gain in FORMANTS[name])
        sound += gain * np.sin(2 * np.pi * harmonic * time + harmonic)
    return _at(sound, level)


def hiss(chunks: int, level: float = 0.05, seed: int = 1) -> Floats:
    noise = np.random.default_rng(seed).normal(size=chunks * CHUNK)
    spectrum = np.fft.rfft(noise)
    spectrum[np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE) < 4800] = 0
    return _at(np.fft.irfft(spectrum), level)


def silence(chunks: int) -> Floats:
    return np.zeros((chunks, CHUNK), np.float32)


def babble(chunks: int, seed: int) -> Floats:
    """Vowels, hiss and pauses in an order of chance."""
    chance = np.random.default_rng(seed)
    parts = [_of_chance(chance) for _ in range(chunks)]
    return np.concatenate(parts)[:chunks]


def _of_chance(chance: np.random.Generator) -> Floats:
    kind, chunks = chance.choice([*FORMANTS, "hiss", "silence"]), int(chance.integers(1, 4))
    if kind == "hiss":
        return hiss(chunks, seed=int(chance.integers(100)))
    return silence(chunks) if kind == "silence" else vowel(str(kind), chunks, float(chance.uniform(0.05, 0.4)))


def _at(sound: np.ndarray, level: float) -> Floats:
    scaled = sound * level / np.sqrt(np.square(sound).mean())
    return np.clip(scaled, -1, 1).astype(np.float32).reshape(-1, CHUNK)
