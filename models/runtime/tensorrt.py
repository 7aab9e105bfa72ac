"""TensorRT, 10.16 to 11.4, and TensorRT-RTX: the same steps as `graphed`, computed by engines. Needs an NVIDIA GPU.

An engine has one context for each size of a batch; they share their working memory, since they never run at once. What
goes in and out lies in torch's memory and never moves, so that a step is recorded with the engine in it.

Not yet run on a GPU: what is proven is the building, by the real parser and builder, and the rest on a fake.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from models.runtime import Runtime, builder
from models.runtime.assembled import assemble
from models.runtime.cache import EngineCache, Key, default_cache
from models.runtime.devices import Cuda, Device
from models.runtime.ear import LIPS
from models.runtime.precision import mixed
from models.runtime.resident import ears_on, stages_on
from models.runtime.shelf_net import shelves_on
from models.runtime.slots import buckets

PRECISIONS: Final = ("f16", "f32")

_ALIGNED: Final = 256


class EngineNet:
    """Implements `models.runtime.resident.Net`, for those sizes of a batch that its engine has profiles for."""

    def __init__(self, trt: Any, engine: bytes, profiles: Sequence[int], sizes: Sequence[int], device: Device) -> None:
        self._device = device
        self._complaints = builder.Complaints(trt)
        self._runtime = trt.Runtime(self._complaints.logger)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise RuntimeError(f"TensorRT does not take its engine: {self._complaints.last}")
        names = [self._engine.get_tensor_name(n) for n in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self.asks = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self.gives = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
        self._dtypes = {name: _dtype(trt, self._engine.get_tensor_dtype(name)) for name in names}
        self.shapes = {name: tuple(self._engine.get_tensor_shape(name))[1:] for name in self.asks}
        places = {rows: profiles.index(rows) for rows in sizes}
        size = max(int(self._engine.get_device_memory_size_for_profile_v2(place)) for place in places.values())
        self._working = torch.empty(size + _ALIGNED, dtype=torch.uint8, device=device.where)
        start = -(-self._working.data_ptr() // _ALIGNED) * _ALIGNED
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._contexts: dict[int, Any] = {}
        self._ports: dict[int, dict[str, Tensor]] = {}
        for rows, place in places.items():
            context = self._contexts[rows] = self._engine.create_execution_context(strategy)
            context.set_device_memory(start, size)
            self._must(context.set_optimization_profile_async(place, device.queue), "take its profile")
            self._ports[rows] = self._bound(context, rows)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = len(next(iter(inputs.values())))
        ports = self._ports[rows]
        for name in self.asks:
            ports[name].copy_(inputs[name])
        self._must(self._contexts[rows].execute_async_v3(self._device.queue), "run")
        return {name: ports[name] for name in self.gives}

    def _bound(self, context: Any, rows: int) -> dict[str, Tensor]:
        """Tensors at the addresses that the context is given for good."""
        for name in self.asks:
            self._must(context.set_input_shape(name, (rows, *self.shapes[name])), f"take {rows} rows of {name}")
        unknown = context.infer_shapes()
        self._must(not unknown, f"tell the shapes of {', '.join(unknown)}")
        ports: dict[str, Tensor] = {}
        for name in (*self.asks, *self.gives):
            shape = tuple(context.get_tensor_shape(name))
            ports[name] = torch.zeros(shape, dtype=self._dtypes[name], device=self._device.where)
            self._must(context.set_tensor_address(name, ports[name].data_ptr()), f"take the address of {name}")
        return ports

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise RuntimeError(f"TensorRT does not {what}: {self._complaints.last}")


def _dtype(trt: Any, kind: Any) -> torch.dtype:
    known = {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT64: torch.int64,
        trt.DataType.INT32: torch.int32,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.BOOL: torch.bool,
    }
    if kind not in known:
        raise RuntimeError(f"an engine that takes or gives {kind} is not known here")
    return known[kind]


def key_of(graph: bytes, precision: str, sizes: Sequence[int]) -> Key:
    """What an engine of this graph depends on, here. Raises `RuntimeError` without a library or a GPU."""
    trt = builder.library()
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no NVIDIA GPU")
    return Key(
        graph=hashlib.sha256(graph).hexdigest(),
        library=trt.__name__,
        version=trt.__version__,
        cuda=str(torch.version.cuda),
        capability=".".join(map(str, torch.cuda.get_device_capability())),
        gpu=torch.cuda.get_device_name(),
        precision=precision,
        buckets=tuple(sizes),
    )


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None, lips: Path = LIPS) -> Runtime:  # noqa: A001 - the seam's name
    """From engines that are built. Raises `cache.NotBuilt` when one is not, and builds nothing."""
    return open_with(EngineCache(default_cache()), packages, slots, lookahead, lips)


def open_with(
    cache: EngineCache,
    packages: Sequence[Path],
    slots: int,
    lookahead: int | None,
    lips: Path = LIPS,
    *,
    building: bool = False,
    device: Device | None = None,
) -> Runtime:
    """`building`: an engine that is not there is compiled now, which takes minutes."""
    trt, here = builder.library(), device or Cuda()
    profiles = buckets(max(2, slots))  # one engine a graph, also for the proof, which takes two slots

    def make(graph: bytes, precision: str, sizes: Sequence[int]) -> EngineNet:
        halved = mixed(graph, precision)
        key = key_of(halved, precision, profiles)
        if building:
            engine, there = cache.find_or_build(
                key, lambda progress: builder.build(trt, halved, profiles, progress), lambda: datetime.now(UTC)
            )
        else:
            engine, there = cache.find(key)
        return EngineNet(trt, engine, there, sizes, here)

    return assemble(
        packages,
        slots,
        lookahead,
        ears_on(here, make),
        stages_on(here, make),
        PRECISIONS,
        lips,
        shelves_on(here, slots),
    )
