"""`liveface render AUDIO OUT.mp4`: the streaming pipeline, with no clock to wait for, into a file.

The same sessions, worker and moments as live, so what is seen here is what the server shows. Sound and picture of the
file carry the moments' own pts: lips and voice are in sync by construction. The file says that it is synthetic, twice:
as container tags, and as the IPTC `digitalSourceType` in an XMP packet, where photo and news programs look for it.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from xml.sax.saxutils import escape

import av
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine import logs
from engine.audiofile import AudioFileError, read_audio, seconds_of
from engine.clock import Clock, RealClock
from engine.config import Config, ConfigError, load
from engine.media import Moment, Picture
from engine.session import Pacing, Session, open_session
from engine.start import StartError, open_worker
from engine.worker import Worker
from models.rates import FRAME_RATE, HEARD_CHUNK, HEARD_RATE
from models.runtime import AvatarCard, Wants

SOURCE_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
XMP_BOX: Final = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
"""The `uuid` box in which MP4 files carry XMP (ISO 16684-3)."""

PATIENCE_SECONDS: Final = 60.0
"""Without an answer of the model: nobody waits here, and a busy machine is slow, not broken."""

AHEAD: Final = 12
"""Moments that may wait for the encoder."""


class RenderError(Exception):
    """There is no film, and why."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What was made."""

    frames: int
    seconds: float
    took_seconds: float
    repeated: int

    @property
    def speed(self) -> float:
        """Times real time."""
        return self.seconds / self.took_seconds if self.took_seconds > 0 else 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("audio", type=Path, help="any file with sound in it")
    parser.add_argument("out", type=Path, help="the MP4 to write")
    parser.add_argument("--avatar", action="append", help="which avatar (default: demo)")
    parser.add_argument("--avatars-dir", metavar="DIR", help="where your own avatars lie")
    parser.add_argument("--backend", help="what runs the model (default: auto)")
    parser.add_argument("--lookahead", type=int, help="frames of future sound the model sees")
    parser.add_argument("--force", action="store_true", help="write over an existing file")
    parser.add_argument("--json", action="store_true", help="report as JSON")


def run(arguments: argparse.Namespace) -> int:
    logs.set_up("warning")
    try:
        config = load(_settings(arguments), os.environ).config
        if arguments.out.exists() and not arguments.force:
            raise StartError(f"{arguments.out} exists already: name another, or add --force")
        if not arguments.out.parent.is_dir():
            raise StartError(f"{arguments.out.parent} is no directory")
        rendered = asyncio.run(_render(arguments.audio, arguments.out, config, quiet=arguments.json))
    except (StartError, AudioFileError, ConfigError, RenderError, OSError) as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return 2 if isinstance(wrong, ConfigError) else 1
    if arguments.json:
        said = {"file": str(arguments.out), "frames": rendered.frames, "seconds": round(rendered.seconds, 3)}
        said |= {"took_seconds": round(rendered.took_seconds, 3), "speed": round(rendered.speed, 2)}
        print(json.dumps(said | {"repeated": rendered.repeated}))
    else:
        took = f"{rendered.took_seconds:.1f} s ({rendered.speed:.1f} × real time)"
        print(f"{arguments.out}: {rendered.seconds:.1f} s in {took}")
    return 0


async def render(
    audio: Path, out: Path, worker: Worker, clock: Clock, avatar: str, told: Callable[[int], None] = lambda frames: None
) -> Rendered:
    """Render `audio` into `out`, which appears only when it is whole. `told` hears how many frames there are so far.

    Raises AudioFileError for sound that cannot be read, OSError for a file that cannot be written, and RenderError when
    the model did not last: a film with one picture for many is worth nothing.
    """
    began = clock.now()
    unfinished = out.with_name(f".{out.name}.unfinished")
    frames = repeated = 0
    loop = asyncio.get_running_loop()
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="render") as thread:
            async with (
                open_session(worker, clock, avatar, pacing=Pacing.FILE, transport="file") as session,
                session.outlet(Wants.PICTURE, AHEAD) as moments,
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(_speak(session, audio))
                film = await loop.run_in_executor(thread, Film, unfinished, session.card)
                try:
                    async for moment in moments:
                        await loop.run_in_executor(thread, film.add, moment)
                        frames += 1
                        repeated += moment.repeated
                        told(frames)
                finally:
                    await loop.run_in_executor(thread, film.close)
            await loop.run_in_executor(thread, mark_synthetic, unfinished, session.card)
        if repeated:
            raise RenderError(f"the model was lost on the way, {repeated} of {frames} pictures are missing: try again")
        unfinished.replace(out)
    except BaseExceptionGroup as several:
        unfinished.unlink(missing_ok=True)
        raise several.exceptions[0] from None
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return Rendered(frames, frames / FRAME_RATE, clock.now() - began, repeated)


async def _speak(session: Session, audio: Path) -> None:
    """Feeds the file, slowed down by how fast it is spoken."""
    try:
        pieces = read_audio(audio)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            await session.push_audio(piece, HEARD_RATE, segment_id="file")
        await session.flush("file")
    except BaseException:
        await session.aclose()
        raise


class Film:
    """An MP4 in the making: H.264 and AAC, dated by the moments' own pts."""

    def __init__(self, path: Path, card: AvatarCard) -> None:
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart+use_metadata_tags"})
        for name, value in tags(card).items():
            self._container.metadata[name] = value
        self._video = self._container.add_stream(
            "libx264", rate=FRAME_RATE, options={"crf": "18", "preset": "veryfast"}
        )
        self._video.width, self._video.height, self._video.pix_fmt = card.width, card.height, "yuv420p"
        self._video.time_base = Fraction(1, FRAME_RATE)
        self._audio = self._container.add_stream("aac", rate=HEARD_RATE, layout="mono")
        self._audio.bit_rate = 128_000
        self._first_pts: int | None = None

    def add(self, moment: Moment) -> None:
        if self._first_pts is None:
            self._first_pts = moment.pts
        pts = moment.pts - self._first_pts
        assert moment.picture is not None
        picture = av.VideoFrame.from_ndarray(planar(moment.picture), format="yuv420p")
        picture.pts, picture.time_base = pts // HEARD_CHUNK, Fraction(1, FRAME_RATE)
        self._container.mux(self._video.encode(picture))
        sound = av.AudioFrame.from_ndarray(
            (moment.heard.astype(np.float32) / 32_768).reshape(1, -1), format="fltp", layout="mono"
        )
        sound.sample_rate, sound.pts, sound.time_base = HEARD_RATE, pts, Fraction(1, HEARD_RATE)
        self._container.mux(self._audio.encode(sound))

    def close(self) -> None:
        if self._first_pts is not None:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def planar(picture: Picture) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """I420 in one array, [height * 3 / 2, width]."""
    width = picture.width
    return np.concatenate([picture.y, picture.u.reshape(-1, width), picture.v.reshape(-1, width)])


def source_type(card: AvatarCard) -> str:
    """IPTC's word for it: a presenter that never was is made by an algorithm; a person's clip is a composite."""
    return SOURCE_TYPES + ("trainedAlgorithmicMedia" if card.synthetic else "compositeWithTrainedAlgorithmicMedia")


def tags(card: AvatarCard) -> dict[str, str]:
    return {
        "title": f"{card.name} (AI-generated)",
        "comment": "AI-generated: this face was made to speak by Liveface",
        "digital_source_type": source_type(card),
        "avatar": f"{card.name} {card.revision}",
    }


def mark_synthetic(path: Path, card: AvatarCard) -> None:
    """Append an XMP packet with Iptc4xmpExt:DigitalSourceType, as a `uuid` box at the end of the file."""
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
        'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<Iptc4xmpExt:DigitalSourceType>{escape(source_type(card))}</Iptc4xmpExt:DigitalSourceType>"
        "<xmp:CreatorTool>Liveface</xmp:CreatorTool>"
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">AI-generated: {escape(card.name)}</rdf:li></rdf:Alt>'
        "</dc:description></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='r'?>"
    ).encode()
    with path.open("ab") as file:
        file.write((8 + len(XMP_BOX) + len(packet)).to_bytes(4, "big") + b"uuid" + XMP_BOX + packet)


async def _render(audio: Path, out: Path, config: Config, quiet: bool) -> Rendered:
    seconds = await asyncio.to_thread(seconds_of, audio)
    next(read_audio(audio), None)  # says what is wrong with the file before the model is loaded
    clock = RealClock()
    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty()) as progress:
        bar = progress.add_task("rendering", total=None if seconds is None else round(seconds * FRAME_RATE))
        async with open_worker(config, clock, PATIENCE_SECONDS) as worker:
            avatar = next(iter(worker.cards))
            return await render(
                audio, out, worker, clock, avatar, lambda frames: progress.update(bar, completed=frames)
            )


def _settings(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments that are settings of the server too, as `config.load` wants them."""
    given = {"avatar": arguments.avatar, "avatars_dir": arguments.avatars_dir, "backend": arguments.backend}
    given["lookahead"] = None if arguments.lookahead is None else str(arguments.lookahead)
    given["slots"] = "1"
    return argparse.Namespace(**{name: value for name, value in given.items() if value is not None})
