"""Which runtime serves, and why. Backends are imported only when they are asked for."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from models.runtime import Runtime, engines
from models.runtime.cache import NotBuilt, default_cache

BUILT_IN: Final = ("tensorrt", "graphed", "openvino", "eager", "plain")
"""Backends that are modules of this package; any other name is a module's dotted path."""

ON_GPU: Final = ("tensorrt", "graphed")
AUTO: Final = (*ON_GPU, "openvino", "plain")
"""What `auto` tries, best first. `eager` is the reference, to compare with rather than to serve."""

DRIVERS: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there where an NVIDIA GPU can be used (the second under Windows). Asking torch would take seconds."""


class Chosen(NamedTuple):
    """A runtime, open and warm."""

    runtime: Runtime
    reason: str
    """One line that says which it is and why."""
    better: Callable[[], bool] | None = None
    """Something better can be made: this makes it, or waits until it is made, and says whether it was."""


def open_runtime(backend: str, packages: Sequence[Path], slots: int, lookahead: int | None = None) -> Chosen:
    """Every backend proves itself when it opens, by golden steps of the reference; `auto` takes the best that does.

    A backend's module may have `better(packages, slots) -> bool`, as `Chosen.better`, besides `open`.
    """
    if backend != "auto":
        if backend == "tensorrt":
            _build_first(packages, slots)
        module = _module(backend)
        runtime: Runtime = module.open(packages, slots, lookahead)
        waits = getattr(module, "better", None)
        return Chosen(runtime, f"{backend}: asked for", partial(waits, packages, slots) if waits else None)
    refusals: list[str] = []
    better: Callable[[], bool] | None = None
    tried = AUTO if has_gpu() else [name for name in AUTO if name not in ON_GPU]
    if len(tried) < len(AUTO):
        refusals.append("no NVIDIA GPU")
    for name in tried[:-1]:
        try:
            runtime = _module(name).open(packages, slots, lookahead)
            return Chosen(runtime, _because(name, "the best that proved itself", refusals), better)
        except (ImportError, OSError, RuntimeError, ValueError) as refusal:
            refusals.append(f"{name} is not to be had: {' '.join(str(refusal).split())}")
            if isinstance(refusal, NotBuilt):
                better = partial(engines.built, packages, slots, default_cache())
    runtime = _module(AUTO[-1]).open(packages, slots, lookahead)
    return Chosen(runtime, _because(AUTO[-1], "it needs nothing", refusals), better)


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


def _module(backend: str) -> Any:
    """Which has `open`, an `OpenRuntime`."""
    if backend in BUILT_IN:
        try:
            return importlib.import_module(f"models.runtime.{backend}")
        except ModuleNotFoundError as missing:
            extra = backend if backend == "tensorrt" else "torch"
            raise RuntimeError(f'{backend} needs {missing.name}: pip install "liveface[{extra}]"') from missing
    if "." in backend:
        return importlib.import_module(backend)
    raise ValueError(f"no backend is called {backend!r}; choose auto or one of: {', '.join(BUILT_IN)}")
