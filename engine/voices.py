"""Text to speech behind a seam of three methods, and the two voices that a Linux machine has: flite and espeak-ng.

    async with Voices.installed() as voices:
        async with aclosing(voices.speak("Hello.", "flite:slt")) as speech:
            async for piece in speech: ...                     # Spoken(pcm s16 [n], rate), at most 100 ms each

Closing the generator (or cancelling its task) ends the process that speaks, and no other. Any cloud voice fits behind
the same three methods; any PCM stream needs none of this and goes to `session.push_audio`.
"""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

TEXT_MOST: Final = 2_000
"""Characters that are spoken at once: about two minutes."""

PIECE_SECONDS: Final = 0.1
STALLED_SECONDS: Final = 10.0
"""A voice that says nothing for so long has hung."""

FLITE_BEST: Final = "slt rms awb kal16"
"""The clearest first; who names no voice gets it."""

ADVICE: Final = "no voice is installed here: apt install flite espeak-ng, or send audio instead of text"


class VoiceError(RuntimeError):
    """Nothing can be said; the message says what to change."""


@dataclass(frozen=True, slots=True)
class VoiceCard:
    """A voice that can be asked for by `id`."""

    id: str
    name: str
    engine: str
    language: str


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """A piece of speech."""

    pcm: npt.NDArray[np.int16]  # [n] mono
    rate: int


class SpeechEngine(Protocol):
    """The seam. `voices` may be slow the first time; `speak` yields as soon as there is sound."""

    async def voices(self) -> Sequence[VoiceCard]: ...

    def speak(self, text: str, voice: str) -> AsyncGenerator[Spoken, None]:
        """Speaks with the voice of that id. The caller closes the generator; that ends the speaking."""
        ...

    async def aclose(self) -> None: ...


class Flite:
    """CMU Flite: small, fast, English. A sentence is a process, so that the first sound does not wait for the last."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._cards: list[VoiceCard] | None = None

    async def voices(self) -> Sequence[VoiceCard]:
        if self._cards is None:
            said = await _output([self._program, "-lv"])
            names = sorted(said.partition(":")[2].split(), key=lambda name: (FLITE_BEST.find(name) % 99, name))
            self._cards = [VoiceCard(f"flite:{name}", f"{name} (flite)", "flite", "en") for name in names]
        return self._cards

    async def speak(self, text: str, voice: str) -> AsyncGenerator[Spoken, None]:
        for sentence in sentences(text):
            # flite takes a path or an address for a voice; only names it listed itself come this far (`Voices.speak`).
            call = [self._program, "-voice", voice.partition(":")[2], "-t", sentence, "-o", "/dev/stdout"]
            async with aclosing(_speech(call)) as pieces:
                async for piece in pieces:
                    yield piece

    async def aclose(self) -> None:
        return None


class EspeakNg:
    """espeak-ng: a hundred languages, robotic, streams by itself."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._cards: list[VoiceCard] | None = None

    async def voices(self) -> Sequence[VoiceCard]:
        if self._cards is None:
            rows = [line.split() for line in (await _output([self._program, "--voices"])).splitlines()[1:]]
            cards = [
                VoiceCard(f"espeak-ng:{row[1]}", f"{row[3].replace('_', ' ')} (espeak-ng)", "espeak-ng", row[1])
                for row in rows
                if len(row) >= 5
            ]
            self._cards = sorted(cards, key=lambda card: (not card.language.startswith("en"), card.name))
        return self._cards

    async def speak(self, text: str, voice: str) -> AsyncGenerator[Spoken, None]:
        call = [self._program, "-v", voice.partition(":")[2], "--stdin", "--stdout"]
        async with aclosing(_speech(call, text)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        return None


class Voices:
    """All engines as one, itself behind the seam. Checks text and voice before anything is started."""

    def __init__(self, engines: Sequence[SpeechEngine]) -> None:
        self._engines = tuple(engines)

    @classmethod
    def installed(cls) -> Self:
        flite, espeak = shutil.which("flite"), shutil.which("espeak-ng")
        return cls([*([Flite(flite)] if flite else []), *([EspeakNg(espeak)] if espeak else [])])

    async def voices(self) -> Sequence[VoiceCard]:
        return [card for engine in self._engines for card in await engine.voices()]

    async def check(self, text: str, voice: str | None = None) -> tuple[str, VoiceCard]:
        """What will be said and by whom; VoiceError when that cannot be."""
        words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        if not words:
            raise VoiceError("there is no text to say")
        if len(words) > TEXT_MOST:
            raise VoiceError(f"the text has {len(words)} characters; at most {TEXT_MOST} are said at once")
        cards = await self.voices()
        if not cards:
            raise VoiceError(ADVICE)
        for card in cards:
            if voice is None or card.id == voice:
                return words, card
        raise VoiceError(f"no voice is called {str(voice)[:60]!r}; GET /v1/voices lists them")

    async def speak(self, text: str, voice: str | None = None) -> AsyncGenerator[Spoken, None]:
        words, chosen = await self.check(text, voice)
        for engine in self._engines:
            if chosen in await engine.voices():
                async with aclosing(engine.speak(words, chosen.id)) as pieces:
                    async for piece in pieces:
                        yield piece
                return

    async def aclose(self) -> None:
        for engine in self._engines:
            await engine.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def sentences(text: str) -> list[str]:
    """Sentences of a text, short ones joined to the next, so that no process says a single word of many."""
    parts: list[str] = []
    for part in re.split(r"(?<=[.!?;:…。！？])\s+", text.strip()):
        if parts and len(parts[-1]) < 12:
            parts[-1] += f" {part}"
        elif part:
            parts.append(part)
    return parts


class WavReader:
    """Reads 16-bit mono PCM out of a RIFF/WAVE stream as it comes; the lengths in such a header are not believed."""

    def __init__(self) -> None:
        self.rate = 0
        self._header: bytes | None = b""
        self._odd = b""

    def feed(self, received: bytes) -> npt.NDArray[np.int16]:
        """The samples in what was received, [n]; VoiceError when this is no such stream."""
        if self._header is not None:
            self._header += received
            received = self._past_header(self._header)
        received = self._odd + received
        whole = len(received) // 2 * 2
        self._odd = received[whole:]
        return np.frombuffer(received[:whole], dtype="<i2").astype(np.int16)

    def _past_header(self, header: bytes) -> bytes:
        if len(header) >= 12 and (header[:4] != b"RIFF" or header[8:12] != b"WAVE"):
            raise VoiceError("the voice did not answer with sound")
        at = 12
        while len(header) >= at + 8:
            name, size = header[at : at + 4], int.from_bytes(header[at + 4 : at + 8], "little")
            if name == b"data":
                self._header = None
                return header[at + 8 :]
            if size > 4096:
                raise VoiceError("the voice's sound has a header that cannot be read")
            if name == b"fmt " and len(header) >= at + 8 + 16:
                channels = int.from_bytes(header[at + 10 : at + 12], "little")
                self.rate = int.from_bytes(header[at + 12 : at + 16], "little")
                bits = int.from_bytes(header[at + 22 : at + 24], "little")
                if channels != 1 or bits != 16 or not 8_000 <= self.rate <= 48_000:
                    raise VoiceError(
                        f"the voice speaks {channels} × {bits} bit at {self.rate} Hz; 1 × 16 bit is needed"
                    )
            at += 8 + size + size % 2
        return b""


async def _speech(call: Sequence[str], text: str | None = None) -> AsyncGenerator[Spoken, None]:
    async with _process(call, text) as process:
        assert process.stdout is not None
        reader = WavReader()
        heard = 0
        waiting = np.zeros(0, np.int16)
        while True:
            try:
                async with asyncio.timeout(STALLED_SECONDS):
                    received = await process.stdout.read(8192)
            except TimeoutError as stalled:
                raise VoiceError(f"{call[0]} said nothing for {STALLED_SECONDS:g} s") from stalled
            if not received:
                break
            waiting = np.concatenate([waiting, reader.feed(received)])
            piece = int(reader.rate * PIECE_SECONDS)
            while piece and len(waiting) >= piece:
                yield Spoken(waiting[:piece], reader.rate)
                heard += piece
                waiting = waiting[piece:]
        if len(waiting):
            yield Spoken(waiting, reader.rate)
        if not heard + len(waiting):
            raise VoiceError(f"{call[0]} had nothing to say")


@asynccontextmanager
async def _process(call: Sequence[str], text: str | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that is fed `text` and gone at the end of the block, however that is left."""
    process = await asyncio.create_subprocess_exec(
        *call,
        stdin=asyncio.subprocess.PIPE if text is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        if process.stdin is not None and text is not None:
            process.stdin.write(text.encode())
            process.stdin.close()
        yield process
    finally:
        if process.returncode is None:
            # Not `process.kill()`: it would take the status of one that has just ended from whoever waits for it.
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


async def _output(call: Sequence[str]) -> str:
    async with _process(call) as process:
        assert process.stdout is not None
        async with asyncio.timeout(STALLED_SECONDS):
            return (await process.stdout.read(1 << 20)).decode(errors="replace")
