"""One graph of an avatar with the states of its sessions: what a step is made of, whoever compiles it. No torch.

A graph gets what it asks for by name: `frame_NAME`, the row NAME of the loop frame that is answered for; `state_N`,
what it gave as `after_N` in the step before; anything else as its caller or another graph gave it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from models.avatar import Avatar, PackageError
from models.runtime import Bytes, Floats
from models.runtime.slots import BUCKETS, Slots, batches, bucket, buckets

PLANES: Final = ("luma", "u", "v")

TOLERANCE: Final = {
    "f32": {"points": 0.02, "face": 2e-3, "luma": 1.0},
    "f16": {"points": 0.02, "face": 2e-3, "luma": 2.0},
    "bf16": {"points": 0.02, "face": 2e-3, "luma": 6.0},
}
"""Largest difference from the reference: pixels, weights, grey levels. By the painter's precision; the step is f32."""


class Graph(Protocol):
    """A compiled graph: named arrays in, named arrays out, for the batch sizes that it was compiled for."""

    @property
    def asks(self) -> Sequence[str]:
        """The names of its inputs."""
        ...

    def __call__(self, inputs: Mapping[str, Floats]) -> Mapping[str, Floats]: ...


Compile = Callable[[bytes, Sequence[int], str], Graph]
"""(ONNX, batch sizes, precision) → a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One graph of an avatar, and all that it needs besides what it is given at each step."""

    name: str
    graph: bytes
    precision: str
    silence: Mapping[str, Floats]  # state → the row [1, …] of a session that has heard nothing
    frames: Mapping[str, Floats]  # array → a row for each frame of the loop
    shown: tuple[str, ...] = ()  # what of its answers is fetched; nothing named: everything
    large: bool = False  # so much is computed for a row that a processor gains nothing by batches


class Stage(Protocol):
    """A part with the states of its sessions, wherever they lie: in numpy here, on a GPU in `resident`."""

    def run(
        self, slots: Sequence[int], reset: Sequence[bool], index: Sequence[int], given: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """One step of a batch no larger than the largest bucket: [B, …] by name, good until the next `run`.

        `index` is of each row's loop frame; `given` is numpy's, or what another stage of the same kind answered.
        """
        ...

    def fetch(self, answers: Mapping[str, Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Some of the answers as numpy arrays, the caller's for good."""
        ...


MakeStage = Callable[[Part, int], Stage]
"""(part, slots) → a stage with everything allocated."""


class HostStage:
    """In numpy, for a graph that takes and gives numpy arrays. A large one is given a row at a time."""

    def __init__(self, part: Part, graph: Graph, slots: int) -> None:
        self._graph = graph
        self._frames = part.frames
        self._most = 1 if part.large else BUCKETS[-1]
        if set(part.silence) != {asked for asked in graph.asks if asked.startswith("state_")}:
            raise PackageError(f"silence.safetensors does not hold the states of {part.name}.onnx")
        self._slots = Slots(part.silence, slots)

    def run(
        self, slots: Sequence[int], reset: Sequence[bool], index: Sequence[int], given: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        answers = [
            self._run(slots[part], reset[part], index[part], {name: array[part] for name, array in given.items()})
            for part in batches(len(slots), self._most)
        ]
        return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}

    def _run(
        self, slots: Sequence[int], reset: Sequence[bool], index: Sequence[int], given: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        states = self._slots.gather(slots, reset)
        size = bucket(len(slots))
        inputs = dict(states)
        for name in self._graph.asks:
            if name not in states:
                frame = name.startswith("frame_")
                inputs[name] = padded(self._frames[name[6:]][np.asarray(index)] if frame else given[name], size)
        out = self._graph(inputs)
        self._slots.scatter(slots, {name: out[name.replace("state_", "after_")] for name in states})
        return {name: array[: len(slots)] for name, array in out.items() if not name.startswith("after_")}

    def fetch(self, answers: Mapping[str, Any]) -> Mapping[str, npt.NDArray[Any]]:
        return answers


def on_host(compiler: Compile) -> MakeStage:
    """Stages of whoever compiles graphs for numpy."""

    def make(part: Part, slots: int) -> HostStage:
        return HostStage(part, compiler(part.graph, (1,) if part.large else buckets(slots), part.precision), slots)

    return make


def padded(rows: Floats, size: int) -> Floats:
    """To a bucket, with the first row: numbers that a network knows, which nobody reads afterwards."""
    return np.asarray(np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)]), np.float32)


def in_bytes(plane: npt.NDArray[Any]) -> Bytes:
    """Grey levels as they are sent, unless whoever painted has made them so already."""
    return plane if plane.dtype == np.uint8 else np.rint(np.clip(plane, 0, 255)).astype(np.uint8)


def arrays(avatar: Avatar, path: str) -> dict[str, Floats]:
    """Any arrays of a verified file, float32 or bytes, as float32."""
    try:
        found = load(avatar.read(path))
    except SafetensorError as error:
        raise PackageError(f"{avatar.name}: {path} cannot be read: {error}") from error
    for name, array in found.items():
        if array.dtype == np.uint8:  # pictures: a quarter of the space
            found[name] = array.astype(np.float32)
        elif array.dtype != np.float32 or not np.isfinite(array).all():
            raise PackageError(f"{avatar.name}: {path}: {name} is not of finite float32")
    return found
