"""The shipped avatars, from nothing but this repository: `python -m models.studio.demo [NAME …]`.

An avatar of the plain kind is a directory of

    loop.mp4             H.264, 25 frames a second; the end meets the beginning
    loop.safetensors     per frame: mouth_similarity [N, 4] = a, b, tx, ty takes a pixel of a mouth patch to the frame:
                         x' = a·x − b·y + tx, y' = b·x + a·y + ty; points [N, 131, 3] (face.HOUSE, pixels),
                         head_quaternion [N, 4] (x y z w, turning the head into the world), head_position [N, 3] (metres
                         from the loop's mean head), blink [N, 2] (person's left, right), weights [N, 52] (ARKIT_52)
    mouths.safetensors   patches uint8 [M, H, W, 3]: the lower face at head pose zero; weights [M, 52] of each;
                         points [M, 131, 3] (face.HOUSE in patch pixels); lip_gap [M] (true opening in patch pixels);
                         mask float32 [H, W]: 1 where the patch replaces the frame, feathered to 0 before its edge
    mesh.safetensors     loop [N, 468, 3], mouths [M, 468, 3]: the whole of MediaPipe's mesh, likewise
    portrait.jpg         the first frame
    avatar.toml          the card
    manifest.json        {"files": {name: SHA-256}}

Pixel coordinates have their origin at the centre of the first pixel. Patches are full-range RGB; the loop is BT.601,
limited range, as FFmpeg's converter makes it, so patches are to be converted alike.
A loop is one rendered picture, swayed: each pixel is taken from where the head's turn has brought it from, fading out
over the blurred room and the shoulders; lids come from strips of eyes drawn at each stage of a blink. A listener moves
by two degrees: for more, render every frame.
Rendered pictures are kept under the cache directory and found again, so that a stopped run resumes.
"""

import argparse
import hashlib
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import Progress
from safetensors.numpy import save_file

from models import face
from models.encoding import encode, jpeg
from models.rates import DENSE_POINTS
from models.studio.painter import teach
from models.studio.pictures import SIZE, Floats, Frames, feathered, laid, swayed, track, turned
from models.studio.presenter import PRESENTERS, Crop, Presenter, weights
from models.studio.presenter.head import lip_gap
from models.studio.presenter.landmarks import Landmarks, neutral
from models.studio.presenter.sdf import Tensor

SHIPPED = Path(__file__).parent.parent / "shipped"
SOFT_SMILE = {"mouthSmile": 0.14, "mouthClose": 0.05, "eyeSquint": 0.06}
REST = {**SOFT_SMILE, "browInnerUp": 0.10, "eyeLookUp": 0.05, "eyeBlink": 0.05}
LIDS = (0.2, 0.36, 0.52, 0.68, 0.84, 1.0)  # stages of a blink beyond the rest
EYES = Crop(136, 176, 240, 88)
OPENINGS = (0.0, 0.035, 0.08, 0.13, 0.19, 0.26, 0.34, 0.44, 0.56, 0.70)
SHAPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "rounded": {"mouthPucker": 0.70, "mouthFunnel": 0.25, "mouthSmile": 0.0},
    "wide": {"mouthStretch": 0.38, "mouthSmile": 0.22},
}
SPECIAL: dict[str, dict[str, float]] = {
    "m": {"mouthPress": 0.75, "mouthRollUpper": 0.25, "mouthRollLower": 0.25, "jawOpen": 0.04},
    "f": {"mouthRollLower": 0.85, "mouthUpperUp": 0.32, "jawOpen": 0.05},
    "th": {"tongueOut": 0.35, "jawOpen": 0.17, "mouthLowerDown": 0.2},
    "sh": {"mouthSmile": 0.0, "mouthFunnel": 0.65, "mouthPucker": 0.2, "jawOpen": 0.10},
    "s": {"mouthStretch": 0.25, "mouthLowerDown": 0.40, "mouthUpperUp": 0.20, "jawOpen": 0.07},
}


@dataclass(frozen=True)
class Avatar:
    name: str
    presenter: str
    frames: int  # of the loop
    crop: Crop  # the mouth patch, in pixels of the canonical picture


AVATARS = {
    "demo": Avatar("demo", "mira", 225, Crop(148, 268, 216, 196)),
    "ada": Avatar("ada", "ada", 225, Crop(148, 268, 216, 196)),
}


def mouth_faces() -> list[dict[str, float]]:
    """What every patch is drawn with, tight to wide within each shape, then the special ones."""
    faces: list[dict[str, float]] = []
    for shape in SHAPES.values():
        for jaw in OPENINGS:
            bared = min(1.0, jaw / 0.3)
            opened = {"jawOpen": jaw, "mouthLowerDown": 0.25 * bared, "mouthUpperUp": 0.10 * bared}
            faces.append({**SOFT_SMILE, **shape, **opened, "mouthClose": 0.0 if jaw else SOFT_SMILE["mouthClose"]})
    return faces + [{**SOFT_SMILE, "mouthClose": 0.0, **special} for special in SPECIAL.values()]


@dataclass(frozen=True)
class Performance:
    """The loop before it is drawn. Everything is periodic in its length, so the last frame leads to the first."""

    stage: list[int]  # [N] of the blink: 0 at rest, else LIDS[stage - 1]
    angles: Tensor  # [N, 3] degrees
    breath: Tensor  # [N]

    def weights(self) -> Tensor:
        """[N, 52]"""
        return weights(*[lid_faces()[stage] for stage in self.stage])


def perform(frames: int) -> Performance:
    """Somebody who listens: breath, a slow sway, blinks."""
    phase = torch.arange(frames) / frames * 2 * math.pi

    def wave(cycles: int, shift: float) -> Tensor:
        return torch.sin(cycles * phase + shift)

    yaw = 1.5 * wave(1, 0.3) + 0.5 * wave(3, 1.9)
    pitch = 0.7 * wave(2, 1.1) + 0.35 * wave(3, 4.0) + 0.4
    roll = 0.9 * wave(1, 2.4) + 0.35 * wave(2, 0.2)
    blink = torch.zeros(frames)
    for at in (0.16, 0.45, 0.485, 0.80):
        blink = torch.maximum(blink, _blink(torch.arange(frames) - round(at * frames)))
    stages = torch.tensor([REST["eyeBlink"], *LIDS])
    stage = (blink[:, None] - stages).abs().argmin(1).tolist()
    breath = 0.5 + 0.5 * wave(max(1, round(frames / 100)), 0.0)
    return Performance(stage, torch.stack([yaw, pitch, roll], 1), breath)


def lid_faces() -> list[dict[str, float]]:
    """The face at rest, and at each stage of a blink."""
    return [REST] + [{**REST, "eyeBlink": lid, "eyeLookUp": REST["eyeLookUp"] * (1 - lid)} for lid in LIDS]


def _blink(frame: Tensor) -> Tensor:
    """Shut within 80 ms, open again after 200: lids fall faster than they rise."""
    fall, rise = 1 + frame / 2.5, 1 - frame / 5.5
    shut = torch.where(frame < 0, fall, rise).clamp(0, 1)
    return shut * shut * (3 - 2 * shut)


def similarity(source: Floats, target: Floats) -> Floats:
    """Points [P, 2] → [4] a, b, tx, ty that take source to target with the least square error."""
    x, y = source[:, 0], source[:, 1]
    one, nil = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate([np.stack([x, -y, one, nil], 1), np.stack([y, x, nil, one], 1)])
    solution = np.linalg.lstsq(rows, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    return np.asarray(solution, np.float32)


def quaternion(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A rotation of less than half a turn [3, 3] → x y z w."""
    w = math.sqrt(max(0.0, 1 + np.trace(matrix))) / 2
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return np.append(axis / (4 * w), w)


def make(avatar: Avatar, cache: Path, shipped: Path = SHIPPED, compiled: bool = True) -> Path:
    """Render what is missing, then write the package; → its directory."""
    presenter = Presenter(PRESENTERS[avatar.presenter], compiled=compiled)
    frames = Frames(presenter, cache)
    whole = Crop(0, 0, SIZE, SIZE)
    performance = perform(avatar.frames)
    mouth_weights, lid_weights = weights(*mouth_faces()), weights(*lid_faces())
    mouths, lids = (presenter.pose(w, breath=torch.full((len(w),), 0.5)) for w in (mouth_weights, lid_weights))
    with Progress() as progress:
        wanted = progress.track(range(len(mouth_weights)), description="mouths")
        patches = np.stack([frames.get(mouths.row(i), avatar.crop) for i in wanted])
        still = frames.get(lids.row(0), whole)
        wanted = progress.track(range(1, len(lid_weights)), description="lids")
        stages = [still] + [laid(still, frames.get(lids.row(i), EYES), EYES) for i in wanted]
        bound = Landmarks.bind(presenter, torch.from_numpy(track(frames.get(neutral(presenter), whole))), SIZE)

    loop_weights = performance.weights()
    loop = presenter.pose(loop_weights, performance.angles, performance.breath)
    turns = torch.stack(loop.rotation, 1).view(-1, 3, 3)
    moments = zip(performance.stage, turns, performance.breath.tolist(), strict=True)
    pictures = [swayed(stages[stage], turn, breath) for stage, turn, breath in moments]
    out = shipped / avatar.name
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "graphs", ignore_errors=True)  # a learned mouth is of the loop that was there
    encode(pictures, out / "loop.mp4", crf=18, preset="slow")
    (out / "portrait.jpg").write_bytes(jpeg(pictures[0]))

    house = torch.from_numpy(face.HOUSE.copy())
    corner = torch.tensor([avatar.crop.x, avatar.crop.y, 0.0])
    lower = torch.from_numpy(np.concatenate([face.LIPS, face.JAW, face.NOSE_BASE]))
    canonical = bound.place(presenter, neutral(presenter), SIZE)[0, lower, :2]
    in_patch = (canonical - corner[:2]).numpy()
    neck = np.array([0.0, 0.95, 0.55])  # from the neck's pivot to the middle of the head, decimetres
    turning = turns.double().numpy()
    position = (turning @ neck) * 0.1
    loop_mesh = bound.place(presenter, loop, SIZE)
    save_file(
        {
            "mouth_similarity": np.stack([similarity(in_patch, turned(canonical, turn).numpy()) for turn in turns]),
            "points": loop_mesh[:, house].numpy(),
            "head_quaternion": np.stack([quaternion(turn) for turn in turning]).astype(np.float32),
            "head_position": (position - position.mean(0)).astype(np.float32),
            "blink": torch.stack([loop.blink_l, loop.blink_r], 1).numpy(),
            "weights": loop_weights.numpy(),
        },
        str(out / "loop.safetensors"),
    )
    mouth_points = bound.place(presenter, mouths, SIZE) - corner
    apart = mouth_points[:, face.INNER_LOWER, 1] - mouth_points[:, face.INNER_UPPER, 1]
    shut = lip_gap(mouths) < 1e-6
    save_file(
        {
            "patches": patches,
            "weights": mouth_weights.numpy(),
            "points": mouth_points[:, house].numpy(),
            "lip_gap": torch.where(shut, 0.0, apart.clamp(min=0)).numpy(),
            "mask": feathered(avatar.crop),
        },
        str(out / "mouths.safetensors"),
    )
    dense = {"loop": loop_mesh, "mouths": mouth_points}
    save_file(
        {name: mesh[:, :DENSE_POINTS].contiguous().numpy() for name, mesh in dense.items()},
        str(out / "mesh.safetensors"),
    )
    (out / "avatar.toml").write_text(card(avatar, presenter.who.title))
    write_manifest(out)
    return out


def card(avatar: Avatar, title: str) -> str:
    return f'''schema = 1
name = "{avatar.name}"
title = "{title}"
kind = "plain"
synthetic = true
label = "AI"
made_by = "python -m models.studio.demo {avatar.name}"
lookahead = 2

[licences]
pictures = "Apache-2.0: rendered by models/studio/presenter of this repository; no person, photograph or scan"
'''


def write_manifest(folder: Path) -> None:
    files = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / "manifest.json").write_text(json.dumps({"files": digests}, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Render the shipped avatars; a stopped run resumes.", epilog="python -m models.studio.demo demo"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(AVATARS)}; all without one")
    parser.add_argument("--cache", type=Path, default=Path("cache/studio"), help="where rendered frames are kept")
    parser.add_argument("--eager", action="store_true", help="do not compile: quicker when few pictures are missing")
    parser.add_argument(
        "--learned", action="store_true", help="film the presenter and fit a learned mouth too: an hour on one core"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in AVATARS]
    if unknown:
        parser.error(f"no avatar is called {unknown[0]}; there are {', '.join(AVATARS)}")
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it brings
    for name in arguments.names or AVATARS:
        folder = make(AVATARS[name], arguments.cache, compiled=not arguments.eager)
        if arguments.learned:
            teach(folder, AVATARS[name].presenter, arguments.cache)
        print(folder)


if __name__ == "__main__":
    main()
