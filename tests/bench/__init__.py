"""Benchmarks: `python -m tests.bench.NAME` prints what it measured."""

import time
from collections.abc import Callable

import numpy as np


def median_ms(step: Callable[[], object], rounds: int = 20, steps: int = 100) -> float:
    """Median over rounds of the mean time of a step: a shared machine disturbs means."""
    step()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        times.append((time.perf_counter() - start) / steps * 1e3)
    return float(np.median(times))
