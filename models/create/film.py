"""Any video that PyAV opens: its pictures upright and dated, its sound at 16 kHz on the pictures' own timeline.

Time zero is the first picture. Only containers that hold their own streams are opened: a playlist would make this
machine read other files on a stranger's behalf.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import av
import av.error
import numpy as np
import numpy.typing as npt
import soxr

from models.rates import FRAME_RATE, SAMPLE_RATE

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB."""

FORMATS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,mxf,h264,hevc,m4v"
VIDEO: Final = (FORMATS, "video", "MP4")
SOUND: Final = (f"{FORMATS},wav,w64,aiff,au,caf,mp3,aac,flac,opus,amr,ac3,eac3,wv,tta,ape", "sound", "WAV")
"""Which containers, what they are called, and what one is better exported as."""

SECONDS_MOST: Final = 1200.0
PIXELS_MOST: Final = 8192 * 8192
GAP_SECONDS: Final = 0.02
"""Sound that is further than this from where the sound before it ended is put where its date says."""
_OPTIONS: Final = {"protocol_whitelist": "file"}


class FootageError(ValueError):
    """This footage cannot become an avatar. One line: what is wrong, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Film:
    """What a video file says of itself; upright sizes."""

    path: Path
    width: int
    height: int
    rate: float
    digest: str
    """SHA-256 of the file."""


def open_film(path: Path) -> Film:
    """Raises FootageError when there is no video in it."""
    check_there([path])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    for _, picture in pictures(path):
        height, width = picture.shape[:2]
        break
    else:
        raise FootageError(f"{path} holds no picture that can be decoded: export it again as MP4")
    with _opened(path) as container:
        rate = float(container.streams.video[0].average_rate or container.streams.video[0].guessed_rate or FRAME_RATE)
    return Film(path, width, height, rate, digest)


def check_there(paths: Sequence[Path]) -> None:
    """Before anything is begun. Raises FootageError."""
    for path in paths:
        if not path.is_file():
            raise FootageError(f"{path} does not exist" if not path.exists() else f"{path} is no file")


def pictures(path: Path, most_side: int | None = None) -> Iterator[tuple[float, Picture]]:
    """Every picture upright, with its time in seconds from the first; no side longer than `most_side` pixels."""
    first: float | None = None
    last = -1.0
    with _opened(path) as container:
        if not container.streams.video:
            raise FootageError(f"{path} has no video in it, only sound")
        stream = container.streams.video[0]
        if stream.codec_context.width * stream.codec_context.height > PIXELS_MOST:
            raise FootageError(f"{path} is larger than any camera's picture")
        stream.thread_type = "AUTO"
        step = 1.0 / float(stream.average_rate or FRAME_RATE)
        for frame in _decoded(container, stream):
            assert isinstance(frame, av.VideoFrame)
            date = frame.time if frame.time is not None else (first or 0.0) + last + step
            first = date if first is None else first
            seconds = date - first
            if seconds <= last:
                continue
            if seconds > SECONDS_MOST:
                raise FootageError(f"{path} is longer than {SECONDS_MOST / 60:.0f} minutes: cut it to the best five")
            last = seconds
            yield seconds, _upright(frame, most_side)


def sound(path: Path) -> Floats:
    """[n] at 16 kHz, mono, from the first picture on; missing sound is silence."""
    with _opened(path) as container:
        if not container.streams.audio:
            raise FootageError(f"{path} has no sound: film it with a microphone")
        return _mono(
            container, _first_date(path), f"{path} has no sound that can be decoded: export it as MP4 with AAC"
        )


def spoken(path: Path) -> Floats:
    """[n] at 16 kHz, mono, of any file with sound, from its first sample on."""
    with _opened(path, SOUND) as container:
        if not container.streams.audio:
            raise FootageError(f"{path} has no sound in it")
        return _mono(container, None, f"{path} has no sound that can be decoded: export it as WAV")


def _mono(container: "av.container.InputContainer", began: float | None, undecodable: str) -> Floats:
    """The first sound stream from `began` seconds on, or from its own beginning."""
    stream = container.streams.audio[0]
    pieces: list[tuple[int, Floats]] = []
    end = 0
    rate = stream.codec_context.sample_rate
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    for frame in _decoded(container, stream):
        assert isinstance(frame, av.AudioFrame)
        if began is None:
            began = frame.time or 0.0
        at = end if frame.time is None else round((frame.time - began) * rate)
        at = end if pieces and abs(at - end) < GAP_SECONDS * rate else at
        for block in resampler.resample(frame):
            piece = block.to_ndarray().reshape(-1).astype(np.float32)
            pieces.append((at, piece))
            at += len(piece)
        end = at
    if end <= 0 or end > SECONDS_MOST * 2 * rate:
        raise FootageError(undecodable)
    whole = np.zeros(end, np.float32)
    for at, piece in pieces:
        piece = piece[max(0, -at) :]
        at = max(at, 0)
        whole[at : at + len(piece)] = piece[: max(0, end - at)]
    return cast(Floats, soxr.resample(whole, rate, SAMPLE_RATE).astype(np.float32))


def _first_date(path: Path) -> float:
    with _opened(path) as container:
        for frame in _decoded(container, container.streams.video[0]):
            return frame.time or 0.0
    return 0.0


def _decoded(container: "av.container.InputContainer", stream: "av.VideoStream | av.AudioStream") -> Iterator[Any]:
    """Its frames; what is damaged is left out, as what comes after it may still be seen and heard."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        yield from frames


def _upright(frame: av.VideoFrame, most_side: int | None) -> Picture:
    """Phones store what the sensor saw and how it was held."""
    width, height = frame.width, frame.height
    if most_side and max(width, height) > most_side:
        scale = most_side / max(width, height)
        width, height = 2 * round(width * scale / 2), 2 * round(height * scale / 2)
    picture = cast(Picture, frame.to_ndarray(format="rgb24", width=width, height=height))
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture


def _opened(path: Path, kind: tuple[str, str, str] = VIDEO) -> "av.container.InputContainer":
    formats, what, better = kind
    try:
        return av.open(str(path), "r", options={**_OPTIONS, "format_whitelist": formats}, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as broken:
        why = broken.strerror or broken
        raise FootageError(f"{path} is no {what} that can be opened ({why}): export it again as {better}") from broken
