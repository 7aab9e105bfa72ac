"""From few points to many, and to expressions: `python -m tests.bench.dense CLIPS [--film LABELS [--seen TRACK]]`

CLIPS are `.npz` of `liveface track`: S2D learns on all but twenty of them what the 68 say of the 468, and is measured
on those, beside vertices that move as their nearest landmark does, a linear rule, and a face at rest. LABELS are what
`liveface studio record` writes beside its film: what each ARKit weight moves is learned on the first two thirds, the
weights of the last third are found again from its points; with TRACK, from what the tracker saw of the film.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from models import face, losses, mesh, metrics, train
from models.rates import DENSE_POINTS
from tests.bench.film import split

Array = npt.NDArray[np.float64]
FOUND: Final = {
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "pucker": ("mouthPucker",),
    "closure": ("mouthClose",),
    "press": ("mouthPressLeft", "mouthPressRight"),
    "jaw": ("jawOpen",),
}


def displacements(clips: Sequence[train.Clip], rest: Array) -> Array:
    """[N, 468, 3] from rest, pose-normal, in percent of the eye corners' distance."""
    seen = np.concatenate([metrics.pose_normal(clip.points, rest)(clip.points) for clip in clips])
    moved: Array = seen[:, :DENSE_POINTS] - rest[:DENSE_POINTS]
    return moved


def linear(sparse: Array, dense: Array, ridge: float = 1e-2) -> Array:
    """[204, 1404]: the least squares that S2D must beat."""
    x, y = sparse.reshape(len(sparse), -1), dense.reshape(len(dense), -1)
    found: Array = np.linalg.solve(x.T @ x / len(x) + ridge * np.eye(x.shape[1]), x.T @ y / len(x))
    return found


def learned(rest: Array, dense: Array, steps: int, batch: int = 64) -> mesh.SparseToDense:
    torch.manual_seed(0)
    network = mesh.SparseToDense(rest[:DENSE_POINTS])
    vertices = torch.from_numpy(rest[:DENSE_POINTS]).float()
    near = losses.nearness(vertices, vertices[face.DLIB.tolist()])
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, steps)
    true = torch.from_numpy(dense).float()
    for _ in range(steps):
        rows = true[torch.randint(len(true), (batch,))][:, None]  # one frame is a clip
        said = network(rows[:, 0, face.DLIB.tolist()])[:, None]
        cost = losses.sparse_to_dense(said, rows, near)
        optimizer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
    return network.eval()


def scores(said: Array, true: Array) -> dict[str, float]:
    """S2L's LE and DE on the vertices: the greatest distance over the lips, the mean over all; means over frames."""
    away = np.linalg.norm(said - true, axis=-1)
    return {"le": float(away[:, face.LIPS].max(-1).mean()), "de": float(away.mean())}


def densities(clips: Path, steps: int, held_out: int) -> dict[str, dict[str, float]]:
    training, scored = split(train.read_clips(clips), held_out)
    rest = train.mean_face(training)
    known, true = displacements(training, rest), displacements(scored, rest)
    sparse = true[:, face.DLIB]
    begun = time.process_time()
    network = learned(rest, known, steps)
    spent = time.process_time() - begun
    with torch.no_grad():
        said = network(torch.from_numpy(sparse).float()).double().numpy()
    rule = linear(known[:, face.DLIB], known)
    return {
        "at rest": scores(np.zeros_like(true), true),
        "nearest landmark": scores(mesh.nearest_landmark(sparse, rest[:DENSE_POINTS]), true),
        "linear rule": scores((sparse.reshape(len(sparse), -1) @ rule).reshape(true.shape), true),
        "S2D": {**scores(said, true), "cpu_seconds": spent, "parameters": sum(p.numel() for p in network.parameters())},
    }


def expressions(labels: Path, seen: Path | None) -> dict[str, float]:
    """Correlation of found with true weights over the last third, and what the fit leaves of the points."""
    with np.load(labels, allow_pickle=False) as file:
        points, curves, names = (
            file["points"].astype(np.float64),
            file["curves"].astype(np.float64),
            list(file["names"]),
        )
    first = 2 * len(points) // 3
    rest = train.mean_face([train.Clip("film", points[:first].astype(np.float32), np.zeros(0, np.float32))])
    if seen is not None:
        with np.load(seen, allow_pickle=False) as file:
            points = file["points"].astype(np.float64)[: len(points)]
    moved = metrics.pose_normal(points, rest)(points)[:, :DENSE_POINTS]
    known = np.concatenate([curves[:first], np.ones((first, 1))], axis=1)
    gram = known.T @ known + 1e-2 * np.eye(known.shape[1])
    said = np.linalg.solve(gram, known.T @ moved[:first].reshape(first, -1)).reshape(-1, DENSE_POINTS, 3)
    basis, neutral = said[:-1], said[-1]
    weights = mesh.fit_weights(moved[first:] - neutral, basis)
    scored = {"residual": mesh.residual(moved[first:] - neutral, basis, weights)}
    scored["at rest"] = float(np.linalg.norm(moved[first:] - neutral, axis=-1).mean())
    for name, parts in FOUND.items():
        columns = [names.index(part) for part in parts]
        true, found = (w[:, columns].mean(1).astype(np.float64) for w in (curves[first:], weights))
        scored[f"{name} r"] = metrics.pearson(true, found)
    scored["least weight"], scored["greatest weight"] = float(weights.min()), float(weights.max())
    return scored


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.dense", description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--film", type=Path, help="labels of a studio's film")
    parser.add_argument("--seen", type=Path, help="`liveface track` of the same film")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("out/dense"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    told: dict[str, dict[str, float]] = densities(chosen.clips, chosen.steps, chosen.held_out)
    if chosen.film is not None:
        told["weights from true points"] = expressions(chosen.film, None)
        if chosen.seen is not None:
            told["weights from tracked points"] = expressions(chosen.film, chosen.seen)
    shown = Table("", "")
    for name, row in told.items():
        shown.add_row(name, ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    Console(width=150).print(shown)
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "dense.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
