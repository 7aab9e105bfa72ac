"""A presenter before the camera: `liveface studio record mira --minutes 2 mira.mp4`.

The film is what a person's own recording would be: one face, head and shoulders, speech in sync, pauses, a stretch
of silence. What a person's cannot have lies beside it, `mira.labels.npz`:

    points     [T, 478, 3] float32: MediaPipe's points in pixels, the true ones; z smaller is nearer
    curves     [T, 52] float32: the weights that were drawn, in the order of `face.ARKIT_52`
    inner_gap  [T] float32: pixels between the inner lips at their middle; 0 where they meet
    angles     [T, 3] float32: degrees of yaw (to the viewer's right), pitch (down), roll (to the viewer's left)
    phones     [P] of (start, end in seconds, name in ARPAbet)
    names      [52]: what the curves are called
    fps        25
    about      how it was made, in words

Only what moves is rendered: each frame's lower face by true ray marching with its own weights, each distinct upper
face once, both laid over one still picture, and the whole swayed by `pictures.swayed`. A stopped run finds its
pictures again.
The same arguments give the same film, byte for byte, on the same machine.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
import soxr
import torch
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from models import face
from models.rates import FRAME_RATE, SAMPLE_RATE
from models.studio.articulation import LIKE_FILM, Phone, articulate
from models.studio.gesture import REST, gesture
from models.studio.pictures import SIZE, Bytes, Floats, Frames, laid, scaled, swayed, swayed_points, track
from models.studio.presenter import PRESENTERS, Crop, Presenter, rig, weights
from models.studio.presenter.head import lip_gap
from models.studio.presenter.landmarks import Landmarks, neutral
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import Tensor
from models.studio.sentences import sentences
from models.studio.speech import FLITE_VOICES, Espeak, Utterance, flite

SIZES: Final = (256, 384, 512, 768, 1024)
LOWER: Final = Crop(160, 240, 192, 224)
UPPER: Final = Crop(128, 128, 256, 144)
SILENCE_SECONDS: Final = 20.0
LISTENING_RATE: Final = 48_000
VOICES: Final = ("slt", "awb", "rms", "kal16", "en-us+f3", "en+m3", "en-us+Alicia", "en-gb-scotland+f2")
_SMILES: Final = [face.ARKIT_52.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
_MOUTH: Final = [
    i for i, name in enumerate(face.ARKIT_52) if name.startswith(("mouth", "jaw", "tongue")) and i not in _SMILES
]
PHONE: Final = np.dtype([("start", "f4"), ("end", "f4"), ("name", "U4")])


@dataclass(frozen=True)
class Speech:
    """What is said."""

    sound: Floats  # [n] at 16 kHz
    phones: tuple[Phone, ...]

    @property
    def seconds(self) -> float:
        return len(self.sound) / SAMPLE_RATE


@dataclass(frozen=True)
class Take:
    """What is to be drawn: [T] frames."""

    curves: Floats  # [T, 52]
    angles: Floats  # [T, 3] degrees
    breath: Floats  # [T]


def say(text: str, voice: str) -> Utterance:
    """By flite where the name is one of flite's voices, else by espeak-ng. Raises MissingVoiceError."""
    return flite(text, voice) if voice in FLITE_VOICES else Espeak().say(text, voice, 160)


def speak(seconds: float, voices: tuple[str, ...], seed: int) -> Speech:
    """Sentences in turn by the voices, with pauses; about a third in, a silence of 20 s, less in short ones."""
    dice = np.random.default_rng(seed)
    length = int(seconds * FRAME_RATE) * (SAMPLE_RATE // FRAME_RATE)
    sound = dice.standard_normal(length).astype(np.float32) * 3e-4  # the room
    phones: list[Phone] = []
    silence, at = min(SILENCE_SECONDS, seconds / 4), 0.4
    for number, text in enumerate(sentences(max(60, int(seconds)), seed)):
        if silence and at > seconds / 3:
            at, silence = at + silence, 0.0
        spoken = say(text, voices[number % len(voices)])
        if at + spoken.seconds > seconds - 0.3:
            break
        start = int(at * SAMPLE_RATE)
        level = 0.07 / max(1e-4, float(np.sqrt(np.mean(spoken.sound**2))))
        sound[start : start + len(spoken.sound)] += np.clip(spoken.sound * level, -0.9, 0.9)
        phones += [Phone(p.name, p.start + start / SAMPLE_RATE, p.end + start / SAMPLE_RATE) for p in spoken.phones]
        at += spoken.seconds + float(dice.choice((0.15, 0.3, 0.6, 1.2)))
    return Speech(sound, _with_pauses(phones, seconds))


def _with_pauses(phones: list[Phone], seconds: float) -> tuple[Phone, ...]:
    """Silence between utterances is a phone too."""
    whole: list[Phone] = []
    for phone in [*phones, Phone("pau", seconds, seconds)]:
        before = whole[-1].end if whole else 0.0
        if phone.start - before > 1e-3:
            whole.append(Phone("pau", before, phone.start))
        whole.append(phone)
    return tuple(phone for phone in whole if phone.end > phone.start)


def perform(speech: Speech, seed: int) -> Take:
    """The whole face: the mouth by what is said, the rest by `gesture`."""
    frames = round(speech.seconds * FRAME_RATE)
    moved = gesture(speech.phones, FRAME_RATE, frames, np.random.default_rng(seed + 1))
    mouth = articulate(speech.phones, FRAME_RATE, frames, replace(LIKE_FILM, smile=REST["mouthSmile"]))
    return Take(np.clip(mouth + moved.curves, 0, 1), moved.angles, moved.breath)


class Studio:
    """One presenter, with what has been drawn of them."""

    def __init__(self, name: str, cache: Path, size: int = SIZE, compiled: bool = True):
        self.presenter = Presenter(PRESENTERS[name], compiled=compiled)
        self.frames = Frames(self.presenter, cache, size)
        self.size, self.whole = size, Crop(0, 0, size, size)
        self.lower, self.upper = scaled(LOWER, size), scaled(UPPER, size)

    def posed(self, curves: Floats, angles: Floats | None = None) -> Pose:
        """[T, 52], with the breath that `swayed` takes for the still picture's own."""
        turned_by = None if angles is None else torch.from_numpy(angles)
        return self.presenter.pose(torch.from_numpy(curves), turned_by, torch.full((len(curves),), 0.5))

    def still(self) -> Bytes:
        return self.frames.get(self.posed(weights(REST).numpy()), self.whole)

    def lower_faces(self, curves: Floats) -> Iterator[Bytes]:
        pose = self.posed(curves)
        return (self.frames.get(pose.row(i), self.lower) for i in range(len(curves)))

    def upper_faces(self, curves: Floats) -> Iterator[Bytes]:
        """Few differ: of the mouth only the smile is seen here, and of that only tenths."""
        seen = curves.copy()
        seen[:, _MOUTH] = 0
        for smile in _SMILES:
            seen[:, smile] = np.round(curves[:, smile] - REST["mouthSmile"], 1) + REST["mouthSmile"]
        pose = self.posed(seen)
        return (self.frames.get(pose.row(i), self.upper) for i in range(len(curves)))

    def bound(self) -> Landmarks:
        """Which point of the face is which, named by the tracker on one picture."""
        with_all_its_pixels = Frames(self.presenter, self.frames.folder.parent)
        picture = with_all_its_pixels.get(neutral(self.presenter), Crop(0, 0, SIZE, SIZE))
        return Landmarks.bind(self.presenter, torch.from_numpy(track(picture)), SIZE)

    def pictures(self, take: Take) -> Iterator[Bytes]:
        """The film, frame by frame; what was drawn before is found again."""
        still = self.still()
        lower, upper = self.lower_faces(take.curves), self.upper_faces(take.curves)
        for low, high, turn, breath in zip(lower, upper, self.turns(take), take.breath.tolist(), strict=True):
            yield swayed(laid(laid(still, low, self.lower), high, self.upper), turn, breath)

    def turns(self, take: Take) -> Tensor:
        """[T, 3, 3]"""
        return rig.rotation(torch.from_numpy(take.angles))

    def labels(self, take: Take) -> dict[str, Floats]:
        """The true points of the swayed pictures, and the true opening of the lips."""
        bound, pose = self.bound(), self.posed(take.curves)
        still = bound.place(self.presenter, pose, self.size)
        moments = zip(still[..., :2], self.turns(take), take.breath.tolist(), strict=True)
        moved = torch.stack([swayed_points(at, turn, breath, self.size) for at, turn, breath in moments])
        depth = bound.place(self.presenter, self.posed(take.curves, take.angles), self.size)[..., 2:]
        apart = still[:, face.INNER_LOWER, 1] - still[:, face.INNER_UPPER, 1]
        gap = torch.where(lip_gap(pose) < 1e-6, 0.0, apart.clamp(min=0))
        return {"points": torch.cat([moved, depth], -1).float().numpy(), "inner_gap": gap.float().numpy()}


def encode(pictures: Iterable[Bytes], sound: Floats, path: Path, size: int) -> None:
    """H.264 and AAC, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial.mp4")
    with av.open(str(partial), "w") as container:
        picture_stream = container.add_stream("libx264", rate=FRAME_RATE)
        picture_stream.width = picture_stream.height = size
        picture_stream.pix_fmt = "yuv420p"
        picture_stream.options = {"crf": "14", "preset": "medium", "threads": "1"}
        sound_stream = container.add_stream("aac", rate=LISTENING_RATE, layout="mono")
        sound_stream.bit_rate = 128_000
        heard = soxr.resample(sound, SAMPLE_RATE, LISTENING_RATE).astype(np.float32)
        step = LISTENING_RATE // FRAME_RATE
        for number, picture in enumerate(pictures):
            container.mux(picture_stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            piece = np.ascontiguousarray(heard[None, number * step : (number + 1) * step])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = LISTENING_RATE, number * step, Fraction(1, LISTENING_RATE)
            container.mux(sound_stream.encode(frame))
        container.mux(picture_stream.encode(None))
        container.mux(sound_stream.encode(None))
    partial.replace(path)


def labels_beside(film: Path) -> Path:
    return film.with_suffix(".labels.npz")


def record(
    name: str,
    seconds: float,
    out: Path,
    *,
    cache: Path,
    seed: int = 1,
    size: int = SIZE,
    voices: tuple[str, ...] = VOICES,
    compiled: bool = True,
) -> Path:
    """→ the film. Raises MissingVoiceError where a voice is not installed."""
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    speech = speak(seconds, voices, seed)
    take = perform(speech, seed)
    studio = Studio(name, cache, size, compiled)
    labels = studio.labels(take)
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        wanted = progress.track(studio.pictures(take), total=len(take.curves), description=f"recording {name}")
        encode(wanted, speech.sound[: len(take.curves) * SAMPLE_RATE // FRAME_RATE], out, size)
    partial = labels_beside(out).with_suffix(".partial.npz")
    np.savez_compressed(
        partial,
        **labels,
        curves=take.curves,
        angles=take.angles,
        phones=np.array([(p.start, p.end, p.name) for p in speech.phones], PHONE),
        names=np.array(face.ARKIT_52),
        fps=np.array(FRAME_RATE),
        about=np.array(about(name, seed, voices)),
    )
    partial.replace(labels_beside(out))
    return out


def about(name: str, seed: int, voices: tuple[str, ...]) -> str:
    return (
        f"{PRESENTERS[name].title}, a synthetic presenter: no person, photograph or scan. Seed {seed}; voices "
        f"{', '.join(voices)}. Each frame's lower face is ray-marched with its own weights, each distinct upper face "
        "once; both lie over one rendered picture, which is swayed as an egg by the head's turn."
    )


def refused(name: str, out: Path, minutes: float, size: int) -> str | None:
    """What is wrong with a wish, and how to mend it, in one line."""
    if name not in PRESENTERS:
        return f"no presenter is called {name!r}; there are {', '.join(PRESENTERS)}"
    if out.suffix != ".mp4" or not out.absolute().parent.is_dir():
        return f"{out} cannot be written: name an .mp4 in a directory that exists"
    if not 0.05 <= minutes <= 60:
        return f"--minutes {minutes:g} is outside 0.05 … 60"
    if size not in SIZES:
        return f"--size {size} is none of {', '.join(map(str, SIZES))}"
    return None
