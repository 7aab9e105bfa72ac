"""CUDA graphs over torch: the GPU's runtime that is always there. Needs torch, onnx and an NVIDIA GPU.

The graphs of the packages, in half precision where that was written into them, are recorded once for each size of a
batch; a step is a handful of copies and one call a stage.

Not yet run on a GPU: what is proven is the logic, on a device of the tests that records and repeats as CUDA graphs do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from models.runtime import Runtime
from models.runtime.assembled import assemble
from models.runtime.devices import Cuda, Device
from models.runtime.ear import LIPS
from models.runtime.interpreted import Interpreted
from models.runtime.precision import mixed
from models.runtime.resident import ears_on, stages_on
from models.runtime.shelf_net import shelves_on

PRECISIONS: Final = ("f16", "bf16", "f32")
"""Best first: f16 has three bits more than bf16 where grey levels are made, and is as fast."""


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None, lips: Path = LIPS) -> Runtime:  # noqa: A001 - the seam's name
    return open_on(Cuda(), packages, slots, lookahead, lips)


def open_on(
    device: Device,
    packages: Sequence[Path],
    slots: int,
    lookahead: int | None,
    lips: Path = LIPS,
    precisions: Sequence[str] = PRECISIONS,
) -> Runtime:
    def make(graph: bytes, precision: str, sizes: Sequence[int]) -> Interpreted:
        return Interpreted(mixed(graph, precision), device.where)

    return assemble(
        packages,
        slots,
        lookahead,
        ears_on(device, make),
        stages_on(device, make),
        precisions,
        lips,
        shelves_on(device, slots),
    )
