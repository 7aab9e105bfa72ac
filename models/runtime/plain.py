"""The plain runtime: no network, no torch. A package's painted mouths, chosen by rule from what is heard.

For packages of kind "plain", and the frame of every runtime that paints so, however it hears. `Out.mesh` is there for
avatars that bring a mesh.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol

import numpy as np

from models import face
from models.avatar import LOOP, MESH, MOUTHS, Avatar, PackageError, read_avatar
from models.rates import BLENDSHAPES, CHUNK, LOOKAHEAD_MOST
from models.runtime import AvatarCard, Floats, Out, Pictures, Roi, Row, Wants, loops
from models.runtime.hearing import ByRule, Hearing
from models.runtime.mouths import Choice, Mix, Painter

GAZE_DEGREES: Final = 30.0
"""How far an eye has turned when a look weight is 1."""

UNPAINTED: Final = np.empty(0, np.float32)
"""The weights of mouths that nobody sees."""

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


class PaintsPoints(Protocol):
    """A painter that needs no shelf of mouths: it paints lips and jaw where they are."""

    def paint(self, points: Floats, index: int) -> Roi:
        """`points` [131, 3] in pixels of the loop frame `index`."""
        ...


NewPainter = Callable[[Avatar, Pictures], PaintsPoints | None]
"""(avatar, its loop) → the avatar's learned painter; None when it has none, or none that can be trusted here."""


class Presenter:
    """An open avatar: its card, its mouths, its loop's motion."""

    def __init__(
        self, avatar: Avatar, lookahead: int, new_painter: NewPainter | None = None, mix: Mix | None = None
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
        self.painter = Painter(mouths, motion["mouth_similarity"], loop, mix)
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

    def face(self, mouths: Floats, index: int, expression: Floats | None) -> Floats:
        """[61]: the mouth as it was heard, or else as it is painted; everything else as the loop has it."""
        values = np.array(self._loop_faces[index])
        if expression is None:
            expression = (mouths[:, None] * self._mouth_weights).sum(0)
        values[:BLENDSHAPES][_SPOKEN] = expression[_SPOKEN]
        return values

    def picture(self, mouths: Floats, index: int) -> Roi:
        """Painted where the mouths have their lips and jaw, or else mixed of the mouths themselves."""
        if self.learned is not None:
            return self.learned.paint(self.points(mouths, index), index)
        return self.painter.paint(mouths, index)

    def points(self, mouths: Floats, index: int) -> Floats:
        """[131, 3]: lips and jaw as painted, everything else as the loop has it."""
        values = np.array(self._loop_points[index])
        spoken = (mouths[:, None, None] * self._mouth_points[:, face.HOUSE_SPOKEN]).sum(0)
        a, b, tx, ty = self._similarity[index]
        values[face.HOUSE_SPOKEN, 0] = a * spoken[:, 0] - b * spoken[:, 1] + tx
        values[face.HOUSE_SPOKEN, 1] = b * spoken[:, 0] + a * spoken[:, 1] + ty
        values[face.HOUSE_SPOKEN, 2] = np.hypot(a, b) * spoken[:, 2]
        return values

    def mesh(self, mouths: Floats, index: int) -> Floats | None:
        """[468, 3]: the loop's, whose mouth is at rest, bent as the painted mouth is."""
        if self._loop_mesh is None:
            return None
        bend = np.tensordot(mouths, self._mouth_bends, 1)
        a, b = self._similarity[index, :2]
        x, y = a * bend[:, 0] - b * bend[:, 1], b * bend[:, 0] + a * bend[:, 1]
        return np.asarray(self._loop_mesh[index] + np.stack([x, y, np.hypot(a, b) * bend[:, 2]], 1), np.float32)


def gaze(weights: Floats) -> Floats:
    """[N, 52] → [N, 2]: yaw to the person's left and pitch up, in degrees."""
    left, right, up, down = (weights[:, _LOOK[way]].mean(1) for way in ("left", "right", "up", "down"))
    return np.asarray(GAZE_DEGREES * np.stack([left - right, up - down], 1), np.float32)


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
        return [self._answer(row, one, features) for row, one in zip(rows, heard, strict=True)]

    def _answer(self, row: Row, heard: Floats, features: float) -> Out:
        presenter = self._presenters[row.avatar]
        began = perf_counter()
        index = row.loop_index % presenter.card.frames
        expression = self._hearing.expression(heard)
        by_mouths = Wants.POINTS | Wants.MESH | Wants.PICTURE | (Wants.FACE if expression is None else Wants.NOTHING)
        mouths = self._hearing.weigh(presenter.choice, heard) if by_mouths & row.wants else UNPAINTED
        points = presenter.points(mouths, index) if Wants.POINTS in row.wants else None
        values = presenter.face(mouths, index, expression) if Wants.FACE in row.wants else None
        mesh = presenter.mesh(mouths, index) if Wants.MESH in row.wants else None
        moved = perf_counter()
        roi = presenter.picture(mouths, index) if Wants.PICTURE in row.wants else None
        return Out(
            row.slot,
            row.generation,
            points=points,
            face=values,
            mesh=mesh,
            roi=roi,
            stage_seconds={"features": features, "landmarks": moved - began, "place": perf_counter() - moved},
        )

    def close(self) -> None:
        self._presenters.clear()


def open_presenters(
    packages: Sequence[Path],
    lookahead: int | None,
    new_painter: NewPainter | None = None,
    new_mix: Callable[[], Mix] | None = None,
) -> list[Presenter]:
    """Read and check the packages; `lookahead` overrides what they say. `new_mix` makes what mixes one's mouths."""
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
        presenters.append(Presenter(avatar, ahead, new_painter, new_mix() if new_mix else None))
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
