"""Synthetic speech with exact phone times, and the many voices that can be made of few.

flite prints the times of its phones itself; espeak-ng tells them to whoever loads its library and listens to its events
(as IPA, so that one table serves every language). Augmentation makes other speakers, rooms and lines of one; it keeps
the phone times exact.
"""

import ctypes
import ctypes.util
import math
import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soxr

from models.rates import SAMPLE_RATE
from models.studio.articulation import Phone

Sound = npt.NDArray[np.float32]

FLITE_VOICES = ("kal", "kal16", "awb", "rms", "slt")
ESPEAK_ACCENTS = ("en-us", "en", "en-029", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan")
ESPEAK_WOMEN = (
    *("+f1", "+f2", "+f3", "+f4", "+f5", "+Andrea", "+Alicia", "+Annie", "+aunty", "+belinda", "+linda"),
    *("+steph", "+steph2", "+steph3", "+anika", "+grandma"),
)
ESPEAK_MEN = (
    *("", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+m8", "+klatt", "+klatt2", "+klatt3", "+klatt4"),
    *("+adam", "+paul", "+Michael", "+max", "+john", "+travis", "+victor", "+caleb", "+Alex", "+Andy", "+antonio"),
    *("+benjamin", "+boris", "+david", "+Denis", "+Diogo", "+edward", "+Gene", "+Henrique", "+Hugo", "+Lee"),
    *("+marcelo", "+Marco", "+Mario", "+michel", "+miguel", "+Mike", "+pablo", "+pedro", "+rob", "+robert", "+zac"),
)


class MissingVoiceError(RuntimeError):
    """A synthesiser is not installed, or does not know the voice."""


@dataclass(frozen=True, eq=False)
class Utterance:
    voice: str
    text: str
    sound: Sound  # [n] at 16 kHz
    phones: tuple[Phone, ...]

    @property
    def seconds(self) -> float:
        return len(self.sound) / SAMPLE_RATE


# flite


def flite(text: str, voice: str, pitch: float = 1.0, pace: float = 1.0) -> Utterance:
    """Spoken by flite, so many times higher (rms keeps its pitch) and faster. Raises MissingVoiceError."""
    program = shutil.which("flite")
    if program is None:
        raise MissingVoiceError("flite is not installed: apt-get install flite")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.wav"
        command = [program, "-voice", voice, "-t", text, "-o", str(path), "-psdur"]
        command += ["--setf", f"f0_shift={pitch:.3f}", "--setf", f"duration_stretch={1 / pace:.3f}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not path.exists():
            raise MissingVoiceError(f"flite does not speak with voice {voice!r}: {done.stderr.strip()[:200]}")
        with wave.open(str(path)) as file:
            rate = file.getframerate()
            pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    phones, start = [], 0.0
    for item in done.stdout.split():
        name, _, end = item.rpartition(":")
        phones.append(Phone(name, start, float(end)))
        start = float(end)
    return Utterance(voice, text, at_16k(pcm.astype(np.float32) / 32768, rate), tuple(phones))


# espeak-ng

_AUDIO_RETRIEVAL, _PHONEME_EVENTS_IPA, _PHONEME_EVENT, _UTF8 = 2, 3, 7, 1
_RATE, _PITCH, _RANGE = 1, 3, 4


class _EventName(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("id", _EventName),
    )


class Espeak:
    """libespeak-ng, loaded once a process; it is not for threads."""

    _loaded: Any = None

    def __init__(self) -> None:
        if Espeak._loaded is None:
            name = ctypes.util.find_library("espeak-ng")
            if name is None:
                raise MissingVoiceError("espeak-ng is not installed: apt-get install espeak-ng")
            library = ctypes.CDLL(name)
            rate = library.espeak_Initialize(_AUDIO_RETRIEVAL, 0, None, _PHONEME_EVENTS_IPA)
            if rate <= 0:
                raise MissingVoiceError("espeak-ng found no voice data: apt-get install espeak-ng-data")
            Espeak._loaded = (library, rate)
        self._library, self._rate = Espeak._loaded

    def say(self, text: str, voice: str, words_per_minute: int = 170, pitch: int = 50, range_: int = 50) -> Utterance:
        """`voice` is a language with a variant, "en-us+f2". Raises MissingVoiceError."""
        library = self._library
        pieces: list[npt.NDArray[np.int16]] = []
        events: list[tuple[int, str]] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))

        def listen(samples: Any, count: int, told: Any) -> int:
            if count > 0:
                pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
            index = 0
            while told[index].type:
                if told[index].type == _PHONEME_EVENT:
                    events.append((told[index].audio_ms, told[index].id.string.decode("utf-8", "ignore")))
                index += 1
            return 0

        callback = kind(listen)
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise MissingVoiceError(f"espeak-ng does not know the voice {voice!r}: see `espeak-ng --voices`")
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, range_)):
            library.espeak_SetParameter(parameter, value, 0)
        spoken = text.encode()
        library.espeak_Synth(spoken, len(spoken) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        if not pieces:
            raise MissingVoiceError(f"espeak-ng says nothing with the voice {voice!r}")
        sound = at_16k(np.concatenate(pieces).astype(np.float32) / 32768, self._rate)
        return Utterance(f"espeak:{voice}", text, sound, _timed(events, len(sound) / SAMPLE_RATE))


def _timed(events: Sequence[tuple[int, str]], seconds: float) -> tuple[Phone, ...]:
    phones: list[Phone] = []
    if not events or events[0][0] > 0:
        phones.append(Phone("pau", 0.0, events[0][0] / 1000 if events else seconds))
    for index, (milliseconds, ipa) in enumerate(events):
        end = events[index + 1][0] / 1000 if index + 1 < len(events) else seconds
        if end > milliseconds / 1000:
            phones.append(Phone(arpabet(ipa), milliseconds / 1000, end))
    return tuple(phones)


def table(text: str) -> dict[str, str]:
    """Words "ipa:arpabet"."""
    return {ipa: name for ipa, _, name in (word.partition(":") for word in text.split())}


_IPA_PAIRS = table("""
    tʃ:ch dʒ:jh tɕ:ch dʑ:jh ts:s dz:z pf:f tʂ:ch dʐ:jh aɪ:ay aʊ:aw eɪ:ey oʊ:ow əʊ:ow ɔɪ:oy ɔø:oy ɔʏ:oy
    ai:ay au:aw ei:ey ou:ow oi:oy ɛɪ:ey œy:oy ʌu:aw əl:el n̩:en
""")
_IPA_SINGLE = table("""
    p:p b:b m:m ɱ:v f:f v:v ʋ:v β:b θ:th ð:dh t:t d:d n:n s:s z:z l:l ɫ:l ɹ:r r:dx ɾ:dx ʃ:sh ʒ:zh ʂ:sh
    ʐ:zh ɕ:sh ʑ:zh k:k ɡ:g g:g ŋ:ng h:hh ɦ:hh x:k χ:k ɣ:g ç:y ʁ:k ʀ:k q:k j:y w:w ɥ:w ʍ:w ɲ:n ʎ:l ɬ:l
    ʔ:pau i:iy ɪ:ih ɨ:ih e:ey ɛ:eh æ:ae a:aa ɑ:aa ɒ:ao ɔ:ao o:ow ʊ:uh u:uw ʉ:uw y:uw ʏ:uh ø:er œ:er ʌ:ah
    ɐ:ah ə:ax ɜ:er ɚ:er ɝ:er ᵻ:ih ɘ:ax ɵ:uh ɤ:ah ɯ:uh
""")


def arpabet(ipa: str) -> str:
    """The nearest English phone of an IPA symbol, for what lips do; "pau" for a pause, "ax" for what nobody knows."""
    bare = "".join(letter for letter in ipa if letter in _IPA_SINGLE or letter in "̩")
    if not bare:
        return "pau" if not any(letter.isalpha() for letter in ipa) else "ax"
    return _IPA_PAIRS.get(bare[:2]) or _IPA_SINGLE.get(bare[0], "ax")


# Many voices out of few


def augment(spoken: Utterance, dice: np.random.Generator) -> Utterance:
    """Another speaker, another room, another line: the same phones at times that stay exact."""
    if dice.random() < 0.8:
        spoken = _resized(spoken, math.exp(dice.uniform(math.log(0.80), math.log(1.35))))
    sound = spoken.sound
    if dice.random() < 0.5:
        sound = room(sound, dice)
    if dice.random() < 0.2:
        sound = narrowed(sound, float(dice.uniform(100, 350)), float(dice.uniform(3_000, 7_000)))
    if dice.random() < 0.8:
        sound = noisy(sound, float(dice.uniform(5, 40)), float(dice.uniform(0, 0.97)), dice)
    if dice.random() < 0.15:
        sound = through_opus(sound, int(dice.choice((12_000, 16_000, 24_000, 32_000))))
    gain = 10 ** float(dice.uniform(-1.0, 0.4))
    return replace(spoken, sound=np.clip(sound * gain, -1, 1).astype(np.float32))


def _resized(spoken: Utterance, factor: float) -> Utterance:
    """Slower and deeper, or faster and higher: pitch, formants and tempo together."""
    sound = soxr.resample(spoken.sound, SAMPLE_RATE, SAMPLE_RATE * factor)
    scale = len(sound) / max(1, len(spoken.sound))
    phones = tuple(Phone(p.name, p.start * scale, p.end * scale) for p in spoken.phones)
    return replace(spoken, sound=sound.astype(np.float32), phones=phones)


def room(sound: Sound, dice: np.random.Generator) -> Sound:
    length = int(dice.uniform(0.08, 0.5) * SAMPLE_RATE)
    tail = dice.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    tail *= dice.uniform(0.05, 0.5) / np.sqrt(np.sum(tail**2))
    tail[0] += 1
    size = 1 << (len(sound) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)
    return wet[: len(sound)].astype(np.float32)


def narrowed(sound: Sound, low: float, high: float) -> Sound:
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    slope = 1 / (1 + (low / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / high) ** 8)
    return np.fft.irfft(spectrum * slope, len(sound)).astype(np.float32)


def noisy(sound: Sound, snr_db: float, colour: float, dice: np.random.Generator) -> Sound:
    hertz = np.fft.rfftfreq(len(sound), 1)
    white = np.fft.rfft(dice.standard_normal(len(sound)))
    noise = np.fft.irfft(white / np.sqrt(1 + colour**2 - 2 * colour * np.cos(2 * np.pi * hertz)), len(sound))
    noise *= np.sqrt(np.mean(sound**2)) / (noise.std() + 1e-9) * 10 ** (-snr_db / 20)
    return (sound + noise).astype(np.float32)


def through_opus(sound: Sound, bitrate: int) -> Sound:
    """There and back through the codec that carries it in a call, its delay taken out."""
    stored = BytesIO()
    with av.open(stored, "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        stream.bit_rate = bitrate
        pcm = np.clip(soxr.resample(sound, SAMPLE_RATE, 48_000) * 32767, -32768, 32767).astype(np.int16)
        for begin in range(0, len(pcm), 960):
            piece = np.zeros(960, np.int16)
            piece[: len(pcm[begin : begin + 960])] = pcm[begin : begin + 960]
            frame = av.AudioFrame.from_ndarray(piece[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 48_000, begin
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    stored.seek(0)
    with av.open(stored, "r") as back:
        decoded = [frame.to_ndarray()[0] for frame in back.decode(audio=0)]
    heard = soxr.resample(np.concatenate(decoded).astype(np.float32), 48_000, SAMPLE_RATE)
    fitted = np.zeros(len(sound), np.float32)
    fitted[: min(len(sound), len(heard))] = heard[: len(sound)]
    return fitted


def through_telephone(sound: Sound) -> Sound:
    """There and back over a line of 8 kHz and eight bits, companded as G.711 does."""
    narrow = soxr.resample(narrowed(sound, 300, 3_400), SAMPLE_RATE, 8_000).clip(-1, 1)
    coded = np.round(127 * np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)) / 127
    decoded = np.sign(coded) * np.expm1(np.abs(coded) * np.log(256)) / 255
    heard = soxr.resample(decoded.astype(np.float32), 8_000, SAMPLE_RATE)[: len(sound)]
    return np.pad(heard, (0, len(sound) - len(heard))).astype(np.float32)


def at_16k(sound: Sound, rate: int) -> Sound:
    return sound if rate == SAMPLE_RATE else soxr.resample(sound, rate, SAMPLE_RATE).astype(np.float32)
