"""Festival's voices: women, a child and languages that flite has not, each phone's time as the synthesiser set it.

They are optional: whoever has not installed them teaches without them. Every one of them is free software (the American
under a licence as free as BSD's, Finnish and Catalan under the LGPL, Italian and Czech under the GPL, as espeak-ng is);
no sound of theirs is passed on, only what was learnt by listening to it.
"""

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from models.studio.articulation import PHONES, Phone
from models.studio.speech import MissingVoiceError, Utterance, arpabet, at_16k, table


@dataclass(frozen=True, slots=True)
class Speaker:
    """One of its voices: the language it reads, and the letters of that language as it expects them."""

    language: str
    encoding: str = "latin-1"


FESTIVAL_VOICES: Final[dict[str, Speaker]] = {
    "lp_diphone": Speaker("it"),
    "pc_diphone": Speaker("it"),
    "czech_dita": Speaker("cs", "iso8859-2"),
    "czech_krb": Speaker("cs", "iso8859-2"),
    "czech_machac": Speaker("cs", "iso8859-2"),
    "czech_ph": Speaker("cs", "iso8859-2"),
    "upc_ca_ona_hts": Speaker("ca"),
    "suo_fi_lj_diphone": Speaker("fi"),
    "hy_fi_mv_diphone": Speaker("fi"),
    "ked_diphone": Speaker("en"),
}
"""Women: lp, dita, ona, lj. A child: krb."""

PACKAGES: Final = (
    "festvox-italp16k festvox-itapc16k festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph "
    "festvox-ca-ona-hts festvox-suopuhe-lj festvox-suopuhe-mv festvox-kdlpc16k"
)

_IPA: Final = table("""
    E:ɛ O:ɔ S:ʃ Z:ʒ T:θ J:ɲ L:ʎ N:ŋ ng:ŋ nf:ɱ rr:r tS:tʃ dZ:dʒ @:æ 7:ø &:ə ax:ə
    c:ts c~:tʃ ch:x d~:d t~:t dz~:dʒ s~:ʃ z~:ʒ n~:ɲ n*:ŋ r~:ʒ r~*:ʃ
""")
"""What its phone sets write otherwise than the IPA; no two of them mean different things by one symbol."""

_ENGLISH: Final = {"hv": "hh", "nx": "n"}
_PAUSES: Final = frozenset(("#", "##", "_", "pau", "h#", "brth"))

_SCRIPT: Final = """
(voice_{voice})
(define (higher utt)
  (mapcar (lambda (one) (item.set_feat one "f0" (* pitch (item.feat one "f0"))))
          (utt.relation.leafs utt 'Target))
  utt)
(set! after_analysis_hooks (list higher))
(define (say text high stretch name)
  (set! pitch high)
  (Parameter.set 'Duration_Stretch stretch)
  (let ((spoken (utt.synth (eval (list 'Utterance 'Text text)))))
    (utt.save.segs spoken (string-append name ".lab"))
    (utt.save.wave spoken (string-append name ".wav") 'riff)))
"""


@dataclass(frozen=True, slots=True)
class Saying:
    """What is said, and how: so many times higher and faster. ona, who is statistics and no diphones, keeps both."""

    text: str
    pitch: float = 1.0
    pace: float = 1.0


def missing() -> tuple[str, ...]:
    """Voices that are not installed."""
    roots = (Path("/usr/share/festival/voices"), Path("/usr/local/share/festival/voices"))
    there = {path.name for root in roots for path in root.glob("*/*")} if shutil.which("festival") else set()
    return tuple(name for name in FESTIVAL_VOICES if name not in there)


def festival(sayings: Sequence[Saying], voice: str) -> list[Utterance]:
    """All of them in one process, since it takes longer to start than to speak. Raises MissingVoiceError."""
    program, speaker = shutil.which("festival"), FESTIVAL_VOICES[voice]
    if program is None:
        raise MissingVoiceError(f"festival is not installed: apt-get install festival {PACKAGES}")
    with tempfile.TemporaryDirectory() as name:
        folder, lines = Path(name), [_SCRIPT.format(voice=voice)]
        for index, saying in enumerate(sayings):
            plain = saying.text.replace("\\", " ").replace('"', " ")
            lines.append(f'(say "{plain}" {saying.pitch:.3f} {1 / saying.pace:.3f} "{folder}/{index}")')
        (folder / "say.scm").write_bytes("\n".join(lines).encode(speaker.encoding, "replace"))
        done = subprocess.run([program, "-b", str(folder / "say.scm")], capture_output=True, check=False)
        if done.returncode or not all((folder / f"{index}.wav").exists() for index in range(len(sayings))):
            said = done.stderr.decode("latin-1").strip().splitlines() or ["nothing was said"]
            raise MissingVoiceError(f"festival does not speak with voice {voice!r}: {said[0][:200]}")
        return [_read(folder / str(index), saying.text, voice) for index, saying in enumerate(sayings)]


def _read(path: Path, text: str, voice: str) -> Utterance:
    with wave.open(f"{path}.wav") as file:
        rate = file.getframerate()
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    phones, start = [], 0.0
    for line in path.with_suffix(".lab").read_text("latin-1").splitlines()[1:]:
        end, _, symbol = line.split()
        if float(end) > start:
            phones.append(Phone(named(symbol, FESTIVAL_VOICES[voice].language), start, float(end)))
            start = float(end)
    return Utterance(f"festival:{voice}", text, at_16k(pcm.astype(np.float32) / 32768, rate), tuple(phones))


def named(symbol: str, language: str) -> str:
    """The nearest English phone, for what lips do."""
    if symbol in _PAUSES:
        return "pau"
    if language == "en":
        name = _ENGLISH.get(symbol, symbol)
        return name if name in PHONES else "ax"
    bare = symbol.rstrip("1:")
    return arpabet(_IPA.get(bare, bare))
