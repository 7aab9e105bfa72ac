"""The values that travel through the engine. All frozen; every pts counts 48 kHz samples of the session's timeline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Heard = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float32]
Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """Exactly 40 ms of sound, once for the ear and once for the model."""

    pts: int
    sound: Callable[[], Heard]
    """Makes `heard`, once: nobody listens to a face alone."""
    features: Floats  # [640] f32 in -1…1 at 16 kHz
    epoch: int = 0
    arrived: float = 0.0
    """When its last sample came in, on the engine's clock, in seconds; what latency is measured from."""
    invented: int = 0
    """48 kHz samples of silence in it that nobody sent."""

    @property
    def heard(self) -> Heard:
        """[1920] s16 at 48 kHz."""
        return self.sound()


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One I420 picture. Planes are views that nobody writes to after this value is made."""

    width: int
    height: int
    y: Plane  # [height, width]
    u: Plane  # [height / 2, width / 2]
    v: Plane


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """40 ms of the session: what is heard and what is seen, under one date. Out-of-sync cannot be written."""

    pts: int
    epoch: int
    heard: Heard  # [1920] s16; silence where nobody listens
    speaking: bool
    picture: Picture | None = None
    face: Floats | None = None  # [61]: see models.rates.FACE
    points: Floats | None = None  # [131, 3] in loop-frame pixels
    mesh: Floats | None = None  # [468, 3]
    repeated: bool = False
    """The picture came too late and is the one before it."""
    behind: float = 0.0
    """Seconds by which the face is older than the sound; 0 unless it is repeated."""
    arrived: float = 0.0
    loop_index: int = 0


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Everything of an epoch before this one is void."""

    epoch: int


@dataclass(frozen=True, slots=True)
class SegmentEnd:
    """The last sample of a segment has been played at `pts`."""

    segment_id: str
    pts: int
    epoch: int
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """What clients are told, as JSON, over any transport: `{"type": type, **fields}`."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)
