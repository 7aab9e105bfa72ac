"""Which runtime serves, and why. Backends are imported only when they are asked for."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from models.runtime import OpenRuntime, Runtime

BUILT_IN: Final = ("openvino", "eager", "plain")
"""Backends that are modules of this package; any other name is a module's dotted path."""

AUTO: Final = ("openvino", "plain")
"""What `auto` tries, best first. `eager` is the reference, to compare with rather than to serve."""


def open_runtime(
    backend: str, packages: Sequence[Path], slots: int, lookahead: int | None = None
) -> tuple[Runtime, str]:
    """The runtime, open and warm, and one line that says which it is and why."""
    if backend != "auto":
        return _named(backend)(packages, slots, lookahead), f"{backend}: asked for"
    refusals: list[str] = []
    for name in AUTO[:-1]:
        try:
            return _named(name)(packages, slots, lookahead), f"{name}: the best that proved itself"
        except (ImportError, OSError, RuntimeError, ValueError) as refusal:
            refusals.append(f"{name} is not to be had: {' '.join(str(refusal).split())}")
    return _named(AUTO[-1])(packages, slots, lookahead), f"{AUTO[-1]}: {'; '.join(refusals)}"


def _named(backend: str) -> OpenRuntime:
    if backend in BUILT_IN:
        path = f"models.runtime.{backend}"
    elif "." in backend:
        path = backend
    else:
        raise ValueError(f"no backend is called {backend!r}; choose auto or one of: {', '.join(BUILT_IN)}")
    opener: OpenRuntime = importlib.import_module(path).open
    return opener
