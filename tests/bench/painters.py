"""The four renderers in one table, each through the seam it is served by: prepare, paint, place, and out of I420 again.

    python -m tests.bench.painters --patch p.safetensors --atlas a.safetensors --facemap f.safetensors \\
        --prior i.safetensors --out out/painters [--cost]
    python -m tests.bench.painters … --film mira.mp4     # a studio film with true labels: the sheet for docs/

Weights are `tests.bench.renderers`' and `tests.bench.published`'s; what is not given is left out. A: the frame's own
surroundings, its true landmarks. B: an idle loop of the clip's first eight frames, there and back, gives the
surroundings and the head; the landmarks of lips and jaw are the true ones. IP-LAP meets the person of the film by
frames that it may learn from. Regions and clips as in `tests.bench.renderers`, all in the default's patch; `flicker` is
of skin that hardly moves, `cpbd` of the face's box. Baselines of the same run: the loop's own mouth, the mean patch,
and true patches that were only taken and laid back, of either kind. Writes painters.json, painters.md, painters.png.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models import face, metrics
from models.renderers import Features, Loop, Renderer
from models.renderers.atlas import Atlas
from models.renderers.faces import lower_face, whole_face
from models.renderers.fit import load as load_patch
from models.renderers.fit import save_png
from models.renderers.placing import Floats, apply, canon, inverse, place_rows, rectangles, taken, towards
from models.renderers.prior import Prior
from models.renderers.published import Rows
from models.renderers.unrolled import Unrolled, Unroller
from models.streaming import State, leaves, rebuild
from tests.bench import median_ms
from tests.bench.mel import calibration_ms
from tests.bench.published import Source, introduce, load, speaker, studio, unrolled
from tests.bench.renderers import EVERY, FIRST, Judged, in_bytes, there_and_back

SIZE: Final = 128
"""Of the patch that is judged."""
MASKED: Final = 0.5
PUBLISHED: Final = {
    "LipSync3D, as published (GRID, ten speakers, from sound)": {"ssim": 0.94, "lmd": 0.80, "cpbd": 0.25},
    "IP-LAP, as published (LRS2, from sound)": {"psnr": 32.91, "ssim": 0.940, "lip_lmd": 0.0129},
}
NAMES: Final = {"patch": "default", "atlas": "LipSync3D", "facemap": "Zheng et al.", "prior": "IP-LAP"}


class Laid(Renderer):
    """Paints what it is given: baselines."""

    def __init__(self, size: int, mean: Floats, mask: Tensor) -> None:
        super().__init__(size)
        self.face, self.mask = torch.from_numpy(mean), mask

    def look(self, patches: Tensor) -> dict[str, Tensor]:
        return {"patch": patches}

    def draw(self, rows: Features, points: Tensor, code: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        return rows["patch"], self.mask.expand(len(points), 1, -1, -1), ()


@dataclass(frozen=True, eq=False)
class Filmed:
    """The clips that are judged: as many frames of each, one after another."""

    luma: Tensor  # uint8 [N, H, W]
    u: Tensor
    v: Tensor
    points: Floats  # [N, 478, 3]
    codes: Tensor  # [N, C]
    clip: Rows  # [N]
    sources: Sequence[Source]
    frames: int

    def planes(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        return self.luma[rows].float(), self.u[rows].float(), self.v[rows].float()

    def towards(self, mean: Floats) -> Floats:
        return np.concatenate([towards(self.points[self.clip == n], mean) for n in range(len(self.sources))])

    def patches(self, rows: Rows, similarity: Floats, size: int) -> Tensor:
        return taken(*self.planes(rows), torch.from_numpy(similarity[rows]), size)


def filmed(sources: Sequence[Source]) -> Filmed:
    frames = min(len(one.points) for one in sources)
    planes = [plane for one in sources for plane in itertools.islice(one.frames("yuv420p"), frames)]
    whole = torch.from_numpy(np.stack(planes))
    count, high, wide = whole.shape[0], whole.shape[1] * 2 // 3, whole.shape[2]
    halves = whole[:, high:].reshape(count, 2, high // 2, wide // 2)
    return Filmed(
        whole[:, :high],
        halves[:, 0],
        halves[:, 1],
        np.concatenate([one.points[:frames] for one in sources]),
        torch.cat([one.heard()[:frames] for one in sources]),
        np.repeat(np.arange(len(sources)), frames),
        sources,
        frames,
    )


@dataclass
class Row:
    """Errors of one way of painting."""

    judged: Judged = field(default_factory=Judged)
    lips_ssim: list[float] = field(default_factory=list)
    cpbd: list[float] = field(default_factory=list)
    shaken: list[float] = field(default_factory=list)
    still: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        more = {"lips_ssim": float(np.mean(self.lips_ssim)), "cpbd": float(np.mean(self.cpbd))}
        return {
            **self.judged.row(),
            **more,
            "flicker": float(np.mean(self.shaken)) / max(float(np.mean(self.still)), 1e-9),
        }


def buffer(renderer: Renderer, name: str) -> Tensor:
    tensor = getattr(renderer, name)
    assert isinstance(tensor, Tensor)
    return tensor


class Stage:
    """A renderer before these clips."""

    def __init__(self, renderer: Renderer, film: Filmed, near: Floats) -> None:
        """`near` [478, 2]: the face in the patch that is judged."""
        self.renderer, self.film = renderer, film
        mean = buffer(renderer, "face").numpy()
        self.similarity = film.towards(mean)
        self.judged = film.towards(near)
        self.normal = apply(inverse(self.judged), film.points[:, face.HOUSE])
        mask = buffer(renderer, "mask") if hasattr(renderer, "mask") else torch.ones(renderer.size, renderer.size)
        high, wide = film.luma.shape[1:]
        self.high, self.wide, self.corner = rectangles(mask.numpy(), self.similarity, wide, high)
        self.dress: Unrolled | None = None
        if isinstance(renderer, Atlas):
            texture = (renderer.texture.reference.permute(1, 2, 0) * 255).round().byte().numpy()
            unroller = Unroller(renderer.vertices.numpy(), texture, lights=renderer.lights)
            self.dress = unrolled(unroller, film.sources, mean)

    def prepared(self, rows: Rows) -> Features:
        """What a package holds of these frames."""
        film, renderer = self.film, self.renderer
        whole = film.planes(rows)
        cut = []
        for plane, step in zip(whole, (1, 2, 2), strict=True):
            corners = self.corner[rows] // step
            cut.append(
                torch.stack(
                    [
                        p[y : y + self.high // step, x : x + self.wide // step]
                        for p, (x, y) in zip(plane, corners.tolist(), strict=True)
                    ]
                )
            )
        similarity = torch.from_numpy(self.similarity[rows])
        patches = taken(*whole, similarity, renderer.size)
        loop = Loop(patches, similarity, torch.from_numpy(self.corner[rows]).float(), *cut)
        if isinstance(renderer, Atlas) and self.dress is not None:
            house = apply(inverse(self.similarity[rows]), film.points[rows][:, face.HOUSE, :2])
            dress = self.dress
            return renderer.dress(loop, dress.maps[rows], dress.gain[rows], dress.colour[rows], torch.from_numpy(house))
        return renderer.prepare(loop)

    def spoken(self, rows: Rows, around: Rows) -> Tensor:
        """[B, 131, 3] in the pixels of `around`: lips and jaw of `rows`, in its head."""
        points = self.film.points[around][:, face.HOUSE].copy()
        points[:, face.HOUSE_SPOKEN] = apply(self.judged[around], self.normal[rows][:, face.HOUSE_SPOKEN])
        return torch.from_numpy(points)

    @torch.no_grad()
    def shown(self, idle: bool) -> Iterator[tuple[Rows, Rows, Tensor, tuple[Tensor, Tensor, Tensor]]]:
        """(rows, their surroundings, judged patches [B, 3, S, S], whole planes), one frame of every clip at a time."""
        film, renderer = self.film, self.renderer
        starts = np.arange(len(film.sources)) * film.frames
        state = renderer.silence(len(starts))
        for step in range(film.frames + renderer.lookahead):
            place = max(0, step - renderer.lookahead)
            heard = min(step, film.frames - 1)
            around = starts + (there_and_back(place) if idle else place)
            head = starts + (there_and_back(heard) if idle else heard)
            features, index = self.prepared(around), torch.arange(len(starts))
            said = renderer.paint(features, index, self.spoken(starts + heard, head), film.codes[starts + heard], state)
            state = said[2]
            if step < renderer.lookahead:
                continue
            placed = renderer.place(features, index, *said[:2])
            planes = film.planes(around)
            for plane, roi, by in zip(planes, placed, (1, 2, 2), strict=True):
                for one, new, (x, y) in zip(plane, roi, (self.corner[around] // by).tolist(), strict=True):
                    one[y : y + new.shape[0], x : x + new.shape[1]] = new.round().clamp(0, 255)
            yield starts + place, around, taken(*planes, torch.from_numpy(self.judged[around]), SIZE), planes


def judge(stage: Stage, mask: Tensor, idle: bool) -> dict[str, float]:
    film, row = stage.film, Row()
    static = quiet(film, stage.judged, stage.normal, mask)
    past: list[tuple[Tensor, Tensor]] = []
    for rows, around, said, planes in stage.shown(idle):
        place = int(rows[0])
        true = film.patches(rows, stage.judged, SIZE)
        past = [*past[-2:], (said, true)]
        if place >= FIRST and len(past) == 3:
            for number, still in enumerate(static):
                pair = [(past[0][n][number] - 2 * past[1][n][number] + past[2][n][number]).abs() for n in (0, 1)]
                row.shaken.append(float(pair[0][:, still].mean()))
                row.still.append(float(pair[1][:, still].mean()))
        if place < FIRST or place % EVERY:
            continue
        for number in range(len(rows)):
            ours, theirs, house = in_bytes(said[number]), in_bytes(true[number]), stage.normal[rows[number]]
            row.judged.add(ours, theirs, house)
            lips = metrics.lips_box(house, SIZE, SIZE)
            if min(lips.of(ours).shape[:2]) >= 11:
                row.lips_ssim.append(metrics.ssim(lips.of(ours), lips.of(theirs)))
        luma = planes[0][0].byte().numpy()
        box = metrics.face_box(film.points[around[0]], luma.shape[1], luma.shape[0])
        row.cpbd.append(metrics.cpbd(box.of(luma)))
    return row.row()


def quiet(film: Filmed, judged: Floats, normal: Floats, mask: Tensor) -> list[npt.NDArray[np.bool_]]:
    """Of each clip, [S, S]: what is painted, is no lips, and of that the half that changes least in truth."""
    found = []
    for number in range(len(film.sources)):
        rows = np.flatnonzero(film.clip == number)[FIRST::EVERY]
        spread = film.patches(rows, judged, SIZE).std(0).mean(0).numpy()
        painted = mask.numpy() > MASKED
        for row in rows:
            lips = metrics.lips_box(normal[row], SIZE, SIZE)
            painted[lips.top : lips.bottom, lips.left : lips.right] = False
        found.append(painted & (spread <= np.median(spread[painted])))
    return found


class Unchanged(Stage):
    """The mouth of the idle loop, or the mean mouth, whatever is said."""

    def __init__(self, renderer: Laid, film: Filmed, near: Floats, mean: Tensor | None) -> None:
        super().__init__(renderer, film, near)
        self.mean = mean

    def prepared(self, rows: Rows) -> Features:
        features = dict(super().prepared(rows))
        if self.mean is not None:
            return {**features, "patch": self.mean.expand_as(features["patch"])}
        starts = self.film.clip[rows] * self.film.frames
        idle = starts + np.array([there_and_back(int(row - start)) for row, start in zip(rows, starts, strict=True)])
        return {**features, "patch": self.film.patches(idle, self.similarity, self.renderer.size)}


# --- What they cost --------------------------------------------------------------------------------------------------


class Served(nn.Module):
    """Paint and place, as a graph."""

    def __init__(self, renderer: Renderer, names: Sequence[str]) -> None:
        super().__init__()
        self.renderer, self.names = renderer, list(names)

    def forward(self, points: Tensor, code: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
        rows = dict(zip(self.names, given, strict=False))
        state = rebuild(self.renderer.silence(1), given[len(self.names) :])
        precise = self.renderer.precisely(rows, points)
        patch, mask, after = self.renderer.draw({**rows, **precise}, points, code, state)
        return (*place_rows(rows, patch, mask), *leaves(after))


def costs(stage: Stage, milliseconds: bool) -> dict[str, Any]:
    """Of one frame: MACs of what is learned and drawn, parameters, milliseconds on one core under OpenVINO."""
    rows = np.array([0, 1])
    features = dict(stage.prepared(rows))
    points, code = stage.spoken(rows, rows), stage.film.codes[rows]
    one = {name: row[:1] for name, row in features.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        precise = stage.renderer.precisely(one, points[:1])
        stage.renderer.draw({**one, **precise}, points[:1], code[:1], stage.renderer.silence(1))
    told: dict[str, Any] = {
        "mmacs": counter.get_total_flops() / 2e6,
        "parameters": sum(p.numel() for p in stage.renderer.parameters()),
    }
    if milliseconds:
        from models.runtime.compiled import Compiled, best_precision
        from models.runtime.graphs import export_named

        state = leaves(stage.renderer.silence(2))
        inputs = {"points": points, "code": code, **{f"frame_{n}": row for n, row in features.items()}}
        inputs |= {f"state_{n}": leaf for n, leaf in enumerate(state)}
        outputs = ["luma", "u", "v", *(f"after_{n}" for n in range(len(state)))]
        stage.renderer.requires_grad_(False)
        graph = export_named(Served(stage.renderer, tuple(features)), inputs, outputs, halve_weights=False)
        for precision in dict.fromkeys(("f32", best_precision())):
            compiled = Compiled(graph, [1], precision)
            first = {name: tensor[:1].numpy() for name, tensor in inputs.items() if name in compiled.asks}
            told[f"{precision}_ms"] = median_ms(partial(compiled, first), rounds=5, steps=10)
    return told


# --- The table -------------------------------------------------------------------------------------------------------

COLUMNS: Final = ("lips", "lips_ssim", "mouth", "mouth_ssim", "inner", "sharpness", "cpbd", "flicker")


def table(report: Mapping[str, Any]) -> str:
    lines = [f"| | {' | '.join(COLUMNS)} |", "| --- |" + " --- |" * len(COLUMNS)]
    for name, row in report["judged"].items():
        lines.append(
            f"| {name} | {' | '.join(f'{row[key]:.3f}' if key in SMALL else f'{row[key]:.2f}' for key in COLUMNS)} |"
        )
    for name, row in PUBLISHED.items():
        lines.append(f"| {name} | " + ", ".join(f"{key} {value}" for key, value in row.items()) + " |" * len(COLUMNS))
    keys = sorted({key for row in report["cost"].values() for key in row})
    lines += ["", f"| | {' | '.join(keys)} |", "| --- |" + " --- |" * len(keys)]
    for name, row in report["cost"].items():
        lines.append(f"| {name} | {' | '.join(f'{row[key]:.4g}' if key in row else '' for key in keys)} |")
    return "\n".join(lines) + "\n"


SMALL: Final = ("lips_ssim", "mouth_ssim", "cpbd")


def sheet(stages: Mapping[str, Stage], path: Path, columns: int = 8) -> None:
    """Truth, then each renderer over the idle loop; one clip, from shut to open."""
    first = next(iter(stages.values()))
    film = first.film
    opening = np.linalg.norm(
        first.normal[:, face.LIPS_IN_HOUSE[35]] - first.normal[:, face.LIPS_IN_HOUSE[25]], axis=-1
    )[:, None]
    rows = [n for n in np.argsort(opening[:, 0]) if n % film.frames >= FIRST]
    chosen = [rows[n] for n in np.linspace(0, len(rows) - 1, columns).astype(int)]
    strips = [torch.cat(list(film.patches(np.array(chosen), first.judged, SIZE)), 2)]
    for stage in stages.values():
        seen: dict[int, Tensor] = {}
        for shown, _, said, _ in stage.shown(True):
            seen |= {int(row): patch for row, patch in zip(shown, said, strict=True) if row in chosen}
        strips.append(torch.cat([seen[int(row)] for row in chosen], 2))
    save_png(path, torch.cat(strips, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge all four renderers.", epilog="see the top of the file")
    for name in NAMES:
        parser.add_argument(f"--{name}", type=Path, help=f"weights of {NAMES[name]}")
    parser.add_argument("--out", type=Path, default=Path("out/painters"))
    parser.add_argument("--film", type=Path, help="a studio film; its labels lie beside it (default: the speaker)")
    parser.add_argument("--tracks", type=Path, help="where the speaker's tracks are kept (default: OUT/tracks)")
    parser.add_argument("--clips", type=int, help="so many held-out clips only")
    parser.add_argument("--cost", action="store_true", help="milliseconds too; wants a quiet machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    taught, held = studio(arguments.film) if arguments.film else speaker(arguments.tracks or arguments.out / "tracks")
    film = filmed(held[: arguments.clips])
    points = [one.points for one in taught]
    near, whole = canon(points, SIZE), whole_face(points, SIZE)
    mask = lower_face(points, near, SIZE)[1]
    stages: dict[str, Stage] = {}
    for name, shown in NAMES.items():
        weights: Path | None = getattr(arguments, name)
        if weights is None:
            continue
        renderer: Renderer = load_patch(weights) if name == "patch" else load(weights)
        if isinstance(renderer, Prior) and arguments.film:
            introduce(renderer, taught)
        stages[shown] = Stage(renderer, film, near)
    laid = Laid(SIZE, near, mask)
    some = film.patches(np.arange(0, len(film.clip), 7), film.towards(near), SIZE).mean(0)
    others = {
        "loop unchanged": Unchanged(laid, film, near, None),
        "mean patch": Unchanged(laid, film, near, some),
        "taken and laid back": Stage(laid, film, near),
        "the same, whole faces": Stage(Laid(SIZE, whole, lower_face(points, whole, SIZE)[1]), film, near),
    }
    report: dict[str, Any] = {"held_out": len(film.sources), "frames": film.frames, "judged": {}, "cost": {}}
    for name, stage in {**stages, **others}.items():
        for protocol in ("A", "B"):
            if protocol == "B" and type(stage) is Stage and isinstance(stage.renderer, Laid):
                continue  # nothing is painted: the unchanged loop again
            began = time.process_time()
            row = report["judged"][f"{protocol} {name}"] = judge(stage, mask, protocol == "B")
            figures = ", ".join(f"{key} {row[key]:.3f}" for key in COLUMNS)
            console.print(f"{protocol} {name}: {figures} ({time.process_time() - began:.0f} s)")
    for name, stage in stages.items():
        report["cost"][name] = costs(stage, arguments.cost)
        run = getattr(arguments, next(key for key in NAMES if NAMES[key] == name)).with_name("run.json")
        if run.exists():
            report["cost"][name]["minutes"] = json.loads(run.read_text())["minutes"]
    if arguments.cost:
        report["calibration_ms"] = calibration_ms()
    (arguments.out / "painters.json").write_text(json.dumps(report, indent=2))
    (arguments.out / "painters.md").write_text(table(report))
    if stages:
        sheet(stages, arguments.out / "painters.png")
    console.print(table(report))


if __name__ == "__main__":
    main()
