"""Pictures for a websocket: one JPEG each, or a stream of H.264 in Annex B."""

from fractions import Fraction
from typing import Final

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from engine import encoder
from engine.media import Picture, Plane
from models.rates import HEARD_RATE


def _stretched(least: int, most: int, centre: float, target: float) -> Plane:
    levels = (np.arange(256) - centre) * (255 / (most - least)) + target
    return levels.round().clip(0, 255).astype(np.uint8)


FULL_RANGE: Final = (_stretched(16, 235, 16, 0), *(_stretched(16, 240, 128, 128),) * 2)
"""Video's levels (16 to 235, 16 to 240) → JPEG's (0 to 255), for each plane."""


class Jpeg:
    """Pictures one by one. `encode` runs in a thread, one at a time."""

    def __init__(self) -> None:
        self._context: VideoCodecContext | None = None

    def lost(self, count: int) -> None:
        """Every picture stands alone: nothing to mend."""

    def encode(self, picture: Picture, pts: int) -> tuple[bytes, bool] | None:
        """A JPEG file, and True: it needs no other."""
        frame = av.VideoFrame(picture.width, picture.height, "yuvj420p")
        for plane, pixels, full in zip(frame.planes, (picture.y, picture.u, picture.v), FULL_RANGE, strict=True):
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # rows are padded
            rows[: pixels.shape[0], : pixels.shape[1]] = full[pixels]
        frame.pts = pts
        context = self._context or self._open(picture)
        return b"".join(bytes(packet) for packet in context.encode(frame)), True

    def _open(self, picture: Picture) -> VideoCodecContext:
        context = av.CodecContext.create("mjpeg", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuvj420p"
        context.time_base = Fraction(1, HEARD_RATE)
        context.thread_count = 1
        context.options = {"qmin": "3", "qmax": "6"}
        self._context = context
        return context


class H264:
    """One stream in Annex B. A picture that was dropped unsent makes the next one a key frame."""

    def __init__(self) -> None:
        self._encoder = encoder.VideoEncoder(encoder.open_x264, 1_000_000)
        self._lost = 0

    def lost(self, count: int) -> None:
        if count > self._lost:
            self._lost = count
            self._encoder.ask_keyframe()

    def encode(self, picture: Picture, pts: int) -> tuple[bytes, bool] | None:
        made = self._encoder.encode(picture, pts)
        return None if made is None else (made.data, made.keyframe)
