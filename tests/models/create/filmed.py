"""Videos for tests, made here: the shipped presenter's loop with a made-up sound, in any size, rate and turn."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from models.avatar import SHIPPED
from models.rates import FRAME_RATE, SAMPLE_RATE


@cache
def presenter(frames: int = 60) -> tuple[np.ndarray, ...]:
    """Pictures [512, 512, 3] of the shipped avatar, who listens."""
    with av.open(str(SHIPPED / "demo" / "loop.mp4")) as container:
        stream = container.decode(video=0)
        return tuple(next(stream).to_ndarray(format="rgb24") for _ in range(frames))


def hum(seconds: float) -> np.ndarray:
    """[n] at 16 kHz: syllables of a buzzing voice."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    buzz = np.sum([np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20)], axis=0)
    return np.asarray(0.2 * buzz * (np.sin(2 * np.pi * 3 * time) > 0), np.float32)


def shoot(
    path: Path,
    pictures: Sequence[np.ndarray],
    sound: np.ndarray | None,
    rate: float = FRAME_RATE,
    dates: Sequence[float] | None = None,
    rotation: int = 0,
) -> Path:
    """Write an MP4; `dates` in seconds make its rate variable."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"crf": "12", "preset": "ultrafast", "bf": "0"}
        if dates is not None:
            video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        if sound is not None:
            voice = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if dates is not None:
                frame.pts, frame.time_base = round(dates[number] * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            block = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            container.mux(voice.encode(block))
            container.mux(voice.encode())
    return path
