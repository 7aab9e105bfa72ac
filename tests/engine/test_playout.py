"""Moments leave on a beat that follows what is ready, and never queue up."""

import itertools
import random

import pytest

from engine.playout import GRACE_SECONDS, WINDOW, Playout
from models.rates import CHUNK_SECONDS


def played(playout: Playout, lateness: list[float]) -> list[float]:
    """When each position leaves, if it is ready `lateness` after its own nominal time and nobody gives up."""
    times = []
    for position, late in enumerate(lateness):
        at = position * CHUNK_SECONDS + late
        playout.ready(position, at)
        times.append(max(at, playout.due(position) or at))
    return times


def test_nothing_is_known_at_first() -> None:
    playout = Playout()
    assert playout.due(0) is None
    assert playout.give_up(0) is None


def test_a_steady_stream_leaves_as_soon_as_it_is_ready() -> None:
    times = played(Playout(), [0.012] * 200)
    delays = [t - n * CHUNK_SECONDS for n, t in enumerate(times)]
    assert max(delays) == pytest.approx(0.012)


def test_one_slow_picture_moves_nothing() -> None:
    playout = Playout()
    played(playout, [0.010] * 100)
    before = playout.due(100)
    playout.ready(100, 100 * CHUNK_SECONDS + 0.3)
    assert playout.due(100) == before


def test_a_machine_that_slowed_down_is_followed_within_two_seconds_both_ways() -> None:
    playout = Playout()
    played(playout, [0.010] * 100)
    for n in range(100, 100 + WINDOW):
        playout.ready(n, n * CHUNK_SECONDS + 0.035)
    assert playout.due(0) == pytest.approx(0.035)
    for n in range(150, 150 + WINDOW):
        playout.ready(n, n * CHUNK_SECONDS + 0.010)
    assert playout.due(0) == pytest.approx(0.010)


def test_jitter_is_smoothed_up_to_the_quantile() -> None:
    dice = random.Random(1)
    lateness = [abs(dice.gauss(0.010, 0.004)) for _ in range(500)]
    times = played(Playout(), lateness)[WINDOW:]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    raw = [CHUNK_SECONDS + b - a for a, b in itertools.pairwise(lateness[WINDOW:])]
    spread = sum(abs(g - CHUNK_SECONDS) for g in gaps) / len(gaps)
    assert spread < 0.5 * sum(abs(g - CHUNK_SECONDS) for g in raw) / len(raw)


def test_a_fast_microphone_is_followed_for_eight_hours() -> None:
    """100 ppm fast: after 8 h of its sound the beat is where the sound is, not 2.9 s behind it."""
    playout = Playout()
    moments = int(8 * 3600 / CHUNK_SECONDS)
    speed = 1 - 100e-6
    for position in range(moments - WINDOW, moments):
        playout.ready(position, position * CHUNK_SECONDS * speed + 0.010)
    late = (playout.due(moments) or 0.0) - moments * CHUNK_SECONDS * speed
    assert late == pytest.approx(0.010, abs=0.001)


def test_a_picture_is_given_up_after_the_grace() -> None:
    playout = Playout()
    playout.ready(0, 5.0)
    assert playout.due(3) == pytest.approx(5.0 + 3 * CHUNK_SECONDS)
    assert playout.give_up(3) == pytest.approx(5.0 + 3 * CHUNK_SECONDS + GRACE_SECONDS)


def test_it_counts_and_restarts() -> None:
    playout = Playout()
    playout.ready(0, 1.0)
    playout.left(repeated=False)
    playout.left(repeated=True)
    assert (playout.on_time, playout.repeated) == (1, 1)
    playout.restart()
    assert playout.due(7) is None
