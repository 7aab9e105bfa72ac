"""A fitted person as a package: loop, networks as graphs, what each loop frame gives them, and the proof.

Written into a directory that nobody serves yet; `Shelf.install` verifies it and puts it on the shelf at once or not at
all.
"""

import io
import json
import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any, Final, cast

import av
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file as save_contiguous
from safetensors.torch import save_file
from torch import Tensor, nn

from models import face
from models.avatar import decode_loop, file_digest, read_avatar, seal
from models.create.film import Floats, Picture
from models.create.speaker import Flat, Speaker
from models.landmarks import EYES_APART, pose_of
from models.rates import BLENDSHAPES, FACE, FRAME_RATE
from models.renderers.fit import save as save_renderer
from models.renderers.patch import Patch
from models.renderers.placing import place_rows, rectangles, smoothed, towards, warped
from models.runtime.eager import VOICE
from models.runtime.graphs import MOST_ROWS, OPSET, unsigned
from models.runtime.hearing import GOLDEN_STEPS
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
    (folder / "portrait.jpg").write_bytes(jpeg(scene.pictures[0]))
    (folder / "avatar.toml").write_text(_card(card))
    if card.consent is not None:
        (folder / "consent.json").write_bytes(card.consent)
    _weights(folder / "weights", trainer, renderer)
    similarity = towards(scene.points, renderer.face.numpy())
    frames = {**_poses(scene, trainer), "similarity": similarity}
    save_arrays(_motion(scene, frames, renderer), str(folder / "loop.safetensors"))
    seal(folder)
    frames |= _rectangles(decode_loop(read_avatar(folder)), frames["similarity"], renderer)
    stored = {name: array if array.dtype == np.uint8 else array.astype(np.float32) for name, array in frames.items()}
    save_arrays(stored, str(folder / "graphs" / "frames.safetensors"))
    rows = {name: torch.from_numpy(array.astype(np.float32)) for name, array in stored.items()}
    speaking, painting = Flat(speaker).eval(), Painting(renderer).eval()
    (folder / "graphs" / "step.onnx").write_bytes(export_step(speaking, rows))
    (folder / "graphs" / "paint.onnx").write_bytes(export_paint(painting, rows))
    silence = {f"step.state_{n}": leaf.numpy() for n, leaf in enumerate(leaves(speaker.silence(1)))}
    save_arrays(silence, str(folder / "graphs" / "silence.safetensors"))
    save_arrays(_golden(speaker, painting, rows), str(folder / "golden.safetensors"))
    seal(folder)


# --- What each loop frame gives --------------------------------------------------------------------------------------

STEP_FRAMES: Final = ("scale", "rotation", "shift", "upper", "still")
PAINT_FRAMES: Final = ("similarity", "place", "luma", "u", "v", "patch")


def _poses(scene: Scene, trainer: Trainer) -> dict[str, Array]:
    points = smoothed(scene.points, 1.0)
    conditions = conditions_of(points, trainer.mesh)
    pose = pose_of(conditions, trainer.network.reference.cpu())
    scale, rotation, shift = pose.scale[0, :, 0], pose.rotation[0], pose.shift[0, :, 0]
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


def _rectangles(loop: npt.NDArray[np.uint8], similarity: Floats, renderer: Patch) -> dict[str, Array]:
    """Where the mouth goes in each frame of the encoded loop, and what is there; bytes."""
    height, width = loop.shape[1] * 2 // 3, loop.shape[2]
    high, wide, corner = rectangles(renderer.mask.numpy(), similarity, width, height)
    luma, u, v, patches = [], [], [], []
    for frame, (x, y), there in zip(loop, corner.tolist(), similarity, strict=True):
        chroma = frame[height:].reshape(2, height // 2, width // 2)
        half = np.s_[y // 2 : (y + high) // 2, x // 2 : (x + wide) // 2]
        luma.append(frame[y : y + high, x : x + wide])
        u.append(chroma[0][half])
        v.append(chroma[1][half])
        patches.append(warped(rgb_of(frame), there, renderer.size).transpose(2, 0, 1))
    places = corner.astype(np.float32)
    stacked = {"luma": luma, "u": u, "v": v, "patch": patches}
    return {"corner": places, "place": places, **{name: np.stack(planes) for name, planes in stacked.items()}}


def _motion(scene: Scene, frames: Mapping[str, Array], renderer: Patch) -> dict[str, Array]:
    weights = frames["still"][:, :BLENDSHAPES]
    return {
        "mouth_similarity": frames["similarity"].astype(np.float32),
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


class Painting(nn.Module):
    """What the painter's graph computes, of arrays as they lie in `frames.safetensors`.

    The sketch goes out beside the picture: whoever computes in half precision keeps whole what leads to an output.
    """

    def __init__(self, renderer: Patch) -> None:
        super().__init__()
        self.renderer = renderer

    def forward(
        self, points: Tensor, similarity: Tensor, place: Tensor, luma: Tensor, u: Tensor, v: Tensor, patch: Tensor
    ) -> tuple[Tensor, ...]:
        under = {"similarity": similarity, "corner": place, "luma": luma, "u": u, "v": v}
        rows = {**under, **self.renderer.look(patch / 255)}
        rows |= self.renderer.precisely(rows, points)
        painted, mask, _ = self.renderer.draw(rows, points, points[:, 0, :0], ())
        return (*place_rows(under, painted, mask), rows["sketch"])


def export_step(speaking: Flat, rows: Mapping[str, Tensor]) -> bytes:
    state = leaves(speaking.speaker.silence(2))
    names = [f"frame_{name}" for name in STEP_FRAMES]
    given = (torch.zeros(2, 640), *(_two(rows[name]) for name in STEP_FRAMES), *state)
    return _exported(
        speaking,
        given,
        ["x", *names, *(f"state_{n}" for n in range(len(state)))],
        ["points", "face", *(f"after_{n}" for n in range(len(state)))],
    )


def export_paint(painting: Painting, rows: Mapping[str, Tensor]) -> bytes:
    given = (torch.zeros(2, len(face.HOUSE), 3) + 50, *(_two(rows[name]) for name in PAINT_FRAMES))
    names = ["points", *(f"frame_{name}" for name in PAINT_FRAMES)]
    return _exported(painting, given, names, ["luma", "u", "v", "sketch"])


def _two(rows: Tensor) -> Tensor:
    return rows[:1].expand(2, *rows.shape[1:]).contiguous()


def _exported(layer: nn.Module, given: tuple[Tensor, ...], names: list[str], answers: list[str]) -> bytes:
    batch = torch.export.Dim("batch", min=1, max=MOST_ROWS)
    fixed, rest = _signature(layer, given)
    shapes: tuple[Any, ...] = tuple({0: batch} for _ in range(fixed))
    if rest:
        shapes = (*shapes, tuple({0: batch} for _ in range(rest)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(layer, given, dynamic_shapes=shapes, strict=False)
        graph = torch.onnx.export(
            program, dynamo=True, opset_version=OPSET, verbose=False, optimize=True,
            input_names=names, output_names=answers,
        )  # fmt: skip
    assert graph is not None
    return unsigned(graph.model_proto)


def _signature(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[int, int]:
    """How many inputs have names of their own, and how many come as `*state`."""
    named = len(STEP_FRAMES) + 1 if isinstance(layer, Flat) else len(given)
    return named, len(given) - named


@torch.no_grad()
def _golden(speaker: Speaker, painting: Painting, rows: Mapping[str, Tensor]) -> dict[str, Array]:
    sound, state = golden_sound(), speaker.silence(1)
    answers: dict[str, list[Array]] = {"points": [], "face": [], "luma": []}
    count = len(rows["scale"])
    for step in range(GOLDEN_STEPS):
        at = {name: rows[name][step % count : step % count + 1] for name in (*STEP_FRAMES, *PAINT_FRAMES)}
        x = torch.from_numpy(sound[step : step + 1])
        points, said, state = speaker(x, *(at[name] for name in STEP_FRAMES), state)
        luma = painting(points, *(at[name] for name in PAINT_FRAMES))[0]
        for name, answer in (("points", points), ("face", said), ("luma", luma.clamp(0, 255))):
            answers[name].append(answer[0].numpy())
    return {"x": sound, **{name: np.stack(each).astype(np.float32) for name, each in answers.items()}}


def save_arrays(arrays: Mapping[str, Array], path: str) -> None:
    """safetensors writes the memory as it lies, whatever the strides say."""
    save_contiguous({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


# --- Files -----------------------------------------------------------------------------------------------------------


def _weights(folder: Path, trainer: Trainer, renderer: Patch) -> None:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trainer.network.state_dict().items()}
    facts = {"arch": "liveface.head.1", "lookahead": str(trainer.network.lookahead), "voice": file_digest(VOICE)}
    save_file({**tensors, "mesh": torch.from_numpy(trainer.mesh).float()}, folder / "head.safetensors", facts)
    save_renderer(renderer, folder / "renderer.safetensors")


def encode(pictures: npt.NDArray[np.uint8], path: Path, crf: int = 16) -> None:
    """H.264 at 25 frames a second, without sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAME_RATE)
        stream.options = {"crf": str(crf), "preset": "medium", "threads": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def jpeg(picture: Picture) -> bytes:
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = picture.shape[1], picture.shape[0], "yuvj420p"
    codec.time_base = Fraction(1, FRAME_RATE)
    codec.options = {"qmin": "2", "qmax": "4"}
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
    out = io.BytesIO()
    for packet in [*codec.encode(frame), *codec.encode(None)]:
        out.write(bytes(packet))
    return out.getvalue()


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
