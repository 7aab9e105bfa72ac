"""Avatars of kind "learned": their own networks as graphs, computed by whoever compiles them. No torch.

A package's `graphs/` holds

    step.onnx              hears: x [B, 640] → points [B, 131, 3], face [B, 61]; more outputs go to the painter by name
    paint.onnx             paints: luma [B, h, w], u and v [B, h / 2, w / 2], in 0…255, already blended with the loop
    frames.safetensors     per frame of the loop: corner [N, 2] of the painted rectangle (x, y; even), and anything else
                           (`painting` tells what need not be stored, as the loop has it)
    silence.safetensors    the states [1, …] of a session that has heard nothing

A graph gets what it asks for by name: `x`; `frame_NAME`, the array NAME of `frames` at the frame that is answered for;
`state_N`, what it gave as `after_N` in the step before; anything else as another graph gave it. States are told apart
by graph: `step.state_0`, `paint.state_0` in `silence`. The networks hold the look-ahead that the card states.

`golden.safetensors` holds fifty streamed steps and what the reference answered, for any backend to prove itself with.
"""

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Final

import numpy as np

from models.avatar import FOLLOWING, LOOP, Avatar, PackageError
from models.rates import CHUNK, FACE, POINTS
from models.runtime import AvatarCard, Floats, Out, Roi, Row, Wants, loops
from models.runtime.painting import frames_of
from models.runtime.slots import batches
from models.runtime.stages import PLANES, TOLERANCE, MakeStage, Part, Stage, arrays, in_bytes

KIND: Final = "learned"


class Learned:
    """One avatar's networks, loaded and compiled."""

    def __init__(
        self, avatar: Avatar, slots: int, make: MakeStage, precision: str = "f32", lookahead: int | None = None
    ) -> None:
        if lookahead not in (None, avatar.lookahead):
            raise ValueError(
                f"{avatar.name} was taught with a look-ahead of {avatar.lookahead} frames, not {lookahead}"
            )
        loop = loops.keep(avatar)
        self.card = AvatarCard(
            name=avatar.name,
            revision=avatar.revision,
            width=loop.shape[2],
            height=loop.shape[1] * 2 // 3,
            lookahead=avatar.lookahead,
            loop=loop,
            synthetic=avatar.synthetic,
            label=avatar.label,
        )
        self._avatar = avatar
        self._mesh = _Mesh(avatar, len(loop)) if "mesh.safetensors" in avatar.files else None
        self._frames = frames_of(avatar, loop, make)
        self._corners = self._frames.get("corner", np.zeros((0, 2), np.float32)).astype(int)
        if len(self._corners) != len(loop):
            raise PackageError(f"{avatar.name}: graphs/frames.safetensors has not a corner for each of its frames")
        if (self._corners % 2).any() or (self._corners < 0).any():
            raise PackageError(f"{avatar.name}: graphs/frames.safetensors: a corner is odd or outside of the frame")
        silence = arrays(avatar, "graphs/silence.safetensors")
        step, paint = avatar.read("graphs/step.onnx"), avatar.read("graphs/paint.onnx")
        self.precision = precision
        parts = [
            Part(
                name,
                graph,
                how,
                {key[len(name) + 1 :]: row for key, row in silence.items() if key.startswith(f"{name}.")},
                self._frames,
                shown,
                large=name == "paint",
            )
            for name, graph, how, shown in (
                ("step", step, "f32", ("points", "face")),
                ("paint", paint, precision, PLANES),
            )
        ]
        self._make: Callable[[int], list[Stage]] = lambda count: [make(part, count) for part in parts]
        self._unpainted: set[int] = set()  # slots that began anew since they were painted
        self._prove()
        self._step, self._paint = self._make(slots)

    def answer(self, rows: Sequence[Row]) -> list[Out]:
        return [out for part in batches(len(rows)) for out in self._answer(rows[part], self._step, self._paint)]

    def _answer(self, rows: Sequence[Row], step: Stage, paint: Stage) -> list[Out]:
        began = perf_counter()
        index = [row.loop_index % self.card.frames for row in rows]
        pcm = np.clip(np.nan_to_num(np.stack([row.pcm for row in rows])), -1, 1)
        reset = [row.reset for row in rows]
        given = step.run([row.slot for row in rows], reset, index, {"x": pcm})
        said = step.fetch({name: given[name] for name in ("points", "face")})
        moved = perf_counter()
        # What nobody wants to see is not painted: the state of a painter that has one stands still meanwhile. But a
        # session that is seen late must not find what the one before it has left there.
        self._unpainted.update(row.slot for row in rows if row.reset)
        seen = [place for place, row in enumerate(rows) if Wants.PICTURE in row.wants]
        rois: dict[int, Roi] = {}
        if seen:
            chosen = given if len(seen) == len(rows) else {name: array[seen] for name, array in given.items()}
            at_frames = [index[place] for place in seen]
            places = [rows[place].slot for place in seen]
            painted = paint.run(places, [slot in self._unpainted for slot in places], at_frames, chosen)
            self._unpainted.difference_update(places)
            fetched = paint.fetch({name: painted[name] for name in PLANES})
            planes = [in_bytes(fetched[name]) for name in PLANES]
            for at, place in enumerate(seen):
                x, y = self._corners[index[place]].tolist()
                rois[place] = Roi(x, y, *(plane[at] for plane in planes))
        meshes: dict[int, Floats] = {}
        if self._mesh is not None:
            asked = [place for place, row in enumerate(rows) if Wants.MESH in row.wants]
            meshes = {place: self._mesh.bent(said["points"][place], index[place]) for place in asked}
        ended = perf_counter()
        stages = {"landmarks": (moved - began) / len(rows), "render": (ended - moved) / len(rows)}
        return [
            Out(
                row.slot,
                row.generation,
                points=said["points"][place] if Wants.POINTS in row.wants else None,
                face=said["face"][place] if Wants.FACE in row.wants else None,
                mesh=meshes.get(place),
                roi=rois.get(place),
                stage_seconds=stages,
            )
            for place, row in enumerate(rows)
        ]

    def _prove(self) -> None:
        """Raises `PackageError` when the golden steps come out otherwise than the reference's."""
        golden = arrays(self._avatar, "golden.safetensors")
        step, paint = self._make(2)
        worst = {"points": 0.0, "face": 0.0, "luma": 0.0}
        wants = Wants.POINTS | Wants.FACE | Wants.PICTURE
        for n, pcm in enumerate(golden["x"]):
            rows = [Row(slot, 0, n == 0, self.card.name, pcm, n, wants) for slot in (1, 0)]
            try:
                out = self._answer(rows, step, paint)[0]
            except KeyError as missing:
                raise PackageError(f"{self.card.name}: its graphs do not answer with {missing}") from missing
            if out.points is None or out.face is None or out.roi is None:
                raise PackageError(f"{self.card.name}: its graphs do not answer with points, face and picture")
            self._check_shapes(out)
            for name, ours in (("points", out.points), ("face", out.face), ("luma", out.roi.luma)):
                difference = float(np.abs(ours - golden[name][n]).max())
                worst[name] = max(worst[name], difference if np.isfinite(difference) else float("inf"))
        for name, allowed in TOLERANCE[self.precision].items():
            if worst[name] > allowed:
                raise PackageError(
                    f"{self.card.name}: in {self.precision} its {name} differ from the reference by {worst[name]:.3g}, "
                    f"where {allowed:g} is allowed"
                )

    def _check_shapes(self, out: Out) -> None:
        if out.points is None or out.face is None or out.roi is None:
            return
        height, width = out.roi.luma.shape
        fits = out.roi.x + width <= self.card.width and out.roi.y + height <= self.card.height
        halves = out.roi.u.shape == out.roi.v.shape == (height // 2, width // 2)
        if out.points.shape != (POINTS, 3) or out.face.shape != (FACE,) or not fits or not halves:
            raise PackageError(f"{self.card.name}: its graphs answer in shapes that no picture has")


class _Mesh:
    """The whole face, which follows the points that speech moves. Shares, not directions: the head may turn."""

    def __init__(self, avatar: Avatar, frames: int) -> None:
        arrays = avatar.tensors("mesh.safetensors", FOLLOWING)
        points = avatar.tensors("loop.safetensors", LOOP)["points"]
        if not len(arrays["loop"]) == len(points) == frames:
            raise PackageError(f"{avatar.name}: mesh.safetensors is of another loop")
        self._loop, self._points, self._follows = arrays["loop"], points, arrays["follows"]

    def bent(self, points: Floats, index: int) -> Floats:
        """[468, 3] in frame pixels, for points [131, 3] in the loop frame `index`."""
        return np.asarray(self._loop[index] + self._follows @ (points - self._points[index]), np.float32)


class Networks:
    """Implements `models.runtime.Runtime` for learned avatars: each one's rows are a batch of their own."""

    def __init__(self, avatars: Sequence[Learned]) -> None:
        self._avatars = {avatar.card.name: avatar for avatar in avatars}
        self._cards = {name: avatar.card for name, avatar in self._avatars.items()}

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self._cards

    def step(self, rows: Sequence[Row]) -> list[Out]:
        outs: dict[int, Out] = {}
        for name, avatar in self._avatars.items():
            places = [place for place, row in enumerate(rows) if row.avatar == name]
            if places:
                outs |= zip(places, avatar.answer([rows[place] for place in places]), strict=True)
        return [outs[place] for place in range(len(rows))]

    def close(self) -> None:
        self._avatars.clear()


def warm(networks: Networks) -> Networks:
    """Step every avatar once; guests reset their slots."""
    everything = Wants.POINTS | Wants.FACE | Wants.PICTURE
    for name in networks.cards:
        networks.step([Row(0, 0, True, name, np.zeros(CHUNK, np.float32), 0, everything)])
    return networks
