"""`liveface dub VIDEO AUDIO OUT.mp4 --avatar NAME`: an existing video, new speech, the person's own motion kept.

Nothing is streamed here: the whole of the speech is heard, and every frame keeps its head, its eyes and its light; lips
and jaw alone are painted anew. Speech that is longer than the video plays it forth and back.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from time import time
from typing import Final

import av
import av.error
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from models.avatar import Avatar, PackageError, Shelf, default_shelf
from models.create.film import Floats, FootageError, Picture, check_there, pictures, spoken
from models.create.fit import shrunk
from models.create.repaint import Person, person_of, posed, repainted, said
from models.create.track import Track, tracked
from models.create.watch import MOST_SIDE
from models.rates import CHUNK, FRAME_RATE, SAMPLE_RATE

FRAMES_MOST: Final = 25 * 60 * 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", type=Path, help="footage of the avatar's person")
    parser.add_argument("audio", type=Path, help="what they are to say: any file with sound")
    parser.add_argument("out", type=Path, help="the MP4 to write")
    parser.add_argument("--avatar", required=True, help="an avatar that `liveface create` made of this person")
    parser.add_argument("--avatars-dir", type=Path, default=None, help="where your own avatars lie")
    parser.add_argument("--force", action="store_true", help="write over an existing file")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    try:
        if arguments.out.exists() and not arguments.force:
            raise FootageError(f"{arguments.out} exists already: name another, or add --force")
        if not arguments.out.absolute().parent.is_dir():
            raise FootageError(f"{arguments.out.parent} is no directory")
        check_there([arguments.video, arguments.audio])
        avatar = Shelf(arguments.avatars_dir or default_shelf()).avatar(arguments.avatar)
        avatar.require_consent(time())
        person, speech = person_of(avatar), spoken(arguments.audio)
        made = tracked([arguments.video], quiet=arguments.json)[0]
        frames = dub(arguments.video, made, speech, avatar, person, arguments.out, quiet=arguments.json)
    except (FootageError, PackageError, OSError, av.error.FFmpegError) as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return 1
    seconds = round(frames / FRAME_RATE, 2)
    print(
        json.dumps({"file": str(arguments.out), "seconds": seconds})
        if arguments.json
        else f"{arguments.out}: {seconds} s"
    )
    return 0


def dub(video: Path, made: Track, audio: Floats, avatar: Avatar, person: Person, out: Path, quiet: bool = True) -> int:
    """Write `out`, whole or not at all; → its frames. Raises FootageError where the video loses its face."""
    take = max(made.takes, key=lambda one: one.stop - one.start, default=None)
    if take is None:
        raise FootageError(f"{video.name}: no stretch shows one face for a second and a half")
    frames = min(len(audio) // CHUNK, FRAMES_MOST)
    if not frames:
        raise FootageError("there is no speech to say: the sound is shorter than one picture")
    order = _there_and_back(take.stop - take.start, frames)
    points = shrunk(made.points[take], made)[order]
    house = posed(person, said(person, audio[: frames * CHUNK]), points)
    shown = repainted(person, _played(video, made.picture[take][order]), points, house)
    unfinished = out.with_name(f".{out.name}.unfinished.mp4")
    try:
        with Progress(console=Console(stderr=True), disable=quiet) as progress:
            _write(
                unfinished, progress.track(shown, total=frames, description="dubbing"), audio[: frames * CHUNK], avatar
            )
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return frames


def _there_and_back(count: int, frames: int) -> npt.NDArray[np.int64]:
    """[frames]: forth through `count` frames and back, as often as needed."""
    once = np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)])
    return np.resize(once, frames)


def _played(video: Path, wanted: npt.NDArray[np.int64]) -> Iterator[Picture]:
    """The film's pictures by number, in any order: read forwards once, and kept as long as they come again."""
    kept: dict[int, Picture] = {}
    last = {int(number): place for place, number in enumerate(wanted)}
    film = enumerate(one for _, one in pictures(video, MOST_SIDE))
    for place, number in enumerate(wanted.tolist()):
        while number not in kept:
            at, picture = next(film)
            if last.get(at, -1) >= place:
                kept[at] = picture
        yield kept[number]
        if last[number] == place:
            del kept[number]


def _write(path: Path, shown: Iterable[Picture], audio: Floats, avatar: Avatar) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"}) as container:
        container.metadata["comment"] = f"AI-generated: dubbed by Liveface with the avatar {avatar.name}"
        container.metadata["digital_source_type"] = "compositeWithTrainedAlgorithmicMedia"
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "18", "preset": "veryfast"})
        voice = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number, picture in enumerate(shown):
            if number == 0:
                video.height, video.width = picture.shape[:2]
                video.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        block = av.AudioFrame.from_ndarray(audio[None].astype(np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        container.mux(voice.encode(block))
        container.mux(voice.encode())
