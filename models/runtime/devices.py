"""Where tensors live and steps are recorded: an NVIDIA GPU, or any device that computes as it goes. Needs torch.

A step is a function that reads and writes tensors which never move. A GPU records it once as a CUDA graph and repeats
it with one call; what must differ from step to step (which slots, which frames) is in tensors too, never in Python.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Step = Callable[[], None]


class Device(Protocol):
    @property
    def where(self) -> torch.device: ...

    def working(self) -> AbstractContextManager[Any]:
        """Within the block, work is queued in order, in the device's one queue."""
        ...

    def record(self, step: Step) -> Step:
        """`step`, run a few times to warm up, then recorded: what is returned repeats it without any Python."""
        ...

    def aside(self) -> AbstractContextManager[Any]:
        """Within the block, copies run beside what is queued next, after all that is queued now."""
        ...

    def join(self) -> None:
        """What is queued next waits for what was begun aside."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the host that can be copied from and to without waiting."""
        ...

    def fetch(self, source: Tensor, landing: Tensor) -> npt.NDArray[Any]:
        """Copy to the host as soon as all that is queued is done, and wait for that; a view of `landing`."""
        ...

    @property
    def queue(self) -> int:
        """The queue's handle, for libraries that take one."""
        ...


class Unrecorded:
    """Any device, one operation after another, as it is written: the CPU, or a GPU that is only looked at."""

    queue = 0

    def __init__(self, where: torch.device | None = None) -> None:
        self.where = where or torch.device("cpu")

    def working(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def record(self, step: Step) -> Step:
        step()
        return step

    def aside(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def join(self) -> None:
        pass

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def fetch(self, source: Tensor, landing: Tensor) -> npt.NDArray[Any]:
        return landing.copy_(source).numpy()


class Cuda:
    """One NVIDIA GPU: a queue for steps, one for what is sent ahead, one for what comes home; one pool of memory.

    Recordings share the pool, since they never run at once; what a step answers lies outside of it.
    """

    WARM_UPS = 3

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError("torch sees no NVIDIA GPU")
        self.where = torch.device("cuda", torch.cuda.current_device())
        self._steps = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no types here
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._home = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    @property
    def queue(self) -> int:
        return int(self._steps.cuda_stream)

    @contextmanager
    def working(self) -> Iterator[None]:
        with torch.cuda.stream(self._steps):
            yield

    def record(self, step: Step) -> Step:
        with torch.cuda.stream(self._steps):
            for _ in range(self.WARM_UPS):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._steps):
            step()
        return graph.replay

    @contextmanager
    def aside(self) -> Iterator[None]:
        self._aside.wait_stream(self._steps)
        with torch.cuda.stream(self._aside):
            yield

    def join(self) -> None:
        self._steps.wait_stream(self._aside)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def fetch(self, source: Tensor, landing: Tensor) -> npt.NDArray[Any]:
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._home.wait_stream(self._steps)
        with torch.cuda.stream(self._home):
            landing.copy_(source, non_blocking=True)
            done.record(self._home)
        done.synchronize()
        return landing.numpy()


def moved(device: Device, values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device.where)


def sizes_of(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    return sum(array.nbytes for array in arrays.values())
