"""ONNX → a TensorRT engine, by one code path for TensorRT 10.16 to 11.4 and for TensorRT-RTX. No torch.

Only names that all of them have are used here and in `tensorrt.py`; the tests hold them against the real bindings.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

LIBRARIES: Final = ("tensorrt", "tensorrt_rtx")
"""The first that is installed is used."""

OLDEST: Final = (10, 16)
NEWEST: Final = (11, 4)

WORKSPACE_BYTES: Final = 1 << 30

Progress = Callable[[str], None]
"""Takes a line that says how far it is."""


def library() -> Any:
    """The module. Raises `RuntimeError` when there is none, or one of another age."""
    for name in LIBRARIES:
        try:
            found = importlib.import_module(name)
        except ImportError:
            continue
        if name == "tensorrt":
            age = tuple(int(part) for part in found.__version__.split(".")[:2])
            if not OLDEST <= age <= NEWEST:
                known = " to ".join(".".join(map(str, one)) for one in (OLDEST, NEWEST))
                raise RuntimeError(f"TensorRT {found.__version__} is installed; {known} are known to work")
        return found
    raise RuntimeError('TensorRT is not installed: pip install "liveface[tensorrt]"')


class Complaints:
    """Collects what the library logs, so that a failure can be said in one line."""

    def __init__(self, trt: Any) -> None:
        lines: list[str] = []

        class Logger(trt.ILogger):  # type: ignore[misc]  # the library is not there when this is checked
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    lines.append(" ".join(message.split()))

        self.logger = Logger()
        self._lines = lines

    @property
    def last(self) -> str:
        return self._lines[-1] if self._lines else "it does not say why"


def build(trt: Any, graph: bytes, sizes: Sequence[int], progress: Progress | None = None) -> bytes:
    """The engine of a graph whose inputs are all batch first, for exactly these sizes of a batch: a profile for each.

    Precision is what the graph says (strongly typed). Raises `RuntimeError` with what the library said.
    """
    complaints = Complaints(trt)
    builder = trt.Builder(complaints.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, complaints.logger)
    if not parser.parse(graph):
        said = "; ".join(" ".join(parser.get_error(n).desc().split()) for n in range(parser.num_errors))
        raise RuntimeError(f"TensorRT does not read this graph: {said or complaints.last}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if progress is not None:
        config.progress_monitor = _monitor(trt, progress)
    for size in sizes:
        profile = builder.create_optimization_profile()
        for n in range(network.num_inputs):
            port = network.get_input(n)
            shape = (size, *tuple(port.shape)[1:])
            profile.set_shape(port.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError(f"TensorRT cannot build this graph: {complaints.last}")
    return bytes(engine)


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the library is not there when this is checked
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(f"{phase_name}: {step + 1} of {self.steps.get(phase_name, step + 1)}")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
