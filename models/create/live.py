"""The package as it is served: the same runtime, 40 ms at a time, as fast as it goes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.create.film import Floats, Picture
from models.create.package import rgb_of
from models.create.repaint import views
from models.rates import CHUNK
from models.runtime import Out, Row, Runtime, Wants
from models.runtime.choose import open_runtime


def opened(folder: Path) -> Runtime:
    """Raises RuntimeError or PackageError when the package does not prove itself."""
    return open_runtime("auto", [folder], 1)[0]


def performed(runtime: Runtime, audio: Floats, first: int = 0) -> Iterator[tuple[Picture, Out]]:
    """What the avatar shows for a sound [T * 640], a picture and its answer for each frame, in time with the sound.

    `first` is the loop frame that it begins with.
    """
    (name, card), *_ = runtime.cards.items()
    frames = len(audio) // CHUNK
    for step in range(frames + card.lookahead):
        pcm = audio[step * CHUNK : (step + 1) * CHUNK] if step < frames else np.zeros(CHUNK, np.float32)
        index = (first + step - card.lookahead) % card.frames
        wants = Wants.PICTURE | Wants.POINTS | Wants.FACE
        out = runtime.step([Row(0, 0, step == 0, name, np.asarray(pcm, np.float32), index, wants)])[0]
        if step >= card.lookahead:
            yield rgb_of(laid(card.loop[index], out)), out


def laid(frame: npt.NDArray[np.uint8], out: Out) -> npt.NDArray[np.uint8]:
    """The answer's rectangle over its loop frame; I420."""
    shown = np.array(frame)
    if out.roi is not None:
        height = shown.shape[0] * 2 // 3
        roi = out.roi
        planes = views(shown, height, roi.x, roi.y, *roi.luma.shape)
        for plane, painted in zip(planes, (roi.luma, roi.u, roi.v), strict=True):
            plane[:] = painted
    return shown
