"""Real recordings with transcripts become utterances with phone times: pocketsphinx says when each phone is spoken.

It knows English words; its own phones are ARPAbet. Extra `align`.
"""

import importlib
import re
from typing import Any, Final

import numpy as np

from models.rates import SAMPLE_RATE
from models.studio.articulation import PHONES, Phone
from models.studio.speech import MissingVoiceError, Sound, Utterance

HOP_SECONDS: Final = 0.010
"""Of its frames."""


class UnspokenError(ValueError):
    """The words are not in the sound, or not in the dictionary."""


def aligned(sound: Sound, text: str, voice: str) -> Utterance:
    """`sound` at 16 kHz with the times of its phones. Raises MissingVoiceError without pocketsphinx, UnspokenError."""
    try:
        sphinx = importlib.import_module("pocketsphinx")
    except ImportError as missing:
        raise MissingVoiceError("aligning needs pocketsphinx: pip install liveface[align]") from missing
    # Beams so wide that no path is lost; a second search for the best path would lose some again.
    decoder = sphinx.Decoder(loglevel="FATAL", bestpath=False, beam=1e-100, wbeam=1e-70, pbeam=1e-100)
    words = re.findall(r"[a-z']+", text.lower())
    unknown = [word for word in words if decoder.lookup_word(word) is None]
    if unknown or not words:
        raise UnspokenError(f"{voice}: not in the dictionary: {', '.join(unknown) or 'nothing is said'}")
    decoder.set_align_text(" ".join(words))
    pcm = (np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes()
    try:
        _hear(decoder, pcm)
        decoder.set_alignment()
        _hear(decoder, pcm)
    except RuntimeError as lost:
        raise UnspokenError(f"{voice}: {text!r} is not what is heard") from lost
    phones = tuple(
        Phone(_named(phone.name), phone.start * HOP_SECONDS, (phone.start + phone.duration) * HOP_SECONDS)
        for word in decoder.get_alignment()
        for phone in word
    )
    return Utterance(voice, text, sound, _whole(phones, len(sound) / SAMPLE_RATE))


def _hear(decoder: Any, pcm: bytes) -> None:
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()


def _named(name: str) -> str:
    bare = name.lower()
    return bare if bare in PHONES and bare != "sil" else "pau"


def _whole(phones: tuple[Phone, ...], seconds: float) -> tuple[Phone, ...]:
    end = phones[-1].end if phones else 0.0
    return (*phones, Phone("pau", end, seconds)) if end < seconds else phones
