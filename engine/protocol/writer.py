"""What a client is told of a moment, as its hello asked."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.media import Event, Moment
from engine.protocol import MESSAGE_BYTES_MOST, PROTOCOL
from engine.protocol.coords import Coords, head_in
from engine.protocol.events import event_to_json
from engine.protocol.frames import U32, Flag, Kind, Message, pack_frame, pts_us_from_heard
from engine.protocol.payloads import face_payload, points_payload
from engine.protocol.reader import BUFFER_SECONDS_MOST, MESSAGES_PER_SECOND
from engine.protocol.resampling import FaceRate, SoundRate
from engine.protocol.wishes import (
    FaceForm,
    Schema,
    SessionStart,
    SessionUpdate,
)
from models import face as faces
from models.rates import BLENDSHAPES, HEARD_CHUNK

Floats = npt.NDArray[np.float32]


class MomentWriter:
    """Moments → messages for one client, as its hello asked. Sequence numbers count what was written, so a gap tells
    the client how many frames it was spared."""

    def __init__(self, start: SessionStart, width: int, height: int) -> None:
        self._form = start.face
        self._coords: Coords = start.face.coords if start.face else "gltf"
        self._landmarks = start.landmarks
        self._mesh = start.mesh
        self._size = width, height
        self._rate = FaceRate(start.face.rate) if start.face else None
        self._sound = SoundRate(start.audio_out) if start.audio_out else None
        self._seq = dict.fromkeys(Kind, 0)
        self.lost = 0
        """Moments that never came: their dates were skipped."""
        self._next_pts: int | None = None

    @property
    def wants_face(self) -> bool:
        return self._form is not None

    @property
    def wants_sound(self) -> bool:
        return self._sound is not None

    @property
    def wants_points(self) -> bool:
        return self._landmarks

    @property
    def wants_mesh(self) -> bool:
        return self._mesh

    def update(self, update: SessionUpdate) -> None:
        if update.coords is not None:
            self._coords = update.coords
        if update.face_rate is not None and self._rate is not None:
            self._rate = FaceRate(update.face_rate)
        if update.landmarks is not None:
            self._landmarks = update.landmarks
        if update.mesh is not None:
            self._mesh = update.mesh

    def write(self, moment: Moment, segment_end: bool = False) -> dict[Kind, list[Message]]:
        """Everything but the picture, which takes an encoder: see `video`."""
        self._skip(moment.pts)
        flags = int(Flag.SPEAKING if moment.speaking else Flag.IDLE)
        if segment_end:
            flags |= Flag.SEGMENT_END
        pts_us = pts_us_from_heard(moment.pts)
        written: dict[Kind, list[Message]] = {}
        if self._sound is not None:
            sound = self._sound.push(moment.heard).astype("<i2").tobytes()
            written[Kind.AUDIO_OUT] = [self._frame(Kind.AUDIO_OUT, flags, moment.epoch, pts_us, sound)]
        if self._form is not None and self._rate is not None and moment.face is not None:
            due = self._rate.push(moment.pts, moment.epoch, moment.face)
            written[Kind.FACE] = [self._face(self._form, flags, moment.epoch, at, face) for at, face in due]
        if self._landmarks and moment.points is not None:
            payload = points_payload(moment.points[faces.DLIB_IN_HOUSE], *self._size)
            written[Kind.LANDMARKS] = [self._frame(Kind.LANDMARKS, flags, moment.epoch, pts_us, payload)]
        if self._mesh and moment.mesh is not None:
            payload = points_payload(moment.mesh, *self._size)
            written[Kind.MESH] = [self._frame(Kind.MESH, flags, moment.epoch, pts_us, payload)]
        return written

    def _skip(self, pts: int) -> None:
        """Moments that were lost before they came here leave the same gap as those lost after."""
        if self._next_pts is not None and pts > self._next_pts:
            lost = (pts - self._next_pts) // HEARD_CHUNK
            self.lost += lost
            for kind in (Kind.FACE, Kind.LANDMARKS, Kind.AUDIO_OUT, Kind.MESH):
                self._seq[kind] = (self._seq[kind] + lost) & U32
        self._next_pts = pts + HEARD_CHUNK

    def video(self, pts: int, epoch: int, unit: bytes, keyframe: bool) -> bytes:
        """One JPEG, or one Annex-B access unit."""
        return self._frame(Kind.VIDEO, Flag.KEYFRAME if keyframe else 0, epoch, pts_us_from_heard(pts), unit)

    def _frame(self, kind: Kind, flags: int, epoch: int, pts_us: int, payload: bytes) -> bytes:
        return pack_frame(kind, flags, self._next(kind), epoch, pts_us, payload)

    def _next(self, kind: Kind) -> int:
        seq = self._seq[kind]
        self._seq[kind] = (seq + 1) & U32
        return seq

    def _face(self, form: FaceForm, flags: int, epoch: int, pts_us: int, face: Floats) -> Message:
        weights = np.minimum(np.maximum(face[:BLENDSHAPES], 0.0), 1.0)  # np.clip takes three times as long to begin
        shown = _WEIGHTS[form.schema](weights)
        head = head_in(self._coords, face[BLENDSHAPES:])
        visemes = [faces.oculus_from_arkit(weights)] if form.visemes else []
        if form.encoding == "binary":
            return self._frame(Kind.FACE, flags, epoch, pts_us, face_payload(np.concatenate([shown, head, *visemes])))
        fields: dict[str, Any] = {
            "seq": self._next(Kind.FACE),
            "epoch": epoch,
            "pts_us": pts_us,
            "speaking": bool(flags & Flag.SPEAKING),
            "weights": _short(shown),
            "head": {"rotation": _short(head[:4]), "position": _short(head[4:7])},
            "gaze": _short(head[7:]),
        }
        if form.visemes:
            fields["visemes"] = _short(*visemes)
        return event_to_json(Event("face", fields))


def _short(numbers: Floats) -> list[float]:
    return [round(float(number), 5) for number in numbers]


_WEIGHTS: Final[dict[Schema, Callable[[Floats], Floats]]] = {
    "arkit52": lambda weights: weights,
    "vrm1": faces.vrm_from_arkit,
    "oculus15": faces.oculus_from_arkit,
}


def started_event(
    start: SessionStart,
    session_id: str,
    server: Mapping[str, str],
    epoch: int,
    lookahead_ms: int,
    disclosure: Mapping[str, Any],
) -> Event:
    """The answer to a hello that was granted."""
    face = start.face
    fields: dict[str, Any] = {
        "session_id": session_id,
        "protocol": PROTOCOL,
        "epoch": epoch,
        "server": dict(server),
        "audio": {
            "format": start.audio.format,
            "sample_rate": start.audio.sample_rate,
            "channels": start.audio.channels,
        },
        "pacing": start.pacing,
        "face": face
        and {
            "schema": face.schema,
            "encoding": face.encoding,
            "names": face.names,
            "rate": face.rate,
            "coords": face.coords,
            "floats": face.floats,
            "visemes": faces.OCULUS_15 if face.visemes else [],
        },
        "landmarks": start.landmarks,
        "mesh": start.mesh,
        "video": {"codec": start.video},
        "audio_out": start.audio_out and {"format": "pcm_s16le", "sample_rate": start.audio_out, "channels": 1},
        "timing": {"chunk_ms": 40, "lookahead_ms": lookahead_ms, "latency_ms": lookahead_ms + 40},
        "limits": {
            "max_message_bytes": MESSAGE_BYTES_MOST,
            "max_buffer_ms": round(BUFFER_SECONDS_MOST[start.pacing] * 1000),
            "max_messages_per_second": round(MESSAGES_PER_SECOND),
        },
        "disclosure": dict(disclosure),
    }
    return Event("session.started", fields)
