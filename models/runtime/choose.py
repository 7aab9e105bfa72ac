"""Which runtime serves, and why. Backends are imported only when they are asked for."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from models.runtime import OpenRuntime, Runtime, engines
from models.runtime.cache import EngineCache, NotBuilt, default_cache

BUILT_IN: Final = ("tensorrt", "graphed", "openvino", "eager", "plain")
"""Backends that are modules of this package; any other name is a module's dotted path."""

ON_GPU: Final = ("tensorrt", "graphed")
AUTO: Final = (*ON_GPU, "openvino", "plain")
"""What `auto` tries, best first. `eager` is the reference, to compare with rather than to serve."""

DRIVERS: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there where an NVIDIA GPU can be used (the second under Windows). Asking torch would take seconds."""


def open_runtime(
    backend: str, packages: Sequence[Path], slots: int, lookahead: int | None = None
) -> tuple[Runtime, str]:
    """The runtime, open and warm, and one line that says which it is and why.

    Every backend proves itself when it opens, by golden steps of the reference; `auto` takes the best one that does.
    Engines that TensorRT lacks are built beside it meanwhile, for the next start.
    """
    if backend != "auto":
        if backend == "tensorrt":
            _build_first(packages, slots)
        return _named(backend)(packages, slots, lookahead), f"{backend}: asked for"
    refusals: list[str] = []
    tried = AUTO if has_gpu() else [name for name in AUTO if name not in ON_GPU]
    if len(tried) < len(AUTO):
        refusals.append("no NVIDIA GPU")
    for name in tried[:-1]:
        try:
            return _named(name)(packages, slots, lookahead), _because(name, "the best that proved itself", refusals)
        except (ImportError, OSError, RuntimeError, ValueError) as refusal:
            refusals.append(f"{name} is not to be had: {' '.join(str(refusal).split())}")
            if isinstance(refusal, NotBuilt):
                refusals.append(_build_beside(packages, slots))
    return _named(AUTO[-1])(packages, slots, lookahead), _because(AUTO[-1], "it needs nothing", refusals)


def has_gpu() -> bool:
    return any(driver.exists() for driver in DRIVERS)


def _because(name: str, why: str, refusals: Sequence[str]) -> str:
    return f"{name}: {why}" + (f" ({'; '.join(refusals)})" if refusals else "")


def _build_first(packages: Sequence[Path], slots: int) -> None:
    """Whoever asks for TensorRT by name waits for its engines. The builder has a process of its own: it can crash."""
    log = default_cache() / "building.log"
    status = engines.build_beside(packages, slots, log).wait()
    if status:
        said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise RuntimeError(f"the engines cannot be built: {said[-1] if said else f'the builder ended with {status}'}")


def _build_beside(packages: Sequence[Path], slots: int) -> str:
    cache = default_cache()
    if not EngineCache(cache).building():
        engines.build_beside(packages, slots, cache / "building.log")
    return "it is being built for the next start; `liveface engine list` says how far it is"


def _named(backend: str) -> OpenRuntime:
    if backend in BUILT_IN:
        path = f"models.runtime.{backend}"
    elif "." in backend:
        path = backend
    else:
        raise ValueError(f"no backend is called {backend!r}; choose auto or one of: {', '.join(BUILT_IN)}")
    opener: OpenRuntime = importlib.import_module(path).open
    return opener
