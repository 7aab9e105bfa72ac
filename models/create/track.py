"""`liveface track VIDEO OUT.npz`: landmarks and pose of a video, with the sound of the same frames.

Whatever the camera's rate, a track has 25 frames a second: motion is interpolated between the pictures, none is dropped
unseen. Every frame says what is wrong with it; `takes` are the unbroken runs that a network may learn from. The same
file is tracked once: tracks are kept by the content's hash.

If the studio's true labels lie beside the video (`VIDEO.labels.npz`), they take the tracker's place.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, cast
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from models import face
from models.avatar import write_atomically
from models.create import agree
from models.create.film import Film, Floats, FootageError, check_there, open_film, sound
from models.create.smooth import smoothed
from models.create.watch import Watched, watch
from models.rates import CHUNK, FRAME_RATE, MESH_POINTS
from models.train import Clip

VERSION: Final = 3
"""Of what is kept: a track of another version is made again."""
Mask = npt.NDArray[np.bool_]

TURNED_DEGREES: Final = 40.0
BRIDGED: Final = 3
"""Frames without a face that the frames around them may fill."""
TAKE_SECONDS: Final = 1.5
"""Shorter runs teach nothing."""
SHUT_EYE: Final = 0.5
"""Of the person's usual openness of the lids: below is a blink."""
DARK_EYES: Final = 0.42
"""Brightness of the eyes over that of the cheeks: below, glasses hide them."""


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """A film at 25 frames a second. Points are in the film's pixels; NaN where nothing is known."""

    source: str
    width: int
    height: int
    rate: float
    """Of the film itself."""
    points: Floats  # [T, 478, 3]
    raw: Floats  # [T, 478, 3]: unsmoothed, of the picture named by `picture`
    picture: npt.NDArray[np.int64]  # [T]: the film's picture nearest in time
    pose: Floats  # [T, 3]: yaw, pitch, roll in degrees from the person's mean face
    blink: Floats  # [T, 2]: 0 open … 1 shut; the person's left, right
    audio: Floats  # [T * 640]: already moved by `offset_ms`
    speech: Mask  # [T]
    missing: Mask  # [T]: no face
    second: Mask  # [T]: more than one
    turned: Mask  # [T]: too far away from the camera
    covered: Mask  # [T]: a hand before the mouth
    cut: Mask  # [T]: the first frame after a cut
    offset_ms: float
    """By which the sound came early, and was moved to later; 0 where nothing was corrected."""
    measured_ms: float
    agreement: float
    """Correlation of the lips that are seen with those that the voice asks for."""
    eye_light: float
    labelled: bool
    """The studio's own truth, not a tracker's."""

    @property
    def usable(self) -> Mask:
        known = np.isfinite(self.points).all((1, 2))
        return cast(Mask, known & ~(self.missing | self.second | self.turned | self.covered))

    @property
    def takes(self) -> list[slice]:
        """Unbroken usable runs, none shorter than `TAKE_SECONDS`."""
        usable, runs = self.usable, []
        begin: int | None = None
        for frame in range(len(usable) + 1):
            ends = frame == len(usable) or not usable[frame] or self.cut[frame]
            if begin is not None and ends:
                runs.append(slice(begin, frame))
                begin = None
            if begin is None and frame < len(usable) and usable[frame]:
                begin = frame
        return [run for run in runs if run.stop - run.start >= TAKE_SECONDS * FRAME_RATE]

    def clips(self, name: str) -> list[Clip]:
        whole = Clip(name, self.points, self.audio, self.speech)
        return [replace(whole.cut(take.start, take.stop), name=f"{name}-{take.start:05d}") for take in self.takes]

    def save(self, path: Path) -> None:
        """As `models.train` reads it; the old file or the whole new one. Packed in memory: an archive that meets a full
        disk while it is written goes on complaining after the error was dealt with."""
        packed = BytesIO()
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez_compressed(packed, **arrays, fps=np.float64(FRAME_RATE), version=np.int64(VERSION), usable=self.usable)
        write_atomically(path, packed.getvalue())

    @staticmethod
    def load(path: Path) -> "Track":
        with np.load(path, allow_pickle=False) as file:
            if "version" not in file or int(file["version"]) != VERSION:
                raise ValueError(f"{path} is a track of another version")
            kept: dict[str, Any] = {field.name: file[field.name] for field in fields(Track)}
        return Track(**{name: value.item() if value.ndim == 0 else value for name, value in kept.items()})


def track(path: Path, told: Callable[[float], None] = lambda seconds: None, kept: Path | None = None) -> Track:
    """Track a video, or take the track of it that is kept under `kept`. `told` hears the seconds that have been seen.

    Raises FootageError, in one line, for what is no usable video.
    """
    film = open_film(path)
    labels = path.with_suffix(".labels.npz")
    store = kept_tracks() if kept is None else kept
    key = film.digest if not labels.is_file() else f"{film.digest}-{_digest(labels)}"
    place = store / f"{key}.npz"
    if place.is_file():
        try:
            return Track.load(place)
        except (ValueError, KeyError, OSError, BadZipFile):
            place.unlink(missing_ok=True)  # of another version, or damaged: made again
    audio = sound(path)
    made = _assembled(film, audio, watch(film, told))
    if labels.is_file():
        made = _labelled(made, labels)
    store.mkdir(parents=True, exist_ok=True)
    made.save(place)
    return made


def kept_tracks() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "liveface" / "tracks"


def _assembled(film: Film, audio: Floats, seen: Watched) -> Track:
    frames = int(np.floor(seen.seconds[-1] * FRAME_RATE + 1e-3)) + 1
    times = np.arange(frames) / FRAME_RATE
    nearest = _nearest(seen.seconds, times)
    cut = np.zeros(frames, bool)
    cut[np.minimum(np.searchsorted(times, seen.seconds[seen.cut] - 1e-6), frames - 1)] = True
    missing = np.isnan(seen.points).any((1, 2))[nearest]
    if missing.all():
        raise FootageError(
            f"{film.path.name}: no face was found in it: film one person from the front, in good light, larger"
        )
    points = _resampled(seen, times, cut)
    for run in _unbroken(np.isfinite(points).all((1, 2)), cut):
        points[run] = smoothed(points[run])
    audio = np.pad(audio, (0, max(0, frames * CHUNK - len(audio))))[: frames * CHUNK]
    measured = agree.agreement([(agree.heard_opening(audio), agree.seen_opening(points))])
    long_enough = frames >= agree.SECONDS_NEEDED * FRAME_RATE
    offset = measured.correction_ms if long_enough else 0.0
    audio = agree.delayed(audio, offset)
    pose = _pose(points)
    return Track(
        source=film.digest,
        width=film.width,
        height=film.height,
        rate=film.rate,
        points=points,
        raw=seen.points[nearest],
        picture=nearest,
        pose=pose,
        blink=_blink(points),
        audio=audio,
        speech=agree.speech(audio),
        missing=~np.isfinite(points).all((1, 2)),
        second=seen.faces[nearest] > 1,
        turned=np.abs(pose[:, :2]).max(1) > TURNED_DEGREES,
        covered=seen.covered[nearest],
        cut=cut,
        offset_ms=offset,
        measured_ms=measured.offset_ms,
        agreement=measured.r,
        eye_light=float(np.median(seen.eye_light)),
        labelled=False,
    )


def _nearest(seconds: npt.NDArray[np.float64], times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    after = np.clip(np.searchsorted(seconds, times), 0, len(seconds) - 1)
    before = np.maximum(after - 1, 0)
    closer = np.abs(seconds[before] - times) < np.abs(seconds[after] - times)
    return cast(npt.NDArray[np.int64], np.where(closer, before, after).astype(np.int64))


def _resampled(seen: Watched, times: npt.NDArray[np.float64], cut: Mask) -> Floats:
    """Motion between the pictures, on straight lines; never across a cut, and across few lost faces only."""
    known = np.isfinite(seen.points).all((1, 2))
    places = np.flatnonzero(known)
    dates = seen.seconds[places]
    after = np.clip(np.searchsorted(dates, times - 1e-6), 0, len(dates) - 1)
    before = np.maximum(after - (dates[after] > times + 1e-6), 0)
    apart = dates[after] - dates[before]
    share = np.clip((times - dates[before]) / np.where(apart > 0, apart, 1.0), 0, 1)
    one, other = seen.points[places[before]], seen.points[places[after]]
    points = one + (other - one) * share[:, None, None].astype(np.float32)
    shot = np.cumsum(seen.cut)
    crosses = shot[places[before]] != shot[places[after]]
    points[crosses] = np.where((share < 0.5)[:, None, None], one, other)[crosses]
    step = float(np.median(np.diff(seen.seconds))) if len(seen.seconds) > 1 else 1 / FRAME_RATE
    lost = apart > max(BRIDGED / FRAME_RATE, 1.5 * step) + step
    beyond = np.minimum(np.abs(times - dates[before]), np.abs(times - dates[after])) > BRIDGED / FRAME_RATE + step
    points[lost & (np.abs(times - dates[before]) > 0.5 * step) | beyond] = np.nan
    return cast(Floats, points.astype(np.float32))


def _unbroken(known: Mask, cut: Mask) -> list[slice]:
    edges = [0, *(np.flatnonzero((np.diff(known.astype(np.int8)) != 0) | cut[1:]) + 1).tolist(), len(known)]
    return [slice(a, b) for a, b in itertools.pairwise(edges) if known[a]]


def _pose(points: Floats) -> Floats:
    """[T, 3] degrees. Zero is a face that looks into the camera, as far as its own symmetry tells."""
    known = np.isfinite(points).all((1, 2))
    angles = np.full((len(points), 3), np.nan, np.float32)
    if known.any():
        right, left = points[known, 33].astype(np.float64), points[known, 263].astype(np.float64)
        across = left - right
        up = points[known, 10].astype(np.float64) - points[known, 152]
        up -= across * ((up * across).sum(1) / (across * across).sum(1))[:, None]
        out = np.cross(across, up)
        angles[known, 0] = np.degrees(np.arctan2(across[:, 2], across[:, 0]))
        angles[known, 1] = np.degrees(np.arcsin(out[:, 1] / np.linalg.norm(out, axis=1)))
        angles[known, 2] = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
        angles[:, 1] -= np.nanmedian(angles[:, 1])  # which way a face tilts at rest is its own affair
    return angles


def _blink(points: Floats) -> Floats:
    """[T, 2]: the person's left, right."""
    openness = []
    for upper, lower, outer, inner in ((386, 374, 263, 362), (159, 145, 33, 133)):
        lids = np.linalg.norm(points[:, upper] - points[:, lower], axis=-1)
        openness.append(lids / np.linalg.norm(points[:, outer] - points[:, inner], axis=-1))
    lids = np.stack(openness, 1)
    usual = np.nanquantile(lids, 0.7, axis=0)
    return np.asarray(np.clip(np.nan_to_num((usual - lids) / (usual * 0.85)), 0, 1), np.float32)


def _labelled(made: Track, labels: Path) -> Track:
    """The studio's truth in the tracker's place; the sound of a studio is in time."""
    with np.load(labels, allow_pickle=False) as file:
        points = np.asarray(file["points"], np.float32)
        rate = float(file["fps"])
    if round(rate) != FRAME_RATE or points.shape[1:] != (MESH_POINTS, 3) or abs(len(points) - len(made.points)) > 1:
        raise FootageError(
            f"{labels.name} does not fit its video: {len(points)} labels at {rate:g} a second for "
            f"{len(made.points)} frames: record both again, or remove the labels"
        )
    points = np.concatenate([points, points[-1:]])[: len(made.points)]
    none = np.zeros(len(points), bool)
    return replace(
        made,
        points=points,
        raw=points,
        pose=_pose(points),
        blink=_blink(points),
        audio=agree.delayed(made.audio, -made.offset_ms) if made.offset_ms else made.audio,
        offset_ms=0.0,
        missing=none,
        turned=np.abs(_pose(points)[:, :2]).max(1) > TURNED_DEGREES,
        labelled=True,
    )


def _digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def faults(made: Track) -> dict[str, Any]:
    """What was found, in figures: the report's and the terminal's."""
    blinks = (made.blink.min(1) > SHUT_EYE).astype(np.int8)
    return {
        "seconds": round(len(made.points) / FRAME_RATE, 2),
        "usable_seconds": round(sum(take.stop - take.start for take in made.takes) / FRAME_RATE, 2),
        "missing": int(made.missing.sum()),
        "second_face": int(made.second.sum()),
        "turned": int(made.turned.sum()),
        "mouth_covered": int(made.covered.sum()),
        "cuts": int(made.cut.sum()),
        "blinks": int((np.diff(blinks) == 1).sum()),
        "speech_share": round(float(made.speech.mean()), 3),
        "av_offset_ms": round(made.measured_ms, 1),
        "corrected_ms": round(made.offset_ms, 1),
        "agreement": round(made.agreement, 3),
        "eyes_hidden": bool(made.eye_light < DARK_EYES),
        "source_fps": round(made.rate, 3),
        "size": f"{made.width}x{made.height}",
        "labels": "studio" if made.labelled else "mediapipe",
    }


def mean_pixels(made: Track) -> float:
    """Between the outer eye corners: how much of a face there is."""
    corners = made.points[:, list(face.EYE_CORNERS)]
    return float(np.nanmedian(np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, help="any video with one face and its voice")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument("--json", action="store_true", help="what was found, for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        made = tracked([arguments.video], quiet=arguments.json)[0]
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        made.save(arguments.out)
    except (FootageError, OSError) as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return 1
    found = faults(made)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name:16} {value}" for name, value in found.items()))
    return 0


def tracked(paths: Sequence[Path], quiet: bool = False, kept: Path | None = None) -> list[Track]:
    """Every video, with a bar for each."""
    check_there(paths)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} s"),
        TimeRemainingColumn(),
    )
    tracks = []
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        for path in paths:
            bar = progress.add_task(f"tracking {path.name}", total=None)
            tracks.append(track(path, lambda seconds, bar=bar: progress.update(bar, completed=seconds), kept))  # type: ignore[misc]
            progress.update(
                bar, total=len(tracks[-1].points) / FRAME_RATE, completed=len(tracks[-1].points) / FRAME_RATE
            )
    return tracks


def in_time(tracks: Sequence[Track]) -> list[Track]:
    """Short films of one camera say together by how much their sound is early or late, and each for itself by how much
    it differs from the others."""
    short = [made for made in tracks if len(made.points) < agree.SECONDS_NEEDED * FRAME_RATE and not made.labelled]
    if sum(len(made.points) for made in short) < agree.SECONDS_NEEDED * FRAME_RATE:
        return list(tracks)
    takes = [(agree.heard_opening(made.audio), agree.seen_opening(made.points)) for made in short]
    together, own = agree.agreement(takes), iter(agree.apart(takes))
    mended = []
    for made in tracks:
        if any(made is each for each in short):
            apart = next(own)
            offset = together.correction_ms + apart
            audio = agree.delayed(made.audio, offset)
            made = replace(
                made,
                audio=audio,
                speech=agree.speech(audio),
                offset_ms=offset,
                measured_ms=together.offset_ms + apart,
                agreement=together.r,
            )
        mended.append(made)
    return mended


def reference_of(tracks: Sequence[Track]) -> npt.NDArray[np.float64]:
    """The pose-normal reference mesh of all that is usable."""
    from models.train import mean_face

    clips = [clip for number, made in enumerate(tracks) for clip in made.clips(str(number))]
    if not clips:
        raise FootageError("no stretch of footage shows one face for a second and a half: film it again, without cuts")
    return mean_face(clips)
