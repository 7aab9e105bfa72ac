"""`liveface create NAME VIDEO…`: from footage to an avatar on the shelf, with a report of how good it is.

Everything that takes long is kept under the cache by what it was made from, so that a run that was killed goes on when
it is called again. The avatar appears on the shelf whole or not at all.
"""

import argparse
import errno
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError

from models.avatar import Avatar, PackageError, Shelf, check_name, default_shelf, file_digest, read_avatar
from models.create import agree, consent, loop, package, report
from models.create.evaluate import evaluate
from models.create.film import FootageError
from models.create.fit import QUALITIES, Piece, Told, fit_head, fit_renderer, fit_rule
from models.create.scene import scene_of
from models.create.speaker import Speaker
from models.create.track import Track, in_time, tracked
from models.landmarks.head import Head
from models.landmarks.hearing import Beside
from models.rates import FRAME_RATE, LOOKAHEAD_DEFAULT
from models.runtime.eager import VOICE
from models.voice import LOOKAHEADS

LEAST_SECONDS: Final = 20.0
"""Of usable footage: below, there is nothing to learn from."""
LEAST_SPEECH_SECONDS: Final = 8.0
LEAST_RATE: Final = 12.0
"""Pictures a second below which lips cannot be followed."""
PEAK_SILENT: Final = 1e-3
MEASURED_SECONDS: Final = 60.0
"""Of held-out footage, at most, that the report looks at."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for."""

    name: str
    videos: tuple[Path, ...]
    shelf: Shelf
    quality: str
    device: str
    lookahead: int
    loop: tuple[float, float] | None
    size: int
    synthetic: bool
    record: bytes | None
    report: Path
    title: str
    force: bool
    seconds: float | None
    """Of usable footage to learn from at most; None takes all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="what the avatar is called: a-z, 0-9, _ and -")
    parser.add_argument("video", type=Path, nargs="+", help="one to five minutes of one person, speaking, in all")
    parser.add_argument("--consent-file", type=Path, help="JSON: subject, scope, granted_at, expires_at")
    parser.add_argument("--synthetic", action="store_true", help="nobody's face: a generated one needs no consent")
    parser.add_argument("--quality", choices=QUALITIES, default="good", help="how long to learn (default: good)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--loop", type=_span, metavar="START:END", help="seconds of the first video to live in")
    parser.add_argument("--lookahead", type=int, choices=LOOKAHEADS, default=LOOKAHEAD_DEFAULT, help="frames (K)")
    parser.add_argument("--size", type=int, default=512, help="most pixels a side of large films (default: 512)")
    parser.add_argument("--seconds", type=float, help="learn from no more than this much footage")
    parser.add_argument("--title", default="", help="how the avatar is announced")
    parser.add_argument("--report", type=Path, help="directory of the report (default: NAME-report)")
    parser.add_argument("--avatars-dir", type=Path, default=None, help="where your own avatars lie")
    parser.add_argument("--force", action="store_true", help="replace an avatar of that name")


def run(arguments: argparse.Namespace) -> int:
    try:
        wish = _wish(arguments)
        create(wish, Console(stderr=True))
    except (FootageError, PackageError, consent.NoConsent) as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return 1
    except (OSError, SafetensorError) as wrong:
        full = isinstance(wrong, OSError) and wrong.errno == errno.ENOSPC
        why = "the disk is full: free some space and run it again" if full else " ".join(str(wrong).split())
        print(f"liveface: {why}; what was learned so far is kept", file=sys.stderr)
        return 1
    return 0


def _wish(arguments: argparse.Namespace) -> Wish:
    shelf = Shelf(arguments.avatars_dir or default_shelf())
    name = check_name(arguments.name)
    if name in shelf.names() and not arguments.force:
        raise PackageError(f"an avatar is called {name!r} already: choose another name, or add --force")
    for video in arguments.video:
        if not video.is_file():
            raise FootageError(f"{video} does not exist")
    written = arguments.report or Path(f"{name}-report")
    for what, folder in (("the report", written), ("the avatar", shelf.root)):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        try:  # else it would be found out when all is learned
            tempfile.TemporaryDirectory(dir=there).cleanup()
        except OSError as refused:
            raise FootageError(
                f"{what} cannot be written to {folder}: {there} is no directory that you may write to"
            ) from refused
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # both trainers take a GPU where they see one
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise FootageError("--device cuda: torch finds no GPU here; use --device cpu")
    return Wish(
        name=name,
        videos=tuple(arguments.video),
        shelf=shelf,
        quality=arguments.quality,
        device=arguments.device,
        lookahead=arguments.lookahead,
        loop=arguments.loop,
        size=max(128, min(arguments.size, 1080)) // 2 * 2,
        synthetic=arguments.synthetic,
        record=_record(arguments),
        report=written,
        title=arguments.title or name,
        force=arguments.force,
        seconds=arguments.seconds,
    )


def _record(arguments: argparse.Namespace) -> bytes | None:
    if arguments.synthetic:
        return None
    if arguments.consent_file is not None:
        return consent.from_file(arguments.consent_file)
    if not sys.stdin.isatty():
        raise consent.NoConsent(
            "this is a person's face: give --consent-file FILE, or run it at a terminal and answer; "
            "a generated face needs --synthetic"
        )
    return consent.asked(input)


def create(wish: Wish, console: Console) -> Avatar:
    """All of it. Raises FootageError, PackageError or OSError, in one line, with nothing left on the shelf."""
    began = time.monotonic()
    torch.set_num_threads(min(4, torch.get_num_threads()))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if wish.device == "auto" else wish.device
    tracks = in_time(tracked(wish.videos, quiet=not console.is_terminal))
    check(wish.videos, tracks)
    for line in report.of_footage(tracks):  # now, as learning takes long: some will rather film again at once
        console.print(f"  {line}", markup=False, soft_wrap=True)
    cut = loop.pieces(tracks)
    parts = [Piece(wish.videos[number], tracks[number], frames) for number, frames in cut]
    learn, hold = loop.held_out(cut, tracks)
    learned, held = _no_more([parts[n] for n in learn], wish.seconds), [parts[n] for n in hold]
    stretch = loop.choose(tracks, wish.loop)
    scene = scene_of(wish.videos[stretch.track], tracks[stretch.track], stretch, wish.size)
    quality = QUALITIES[wish.quality]
    room = _room(wish, tracks, hold)
    with _bars(console) as bars:
        told = bars("lips and jaw", quality.head_steps, "held-out cost {:.3f}")
        heard = file_digest(VOICE)[:12]  # a head that was fitted to another encoder would not understand this one
        trainer = fit_head(learned, held, room / f"head-{heard}", quality, wish.lookahead, device, told)
        rule = fit_rule(trainer, learned, held)
        told = bars("pictures", quality.renderer_steps, "held-out lips {:.1f} dB")
        renderer = fit_renderer(learned, held, room / "renderer", quality, told).cpu()
    head, ear = trainer.network.cpu(), trainer.hearing.cpu()
    assert isinstance(head, Head)
    assert isinstance(ear, Beside)
    card = package.Card(
        wish.name, wish.title, wish.synthetic, wish.lookahead, wish.record, _made(wish, tracks, learned)
    )
    wish.shelf.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wish.shelf.root, prefix=".creating-") as temporary:
        folder = Path(temporary) / wish.name
        folder.mkdir()
        package.write(folder, card, scene, trainer, Speaker(head, ear, rule.cpu()).eval(), renderer)
        with console.status("measuring"):
            measured = _within(held, MEASURED_SECONDS)
            scores = evaluate(read_avatar(folder), measured, [piece.clip.points for piece in learned])
        made = report.Made(
            name=wish.name,
            quality=wish.quality,
            minutes=(time.monotonic() - began) / 60,
            tracks=tuple(zip((video.name for video in wish.videos), tracks, strict=True)),
            learned_seconds=sum(p.frames.stop - p.frames.start for p in learned) / FRAME_RATE,
            stretch=stretch,
            scene=scene,
            lookahead=wish.lookahead,
        )
        report.write(wish.report, made, scores, read_avatar(folder))
        avatar = wish.shelf.install(folder)
    console.print(f"{wish.name} is on the shelf: liveface serve --avatar {wish.name}", markup=False, soft_wrap=True)
    before = report.of_footage(tracks)
    for line in (line for line in report.warnings(made, scores) if line not in before):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print(f"how good it is: {wish.report / 'report.html'}", markup=False, soft_wrap=True)
    return avatar


def check(videos: Sequence[Path], tracks: Sequence[Track]) -> None:
    """Raises FootageError for what cannot become an avatar: one line, with what to film instead."""
    for video, made in zip(videos, tracks, strict=True):
        if made.rate < LEAST_RATE:
            raise FootageError(f"{video.name} has {made.rate:.0f} pictures a second: film at 25 or more")
        if np.abs(made.audio).max(initial=0) < PEAK_SILENT:
            raise FootageError(f"{video.name} is silent: film it again with the microphone on")
    frames = sum(len(made.points) for made in tracks)
    if max(float(made.second.mean()) for made in tracks) > 0.5:
        raise FootageError("two faces are in the picture: film one person alone")
    covered = sum(int(made.covered.sum()) for made in tracks)
    if covered > 0.5 * frames:
        raise FootageError("a hand or a microphone covers the mouth most of the time: film it again without")
    usable = sum(take.stop - take.start for made in tracks for take in made.takes) / FRAME_RATE
    if usable < LEAST_SECONDS:
        cuts = sum(int(made.cut.sum()) for made in tracks)
        why = f", as there are {cuts} cuts in it" if cuts > frames / FRAME_RATE / 4 else ""
        raise FootageError(f"only {usable:.0f} s of footage can be used{why}: {loop.MORE}")
    spoken = sum(int(made.speech[take].sum()) for made in tracks for take in made.takes) / FRAME_RATE
    if spoken < LEAST_SPEECH_SECONDS:
        raise FootageError(f"only {spoken:.0f} s of speech were heard: {loop.MORE}")
    weight = np.array([made.speech.sum() for made in tracks], float)
    together = float((weight * [made.agreement for made in tracks]).sum() / weight.sum())
    if together < agree.AGREES and not all(made.labelled for made in tracks):
        raise FootageError(
            f"voice and lips hardly agree (r = {together:.2f}): is it music, the voice of another person, or a "
            "mouth that is covered? Film the speaker with their own sound"
        )


def _no_more(learned: list[Piece], seconds: float | None) -> list[Piece]:
    return learned if seconds is None else (_within(learned, seconds) or learned[:1])


def _within(parts: Sequence[Piece], seconds: float) -> list[Piece]:
    """The first pieces, as many as fit; one at least."""
    kept: list[Piece] = []
    for part in parts:
        if kept and sum(p.frames.stop - p.frames.start for p in [*kept, part]) > seconds * FRAME_RATE:
            break
        kept.append(part)
    return kept


def _room(wish: Wish, tracks: Sequence[Track], hold: Sequence[int]) -> Path:
    """Where this very fit keeps its checkpoints: the same footage and settings find them again, and nothing that was
    learned from what is held out now."""
    told = [wish.quality, str(wish.lookahead), str(wish.seconds), *(made.source for made in tracks)]
    told += [f"held out: {', '.join(map(str, hold))}"]
    told += [str(made.labelled) for made in tracks]
    base = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return cache / "liveface" / "fits" / hashlib.sha256("\n".join(told).encode()).hexdigest()[:20]


def _made(wish: Wish, tracks: Sequence[Track], learned: Sequence[Piece]) -> dict[str, str]:
    seconds = sum(part.frames.stop - part.frames.start for part in learned) / FRAME_RATE
    return {
        "by": "liveface create",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quality": wish.quality,
        "settings": ", ".join(f"{name}={value}" for name, value in asdict(QUALITIES[wish.quality]).items()),
        "labels": "studio" if any(made.labelled for made in tracks) else "mediapipe",
        "footage_seconds": f"{seconds:.1f}",
        "footage_sha256": hashlib.sha256("".join(made.source for made in tracks).encode()).hexdigest(),
    }


def _span(text: str) -> tuple[float, float]:
    begin, separator, end = text.partition(":")
    try:
        return (float(begin), float(end)) if separator else _no_span(text)
    except ValueError:
        return _no_span(text)


def _no_span(text: str) -> tuple[float, float]:
    raise argparse.ArgumentTypeError(f"{text!r} is not START:END in seconds, as 12.5:30")


Tell = Callable[[Told], None]


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str, int, str], Tell]]:
    """Makes bars: a name, steps in all, and how to say what is held."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[told]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def bar(name: str, steps: int, says: str) -> Tell:
            task: TaskID = progress.add_task(name, total=steps, told="")

            def tell(now: Told) -> None:
                words = f"cost {now.cost:.3f}, {says.format(now.held)}"
                progress.update(task, completed=now.step, told=words)
                if not console.is_terminal:
                    console.print(f"{name}: step {now.step} of {steps}, {words}", markup=False, soft_wrap=True)

            return tell

        yield bar
