"""TensorRT without TensorRT: the names that we use and no others, computed on this CPU through raw addresses.

`test_builder.py` holds every name here against the real bindings, so that the code cannot use one that is not there.
"""

import ctypes
import json
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch

from models.runtime.interpreted import Interpreted
from tests.models.runtime.recording import launched

__version__ = "11.4.0"
MAGIC = b"fake engine\n"


class DataType(IntEnum):
    FLOAT, HALF, BF16, INT64, INT32, UINT8, BOOL = range(7)


class TensorIOMode(IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class ExecutionContextAllocationStrategy(IntEnum):
    STATIC, USER_MANAGED = range(2)


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def log(self, severity: Any, message: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True

    def phase_finish(self, phase_name: str) -> None: ...


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002 - the bindings call them so
        assert min == opt == max
        self._shapes[input] = tuple(min)


class IBuilderConfig:
    progress_monitor: IProgressMonitor | None = None

    def __init__(self) -> None:
        self._profiles: list[IOptimizationProfile] = []

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        assert pool_size > 0

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1


class INetworkDefinition:
    def __init__(self) -> None:
        self._graph = b""
        self._ports: list[Any] = []

    @property
    def num_inputs(self) -> int:
        return len(self._ports)

    def get_input(self, index: int) -> Any:
        return self._ports[index]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, [""][:0]

    def parse(self, model: bytes) -> bool:
        try:
            read = onnx.load_from_string(model)
            Interpreted(model)
        except Exception as error:
            self._errors.append(str(error))
            return False
        self._network._graph = model
        self._network._ports = [
            SimpleNamespace(name=p.name, shape=(-1, *(d.dim_value for d in p.type.tensor_type.shape.dim[1:])))
            for p in read.graph.input
        ]
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self._errors[index])


class Builder:
    fails = False

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if self.fails:
            self._logger.log(ILogger.Severity.ERROR, "no tactic\n  for a node")
            return None
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building Engine", None, 2)
            for step in range(2):
                assert config.progress_monitor.step_complete("Building Engine", step)
            config.progress_monitor.phase_finish("Building Engine")
        profiles = [profile._shapes for profile in config._profiles]
        return MAGIC + json.dumps(profiles).encode() + b"\n" + network._graph


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> "ICudaEngine | None":
        if not serialized_engine.startswith(MAGIC):
            self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
            return None
        profiles, graph = serialized_engine[len(MAGIC) :].split(b"\n", 1)
        return ICudaEngine(json.loads(profiles), graph)


class ICudaEngine:
    def __init__(self, profiles: list[dict[str, list[int]]], graph: bytes) -> None:
        self._profiles = profiles
        self._net = Interpreted(graph)
        self._names = [*self._net.asks, *self._net.gives]

    @property
    def num_io_tensors(self) -> int:
        return len(self._names)

    def get_tensor_name(self, index: int) -> str:
        return self._names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._net.asks else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self._net.shapes[name])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return 1000 * (profile_index + 1)

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> "IExecutionContext":
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)


class IExecutionContext:
    """Refuses whatever a real one refuses: no memory, a shape that its profile has not, an address that is missing."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._memory = 0
        self._profile: dict[str, list[int]] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        self._memory = size

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle
        self._profile = self._engine._profiles[profile_index]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self._profile is not None
        self._shapes[name] = tuple(shape)
        return tuple(self._profile[name]) == tuple(shape)

    def infer_shapes(self) -> list[str]:
        missing = [name for name in self._engine._net.asks if name not in self._shapes]
        if not missing:
            with torch.inference_mode():
                sample = self._engine._net({name: torch.zeros(self._shapes[name]) for name in self._engine._net.asks})
            self._shapes |= {name: tuple(tensor.shape) for name, tensor in sample.items()}
        return missing

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if not stream_handle or not self._memory or set(self._addresses) != set(self._engine._names):
            return False
        addresses, shapes = dict(self._addresses), dict(self._shapes)

        def kernel() -> None:
            inputs = {name: torch.from_numpy(_at(addresses[name], shapes[name])) for name in self._engine._net.asks}
            with torch.inference_mode():
                for name, tensor in self._engine._net(inputs).items():
                    _at(addresses[name], shapes[name])[:] = tensor.numpy()

        launched(kernel)
        return True


def _at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
