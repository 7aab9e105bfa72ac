"""What is in a binary frame: faces, points, sound."""

import struct

import numpy as np
import numpy.typing as npt

from engine.protocol.closing import Close, ProtocolError
from engine.protocol.wishes import (
    AudioForm,
)

Floats = npt.NDArray[np.float32]


def face_payload(face: Floats) -> bytes:
    """[n] → f32 little-endian: weights, head quaternion x y z w, head position, gaze yaw and pitch, then visemes."""
    return np.ascontiguousarray(face, "<f4").tobytes()


def points_payload(points: Floats, width: int, height: int) -> bytes:
    """[n, 3] in loop-frame pixels → u16 n, u16 3, n × 3 f32 normalised to the image (z by its width, as x)."""
    n, dims = points.shape
    normal = np.ascontiguousarray(points / np.array([width, height, width], np.float32)[:dims], "<f4")
    return struct.pack("<HH", n, dims) + normal.tobytes()


def sound_from_payload(payload: bytes, form: AudioForm) -> npt.NDArray[np.int16] | Floats:
    """Interleaved PCM as declared in the hello → [n] or [n, channels], s16 or finite f32 in -1…1.

    A message holds whole samples of every channel; anything else is a client that declared one thing and sends another.
    """
    width = form.sample_bytes * form.channels
    if len(payload) % width:
        raise ProtocolError(
            Close.BAD_MESSAGE,
            f"{len(payload)} bytes are not whole samples of {form.format} with {form.channels} channel(s): declare "
            "in the hello what is sent",
        )
    pcm: npt.NDArray[np.int16] | Floats
    if form.format == "pcm_s16le":
        pcm = np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
    else:
        # Sanitised where it enters: one NaN in a recurrent state would stay for ever.
        wild = np.frombuffer(payload, "<f4")
        pcm = np.clip(np.nan_to_num(wild, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0).astype(np.float32)
    return pcm if form.channels == 1 else pcm.reshape(-1, form.channels)
