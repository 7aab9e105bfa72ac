"""Voices: what is said, what is refused, and that an interrupted voice leaves no process behind."""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from engine import voices as voices_module
from engine.voices import (
    ADVICE,
    TEXT_MOST,
    EspeakNg,
    Flite,
    Spoken,
    VoiceCard,
    VoiceError,
    Voices,
    WavReader,
    sentences,
)

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed: apt install flite")
needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="apt install espeak-ng for this test")


class Beeps:
    """A voice that says one piece a character, for ever counting how it ended."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ended = 0

    async def voices(self) -> Sequence[VoiceCard]:
        return [VoiceCard("beeps:high", "High", "beeps", "en"), VoiceCard("beeps:low", "Low", "beeps", "en")]

    async def speak(self, text: str, voice: str) -> AsyncGenerator[Spoken, None]:
        self.said.append(f"{voice} {text}")
        try:
            for letter in text:
                yield Spoken(np.full(160, ord(letter), np.int16), 16_000)
        finally:
            self.ended += 1

    async def aclose(self) -> None:
        self.ended += 100


def program(folder: Path, script: str) -> str:
    path = folder / "voice"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def wav(samples: bytes, channels: int = 1, rate: int = 16_000) -> bytes:
    """As a stream has it: the lengths are not true, and a LIST chunk stands before the sound."""
    form = b"\x01\x00" + channels.to_bytes(2, "little") + rate.to_bytes(4, "little") + b"\0\0\0\0\2\0\x10\0"
    return b"RIFF\xff\xff\xff\x7fWAVEfmt \x10\0\0\0" + form + b"LIST\x03\0\0\0abc\0data\xff\xff\xff\x7f" + samples


async def test_the_first_voice_speaks_when_none_is_named() -> None:
    beeps = Beeps()
    async with Voices([beeps]) as voices:
        pieces = [int(piece.pcm[0]) async for piece in voices.speak("ab")]
        assert [piece.rate async for piece in voices.speak("a", "beeps:low")] == [16_000]
    assert pieces == [97, 98]
    assert beeps.said == ["beeps:high ab", "beeps:low a"]
    assert beeps.ended == 102


async def test_speech_that_is_closed_early_ends_the_engine_below() -> None:
    beeps = Beeps()
    async with aclosing(Voices([beeps]).speak("abcdef")) as speech:
        async for _ in speech:
            break
    assert beeps.ended == 1


@pytest.mark.parametrize(
    ("text", "voice", "reason"),
    [
        ("", None, "no text"),
        (" \n\x00\x07 ", None, "no text"),
        ("a" * (TEXT_MOST + 1), None, "at most 2000"),
        ("hello", "beeps:../../etc/passwd", "no voice is called"),
        ("hello", "http://example.org/voice", "no voice is called"),
        ("hello", "-o", "no voice is called"),
    ],
)
async def test_what_cannot_be_said_is_refused_before_anything_starts(text: str, voice: str | None, reason: str) -> None:
    beeps = Beeps()
    with pytest.raises(VoiceError, match=reason):
        await anext(Voices([beeps]).speak(text, voice))
    assert beeps.said == []


async def test_control_characters_do_not_reach_a_voice() -> None:
    beeps = Beeps()
    assert len([piece async for piece in Voices([beeps]).speak("a\x1b[31mb\r\n c")]) == len("a [31mb c")


async def test_a_machine_without_voices_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    voices = Voices.installed()
    assert await voices.voices() == []
    with pytest.raises(VoiceError, match="apt install flite"):
        await voices.check("hello")
    assert "espeak-ng" in ADVICE


def test_sentences_come_apart_and_short_ones_stay_together() -> None:
    assert sentences("Hello. This is a longer sentence! And another one?") == [
        "Hello. This is a longer sentence!",
        "And another one?",
    ]
    assert sentences("No end") == ["No end"]
    assert sentences("") == []


def test_a_wav_stream_reads_the_same_in_any_pieces() -> None:
    samples = np.arange(-500, 500, dtype="<i2")
    stream = wav(samples.tobytes())
    for size in (1, 2, 7, 44, 8192):
        reader = WavReader()
        parts = [reader.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert np.array_equal(np.concatenate(parts), samples)
        assert reader.rate == 16_000


@pytest.mark.parametrize("stream", [b"ID3 this is no wave", wav(b"", channels=2), wav(b"", rate=4_000)])
def test_what_is_no_mono_wav_is_refused(stream: bytes) -> None:
    with pytest.raises(VoiceError):
        WavReader().feed(stream)


async def test_an_interrupted_voice_leaves_no_process_behind(tmp_path: Path) -> None:
    header = tmp_path / "head.wav"
    header.write_bytes(wav(bytes(32_000)))
    call = program(tmp_path, f"echo $$ > {tmp_path}/pid; cat {header}; exec sleep 60")
    async with aclosing(EspeakNg(call).speak("hello", "espeak-ng:en")) as speech:
        first = await anext(speech)
        assert len(first.pcm) == 1_600
        process = int((tmp_path / "pid").read_text())
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_a_cancelled_speaker_leaves_no_process_behind(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    call = program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60")
    listening = asyncio.create_task(anext(EspeakNg(call).speak("hello", "espeak-ng:en")))
    process = int(await asyncio.to_thread((tmp_path / "pid").read_text))
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


async def test_a_voice_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices_module, "STALLED_SECONDS", 0.1)
    with pytest.raises(VoiceError, match="said nothing"):
        await anext(EspeakNg(program(tmp_path, "exec sleep 60")).speak("hello", "espeak-ng:en"))


async def test_a_voice_that_has_just_ended_is_not_killed_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its status would be gone before it is asked for, and the log would speak of an unknown process."""
    quick = program(tmp_path, "echo Voices available: kal")
    for _ in range(30):
        assert [card.name for card in await Flite(quick).voices()] == ["kal (flite)"]
    assert "Unknown child process" not in caplog.text


async def test_a_voice_that_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(VoiceError, match="nothing to say"):
        await anext(EspeakNg(program(tmp_path, "exit 3")).speak("hello", "espeak-ng:en"))


@needs_flite
async def test_flite_says_two_sentences_and_takes_a_dash_for_text() -> None:
    flite = Flite(shutil.which("flite") or "")
    assert "flite:slt" in [card.id for card in await flite.voices()]
    text = "-o /nowhere said the first sentence. The second is longer than that one."
    pieces = [piece async for piece in flite.speak(text, "flite:slt")]
    assert sum(len(piece.pcm) / piece.rate for piece in pieces) > 3.0
    assert all(len(piece.pcm) <= 0.1 * piece.rate for piece in pieces)
    assert max(int(np.abs(piece.pcm).max()) for piece in pieces) > 3_000


@needs_espeak
async def test_espeak_speaks_german_through_the_facade() -> None:
    async with Voices([EspeakNg(shutil.which("espeak-ng") or "")]) as voices:
        cards = await voices.voices()
        assert cards[0].language.startswith("en")
        pieces = [piece async for piece in voices.speak("Guten Tag, wie geht es Ihnen?", "espeak-ng:de")]
    assert 1.0 < sum(len(piece.pcm) / piece.rate for piece in pieces) < 6.0
