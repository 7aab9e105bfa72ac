"""The default renderer against a man's true pictures: trained on most clips of one recording, judged on the others.

    python -m tests.bench.renderers --steps 4000 --out out/renderers      # trains or goes on, then judges
    python -m tests.bench.renderers --weights renderer.safetensors --cost     # judges; with --cost, milliseconds too

A: the frame's own surroundings, its mouth hidden, its true landmarks. B: an idle loop of the clip's first eight frames
gives the surroundings, there and back, and the truth also differs by how the head moved. Regions are of the patch, in
the pose-normal space: `lips`, `inner` as in `models.metrics`; `mouth`, 72 by 78 of 128 pixels about the lips; `wider`,
a box that stands still and holds more cheek, which is as near to the first experiment's lips as its text tells. Every
figure has its baselines of the same run: the loop's own mouth unchanged, the mean patch, and a patch that was only
taken and laid back. Writes renderers.json, renderers.md and sheet.png. Needs the research speaker beside the
repository, which is never committed, nor weights that were trained on it.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console

from models import face, metrics
from models.rates import POINTS
from models.renderers.fit import Clip, Fitting, Footage, Picture, Progress, Settings, load, pose_normal, save, save_png
from models.renderers.patch import Patch
from models.renderers.placing import apply, towards, warped
from tests.bench import median_ms
from tests.bench.mel import calibration_ms

FILMS = Path(__file__).parents[3] / "shared" / "data" / "grid_s1"
HELD_OUT = slice(3, None, 6)
FIRST, EVERY, IDLE = 10, 5, 8
RETRACKED_CLIPS = 3
BARS = {
    "A": {"lips": 36.5, "mouth": 38.0, "mouth_ssim": 0.977, "inner": 32.5},
    "B": {"lips": 34.0, "mouth_ssim": 0.95},
}
SHARP = (0.9, 1.1)
MOST_RETRACKED = 0.4


def film(path: Path) -> Iterator[Picture]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def tracked(path: Path, cache: Path) -> np.ndarray:
    """[T, 478, 3] in pixels; not a number where the face was lost."""
    kept = cache / f"{path.stem}.npz"
    if not kept.exists():
        points = track(film(path), still=False)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, points=points)
    with np.load(kept) as file:
        return file["points"]


def track(pictures: Iterator[Picture] | list[Picture], still: bool) -> np.ndarray:
    import mediapipe

    found = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=still, refine_landmarks=True) as mesh:
        for picture in pictures:
            faces = mesh.process(picture).multi_face_landmarks
            high, wide = picture.shape[:2]
            size, corner = np.array([wide, high, wide]), np.array([0.5, 0.5, 0])
            points = [[p.x, p.y, p.z] for p in faces[0].landmark] if faces else np.full((478, 3), np.nan)
            found.append(np.array(points) * size - corner)
    return np.array(found, np.float32)


@dataclass
class Judged:
    """Errors of one way of painting, pooled over frames."""

    wrong: dict[str, float] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)
    likeness: list[float] = field(default_factory=list)
    crisp: list[float] = field(default_factory=list)

    def add(self, said: Picture, true: Picture, house: np.ndarray) -> None:
        size = said.shape[0]
        lips = metrics.lips_box(house, size, size)
        mouth = metrics.Box(*(size * side // 128 for side in (30, 26, 108, 98)))
        inner = metrics.inner_mask(house + 0.5, size, size)
        wider = metrics.Box(*(size * side // 128 for side in (32, 36, 96, 76)))
        boxes = {"lips": lips, "mouth": mouth, "wider": wider}
        regions = {name: (box.of(said), box.of(true)) for name, box in boxes.items()}
        regions["inner"] = said[inner], true[inner]
        for name, (ours, theirs) in regions.items():
            self.wrong[name] = self.wrong.get(name, 0) + float(np.square(ours.astype(float) - theirs).sum())
            self.pixels[name] = self.pixels.get(name, 0) + ours.size
        self.likeness.append(metrics.ssim(mouth.of(said), mouth.of(true)))
        self.crisp.append(metrics.sharpness(lips.of(said), lips.of(true)))

    def row(self) -> dict[str, float]:
        decibels = {
            name: 10 * math.log10(255**2 * self.pixels[name] / max(self.wrong[name], 1e-9)) for name in self.wrong
        }
        return {**decibels, "mouth_ssim": float(np.mean(self.likeness)), "sharpness": float(np.mean(self.crisp))}


def house_of(spoken: torch.Tensor) -> np.ndarray:
    points = np.zeros((POINTS, 3))
    points[face.HOUSE_SPOKEN, :2] = spoken.numpy()
    return points


def in_bytes(patch: torch.Tensor) -> Picture:
    """[3, S, S] in 0…1 → [S, S, 3]."""
    return (patch.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


Paint = Callable[[int, int], torch.Tensor]
"""(row, row of its surroundings) → a patch [3, S, S] that covers everything."""


@torch.no_grad()
def judge(renderer: Patch, footage: Footage, paint: Paint, idle: bool) -> tuple[dict[str, float], list[float]]:
    """The row of a table, and how much each frame differs from the one before, in the mouth, over the truth's."""
    judged = Judged()
    shaken, still = 0.0, 0.0
    for clip in np.unique(footage.clip):
        rows = np.flatnonzero(footage.clip == clip)
        before: tuple[torch.Tensor, torch.Tensor] | None = None
        for place in range(FIRST, len(rows)):
            if place % EVERY > 1:  # pairs of neighbours: one to judge, one for how they differ
                before = None
                continue
            row = int(rows[place])
            around = int(rows[there_and_back(place)]) if idle else row
            true = footage.patches[row].float() / 255
            under = footage.patches[around].float() / 255
            said = under + renderer.mask * (paint(row, around) - under)
            mouth = (..., slice(26, 98), slice(30, 108))
            if before is not None:
                shaken += float((said[mouth] - before[0][mouth]).abs().mean())
                still += float((true[mouth] - before[1][mouth]).abs().mean())
            if place % EVERY == 0:
                judged.add(in_bytes(said), footage.patches[row].permute(1, 2, 0).numpy(), house_of(footage.spoken[row]))
            before = said, true
    return judged.row() | {"change": shaken / still}, judged.crisp


def there_and_back(place: int) -> int:
    turn = place % (2 * IDLE - 2)
    return turn if turn < IDLE else 2 * IDLE - 2 - turn


def painter(renderer: Patch, footage: Footage, motion: float = 1.0) -> Paint:
    def paint(row: int, around: int) -> torch.Tensor:
        spoken = renderer.rest + motion * (footage.spoken[row] - renderer.rest)
        looked = renderer.look(footage.patches[around][None].float() / 255)
        return renderer.write(looked, renderer.sketched(spoken[None]))[0]

    return paint


@torch.no_grad()
def laid_back(renderer: Patch, pictures: list[Picture], points: np.ndarray) -> list[Picture]:
    """A clip's pictures with their mouths painted from their own landmarks."""
    there = towards(points, renderer.face.numpy())
    places = face.HOUSE[face.HOUSE_SPOKEN]
    shown = []
    for picture, similarity, mesh in zip(pictures, there, points, strict=True):
        patch = torch.from_numpy(warped(picture, similarity, renderer.size)).permute(2, 0, 1)[None].float() / 255
        spoken = apply(inverse_of(similarity), mesh[None, places, :2])
        said = renderer.write(renderer.look(patch), renderer.sketched(torch.from_numpy(spoken)))
        high, wide = picture.shape[:2]
        a, b, tx, ty = inverse_of(similarity)[0].tolist()
        y, x = torch.meshgrid(torch.arange(high).float(), torch.arange(wide).float(), indexing="ij")
        grid = torch.stack([a * x - b * y + tx, b * x + a * y + ty], -1)[None] * (2 / (renderer.size - 1)) - 1
        both = torch.cat([said, renderer.mask.expand(1, 1, -1, -1)], 1)
        moved = torch.nn.functional.grid_sample(both, grid, padding_mode="zeros", align_corners=True)[0]
        under = torch.from_numpy(picture).permute(2, 0, 1).float() / 255
        shown.append(in_bytes(under + moved[3] * (moved[:3] - under)))
    return shown


def inverse_of(similarity: np.ndarray) -> np.ndarray:
    from models.renderers.placing import inverse

    return inverse(similarity[None])


def retracked(renderer: Patch, names: list[Path], cache: Path) -> float:
    """Mean distance of lips found in painted frames from lips found in the true ones, in % of the eyes' distance."""
    errors = []
    for path in names[:RETRACKED_CLIPS]:
        pictures, points = list(film(path)), tracked(path, cache)
        chosen = list(range(FIRST, len(pictures), EVERY))
        painted = laid_back(renderer, [pictures[n] for n in range(len(points))], points)
        true = track([pictures[n] for n in chosen], still=True)
        said = track([painted[n] for n in chosen], still=True)
        eyes = np.linalg.norm(np.diff(true[:, face.EYE_CORNERS, :2], axis=1), axis=-1)
        distance = np.linalg.norm((said - true)[:, face.LIPS, :2], axis=-1).mean(1) / eyes[:, 0]
        errors.append(100 * distance)
    return float(np.nanmean(np.concatenate(errors)))


@torch.no_grad()
def sheet(renderer: Patch, footage: Footage, path: Path, columns: int = 8) -> None:
    """Truth, A, B, half as much motion again; from shut to open."""
    opening = (footage.spoken[:, 35] - footage.spoken[:, 25]).norm(dim=1)
    chosen = opening.argsort()[torch.linspace(0, len(opening) - 1, 2 * columns).long()].tolist()
    usual, more = painter(renderer, footage), painter(renderer, footage, 1.5)
    strips = []
    for first in (0, columns):
        rows: list[list[torch.Tensor]] = [[], [], [], []]
        for row in chosen[first : first + columns]:
            true = footage.patches[row].float() / 255
            idle = int(np.flatnonzero(footage.clip == footage.clip[row])[3])
            quiet = footage.patches[idle].float() / 255
            rows[0].append(true)
            rows[1].append(true + renderer.mask * (usual(row, row) - true))
            rows[2].append(quiet + renderer.mask * (usual(row, idle) - quiet))
            rows[3].append(quiet + renderer.mask * (more(row, idle) - quiet))
        strips += [torch.cat(row, 2) for row in rows]
    save_png(path, torch.cat(strips, 1))


def costs(renderer: Patch) -> dict[str, Any]:
    """Milliseconds on one core under OpenVINO, batch 1: the painter's whole graph, and what of it is place."""
    from models.runtime.compiled import Compiled, best_precision
    from models.runtime.graphs import export_named
    from models.runtime.packing import Painter, Painting
    from models.runtime.stages import PLANES

    renderer.requires_grad_(False)
    scale = 290 / renderer.size  # a mouth of a picture 720 high
    similarity = np.tile(np.array([scale, 0.02, 300, 200], np.float32), (2, 1))
    loop = np.random.default_rng(0).integers(16, 235, (2, 1080, 1280)).astype(np.uint8)
    whole = Painter(renderer, loop, similarity, renderer.mask.numpy())
    rows = whole.rows([0, 1])
    points = torch.zeros(2, POINTS, 3)
    points[:, face.HOUSE_SPOKEN, :2] = torch.from_numpy(apply(similarity, renderer.rest.expand(2, -1, -1).numpy()))
    looks = {name: row for name, row in rows.items() if name.startswith("look_")}

    class Decoder(torch.nn.Module):
        """What is learned, alone."""

        def forward(self, sketch: torch.Tensor, *looked: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return (renderer.write(dict(zip(looks, looked, strict=True)), sketch),)

    class Place(torch.nn.Module):
        def forward(self, patch: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
            from models.renderers.placing import place_rows

            return tuple(
                place_rows(dict(zip(under, given, strict=True)), patch, renderer.mask.expand(patch.shape[0], 1, -1, -1))
            )

    under = {name: row for name, row in rows.items() if not name.startswith("look_")}
    sketch = renderer.sketch(points, rows["similarity"])
    patch = renderer.write(rows, sketch)
    stages = {
        "decoder": (Decoder(), {"sketch": sketch, **looks}, ["patch"]),
        "place": (Place(), {"patch": patch, **under}, list(PLANES)),
        "paint": (Painting(renderer, tuple(rows)), {"points": points, **rows}, [*PLANES, "sketch"]),
    }
    table: dict[str, Any] = {
        "calibration_ms": calibration_ms(),
        "best": best_precision(),
        "rectangle": [whole.width, whole.height],
    }
    for name, (module, inputs, outputs) in stages.items():
        inputs = {f"frame_{key}": tensor for key, tensor in inputs.items()}  # or `luma` would come and go
        graph = export_named(module, inputs, outputs)
        one = {key: tensor[:1].detach().numpy() for key, tensor in inputs.items()}
        for precision in dict.fromkeys(("f32", best_precision())):
            compiled = Compiled(graph, [1], precision)
            table[f"{name}_{precision}_ms"] = median_ms(partial(compiled, one), rounds=7, steps=20)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge the default renderer.", epilog="see the top of the file")
    parser.add_argument("--out", type=Path, default=Path("out/renderers"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--weights", type=Path, help="of an earlier run: judge them, do not train")
    parser.add_argument("--tracks", type=Path, help="where tracks are kept (default: OUT/tracks)")
    parser.add_argument("--cost", action="store_true", help="milliseconds too; wants a quiet machine")
    parser.add_argument("--only-cost", action="store_true", help="nothing but milliseconds")
    arguments = parser.parse_args()
    console = Console()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if not FILMS.is_dir():
        raise SystemExit(f"{FILMS} is not there: this bench needs the research speaker's clips")
    cache = arguments.tracks or arguments.out / "tracks"
    paths = [path for path in sorted(FILMS.glob("*.mpg")) if np.isfinite(tracked(path, cache)).all()]
    held = paths[HELD_OUT]
    report: dict[str, Any] = {"clips": len(paths), "held_out": [path.stem for path in held], "bars": BARS}

    def clips(some: list[Path]) -> list[Clip]:
        return [Clip(film(path), tracked(path, cache)) for path in some]

    if arguments.weights:
        renderer = load(arguments.weights)
    else:
        run = Fitting(
            clips([path for path in paths if path not in held]),
            arguments.out,
            Settings(steps=arguments.steps),
            clips(held),
        )
        run.resume()
        began = os.times()

        def told(progress: Progress) -> None:
            console.print(
                f"{progress.step}/{progress.steps}  cost {progress.cost:.3f}  lips {progress.lips_psnr:.2f} dB"
            )

        for _ in run.run(told):
            pass
        spent = {"steps": run.at, "minutes": (os.times().user - began.user) / 60}
        (arguments.out / "run.json").write_text(json.dumps(spent))  # `tests.bench.painters` reads it
        report |= spent
        run.match_sharpness()
        renderer = run.averaged.eval()
        save(renderer, arguments.out / "renderer.safetensors")
    report["sharpen"] = float(renderer.sharpen)
    if arguments.cost or arguments.only_cost:
        report["cost"] = costs(renderer)
        console.print(report["cost"])
    if not arguments.only_cost:
        footage = pose_normal(clips(held), renderer.face.numpy(), renderer.size)
        mean = renderer.mean
        ways: dict[str, Paint] = {
            "patch": painter(renderer, footage),
            "mean patch": lambda row, around: mean,
        }
        first = {clip: int(np.flatnonzero(footage.clip == clip)[0]) for clip in np.unique(footage.clip)}

        def idle_mouth(row: int, around: int) -> torch.Tensor:
            start = first[footage.clip[row]]
            return footage.patches[start + there_and_back(row - start)].float() / 255

        for protocol in ("A", "B"):
            ways["loop unchanged"] = idle_mouth
            for way, paint in ways.items():
                report[f"{protocol} {way}"], _ = judge(renderer, footage, paint, protocol == "B")
        report["retracked_lips_percent"] = retracked(renderer, held, cache)
        sheet(renderer, footage, arguments.out / "bench_sheet.png")
    (arguments.out / "renderers.json").write_text(json.dumps(report, indent=2))
    lines = ["| | lips | wider | mouth | SSIM | inner | sharpness | change |", "| --- |" + 7 * " --- |"]
    for name, row in report.items():
        if name[:2] in ("A ", "B "):
            cells = [f"{row[key]:.2f}" for key in ("lips", "wider", "mouth")] + [f"{row['mouth_ssim']:.4f}"]
            cells += [f"{row[key]:.2f}" for key in ("inner", "sharpness", "change")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    text = (
        "\n".join(lines)
        + f"\n\nre-tracked lips: {report.get('retracked_lips_percent', math.nan):.3f} % of the eyes' distance\n"
    )
    (arguments.out / "renderers.md").write_text(text)
    console.print(text)


if __name__ == "__main__":
    main()
