"""The CPU's runtime: what networks an avatar has, computed by OpenVINO on one thread. No torch.

Recurrent graphs are computed in f32, painters in bf16 where this CPU has it and the golden steps allow it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.avatar import Array
from models.runtime import Floats, Pictures, Runtime
from models.runtime.assembled import assemble
from models.runtime.compiled import Compiled, best_precision
from models.runtime.ear import LIPS, Ear
from models.runtime.mixing import CompiledShelf
from models.runtime.shelf import Shelf
from models.runtime.stages import on_host


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None, lips: Path = LIPS) -> Runtime:  # noqa: A001 - the seam's name
    """Raises `RuntimeError` or `PackageError` if a graph is missing or does not answer as the reference did."""
    precisions = list(dict.fromkeys((best_precision(), "f32")))
    return assemble(packages, slots, lookahead, Ear, on_host(Compiled), precisions, lips, shelf, beside=True)


def shelf(mouths: Mapping[str, Array], similarity: Floats, loop: Pictures) -> CompiledShelf:
    return CompiledShelf(Shelf(mouths, similarity, loop))
