"""A fitted person as a package: loop, networks as graphs, what each loop frame gives them, and the proof.

Written into a directory that nobody serves yet; `Shelf.install` verifies it and puts it on the shelf at once or not at
all.
"""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file as save_contiguous
from safetensors.torch import save_file
from torch import Tensor

from models import face
from models.avatar import decode_loop, file_digest, read_avatar, seal
from models.create.dense import follows
from models.create.film import Floats, Picture
from models.create.speaker import Flat, Speaker
from models.encoding import encode, jpeg
from models.landmarks import EYES_APART
from models.rates import BLENDSHAPES, CHUNK, DENSE_POINTS, FACE
from models.renderers.fit import save as save_renderer
from models.renderers.patch import Patch
from models.renderers.placing import smoothed, towards
from models.runtime.eager import VOICE
from models.runtime.graphs import MOST_ROWS, unsigned, written
from models.runtime.hearing import GOLDEN_STEPS
from models.runtime.packing import Painter
from models.runtime.plain import gaze
from models.runtime.proof import golden_sound
from models.streaming import leaves
from models.train import Trainer, conditions_of

Array = npt.NDArray[Any]
EYES_METRES: Final = 0.09
"""Between the outer corners of grown people's eyes: what turns pixels into metres."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """The loop as it will be played: pictures [N, H, W, 3], their 478 points [N, 478, 3] in pixels, lids [N, 2]."""

    pictures: npt.NDArray[np.uint8]
    points: Floats
    blink: Floats


@dataclass(frozen=True, slots=True)
class Card:
    """What the package says of itself."""

    name: str
    title: str
    synthetic: bool
    lookahead: int
    consent: bytes | None
    made: Mapping[str, str]
    """How: quality, seconds of footage, digests of what it was made from."""


def write(folder: Path, card: Card, scene: Scene, trainer: Trainer, speaker: Speaker, renderer: Patch) -> None:
    """All of a package, sealed. `folder` is empty; `trainer` has the head's reference mesh."""
    (folder / "weights").mkdir(parents=True)
    (folder / "graphs").mkdir()
    encode(scene.pictures, folder / "loop.mp4")
    (folder / "portrait.jpg").write_bytes(jpeg(scene.pictures[0], coarsest=4))
    (folder / "avatar.toml").write_text(_card(card))
    if card.consent is not None:
        (folder / "consent.json").write_bytes(card.consent)
    similarity = towards(scene.points, renderer.face.numpy())
    poses = _poses(scene, trainer)
    save_arrays(_motion(scene, poses, similarity), str(folder / "loop.safetensors"))
    mesh = {
        "loop": scene.points[:, :DENSE_POINTS].astype(np.float32),
        "follows": follows([clip.points for clip in trainer.clips], trainer.mesh),
    }
    save_arrays(mesh, str(folder / "mesh.safetensors"))
    seal(folder)
    painter = Painter(renderer, decode_loop(read_avatar(folder)), similarity, renderer.mask.numpy())
    _weights(folder / "weights", trainer, speaker, renderer)  # as the painter rounded them
    frames = {name: array.astype(np.float32) for name, array in {**poses, **painter.frames()}.items()}
    save_arrays(frames, str(folder / "graphs" / "frames.safetensors"))
    rows = {name: torch.from_numpy(array) for name, array in frames.items()}
    (folder / "graphs" / "step.onnx").write_bytes(export_step(Flat(speaker).eval(), rows))
    (folder / "graphs" / "prepare.onnx").write_bytes(painter.prepare_graph())
    house = torch.from_numpy(scene.points[[0, -1]][:, face.HOUSE].astype(np.float32))
    (folder / "graphs" / "paint.onnx").write_bytes(painter.paint_graph(house))
    silence = {f"step.state_{n}": leaf.numpy() for n, leaf in enumerate(leaves(speaker.silence(1)))}
    save_arrays(silence, str(folder / "graphs" / "silence.safetensors"))
    save_arrays(_golden(speaker, painter, rows), str(folder / "golden.safetensors"))
    seal(folder)


# --- What each loop frame gives --------------------------------------------------------------------------------------

STEP_FRAMES: Final = ("scale", "rotation", "shift", "upper", "still")


def _poses(scene: Scene, trainer: Trainer) -> dict[str, Array]:
    points = smoothed(scene.points, 1.0)
    conditions = conditions_of(points, trainer.mesh)
    scale, rotation, shift = conditions.scale[0], conditions.rotation[0], conditions.shift[0]
    metres = EYES_METRES / (float(scale.mean()) * EYES_APART)
    position = ((shift - shift.mean(0)).numpy() * [1, -1, 0] * metres).astype(np.float32)
    weights = np.zeros((len(points), BLENDSHAPES), np.float32)
    for column, name in enumerate(("eyeBlinkLeft", "eyeBlinkRight")):
        weights[:, face.ARKIT_52.index(name)] = scene.blink[:, column]
    turn = rotation.numpy().astype(np.float64) * np.array(
        [[1, -1, -1], [-1, 1, 1], [-1, 1, 1]]
    )  # y up, z to the viewer
    quaternion = np.stack([_quaternion(one) for one in turn])
    still = np.concatenate([weights, quaternion, position, gaze(weights)], 1)
    assert still.shape[1] == FACE
    upper = conditions.upper[0].numpy()
    return {
        "scale": scale.numpy(),
        "rotation": rotation.numpy(),
        "shift": shift.numpy(),
        "upper": upper,
        "still": still.astype(np.float32),
    }


def _motion(scene: Scene, frames: Mapping[str, Array], similarity: Floats) -> dict[str, Array]:
    weights = frames["still"][:, :BLENDSHAPES]
    return {
        "mouth_similarity": similarity.astype(np.float32),
        "points": scene.points[:, face.HOUSE].astype(np.float32),
        "head_quaternion": np.ascontiguousarray(frames["still"][:, BLENDSHAPES : BLENDSHAPES + 4]),
        "head_position": np.ascontiguousarray(frames["still"][:, BLENDSHAPES + 4 : BLENDSHAPES + 7]),
        "blink": scene.blink.astype(np.float32),
        "weights": np.ascontiguousarray(weights),
    }


def _quaternion(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A rotation of less than half a turn [3, 3] → x y z w."""
    w = math.sqrt(max(1e-9, 1 + np.trace(matrix))) / 2
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    return np.append(axis / (4 * w), w)


# --- Graphs ----------------------------------------------------------------------------------------------------------


def export_step(speaking: Flat, rows: Mapping[str, Tensor]) -> bytes:
    state = leaves(speaking.speaker.silence(2))
    given = (torch.zeros(2, CHUNK), *(_two(rows[name]) for name in STEP_FRAMES), *state)
    names = ["x", *(f"frame_{name}" for name in STEP_FRAMES), *(f"state_{n}" for n in range(len(state)))]
    answers = ["points", "face", *(f"after_{n}" for n in range(len(state)))]
    batch = {0: torch.export.Dim("batch", min=1, max=MOST_ROWS)}
    shapes: tuple[Any, ...] = (*(batch for _ in range(1 + len(STEP_FRAMES))), tuple(batch for _ in state))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.export.export(speaking, given, dynamic_shapes=shapes, strict=False)
        return unsigned(written(program, names, answers))


def _two(rows: Tensor) -> Tensor:
    return rows[:1].expand(2, *rows.shape[1:]).contiguous()


@torch.no_grad()
def _golden(speaker: Speaker, painter: Painter, rows: Mapping[str, Tensor]) -> dict[str, Array]:
    """Fifty streamed steps and what the reference answers; pictures in bytes, as they are sent."""
    sound, state = golden_sound(), speaker.silence(1)
    answers: dict[str, list[Array]] = {"points": [], "face": [], "luma": []}
    count = len(rows["scale"])
    for step in range(GOLDEN_STEPS):
        at = [rows[name][step % count : step % count + 1] for name in STEP_FRAMES]
        points, said, state = speaker(torch.from_numpy(sound[step : step + 1]), *at, state)
        answers["points"].append(points[0].numpy())
        answers["face"].append(said[0].numpy())
        answers["luma"].append(np.rint(painter.painted(points[0].numpy(), step % count)).astype(np.uint8))
    return {"x": sound, **{name: np.stack(each) for name, each in answers.items()}}


def save_arrays(arrays: Mapping[str, Array], path: str) -> None:
    """safetensors writes the memory as it lies, whatever the strides say."""
    save_contiguous({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


# --- Files -----------------------------------------------------------------------------------------------------------


def _weights(folder: Path, trainer: Trainer, speaker: Speaker, renderer: Patch) -> None:
    tensors = {f"rule.{name}": tensor.cpu() for name, tensor in speaker.rule.state_dict().items()}
    tensors |= {name: tensor.detach().cpu().contiguous() for name, tensor in trainer.network.state_dict().items()}
    facts = {"arch": "liveface.head.2", "lookahead": str(trainer.network.lookahead), "voice": file_digest(VOICE)}
    save_file({**tensors, "mesh": torch.from_numpy(trainer.mesh).float()}, folder / "head.safetensors", facts)
    save_renderer(renderer, folder / "renderer.safetensors")


def rgb_of(frame: npt.NDArray[np.uint8]) -> Picture:
    """I420 [H * 3 / 2, W] → RGB, as FFmpeg has it."""
    return cast(Picture, av.VideoFrame.from_ndarray(frame, format="yuv420p").to_ndarray(format="rgb24"))


def _card(card: Card) -> str:
    made = {"version": metadata.version("liveface"), **card.made}
    lines = [
        "schema = 1",
        f"name = {json.dumps(card.name)}",
        f"title = {json.dumps(card.title, ensure_ascii=False)}",
        'kind = "learned"',
        f"synthetic = {'true' if card.synthetic else 'false'}",
        'label = "AI"',
        f"lookahead = {card.lookahead}",
        "",
        "[made]",
        *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in made.items()),
        "",
        "[licences]",
        'networks = "Apache-2.0 code; weights fitted to the footage named under made"',
        'pictures = "of the person filmed, under their consent"' if not card.synthetic else 'pictures = "synthetic"',
    ]
    return "\n".join(lines) + "\n"
