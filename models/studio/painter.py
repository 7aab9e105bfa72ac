"""The learned mouth of a shipped avatar: a film of its presenter, a renderer fitted to it, packed beside the shelf.

The shelf of painted mouths stays: it says where lips and jaw go, and paints where the graphs cannot be trusted. Film,
checkpoints and contact sheets are kept under the cache directory, so that a stopped run goes on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt
from rich.console import Console

from models import face
from models.avatar import LOOP, MOUTHS, read_avatar
from models.renderers.fit import Clip, Picture, Progress, Settings, fit
from models.renderers.patch import Patch
from models.renderers.placing import HOLDS, Floats, apply, similarities
from models.runtime.packing import GOLDEN_PICTURES, golden_frames, pack_painter
from models.studio.record import labels_beside, record

FILM_SECONDS: Final = 10.0
HELD_OUT: Final = 1 / 12
"""Of the film, its end: judged, never learned from."""
SETTINGS: Final = Settings(size=192, steps=1500, batch=4, rate=2e-3, jitter=0.1, checkpoint_every=150)

_HELD: Final = {int(index): place for place, index in enumerate(face.HOUSE) if index in HOLDS}
"""What holds a patch, of the points that packages keep: index of the 478 → place in HOUSE."""


def teach(
    folder: Path, presenter: str, cache: Path, seconds: float = FILM_SECONDS, settings: Settings = SETTINGS
) -> Patch:
    """Film what is missing of `presenter`, fit what is missing of the renderer, add it to the package in `folder`."""
    film = cache / f"{presenter}-{seconds:g}s.mp4"
    if not labels_beside(film).exists():
        record(presenter, seconds, film, cache=cache)
    shown, held = clips(film)
    console = Console(stderr=True)

    def told(progress: Progress) -> None:
        console.print(f"mouth of {presenter}: {progress.step} of {progress.steps}, {progress.lips_psnr:.2f} dB")

    renderer = fit(shown, cache / f"{film.stem}-{settings.size}", settings, held, told)
    add(folder, renderer)
    return renderer


def clips(film: Path) -> tuple[list[Clip], list[Clip]]:
    """To learn from, and to be judged by; with the film's true labels."""
    with np.load(labels_beside(film), allow_pickle=False) as labels:
        points = labels["points"].astype(np.float32)
    pictures = list(pictures_of(film))
    count = min(len(pictures), len(points))
    learned = count - max(1, round(HELD_OUT * count))
    parts = (slice(0, learned), slice(learned, count))
    shown, held = (Clip(pictures[part], points[part]) for part in parts)
    return [shown], [held]


def pictures_of(film: Path) -> Iterator[Picture]:
    with av.open(str(film)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def add(folder: Path, renderer: Patch) -> None:
    """Pack the renderer into a sealed package of kind "plain"."""
    avatar = read_avatar(folder)
    motion, mouths = avatar.tensors("loop.safetensors", LOOP), avatar.tensors("mouths.safetensors", MOUTHS)
    into_shelf = similarities(
        renderer.face.numpy()[None, list(_HELD)], mouths["points"][0][None, list(_HELD.values()), :2]
    )[0]
    similarity = chained(motion["mouth_similarity"], into_shelf)
    frames = golden_frames(len(similarity))
    chosen = mouths["lip_gap"].argsort()[golden_frames(len(mouths["points"]))]
    points = motion["points"][frames].copy()
    spoken = mouths["points"][chosen][:, face.HOUSE_SPOKEN]
    points[:, face.HOUSE_SPOKEN] = apply(motion["mouth_similarity"][frames], spoken)
    assert len(points) == GOLDEN_PICTURES
    pack_painter(folder, renderer, renderer.mask.numpy(), similarity, points)


def chained(second: npt.NDArray[np.float32], first: npt.NDArray[np.float32]) -> Floats:
    """The similarities [N, 4] that do `first` [4], then `second` [N, 4]."""
    turn, shift = second[:, 0] + 1j * second[:, 1], second[:, 2] + 1j * second[:, 3]
    turned, shifted = turn * (first[0] + 1j * first[1]), turn * (first[2] + 1j * first[3]) + shift
    return np.asarray(np.stack([turned.real, turned.imag, shifted.real, shifted.imag], 1), np.float32)
