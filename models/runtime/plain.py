"""The plain runtime: no network, no torch. A package's painted mouths, chosen by rule from what is heard.

For packages of kind "plain", and the frame of every runtime that paints so, however it hears. `Out.mesh` is there for
avatars that bring a mesh.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol, TypeVar

import numpy as np

from models import face
from models.avatar import LOOP, MESH, MOUTHS, Avatar, PackageError, read_avatar
from models.rates import BLENDSHAPES, CHUNK, LOOKAHEAD_MOST
from models.runtime import AvatarCard, Floats, Out, Pictures, Roi, Row, Wants, loops
from models.runtime.hearing import ByRule, Hearing
from models.runtime.mouths import Choice
from models.runtime.shelf import NewShelf, Shelf

GAZE_DEGREES: Final = 30.0
"""How far an eye has turned when a look weight is 1."""

BY_MOUTHS: Final = Wants.POINTS | Wants.MESH | Wants.PICTURE
"""What is known of the painted mouths alone."""

_SPOKEN: Final = np.array(
    [name.startswith(("jaw", "mouth", "tongue")) or name == "cheekPuff" for name in face.ARKIT_52], dtype=bool
)
"""[52]: the weights that the voice moves; the loop moves the others."""

_LOOK: Final = {
    direction: [face.ARKIT_52.index(name) for name in names]
    for direction, names in {
        "left": ("eyeLookOutLeft", "eyeLookInRight"),
        "right": ("eyeLookInLeft", "eyeLookOutRight"),
        "up": ("eyeLookUpLeft", "eyeLookUpRight"),
        "down": ("eyeLookDownLeft", "eyeLookDownRight"),
    }.items()
}


_Said = TypeVar("_Said")


class PaintsPoints(Protocol):
    """A painter that needs no shelf of mouths: it paints lips and jaw where they are."""

    def paint(self, slots: Sequence[int], points: Floats, index: Sequence[int]) -> list[Roi]:
        """`points` [B, 131, 3] in pixels of the loop frames `index`, for the sessions in `slots`."""
        ...


NewPainter = Callable[[Avatar, Pictures], PaintsPoints | None]
"""(avatar, its loop) → the avatar's learned painter; None when it has none, or none that can be trusted here."""


class Presenter:
    """An open avatar: its card, its mouths, its loop's motion."""

    def __init__(
        self, avatar: Avatar, lookahead: int, new_painter: NewPainter | None = None, new_shelf: NewShelf = Shelf
    ) -> None:
        if avatar.kind != "plain":
            raise PackageError(f"{avatar.name} is of kind {avatar.kind!r}; the plain runtime opens only plain ones")
        loop = loops.keep(avatar)
        motion = avatar.tensors("loop.safetensors", LOOP)
        mouths = avatar.tensors("mouths.safetensors", MOUTHS)
        if len(motion["points"]) != len(loop):
            raise PackageError(f"{avatar.name}: loop.mp4 has {len(loop)} frames, its arrays {len(motion['points'])}")
        self.card = AvatarCard(
            name=avatar.name,
            revision=avatar.revision,
            width=loop.shape[2],
            height=loop.shape[1] * 2 // 3,
            lookahead=lookahead,
            loop=loop,
            synthetic=avatar.synthetic,
            label=avatar.label,
        )
        self.choice = Choice(mouths["weights"], mouths["lip_gap"])
        self.learned = new_painter(avatar, loop) if new_painter else None
        self.shelf = new_shelf(mouths, motion["mouth_similarity"], loop)
        self.mouths = len(mouths["weights"])
        """How many painted ones there are."""
        self._mouth_weights: Floats = mouths["weights"]
        self._mouth_points: Floats = mouths["points"]
        self._similarity: Floats = motion["mouth_similarity"]
        self._loop_points: Floats = motion["points"]
        self._loop_mesh: Floats | None = None
        if "mesh.safetensors" in avatar.files:
            mesh = avatar.tensors("mesh.safetensors", MESH)
            if (len(mesh["loop"]), len(mesh["mouths"])) != (len(loop), len(self._mouth_weights)):
                raise PackageError(f"{avatar.name}: mesh.safetensors is of another loop, or of other mouths")
            self._loop_mesh, self._mouth_bends = mesh["loop"], mesh["mouths"] - mesh["mouths"][0]
        self._loop_faces: Floats = np.concatenate(
            [motion["weights"], motion["head_quaternion"], motion["head_position"], gaze(motion["weights"])], 1
        )

    def face(self, mouths: Floats, index: Sequence[int], expression: Floats | None) -> Floats:
        """[B, 61]: the mouth as it was heard, or else as it is painted; everything else as the loop has it."""
        values = self._loop_faces[index]
        if expression is None:
            expression = (mouths[:, :, None] * self._mouth_weights).sum(1)
        values[:, :BLENDSHAPES][:, _SPOKEN] = expression[:, _SPOKEN]
        return values

    def pictures(self, slots: Sequence[int], mouths: Floats, index: Sequence[int]) -> list[Roi]:
        """Painted where the mouths have their lips and jaw, or else mixed of the mouths themselves."""
        if self.learned is not None:
            return self.learned.paint(slots, self.points(mouths, index), index)
        return self.shelf.paint(slots, mouths, index)

    def points(self, mouths: Floats, index: Sequence[int]) -> Floats:
        """[B, 131, 3]: lips and jaw as painted, everything else as the loop has it."""
        values = self._loop_points[index]
        spoken = (mouths[:, :, None, None] * self._mouth_points[:, face.HOUSE_SPOKEN]).sum(1)
        a, b, tx, ty = self._similarity[index].T[:, :, None]
        values[:, face.HOUSE_SPOKEN, 0] = a * spoken[..., 0] - b * spoken[..., 1] + tx
        values[:, face.HOUSE_SPOKEN, 1] = b * spoken[..., 0] + a * spoken[..., 1] + ty
        values[:, face.HOUSE_SPOKEN, 2] = np.hypot(a, b) * spoken[..., 2]
        return values

    def mesh(self, mouths: Floats, index: Sequence[int]) -> Floats | None:
        """[B, 468, 3]: the loop's, whose mouth is at rest, bent as the painted mouth is."""
        if self._loop_mesh is None:
            return None
        bend = (mouths[:, :, None, None] * self._mouth_bends).sum(1)
        a, b = self._similarity[index].T[:2, :, None]
        x, y = a * bend[..., 0] - b * bend[..., 1], b * bend[..., 0] + a * bend[..., 1]
        return np.asarray(self._loop_mesh[index] + np.stack([x, y, np.hypot(a, b) * bend[..., 2]], 2), np.float32)


def gaze(weights: Floats) -> Floats:
    """[N, 52] → [N, 2]: yaw to the person's left and pitch up, in degrees."""
    left, right, up, down = (weights[:, _LOOK[way]].mean(1) for way in ("left", "right", "up", "down"))
    return np.asarray(GAZE_DEGREES * np.stack([left - right, up - down], 1), np.float32)


def wanting(rows: Sequence[Row], wants: Wants) -> list[int]:
    """Places of the rows that want any of these."""
    return [place for place, row in enumerate(rows) if wants & row.wants]


class Plain:
    """Implements `models.runtime.Runtime` for painted mouths, however they hear."""

    def __init__(self, presenters: Sequence[Presenter], hearing: Hearing) -> None:
        self._presenters = {presenter.card.name: presenter for presenter in presenters}
        self._cards = {presenter.card.name: presenter.card for presenter in presenters}
        self._hearing = hearing

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self._cards

    def step(self, rows: Sequence[Row]) -> list[Out]:
        if not rows:
            return []
        began = perf_counter()
        heard = self._hearing.listen(
            [row.slot for row in rows],
            [row.reset for row in rows],
            np.stack([row.pcm for row in rows]),
            [self._cards[row.avatar].lookahead for row in rows],
        )
        features = (perf_counter() - began) / len(rows)
        outs: dict[int, Out] = {}
        for name, presenter in self._presenters.items():
            places = [place for place, row in enumerate(rows) if row.avatar == name]
            if places:
                answers = self._answer(presenter, [rows[place] for place in places], heard[places], features)
                outs |= zip(places, answers, strict=True)
        return [outs[place] for place in range(len(rows))]

    def _answer(self, presenter: Presenter, rows: Sequence[Row], heard: Floats, features: float) -> list[Out]:
        """Rows of one avatar. What nobody wants is not computed."""
        began = perf_counter()
        index = [row.loop_index % presenter.card.frames for row in rows]
        expression = self._hearing.expression(heard)
        shown = wanting(rows, BY_MOUTHS | (Wants.FACE if expression is None else Wants.NOTHING))
        mouths = np.zeros((len(rows), presenter.mouths), np.float32)
        if shown:
            mouths[shown] = self._hearing.weigh(presenter.choice, heard[shown])

        def each(want: Wants, say: Callable[[list[int]], Iterable[_Said] | None]) -> dict[int, _Said]:
            """Place → what is said to those who want it."""
            places = wanting(rows, want)
            said = say(places) if places else None
            return {} if said is None else dict(zip(places, said, strict=True))

        def at(places: list[int]) -> tuple[Floats, list[int]]:
            return mouths[places], [index[place] for place in places]

        points = each(Wants.POINTS, lambda places: presenter.points(*at(places)))
        faces = each(
            Wants.FACE,
            lambda places: presenter.face(*at(places), None if expression is None else expression[places]),
        )
        meshes = each(Wants.MESH, lambda places: presenter.mesh(*at(places)))
        moved = perf_counter()
        rois = each(Wants.PICTURE, lambda places: presenter.pictures([rows[one].slot for one in places], *at(places)))
        spent = {"landmarks": (moved - began) / len(rows), "place": (perf_counter() - moved) / len(rows)}
        stages = {"features": features, **spent}
        return [
            Out(
                row.slot,
                row.generation,
                points=points.get(place),
                face=faces.get(place),
                mesh=meshes.get(place),
                roi=rois.get(place),
                stage_seconds=stages,
            )
            for place, row in enumerate(rows)
        ]

    def close(self) -> None:
        self._presenters.clear()


def open_presenters(
    packages: Sequence[Path],
    lookahead: int | None,
    new_painter: NewPainter | None = None,
    new_shelf: NewShelf = Shelf,
) -> list[Presenter]:
    """Read and check the packages; `lookahead` overrides what they say."""
    avatars = [read_avatar(package) for package in packages]
    names = [avatar.name for avatar in avatars]
    if len(set(names)) < len(names):
        raise PackageError(f"two packages have one name: {', '.join(sorted(names))}")
    presenters = []
    for avatar in avatars:
        avatar.verify()
        ahead = avatar.lookahead if lookahead is None else lookahead
        if not 0 <= ahead <= LOOKAHEAD_MOST:
            raise ValueError(f"{avatar.name}: the look-ahead is 0 to {LOOKAHEAD_MOST} frames, not {ahead}")
        presenters.append(Presenter(avatar, ahead, new_painter, new_shelf))
    return presenters


def warm(runtime: Plain) -> Plain:
    """Step every avatar once, so that the first guest finds everything in the caches; guests reset their slots."""
    everything = Wants.POINTS | Wants.FACE | Wants.PICTURE
    for name in runtime.cards:
        runtime.step([Row(0, 0, True, name, np.zeros(CHUNK, np.float32), 0, everything)])
    return runtime


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> Plain:  # noqa: A001 - the seam's name
    """Painted mouths, moved by rule: needs nothing but the packages."""
    return warm(Plain(open_presenters(packages, lookahead), ByRule(slots)))
