"""Any file that PyAV opens → mono s16 at 48 kHz, a second at a time, bounded. Blocking: call it from a thread.

A file may come from a stranger. So only containers that hold their own sound are opened: a playlist or a concatenation
would make this machine read other files, or fetch addresses, on the stranger's behalf.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import av
import av.error
import numpy as np
import numpy.typing as npt

from models.rates import HEARD_RATE

SECONDS_MOST: Final = 4 * 3600.0
FORMATS: Final = (
    "wav,w64,aiff,au,caf,mp3,aac,flac,ogg,opus,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpegts,mpeg,mpegvideo,avi,amr,ac3,"
    "eac3,asf,wv,tta,ape,flv"
)
STREAMS_MOST: Final = 32


class AudioFileError(ValueError):
    """There is no sound to be had from this file; the message says why."""


def read_audio(
    source: Path | BinaryIO, name: str | None = None, seconds_most: float = SECONDS_MOST
) -> Iterator[npt.NDArray[np.int16]]:
    """Pieces of at most one second, [n] mono s16 at 48 kHz. `name` is what messages call the file.

    Raises AudioFileError, at the first piece when the file cannot be opened at all, later when it is damaged so that
    nothing could be read from it, or when it is longer than `seconds_most`.
    """
    called = name or (str(source) if isinstance(source, Path) else "the file")
    try:
        with av.open(
            str(source) if isinstance(source, Path) else source,
            "r",
            options={"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_streams": str(STREAMS_MOST)},
            metadata_errors="ignore",
        ) as container:
            if not container.streams.audio:
                raise AudioFileError(f"{called} has no sound in it")
            yield from _seconds(_blocks(container), called, seconds_most)
    except FileNotFoundError as missing:
        raise AudioFileError(f"{called} does not exist") from missing
    except (av.error.FFmpegError, OSError) as broken:
        raise AudioFileError(f"{called} is no audio file that can be opened ({broken.strerror or broken})") from broken
    except (ValueError, MemoryError) as broken:
        if isinstance(broken, AudioFileError):
            raise
        raise AudioFileError(f"{called} is damaged: {broken}") from broken


def seconds_of(source: Path) -> float | None:
    """How long the file says that it is, for a progress bar; None when it does not say."""
    try:
        with av.open(str(source), options={"format_whitelist": FORMATS}, metadata_errors="ignore") as container:
            return None if container.duration is None else container.duration / av.time_base
    except (av.error.FFmpegError, OSError):
        return None


def _blocks(container: "av.container.InputContainer") -> Iterator[npt.NDArray[np.int16]]:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=HEARD_RATE)
    decoded = 0
    stream = container.streams.audio[0]
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue  # a damaged packet: what comes after it may still be heard
        for frame in frames:
            decoded += 1
            for block in resampler.resample(frame):
                yield _samples(block)
    if not decoded:
        raise AudioFileError("its sound cannot be decoded")
    for block in resampler.resample(None):
        yield _samples(block)


def _samples(block: av.AudioFrame) -> npt.NDArray[np.int16]:
    return block.to_ndarray().reshape(-1).astype(np.int16, copy=False)


def _seconds(
    blocks: Iterator[npt.NDArray[np.int16]], called: str, seconds_most: float
) -> Iterator[npt.NDArray[np.int16]]:
    most = math.inf if math.isinf(seconds_most) else int(seconds_most * HEARD_RATE)
    waiting: list[npt.NDArray[np.int16]] = []
    waits, given = 0, 0
    for block in blocks:
        waiting.append(block)
        waits += len(block)
        if waits + given > most:
            raise AudioFileError(f"{called} is longer than {seconds_most:g} s")
        if waits >= HEARD_RATE:
            whole = np.concatenate(waiting)
            for begin in range(0, waits - HEARD_RATE + 1, HEARD_RATE):
                yield whole[begin : begin + HEARD_RATE]
            rest = whole[waits - waits % HEARD_RATE :]
            given += waits - len(rest)
            waiting, waits = [rest], len(rest)
    if waits:
        yield np.concatenate(waiting)
