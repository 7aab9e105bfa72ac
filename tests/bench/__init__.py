"""Benchmarks: `python -m tests.bench.NAME` prints what it measured."""
