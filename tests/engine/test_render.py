"""Rendering to a file: everything said is in it, in sync, marked as synthetic; a failure leaves nothing behind."""

import asyncio
import os
import wave
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from engine import __main__ as command_line
from engine.audiofile import AudioFileError
from engine.clock import RealClock
from engine.render import PATIENCE_SECONDS, XMP_BOX, RenderError, mark_synthetic, render, source_type
from engine.worker import Worker
from models.rates import FRAME_RATE, HEARD_RATE
from models.runtime import Out, Row
from tests.fakes import FakeRuntime, fake_card, vowel


def write_wav(path: Path, pcm: "np.ndarray[tuple[int], np.dtype[np.int16]]", rate: int = HEARD_RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.tobytes())
    return path


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A second of silence, a second of voice, a second of silence."""
    silence = np.zeros(HEARD_RATE, np.int16)
    return write_wav(tmp_path / "speech.wav", np.concatenate([silence, loud_vowel(1.0), silence]))


def loud_vowel(seconds: float) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    return (vowel(seconds, HEARD_RATE, amplitude=0.95) * 32_000).astype(np.int16)


class Textured(FakeRuntime):
    """A closed mouth that is not one flat colour, which the worker would take for a fault of the renderer."""

    def _answer(self, row: Row, act: str) -> Out:
        out = super()._answer(row, act)
        if out.roi is not None:
            out.roi.luma[::4, ::4] = 60
        return out


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    def opener(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> FakeRuntime:
        return Textured(slots=slots, lookahead=2)

    async with Worker([], 1, opener, inline=True, clock=RealClock()) as worker:
        yield worker


async def test_all_that_is_said_is_in_the_file_faster_than_real_time(
    audio: Path, tmp_path: Path, worker: Worker
) -> None:
    out = tmp_path / "out.mp4"
    counted: list[int] = []
    rendered = await render(audio, out, worker, RealClock(), "demo", counted.append)
    assert rendered.frames == counted[-1] == 3 * FRAME_RATE
    assert rendered.repeated == 0
    assert rendered.speed > 1
    with av.open(str(out)) as film:
        assert film.streams.video[0].frames == rendered.frames
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in film.decode(audio=0)])
    assert abs(len(sound) / HEARD_RATE - 3.0) < 0.1
    assert np.abs(sound[: HEARD_RATE // 2]).max() < 0.01 < np.abs(sound[HEARD_RATE:][: HEARD_RATE // 2]).max()
    assert worker.free_slots == 1


async def test_the_mouth_opens_with_the_voice_and_on_its_frame(audio: Path, tmp_path: Path, worker: Worker) -> None:
    """The fake's mouth is as bright as the sound is loud; two frames of look-ahead must not show as an offset."""
    out = tmp_path / "out.mp4"
    await render(audio, out, worker, RealClock(), "demo")
    with av.open(str(out)) as film:
        mouths = [float(frame.to_ndarray(format="gray")[18:46, 18:46].mean()) for frame in film.decode(video=0)]
    quiet, loud = np.array(mouths[:24] + mouths[52:]), np.array(mouths[27:49])
    assert loud.min() > quiet.max() + 10


async def test_a_film_in_which_the_model_was_lost_is_no_film(audio: Path, tmp_path: Path) -> None:
    def opener(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> FakeRuntime:
        return FakeRuntime(["ok"] * 20 + ["raise"], slots=slots)

    async with Worker([], 1, opener, inline=True, clock=RealClock()) as worker:
        with pytest.raises(RenderError, match="of 75 pictures are missing"):
            await render(audio, tmp_path / "out.mp4", worker, RealClock(), "demo")
    assert not await asyncio.to_thread(lambda: [path.name for path in tmp_path.iterdir() if path != audio])


async def test_a_slow_model_is_waited_for(audio: Path, tmp_path: Path) -> None:
    def opener(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> FakeRuntime:
        return FakeRuntime(["ok"] * 20 + ["sleep 1.5"], slots=slots)

    async with Worker([], 1, opener, inline=True, clock=RealClock(), patience=PATIENCE_SECONDS) as worker:
        rendered = await render(audio, tmp_path / "out.mp4", worker, RealClock(), "demo")
        assert (rendered.frames, rendered.repeated, worker.restarts) == (75, 0, 0)


async def test_s12_the_file_says_that_it_is_synthetic(audio: Path, tmp_path: Path, worker: Worker) -> None:
    out = tmp_path / "out.mp4"
    await render(audio, out, worker, RealClock(), "demo")
    with av.open(str(out)) as film:
        assert film.metadata["digital_source_type"].endswith("/trainedAlgorithmicMedia")
        assert film.metadata["comment"].startswith("AI-generated")
    content = out.read_bytes()
    start = content.rindex(b"uuid" + XMP_BOX)
    assert int.from_bytes(content[start - 4 : start], "big") == len(content) - start + 4
    assert b"<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/" in content[start:]


def test_a_face_laid_into_a_persons_clip_is_called_a_composite(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"")
    person = fake_card()
    object.__setattr__(person, "synthetic", False)
    assert source_type(person).endswith("/compositeWithTrainedAlgorithmicMedia")
    mark_synthetic(path, person)
    assert b"compositeWithTrainedAlgorithmicMedia" in path.read_bytes()


async def test_a_file_that_breaks_off_leaves_nothing_behind(tmp_path: Path, worker: Worker) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF....WAVEnothing")
    with pytest.raises(AudioFileError):
        await render(broken, tmp_path / "out.mp4", worker, RealClock(), "demo")
    assert os.listdir(tmp_path) == ["broken.wav"]  # noqa: PTH208 - pathlib's is an error in async code
    assert worker.free_slots == 1


async def test_a_place_that_cannot_be_written_leaves_nothing_behind(
    audio: Path, tmp_path: Path, worker: Worker
) -> None:
    with pytest.raises(OSError, match="No such file"):
        await render(audio, tmp_path / "nowhere" / "out.mp4", worker, RealClock(), "demo")
    assert worker.free_slots == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["missing.wav", "out.mp4"], "missing.wav does not exist"),
        (["speech.wav", "nowhere/out.mp4"], "nowhere is no directory"),
        (["speech.wav", "speech.wav"], "exists already"),
        (["speech.wav", "out.mp4", "--avatar", "nobody"], "no avatar is called 'nobody'"),
    ],
)
def test_l8_what_is_wrong_is_said_in_one_line(
    words: list[str],
    reason: str,
    audio: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["render", *words]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
