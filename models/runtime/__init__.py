"""The seam behind which mel → voice → landmarks → renderer run, batched over sessions. No torch is named here.

A backend is a module with `open(packages, slots, lookahead=None) -> Runtime`. One thread calls `step`; it never runs
twice at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Flag, auto
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Pictures(Protocol):
    """A loop's pictures in I420, read-only: an array of uint8 [frames, height * 3 / 2, width], or what behaves so."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Bytes:
        """[height * 3 / 2, width]"""
        ...


STAGES = ("features", "landmarks", "render", "place")
"""What `Out.stage_seconds` may tell apart: sound to features, to landmarks, to a mouth, into the loop frame."""


class Wants(Flag):
    """What a row asks for. What nobody wants is not computed."""

    NOTHING = 0
    POINTS = auto()
    FACE = auto()
    MESH = auto()
    PICTURE = auto()


@dataclass(frozen=True, slots=True, eq=False)
class AvatarCard:
    """What the engine knows of an open avatar. Arrays are read-only."""

    name: str
    revision: str  # SHA-256 of the manifest
    width: int
    height: int
    lookahead: int  # K in frames: the step that hears chunk n answers for chunk n - K
    loop: Pictures  # [frames, height * 3 / 2, width]: the reference loop in I420
    synthetic: bool = True
    label: str = "AI"

    @property
    def frames(self) -> int:
        return int(self.loop.shape[0])


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """40 ms of one session, into `step`."""

    slot: int
    generation: int  # grows each time a slot gets a new session
    reset: bool  # start from silence: a new session, or a new epoch
    avatar: str
    pcm: Floats  # [640]
    loop_index: int  # of the frame that the answer is for, which is K frames old by now
    wants: Wants


@dataclass(frozen=True, slots=True, eq=False)
class Roi:
    """The painted part of a loop frame, already blended: I420, even corner, even size."""

    x: int
    y: int
    luma: Bytes  # [h, w]
    u: Bytes  # [h / 2, w / 2]
    v: Bytes


@dataclass(frozen=True, slots=True, eq=False)
class Out:
    """The answer to a row, for the chunk heard K steps before it. Its arrays are the caller's for good."""

    slot: int
    generation: int
    points: Floats | None = None  # [131, 3]
    face: Floats | None = None  # [61]
    mesh: Floats | None = None  # [468, 3]
    roi: Roi | None = None
    stage_seconds: Mapping[str, float] | None = None
    """Seconds of the step, shared equally among its rows, by name of `STAGES`."""
    held: bool = False
    """This answer was not sane; it is the last good one of the slot again, and the slot starts from silence."""


class Runtime(Protocol):
    """Three methods and a property: a stranger can write one in an evening."""

    @property
    def cards(self) -> Mapping[str, AvatarCard]: ...

    def step(self, rows: Sequence[Row]) -> list[Out]:
        """Answer every row, in order. A row's result does not depend on its neighbours, its slot or their number."""
        ...

    def close(self) -> None: ...


class OpenRuntime(Protocol):
    """What a backend's module exports as `open`."""

    def __call__(self, packages: Sequence[Path], slots: int, lookahead: int | None = None) -> Runtime:
        """Load the packages (directories) and allocate everything for `slots` sessions; `lookahead` overrides K."""
        ...
