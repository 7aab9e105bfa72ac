"""`avatar.v1` as a client sees it: 24 bytes of header, payloads of floats, JSON events. Pure; needs only Python.

Written from clients/PROTOCOL.md and checked against clients/golden.json, as every client here is.
"""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

SUBPROTOCOL: Final = "avatar.v1"
PROTOCOL: Final = "1.0"
MAGIC: Final = 0xA5
HEADER: Final = struct.Struct("<BBBBIIIq")
AUDIO_IN, FACE, LANDMARKS, VIDEO, AUDIO_OUT, MESH = 1, 2, 3, 4, 5, 6
SEGMENT_END, KEYFRAME, IDLE, SPEAKING = 1, 2, 4, 8
AFTER_THE_LAST: Final = -1
"""As `pts_us` of sound: right after what was sent before."""

Vector = tuple[float, ...]


class WireError(ValueError):
    """The server sent what this version cannot read."""


@dataclass(frozen=True)
class Face:
    """One face. Its date counts microseconds on the session's own timeline, not wall time."""

    pts_us: int
    epoch: int
    seq: int
    speaking: bool
    names: tuple[str, ...]
    values: Vector
    rotation: Vector  # quaternion x y z w
    position: Vector
    gaze: tuple[float, float]  # yaw, pitch in degrees
    visemes: Vector = ()
    segment_end: bool = False

    @cached_property
    def weights(self) -> dict[str, float]:
        """`{"jawOpen": 0.31, …}` under the names that the server announced."""
        return dict(zip(self.names, self.values, strict=True))


@dataclass(frozen=True)
class Points:
    """68 landmarks or 468 mesh points, x y z normalised to the picture."""

    pts_us: int
    epoch: int
    seq: int
    dense: bool
    points: tuple[Vector, ...]


@dataclass(frozen=True)
class Picture:
    """One JPEG file, or one H.264 access unit in Annex B."""

    pts_us: int
    epoch: int
    seq: int
    keyframe: bool
    encoded: bytes


@dataclass(frozen=True)
class Sound:
    """What is heard with the faces of the same date: s16 mono at the negotiated rate."""

    pts_us: int
    epoch: int
    seq: int
    pcm: bytes


@dataclass(frozen=True)
class Event:
    """A JSON event: `event.type`, `event["field"]`."""

    type: str
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


Message = Face | Points | Picture | Sound | Event


def pack_sound(pcm: bytes, seq: int, epoch: int, pts_us: int = AFTER_THE_LAST, end: bool = False) -> bytes:
    flags = SEGMENT_END if end else 0
    return HEADER.pack(MAGIC, AUDIO_IN, flags, 1, seq & 0xFFFFFFFF, epoch & 0xFFFFFFFF, len(pcm), pts_us) + pcm


def hello(
    *,
    avatar: str | None = None,
    token: str | None = None,
    sample_rate: int = 16_000,
    channels: int = 1,
    audio_format: str = "pcm_s16le",
    pacing: str = "realtime",
    face: Mapping[str, Any] | bool = True,
    landmarks: bool = False,
    mesh: bool = False,
    video: str = "none",
    audio_out: int | None = None,
    resume: str | None = None,
    view: bool = False,
    client: Mapping[str, str] | None = None,
) -> str:
    """The first message. `face` may choose schema, encoding, rate, coords, visemes; False wants none. `view` looks on
    at the session `resume` without taking it over."""
    said: dict[str, Any] = {
        "type": "session.start",
        "protocol": PROTOCOL,
        "client": dict(client or {"name": "liveface-python", "version": PROTOCOL, "engine": "python"}),
        "avatar_id": avatar,
        "audio": {"format": audio_format, "sample_rate": sample_rate, "channels": channels},
        "pacing": pacing,
        "face": face if isinstance(face, bool) and not face else dict(face) if isinstance(face, Mapping) else {},
        "landmarks": landmarks,
        "mesh": mesh,
        "video": {"codec": video},
        "audio_out": {"sample_rate": audio_out} if audio_out else None,
        "resume": resume,
        "view": view,
    }
    if token is not None:
        said["auth"] = {"token": token}
    return json.dumps(said)


class Reading:
    """Messages in, values out. Knows what the server announced; drops what belongs to an epoch that is over."""

    def __init__(self, started: Mapping[str, Any]) -> None:
        face = started.get("face") or {}
        self.names: tuple[str, ...] = tuple(face.get("names", ()))
        self.viseme_names: tuple[str, ...] = tuple(face.get("visemes", ()))
        self.epoch: int = started.get("epoch", 0)
        self.stale = 0
        """Messages that came after the interrupt they were voided by."""

    def read(self, message: str | bytes) -> Message | None:
        """The value, or None for what must be ignored: unknown types, and epochs that are over."""
        if isinstance(message, str):
            return self._event(message)
        if len(message) < HEADER.size:
            raise WireError(f"{len(message)} bytes are less than a header")
        magic, kind, flags, version, seq, epoch, length, pts_us = HEADER.unpack_from(message)
        payload = message[HEADER.size :]
        if magic != MAGIC or version != 1 or length != len(payload):
            raise WireError("this is no frame of avatar.v1")
        if self._old(epoch):
            return None
        if kind == FACE:
            return self._face(struct.unpack(f"<{length // 4}f", payload), flags, seq, epoch, pts_us)
        if kind in (LANDMARKS, MESH):
            n, dims = struct.unpack_from("<HH", payload)
            numbers = struct.unpack_from(f"<{n * dims}f", payload, 4)
            rows = tuple(numbers[i : i + dims] for i in range(0, n * dims, dims))
            return Points(pts_us, epoch, seq, kind == MESH, rows)
        if kind == VIDEO:
            return Picture(pts_us, epoch, seq, bool(flags & KEYFRAME), payload)
        if kind == AUDIO_OUT:
            return Sound(pts_us, epoch, seq, payload)
        return None

    def _event(self, message: str) -> Message | None:
        said = json.loads(message)
        kind = said.pop("type")
        if kind == "cleared":
            self._old(said["epoch"])
        if kind != "face":
            return Event(kind, said)
        if self._old(said["epoch"]):
            return None
        return Face(
            said["pts_us"],
            said["epoch"],
            said["seq"],
            said["speaking"],
            self.names,
            tuple(said["weights"]),
            tuple(said["head"]["rotation"]),
            tuple(said["head"]["position"]),
            (said["gaze"][0], said["gaze"][1]),
            tuple(said.get("visemes", ())),
        )

    def _face(self, numbers: Vector, flags: int, seq: int, epoch: int, pts_us: int) -> Face:
        n = len(self.names)
        if len(numbers) != n + 9 + len(self.viseme_names):
            raise WireError(f"a face of {len(numbers)} numbers, where {n} weights were announced")
        head = numbers[n:]
        return Face(
            pts_us,
            epoch,
            seq,
            bool(flags & SPEAKING),
            self.names,
            numbers[:n],
            head[:4],
            head[4:7],
            (head[7], head[8]),
            head[9:],
            bool(flags & SEGMENT_END),
        )

    def _old(self, epoch: int) -> bool:
        age = (self.epoch - epoch) & 0xFFFFFFFF
        if 0 < age < 2**31:
            self.stale += 1
            return True
        self.epoch = epoch
        return False


# --- Between two faces -----------------------------------------------------------------------------------------------


def mix(a: Sequence[float], b: Sequence[float], t: float) -> Vector:
    return tuple(x + (y - x) * t for x, y in zip(a, b, strict=True))


def slerp(a: Sequence[float], b: Sequence[float], t: float) -> Vector:
    """Between unit quaternions, the short way round."""
    cosine = sum(x * y for x, y in zip(a, b, strict=True))
    if cosine < 0.0:
        a, cosine = [-x for x in a], -cosine
    if cosine > 0.9995:
        mixed = mix(a, b, t)
    else:
        angle = math.acos(min(1.0, cosine))
        before, after = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
        mixed = tuple(x * before + y * after for x, y in zip(a, b, strict=True))
    size = math.sqrt(sum(x * x for x in mixed)) or 1.0
    return tuple(x / size for x in mixed)


def blend(a: Face, b: Face, t: float) -> Face:
    """The face at share `t` of the way from `a` to `b`."""
    gaze = mix(a.gaze, b.gaze, t)
    return Face(
        round(a.pts_us + (b.pts_us - a.pts_us) * t),
        b.epoch,
        b.seq,
        b.speaking,
        b.names,
        mix(a.values, b.values, t),
        slerp(a.rotation, b.rotation, t),
        mix(a.position, b.position, t),
        (gaze[0], gaze[1]),
        mix(a.visemes, b.visemes, t),
    )


class Sampler:
    """Faces in as they come; the face of any moment out: sample it at the play-out head of the sound you play."""

    def __init__(self, keep_us: int = 1_000_000) -> None:
        self._keep_us = keep_us
        self._faces: list[Face] = []

    def push(self, face: Face) -> None:
        faces = self._faces
        if faces and faces[-1].epoch != face.epoch:
            faces.clear()
        while faces and faces[-1].pts_us >= face.pts_us:
            faces.pop()
        faces.append(face)
        while faces[0].pts_us < face.pts_us - self._keep_us:
            faces.pop(0)

    def at(self, pts_us: float) -> Face | None:
        """None when there is no face yet. Outside of what is known: the nearest face."""
        faces = self._faces
        if not faces:
            return None
        if pts_us <= faces[0].pts_us:
            return faces[0]
        for a, b in pairwise(faces):
            if pts_us <= b.pts_us:
                return blend(a, b, (pts_us - a.pts_us) / (b.pts_us - a.pts_us))
        return faces[-1]
