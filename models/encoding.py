"""The pictures of a package as it stores them: a loop in H.264, a portrait in JPEG."""

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from models.rates import FRAME_RATE

Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB, even in both directions."""


def encode(pictures: Iterable[Picture], path: Path, crf: int = 16, preset: str = "medium") -> None:
    """H.264 at 25 frames a second, without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAME_RATE)
        stream.options = {"crf": str(crf), "preset": preset, "threads": "1"}
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def jpeg(picture: Picture, coarsest: int = 2) -> bytes:
    """`coarsest`: the quantiser's upper bound, 2 to 31."""
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = picture.shape[1], picture.shape[0], "yuvj420p"
    codec.time_base = Fraction(1, FRAME_RATE)
    codec.options = {"qmin": "2", "qmax": str(coarsest)}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
    out = io.BytesIO()
    for packet in [*codec.encode(frame), *codec.encode(None)]:
        out.write(bytes(packet))
    return out.getvalue()
