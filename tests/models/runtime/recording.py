"""A device that records and repeats as CUDA graphs do, on this CPU: what Python decided while it recorded is frozen.

A recording is the list of operations with the very tensors they read and wrote; repeating it computes into those same
tensors. Reading a tensor's value while recording is a fault, as it is on a GPU, and so is asking it to wait.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.runtime.devices import Step, Unrecorded

WAITS = ("aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.masked_select")

_recording: list["Recording"] = []


class Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(WAITS):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)

        def again() -> None:
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

        self.operations.append(again)
        return out


class RecordingDevice(Unrecorded):
    """`queue` is a number that libraries may be given; what they launch is recorded by `launched`."""

    queue = 7

    def __init__(self) -> None:
        super().__init__()
        self.recordings = 0
        self.repeated = 0
        self.pinned_bytes = 0

    def record(self, step: Step) -> Step:
        step()  # to warm up: whatever is made once is made here
        recording = Recording()
        _recording.append(recording)
        try:
            with recording:
                step()
        finally:
            _recording.remove(recording)
        self.recordings += 1

        def repeat() -> None:
            self.repeated += 1
            with torch.inference_mode():
                for operation in recording.operations:
                    operation()

        return repeat

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        made = super().pinned(shape, dtype)
        self.pinned_bytes += made.nbytes
        return made


def launched(kernel: Callable[[], None]) -> None:
    """What a library does when it is told to run: now, and again at every repetition."""
    with paused():
        kernel()
    if _recording:
        _recording[-1].operations.append(kernel)


@contextmanager
def paused() -> Iterator[None]:
    """What runs in here is a library's own business, not torch's."""
    with torch.utils._python_dispatch._disable_current_modes():
        yield
