"""Which runtime serves, and why. Backends are imported only when they are asked for."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from models.runtime import OpenRuntime, Runtime

BUILT_IN = {"plain": "models.runtime.plain"}
"""Backends by name; any other name is a module's dotted path."""


def open_runtime(
    backend: str, packages: Sequence[Path], slots: int, lookahead: int | None = None
) -> tuple[Runtime, str]:
    """The runtime, open and warm, and one line that says which it is and why."""
    if backend == "auto":
        return _named("plain")(packages, slots, lookahead), "plain: the only kind of avatar that is open"
    return _named(backend)(packages, slots, lookahead), f"{backend}: asked for"


def _named(backend: str) -> OpenRuntime:
    path = BUILT_IN.get(backend, backend)
    if backend not in BUILT_IN and "." not in backend:
        raise ValueError(f"no backend is called {backend!r}; choose auto or one of: {', '.join(sorted(BUILT_IN))}")
    opener: OpenRuntime = importlib.import_module(path).open
    return opener
