"""A person's own film, repainted: their frames and their motion, and a mouth that says something else.

What the live avatar does to its reference loop is done here to any footage of the person, offline, with the weights of
the package: the way to dub, and to measure a likeness against the truth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.torch import load as load_tensors

from models.avatar import Avatar, PackageError
from models.create.film import Floats, Picture
from models.create.package import rgb_of
from models.create.rule import Rule
from models.create.speaker import Speaker
from models.landmarks.head import Head
from models.landmarks.hearing import AND_MEL, Beside, hearing
from models.mel import HEARINGS
from models.rates import CHUNK
from models.renderers.fit import load as load_renderer
from models.renderers.patch import Patch
from models.renderers.placing import place_rows, rectangles, towards, warped
from models.runtime.eager import VOICE
from models.train import conditions_of
from models.voice import CODE


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """The networks of a package, in torch."""

    speaker: Speaker
    renderer: Patch
    mesh: npt.NDArray[np.float64]
    """[478, 3]: the person's mean face in the pose-normal space."""


def person_of(avatar: Avatar) -> Person:
    """Raises PackageError when the package has no networks of its own."""
    if avatar.kind != "learned":
        raise PackageError(f"{avatar.name} has no networks of its own: take an avatar that `liveface create` made")
    try:
        tensors = load_tensors(avatar.read("weights/head.safetensors"))
        mesh = load_arrays(avatar.read("weights/head.safetensors"))["mesh"].astype(np.float64)
        avatar.read("weights/renderer.safetensors")
        renderer = load_renderer(avatar.folder / "weights" / "renderer.safetensors")
        tensors.pop("mesh")
        head = Head(CODE, HEARINGS[AND_MEL][0], avatar.lookahead, components=len(tensors["spread"]))
        rule = Rule(len(tensors["spread"]))
        rule.load_state_dict({name[5:]: tensors.pop(name) for name in list(tensors) if name.startswith("rule.")})
        head.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError, ValueError) as wrong:
        raise PackageError(f"{avatar.name}: its weights are of another version: create it again") from wrong
    ear = hearing("voice+mel", VOICE).layer
    assert isinstance(ear, Beside)
    return Person(Speaker(head.eval(), ear, rule).eval(), renderer.eval(), mesh)


@torch.no_grad()
def said(person: Person, audio: Floats) -> torch.Tensor:
    """[T, 57, 3]: lips and jaw in the pose-normal space that this sound [T * 640] asks for, in time with it."""
    ahead = person.speaker.head.lookahead
    pcm = np.pad(audio, (0, ahead * CHUNK))
    spoken, _, _ = person.speaker.spoken(torch.from_numpy(pcm)[None], person.speaker.silence(1))
    return spoken[0, ahead:]


def posed(person: Person, spoken: torch.Tensor, points: Floats) -> torch.Tensor:
    """[T, 131, 3]: the same in the pose of a film's points [T, 478, 3], in its pixels."""
    conditions = conditions_of(points, person.mesh)
    return torch.cat([conditions.pose.to_frame(spoken[None]), conditions.upper], dim=2)[0]


@torch.no_grad()
def repainted(person: Person, pictures: Iterator[Picture], points: Floats, house: torch.Tensor) -> Iterator[Picture]:
    """Each picture [H, W, 3] with its mouth painted as `house` [T, 131, 3] says; even sizes."""
    renderer = person.renderer
    similarity = towards(points, renderer.face.numpy())
    corners: tuple[int, int, npt.NDArray[np.int64]] | None = None
    for number, picture in enumerate(pictures):
        if number == len(points):
            return
        picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
        height, width = picture.shape[:2]
        if corners is None:
            corners = rectangles(renderer.mask.numpy(), similarity, width, height)
        frame = i420_of(picture)
        yield rgb_of(_painted(renderer, frame, picture, similarity[number], corners, number, house))


def _painted(
    renderer: Patch,
    frame: npt.NDArray[np.uint8],
    picture: Picture,
    similarity: Floats,
    corners: tuple[int, int, npt.NDArray[np.int64]],
    number: int,
    house: torch.Tensor,
) -> npt.NDArray[np.uint8]:
    high, wide, corner = corners
    x, y = corner[number].tolist()
    planes = views(frame, picture.shape[0], x, y, high, wide)
    luma, u, v = (torch.from_numpy(plane.astype(np.float32))[None] for plane in planes)
    under = {
        "similarity": torch.from_numpy(similarity)[None],
        "corner": torch.tensor([[x, y]], dtype=torch.float32),
        "luma": luma,
        "u": u,
        "v": v,
    }
    patch = torch.from_numpy(warped(picture, similarity, renderer.size)).permute(2, 0, 1)[None].float() / 255
    rows = {**under, **renderer.look(patch)}
    rows |= renderer.precisely(rows, house[number : number + 1])
    painted, mask, _ = renderer.draw(rows, house[number : number + 1], torch.zeros(1, 0), ())
    for plane, values in zip(planes, place_rows(under, painted, mask), strict=True):
        plane[:] = values[0].round().clamp(0, 255).byte().numpy()
    return frame


def views(
    frame: npt.NDArray[np.uint8], height: int, x: int, y: int, high: int, wide: int
) -> tuple[npt.NDArray[np.uint8], ...]:
    """The rectangle's luma, u and v in an I420 frame, to be written to."""
    width = frame.shape[1]
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    half = np.s_[y // 2 : (y + high) // 2, x // 2 : (x + wide) // 2]
    return frame[y : y + high, x : x + wide], chroma[0][half], chroma[1][half]


def i420_of(picture: Picture) -> npt.NDArray[np.uint8]:
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
    return cast(npt.NDArray[np.uint8], frame.to_ndarray().copy())
