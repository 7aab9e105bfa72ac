"""`liveface eval NAME VIDEO…`: how like the person an avatar is, on footage that it has not seen.

Two questions, two ways:

live       the voice of a clip goes through the served package, 40 ms at a time, at its look-ahead; the pictures that
           come out (another head: the loop's) are tracked by MediaPipe as the truth was. This is what a viewer gets.
repainted  the clip's own frames with the mouth that the networks predict: pixels can be held against the truth.

Where the truth is the studio's, both are held against the film as MediaPipe sees it: a tracker differs from a rig by
more than a good avatar from its film. Beside each stands the same with a mouth that never moves. Definitions are those
of `models.metrics`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from models import face, metrics
from models.avatar import Avatar, PackageError, Shelf, default_shelf
from models.create.film import Floats, FootageError, Picture
from models.create.fit import Piece, scaled_points, seen
from models.create.live import opened, performed
from models.create.loop import pieces
from models.create.phones import closures, complexion_of, gaps_seen, phones_of
from models.create.repaint import Person, person_of, posed, repainted, said
from models.create.track import in_time, tracked
from models.create.watch import mesh_of
from models.rates import FRAME_RATE

MOMENTS: Final = 6
"""Of a clip, on the contact sheet."""
PICTURES_EVERY: Final = 5
"""Frames between two whose pixels are compared."""
PUBLISHED: Final = {"LipSync3D on GRID, as published": {"ssim": 0.94, "lmd": 0.80, "cpbd": 0.25}}
Array = npt.NDArray[np.float64]


@dataclass(eq=False)
class Scores:
    """Rows of figures by name, and some pictures to look at."""

    motion: dict[str, dict[str, float]]
    pictures: dict[str, dict[str, float]]
    phones: dict[str, dict[str, float]]
    """Closures, where phone times are known; else empty."""
    seconds: float
    openings: list[tuple[Array, Array]] = field(default_factory=list)
    """True and shown, of each clip, live: for a plot."""
    sheet: list[tuple[Picture, Picture]] = field(default_factory=list)
    """The truth's frame and the same repainted, shut to open."""
    film: list[tuple[Picture, Picture]] = field(default_factory=list)
    """The first clip: truth and live, frame by frame."""
    film_audio: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    shown: list[Floats] = field(default_factory=list)
    """Tracked points of the live pictures of `film`."""

    def facts(self) -> dict[str, Any]:
        """What was measured; None where there was nothing to measure."""
        tables = {"motion": self.motion, "pictures": self.pictures, "phones": self.phones}
        known = {
            title: {row: {k: v if np.isfinite(v) else None for k, v in told.items()} for row, told in rows.items()}
            for title, rows in tables.items()
        }
        return {"seconds": self.seconds, **known, "published": PUBLISHED}


def evaluate(
    avatar: Avatar, held: Sequence[Piece], training: Sequence[Floats], told: Callable[[str], None] = lambda now: None
) -> Scores:
    """Measure a package on pieces of footage. `training`: points [T, 478, 3] that say where a mouth usually is."""
    person = person_of(avatar)
    usual = np.concatenate([_normal(person, points) for points in training]).mean(0)
    live, network, repaint = [], [], []
    scores = Scores({}, {}, {}, sum(p.frames.stop - p.frames.start for p in held) / FRAME_RATE)
    runtime = opened(avatar.folder)
    still = torch.from_numpy(usual[face.HOUSE_SPOKEN]).float()
    pixels: dict[str, list[dict[str, float]]] = {"repainted": [], "static mouth": []}
    distances: list[float] = []
    phones = [phones_of(piece) for piece in held]
    complexion = complexion_of(avatar) if any(phones) else None
    gaps: dict[str, list[tuple[Array, Sequence[metrics.Phone]]]] = {"live": [], "repainted": [], "truth": []}
    for number, piece in enumerate(held):
        told(f"{number + 1} of {len(held)}: live")
        clip = piece.clip
        truth = _normal(person, clip.points)
        own = scaled_points(piece)
        frames = [
            picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2] for picture in seen([piece])[0].pictures
        ]
        seen_by = _filled(np.stack(list(mesh_of(iter(frames))))) if piece.track.labelled else own
        tracked_truth = _normal(person, seen_by) if piece.track.labelled else truth
        first = number * 37
        shown = [picture for picture, _ in performed(runtime, clip.audio, first)]
        found = np.stack(list(mesh_of(iter(shown))))
        live.append(_performance(tracked_truth, _normal(person, _filled(found)), clip.speech, phones[number]))
        spoken = said(person, clip.audio)
        foretold = truth.copy()
        foretold[:, face.HOUSE_SPOKEN] = spoken.numpy()
        network.append(_performance(truth, foretold, clip.speech, phones[number]))
        scores.openings.append((metrics.opening(tracked_truth), metrics.opening(live[-1].prediction)))
        if number == 0:
            scores.film_audio, scores.shown = clip.audio, [*found]
        told(f"{number + 1} of {len(held)}: repainted")
        if number == 0:
            scores.film = list(zip(frames, shown, strict=False))
        if complexion is not None:
            gaps["live"].append((gaps_seen(shown, _filled(found), complexion), phones[number]))
            gaps["truth"].append((gaps_seen(frames, own, complexion), phones[number]))
        made = list(repainted(person, iter(frames), own, posed(person, spoken, own)))
        looked = slice(2, len(made), PICTURES_EVERY)
        pixels["repainted"] += [
            _compared(*each) for each in zip(own[looked], frames[looked], made[looked], strict=True)
        ]
        again = _filled(np.stack(list(mesh_of(iter(made)))))
        distances += np.linalg.norm((again - seen_by)[:, face.LIPS, :2], axis=-1).mean(-1).tolist()
        repaint.append(_performance(tracked_truth, _normal(person, again), clip.speech, phones[number]))
        if complexion is not None:
            gaps["repainted"].append((gaps_seen(made, again, complexion), phones[number]))
        scores.sheet += _chosen(own, frames, made)
        mouth = posed(person, still.expand(len(own[looked]), -1, -1), own[looked])
        made = list(repainted(person, iter(frames[looked]), own[looked], mouth))
        compared = zip(own[looked], frames[looked], made, strict=True)
        pixels["static mouth"] += [_compared(*each) for each in compared]
    runtime.close()
    static = [metrics.Performance(p.truth, _static(p.truth, usual), p.speech, p.phones) for p in network]
    neutral = person.speaker.head.reference.numpy()
    rows = {"live": live, "repainted": repaint, "networks alone": network, "static mouth": static}
    scores.motion = {name: metrics.landmark_scores(clips, neutral) for name, clips in rows.items()}
    truth_motion = [(p.truth, ~p.speech) for p in live if p.speech is not None]
    scores.motion["truth"] = {"silence_motion": metrics.silence_motion(truth_motion)}
    scores.pictures = {name: _mean(each) for name, each in pixels.items()}
    scores.pictures["repainted"]["lmd"] = float(np.mean(distances))
    if any(phones):
        rows["truth"] = [metrics.Performance(p.truth, p.truth, p.speech, p.phones) for p in network]
        scores.phones = {name: closures(clips) for name, clips in rows.items()}
        for name, seen_gaps in gaps.items():
            scores.phones[name] |= metrics.gaps(seen_gaps)
    scores.sheet = _spread(scores.sheet, 12)
    return scores


def _normal(person: Person, points: Floats) -> Array:
    """[T, 478, 3] → [T, 131, 3] in the person's pose-normal space."""
    return metrics.pose_normal(points, person.mesh)(points)[:, face.HOUSE]


def _filled(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Frames where no face was found take the one before: a lost face is a mouth that stands still."""
    points = points.copy()
    lost = ~np.isfinite(points).all((1, 2))
    if lost.all():
        raise PackageError("MediaPipe finds no face in the avatar's own pictures")
    for at in np.flatnonzero(lost):
        points[at] = points[at - 1] if at else points[np.flatnonzero(~lost)[0]]
    return points


def _performance(truth: Array, shown: Array, speech: Any, phones: Sequence[metrics.Phone]) -> metrics.Performance:
    """The upper face is another head's, or given: it counts as true."""
    count = min(len(truth), len(shown))
    prediction = shown[:count].copy()
    prediction[:, face.HOUSE_UPPER] = truth[:count, face.HOUSE_UPPER]
    return metrics.Performance(truth[:count], prediction, None if speech is None else speech[:count], phones)


def _static(truth: Array, usual: Array) -> Array:
    still = truth.copy()
    still[:, face.HOUSE_SPOKEN] = usual[face.HOUSE_SPOKEN]
    return still


def _compared(points: Floats, true: Picture, made: Picture) -> dict[str, float]:
    height, width = true.shape[:2]
    house = points[face.HOUSE]
    lips, oval = metrics.lips_box(house, width, height), metrics.face_box(points, width, height)
    inner = metrics.inner_mask(house, width, height)
    scores = {
        "lips_psnr": metrics.psnr(lips.of(made), lips.of(true)),
        "face_ssim": metrics.ssim(oval.of(made), oval.of(true)),
        "ssim": metrics.ssim(made, true),
        "sharpness": metrics.sharpness(lips.of(made), lips.of(true)),
    }
    if min(lips.of(true).shape[:2]) > 11:
        scores["lips_ssim"] = metrics.ssim(lips.of(made), lips.of(true))
    if inner.sum() > 20:
        scores["inner_psnr"] = metrics.psnr(made[inner], true[inner])
    return scores


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if np.isfinite(row.get(name, np.nan))])) for name in names}


def _chosen(points: Floats, frames: Sequence[Picture], made: Sequence[Picture]) -> list[tuple[Picture, Picture]]:
    """Moments of a clip from the mouth at its most shut to its widest, in even steps, cut to the face."""
    pairs = []
    for at in by_opening(points[: len(made)], MOMENTS):
        box = metrics.face_box(points[at], frames[at].shape[1], frames[at].shape[0])
        pairs.append((box.of(frames[at]), box.of(made[at])))
    return pairs


def by_opening(points: Floats, count: int) -> list[int]:
    """Frames of [T, 478, 3] in which the mouth is ever wider, in even steps; a frame comes once."""
    gap = np.linalg.norm(points[:, face.INNER_UPPER] - points[:, face.INNER_LOWER], axis=-1)
    wanted = np.linspace(gap.min(), gap.max(), count)
    return list(dict.fromkeys(int(np.abs(gap - one).argmin()) for one in wanted))


def _spread(pairs: list[tuple[Picture, Picture]], most: int) -> list[tuple[Picture, Picture]]:
    return [pairs[at] for at in np.linspace(0, len(pairs) - 1, min(most, len(pairs))).astype(int)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="an avatar that `liveface create` made")
    parser.add_argument("video", type=Path, nargs="+", help="footage of the same person that it has not seen")
    parser.add_argument("--avatars-dir", type=Path, default=None, help="where your own avatars lie")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        avatar = Shelf(arguments.avatars_dir or default_shelf()).avatar(arguments.name)
        tracks = in_time(tracked(arguments.video, quiet=arguments.json))
        held = [Piece(arguments.video[number], tracks[number], frames) for number, frames in pieces(tracks)]
        if not held:
            raise FootageError("no stretch of this footage shows one face for a second and a half")
        scores = evaluate(avatar, held, [piece.clip.points for piece in held])
    except (FootageError, PackageError, OSError) as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(scores.facts()))
        return 0
    console = Console()
    for title, rows in (("motion", scores.motion), ("pictures", scores.pictures), ("phones", scores.phones)):
        if rows:
            console.print(table(title, rows))
    return 0


def table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    shown = Table("", *names, title=title)
    for row, figures in rows.items():
        shown.add_row(row, *(f"{figures[name]:.3g}" if name in figures else "" for name in names))
    return shown
