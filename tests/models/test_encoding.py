"""Pictures come back as they were stored, nearly."""

import io
from pathlib import Path

import av
import numpy as np

from models.encoding import encode, jpeg


def picture(shade: int) -> np.ndarray:
    ramp = np.linspace(0, 200, 64)[None, :, None] * np.ones((48, 1, 3))
    return (ramp * [1.0, 0.8, 0.6] + shade).astype(np.uint8)


def test_a_loop_comes_back_frame_by_frame(tmp_path: Path) -> None:
    encode((picture(n) for n in range(0, 50, 5)), tmp_path / "loop.mp4")
    with av.open(str(tmp_path / "loop.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(found) == 10
    assert max(np.abs(one.astype(int) - picture(5 * n)).mean() for n, one in enumerate(found)) < 3


def test_a_portrait_is_a_jpeg_and_coarser_is_smaller() -> None:
    fine, coarse = jpeg(picture(0)), jpeg(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8), coarsest=31)
    assert fine.startswith(b"\xff\xd8")
    with av.open(io.BytesIO(fine)) as container:
        (frame,) = container.decode(video=0)
    assert np.abs(frame.to_ndarray(format="rgb24").astype(int) - picture(0)).mean() < 3
    assert coarse.startswith(b"\xff\xd8")
