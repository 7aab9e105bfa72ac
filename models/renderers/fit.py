"""The trainer of personal renderers: pictures of one person and their landmarks in, a renderer out.

    renderer = fit(clips, Path("out"), Settings(steps=4000), held=others)

Every step draws its frames and its noise from the seed and its own number, so that a run that was killed goes on from
its last checkpoint as if it had not been. Under `out`: `checkpoint.safetensors`, `renderer.safetensors` (what `load`
reads), `curve.png`, and every few minutes a contact sheet, `sheet.png`, to be looked at.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checkpoint, face, losses
from ..halves import halves
from ..muon import Muon
from .patch import PAINT, SIZES, Patch, sharpened
from .placing import CHIN, NOSE_AT, Floats, apply, canon, inverse, towards, warped
from .raster import ring_distance

Picture = npt.NDArray[np.uint8]
"""[H, W, 3] RGB."""


@dataclass(frozen=True)
class Settings:
    """What a run is."""

    size: int = 128
    steps: int = 6000
    batch: int = 8
    rate: float = 1.5e-3
    """Of Adam, for what is no kernel, and for the last."""
    kernel_rate: float = 1.5e-2
    """Of Muon, for kernels."""
    seed: int = 0
    borrowed: float = 0.3
    """Share of the patches whose surroundings come from another frame near by, as they do when the loop is painted."""
    jitter: float = 0.15
    """Standard deviation of what is added to landmarks, in patch pixels of 128: what a tracker errs by."""
    checkpoint_every: int = 500
    sheet_seconds: float = 180.0
    patience: int = 0
    """Checkpoints without a better held-out picture after which the run ends; 0 never ends it early."""

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"a patch is {', '.join(map(str, SIZES))} pixels wide, not {self.size}")


@dataclass(frozen=True, eq=False)
class Clip:
    """Some seconds of one person: pictures, and the landmarks of the same frames. Pictures are read once, in order."""

    pictures: Iterable[Picture]
    points: Floats  # [T, 478, 2 or 3] in pixels


@dataclass(frozen=True, eq=False)
class Footage:
    """Clips in the pose-normal space."""

    patches: Tensor  # uint8 [N, 3, S, S]
    spoken: Tensor  # [N, 57, 2]: lips and jaw in patch pixels
    clip: npt.NDArray[np.int64]  # [N]
    similarity: Floats  # [N, 4]: patch pixel → frame pixel


@dataclass(frozen=True)
class Progress:
    """Where a run is, at its checkpoints."""

    step: int
    steps: int
    cost: float
    lips_psnr: float
    """Of held-out frames, over the box of their lips, in the pose-normal space; NaN when none are held out."""


def pose_normal(clips: Sequence[Clip], mean: Floats, size: int) -> Footage:
    """Reads the clips. `mean` [478, 2] is the person's face in patch pixels."""
    patches, spoken, clip, similarity = [], [], [], []
    places = face.HOUSE[face.HOUSE_SPOKEN]
    for number, one in enumerate(clips):
        if not np.isfinite(one.points).all():
            raise ValueError(f"the face was lost in clip {number}: cut it there or track it again")
        to_frame = towards(one.points, mean)
        count = 0
        for picture, there in zip(one.pictures, to_frame, strict=False):
            patches.append(warped(picture, there, size))
            count += 1
        spoken.append(apply(inverse(to_frame[:count]), one.points[:count][:, places, :2]))
        clip += [number] * count
        similarity.append(to_frame[:count])
    return Footage(
        torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.concatenate(spoken)),
        np.array(clip),
        np.concatenate(similarity),
    )


# --- What is painted -------------------------------------------------------------------------------------------------

TOP: Final = 0.22
"""Of a patch's side: nothing is painted above, which is under the nose; but where a short upper lip asks for more."""
BESIDE: Final = 12.0
BELOW_CHIN: Final = 10.0
FEATHER: Final = 9.0
EDGE: Final = 3.0
"""In pixels of a patch of 128: how far the hole reaches beyond the jaw, how much farther below the chin, over how much
the painted fades into the loop, what stays of the loop at the patch's own edge."""

_RIM: Final = (*face.JAW_LINE[1:-1].tolist(), 280, 50)
"""The jaw line, and back over the cheeks."""


def hole_and_mask(mean: Floats, spoken: Floats, size: int) -> tuple[Tensor, Tensor]:
    """[S, S] each: 1 where the loop's own mouth is hidden from the network; the share of the painted in the picture.

    Both hold the jaw at its lowest and the whole of the lips, in `spoken` [N, 57, 2].
    """
    unit = size / 128
    rim = mean[list(_RIM)].copy()
    lowest = np.quantile(spoken[:, 40, 1], 0.99) - mean[CHIN, 1]
    lips = mean[face.LIPS_INNER, 1].mean()
    low = np.clip((rim[:, 1] - lips) / (mean[CHIN, 1] - lips), 0, 1)
    rim[:, 1] += low * (max(0.0, float(lowest)) + BELOW_CHIN * unit)
    highest = float(np.quantile(spoken[:, : len(face.LIPS_OUTER), 1].min(1), 0.01))
    top = max(min(TOP * size, highest - (FEATHER + 2) * unit), NOSE_AT * size)
    at = torch.arange(size, dtype=torch.float32)
    outside = ring_distance(torch.from_numpy(rim[::-1].copy()).float()[None], at)[0]
    y, x = at[:, None].expand(size, size), at.expand(size, size)
    edge = EDGE * unit
    inside = torch.stack([BESIDE * unit - outside, y - top, x - edge, size - 1 - edge - x, size - 1 - edge - y])
    depth = inside.amin(0)
    share = ((depth - unit) / (FEATHER * unit)).clamp(0, 1)
    return (depth > 0).float(), share * share * (3 - 2 * share)


# --- Training --------------------------------------------------------------------------------------------------------


class Fitting:
    """A run. `step()` until `done`; `save()` and `resume()` at any step."""

    def __init__(self, clips: Sequence[Clip], out: Path, settings: Settings, held: Sequence[Clip] = ()) -> None:
        if not clips:
            raise ValueError("there is no clip to learn from")
        self.settings, self.out = settings, out
        torch.manual_seed(settings.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.renderer = Patch(settings.size)
        mean = canon([clip.points for clip in clips], settings.size)
        self.footage = pose_normal(clips, mean, settings.size)
        self.held = pose_normal(held, mean, settings.size) if held else None
        self._fit(mean)
        self.renderer.to(self.device)
        for parameter in self.renderer.parameters():
            if parameter.dim() == 4:  # convolutions on a CPU are fastest with channels last
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.renderer).eval()
        writer, layers = self.renderer.writer, self.renderer.modules()
        kernels = [one.weight for one in layers if isinstance(one, torch.nn.Conv2d) and one is not writer]
        others = [one for one in self.renderer.parameters() if all(one is not kernel for kernel in kernels)]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "muon": Muon(kernels, settings.kernel_rate),
            "adam": torch.optim.AdamW(others, settings.rate, betas=(0.9, 0.99), weight_decay=1e-4),
        }
        self.at = 0
        self.curve: list[float] = []
        self.kept: list[float] = []
        """Held-out PSNR of the lips at each checkpoint."""
        opening = (self.footage.spoken[:, 35] - self.footage.spoken[:, 25]).norm(dim=1).numpy()
        wide = 0.4 + np.clip(opening / (4 * settings.size / 128), 0, 1.5)
        self._odds = wide / wide.sum()
        self._ends = np.flatnonzero(np.diff(self.footage.clip, append=-1)) + 1
        self._starts = np.concatenate([[0], self._ends[:-1]])

    def _fit(self, mean: Floats) -> None:
        renderer, footage = self.renderer, self.footage
        hole, mask = hole_and_mask(mean, footage.spoken.numpy(), size := self.settings.size)
        every = footage.patches[:: max(1, len(footage.patches) // 1000)]
        with torch.no_grad():
            renderer.face.copy_(torch.from_numpy(mean))
            renderer.hole.copy_(hole)
            renderer.mask.copy_(mask)
            renderer.mean.copy_(every.float().mean(0) / 255)
            renderer.rest.copy_(footage.spoken.mean(0).clamp(0, size))

    @property
    def done(self) -> bool:
        patience = self.settings.patience
        stale = (
            bool(patience) and len(self.kept) > patience and max(self.kept[:-patience]) >= max(self.kept[-patience:])
        )
        return self.at >= self.settings.steps or stale

    def step(self) -> float:
        """One step of the optimiser; the cost before it."""
        rng = np.random.default_rng([self.settings.seed, self.at])
        true, seen, spoken = self._batch(rng)
        renderer = self.renderer.train()
        for name, full in (("muon", self.settings.kernel_rate), ("adam", self.settings.rate)):
            for group in self.optimizers[name].param_groups:
                group["lr"] = full * self._warmth()
        with torch.no_grad():
            sketch = renderer.sketched(spoken).contiguous(memory_format=torch.channels_last)
        with halves(self.device):
            said = renderer.unsharpened(renderer.look(seen), sketch)
        cost = picture_cost(said.float(), true, sketch, renderer.hole)
        renderer.zero_grad()
        cost.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(renderer.parameters(), 1.0)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self._average()
        self.at += 1
        self.curve.append(cost.item())
        return self.curve[-1]

    def run(self, report: Callable[[Progress], None] | None = None) -> Iterator[float]:
        """Steps until done; checkpoints, curve and sheets on the way."""
        looked = monotonic()
        while not self.done:
            yield self.step()
            due = self.at % self.settings.checkpoint_every == 0 or self.at >= self.settings.steps
            if due:
                self.kept.append(self.lips_psnr())
                self.save()
                self.draw_curve(self.out / "curve.png")
                if report:
                    cost = float(np.mean(self.curve[-self.settings.checkpoint_every :]))
                    report(Progress(self.at, self.settings.steps, cost, self.kept[-1]))
            if due and (self.done or monotonic() - looked > self.settings.sheet_seconds):
                looked = monotonic()
                self.draw_sheet(self.out / "sheet.png")

    def _warmth(self) -> float:
        """Of the learning rate: a hundred steps to warm up, then a cosine down."""
        part = min(1.0, self.at / self.settings.steps)
        return min(1.0, (self.at + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))

    def _batch(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        settings, footage = self.settings, self.footage
        chosen = rng.choice(len(self._odds), settings.batch, p=self._odds)
        clip = footage.clip[chosen]
        near = np.clip(chosen + rng.integers(-40, 41, settings.batch), self._starts[clip], self._ends[clip] - 1)
        around = np.where(rng.random(settings.batch) < settings.borrowed, near, chosen)
        light = np.exp(0.08 * rng.standard_normal((settings.batch, 1, 1, 1)))
        light = light * np.exp(0.03 * rng.standard_normal((settings.batch, 3, 1, 1)))
        light = np.where(rng.random((settings.batch, 1, 1, 1)) < 0.5, light, 1.0)
        gain = torch.from_numpy(light).float() / 255
        true, seen = ((footage.patches[rows].float() * gain).clamp(max=1) for rows in (chosen, around))
        unit = settings.jitter * settings.size / 128
        shaken = unit * (rng.standard_normal((settings.batch, 1, 2)) + rng.standard_normal((settings.batch, 57, 2)))
        spoken = footage.spoken[chosen] + torch.from_numpy(shaken).float()
        true, seen = (x.to(self.device).contiguous(memory_format=torch.channels_last) for x in (true, seen))
        return true, seen, spoken.to(self.device)

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(0.998, (self.at + 1) / (self.at + 20))
        ours, theirs = self.averaged.state_dict(), self.renderer.state_dict()
        floats = [name for name, tensor in ours.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([ours[name] for name in floats], [theirs[name] for name in floats], 1 - decay)

    # --- How good it is

    @torch.no_grad()
    def painted(self, footage: Footage, rows: npt.NDArray[np.int64], sharp: bool = False) -> Tensor:
        """Held-out patches as they would be shown: [n, 3, S, S], laid over the true ones by the mask."""
        model, made = self.averaged, []
        for row in rows:
            true = footage.patches[row : row + 1].to(self.device).float() / 255
            sketch = model.sketched(footage.spoken[row : row + 1].to(self.device))
            said = model.write(model.look(true), sketch) if sharp else model.unsharpened(model.look(true), sketch)
            made.append((true + model.mask * (said - true)).cpu())
        return torch.cat(made)

    def lips_psnr(self, most: int = 48) -> float:
        """Decibels over the boxes of the lips, pooled; without sharpening, which costs a little and shows more."""
        if self.held is None:
            return float("nan")
        rows = np.linspace(0, len(self.held.patches) - 1, most).astype(int)
        error, count = 0.0, 0
        for row, said in zip(rows, self.painted(self.held, rows), strict=True):
            box = _lips_box(self.held.spoken[row], self.settings.size)
            wrong = said[box] - self.held.patches[row][box].float() / 255
            error, count = error + float(wrong.square().sum()), count + wrong.numel()
        return 10 * math.log10(count / max(error, 1e-12))

    def match_sharpness(self, most: int = 48, target: float = 1.0) -> float:
        """Sets how much the averaged renderer sharpens, so that its lips are as crisp as the footage's; measured on
        held-out frames where there are any. Mild: at most a half."""
        footage = self.held or self.footage
        rows = np.linspace(0, len(footage.patches) - 1, most).astype(int)
        boxes = [_lips_box(footage.spoken[row], self.settings.size) for row in rows]
        true = sum(_crispness(footage.patches[row].float()[box] / 255) for row, box in zip(rows, boxes, strict=True))
        soft = self.painted(footage, rows)

        def ratio(amount: float) -> float:
            crisp = sharpened(soft, torch.tensor(amount))
            return sum(_crispness(one[box]) for one, box in zip(crisp, boxes, strict=True)) / max(true, 1e-12)

        low, high = 0.0, 0.5
        for _ in range(12):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if ratio(middle) < target else (low, middle)
        self.averaged.sharpen.fill_(low)
        return low

    def draw_sheet(self, path: Path, columns: int = 6) -> None:
        """Truth above, painted below, at held-out frames from shut to open."""
        footage = self.held or self.footage
        opening = (footage.spoken[:, 35] - footage.spoken[:, 25]).norm(dim=1)
        order = opening.argsort()
        rows = order[torch.linspace(0, len(order) - 1, 3 * columns).long()].numpy()
        painted = self.painted(footage, rows, sharp=True)
        strips = []
        for first in range(0, len(rows), columns):
            strips.append(torch.cat(list(footage.patches[rows[first : first + columns]].float() / 255), 2))
            strips.append(torch.cat(list(painted[first : first + columns]), 2))
        save_png(path, torch.cat(strips, 1))

    def draw_curve(self, path: Path) -> None:
        steps = np.linspace(0, self.at, len(self.kept) + 1)[1:]
        draw_curve(path, self.curve, list(zip(steps, self.kept, strict=True)) if self.held is not None else [])

    # --- Checkpoints

    @property
    def path(self) -> Path:
        return self.out / "checkpoint.safetensors"

    def save(self) -> None:
        """A kill at any time leaves the old one whole."""
        figures = {"curve": torch.tensor(self.curve, dtype=torch.float64)}
        figures["kept"] = torch.tensor(self.kept, dtype=torch.float64)
        facts = {"step": str(self.at), "settings": json.dumps(self._identity())}
        checkpoint.save(self.path, self._parts(), figures, facts)

    def resume(self) -> bool:
        """Goes on from the checkpoint if there is one of this very run but for its length; False if there is none."""
        if not self.path.exists():
            return False
        kept = checkpoint.load(self.path)
        if json.loads(kept.facts["settings"]) != self._identity():
            raise ValueError(f"{self.path} is of a run with other settings or clips: choose another directory")
        kept.into(self._parts())
        self.at = int(kept.facts["step"])
        self.curve, self.kept = (kept.figures[name].tolist() for name in ("curve", "kept"))
        return True

    def _parts(self) -> dict[str, checkpoint.Part]:
        return {"network": self.renderer, "averaged": self.averaged, **self.optimizers}

    def _identity(self) -> dict[str, object]:
        told = asdict(self.settings)
        for free in ("steps", "checkpoint_every", "sheet_seconds", "patience"):
            del told[free]
        return {**told, "frames": len(self.footage.patches), "widths": list(PAINT)}


def picture_cost(said: Tensor, true: Tensor, sketch: Tensor, hole: Tensor) -> Tensor:
    """L1 within the hole, five times for lips and more for what is between them; slopes of all of it at half size, of
    the mouth at three sizes; 1 − SSIM of the mouth."""
    size = true.shape[-1]
    near = F.interpolate(F.avg_pool2d(sketch[:, :2], 5, 1, 2), scale_factor=2.0, mode="nearest")
    weight = hole * (1 + 4 * near[:, :1] + 6 * near[:, 1:])
    error = (said - true) * hole
    total = (weight * (error.abs() + 10 * error.square())).sum() / weight.sum()
    coarse = F.avg_pool2d(error, 2)
    total = total + 2 * losses.gradients(coarse, torch.zeros_like(coarse), 2)
    mouth = (..., slice(size * 32 // 128, size * 96 // 128), slice(size * 32 // 128, size * 104 // 128))
    total = total + 1.5 * losses.gradients(said[mouth], true[mouth])
    return total + 0.25 * losses.dissimilarity(said[mouth], true[mouth])


def fit(
    clips: Sequence[Clip],
    out: Path,
    settings: Settings | None = None,
    held: Sequence[Clip] = (),
    report: Callable[[Progress], None] | None = None,
) -> Patch:
    """A person's renderer, from clips of that person; goes on where an earlier run in `out` was cut off.

    `clips`: at least some hundred frames in all, every frame with its 478 points in pixels (one that lost the face is
    refused). `held`: clips that are measured and never learned from. `report` hears of each checkpoint. The renderer
    that comes back sharpens as much as the footage is sharp, and lies in `out/renderer.safetensors` too. To paint a
    loop with it: `towards(loop_points, renderer.face.numpy())` says where its frames' patches are.
    """
    run = Fitting(clips, out, settings or Settings(), held)
    run.resume()
    for _ in run.run(report):
        pass
    run.match_sharpness()
    save(run.averaged, out / "renderer.safetensors")
    return run.averaged


# --- Files -----------------------------------------------------------------------------------------------------------


def save(renderer: Patch, path: Path) -> None:
    tensors = {name: tensor for name, tensor in renderer.state_dict().items() if "num_batches" not in name}
    checkpoint.write(path, tensors, {"arch": "liveface.patch.1", "size": str(renderer.size)})


def load(path: Path) -> Patch:
    """Ready to paint. Raises `ValueError` when the file is of something else."""
    kept = checkpoint.load(path)
    if kept.facts.get("arch") != "liveface.patch.1":
        raise ValueError(f"{path} holds no patch renderer")
    places = (kept.tensors[f"places.{level}"] for level in range(len(PAINT)))
    renderer = Patch(int(kept.facts["size"]), [place.shape[1] for place in places])
    counts = {name: tensor for name, tensor in renderer.state_dict().items() if "num_batches" in name}
    renderer.load_state_dict({**counts, **kept.tensors})
    return renderer.eval()


def draw_curve(path: Path, cost: Sequence[float], judged: Sequence[tuple[float, float]]) -> None:
    """What the steps cost, as running means; and at which step held-out lips were so many decibels right."""
    from matplotlib.figure import Figure

    figure = Figure((7, 4))
    left = figure.subplots()
    window = max(1, len(cost) // 100)
    means = np.convolve(cost, np.ones(window) / window, "valid")
    left.semilogy(np.arange(len(means)) + window, means)
    left.set_xlabel("step")
    left.set_ylabel("cost")
    if judged:
        right = left.twinx()
        right.plot(*zip(*judged, strict=True), "o-", color="C1", markersize=3)
        right.set_ylabel("held-out lips, dB")
    figure.savefig(path, dpi=100)


def save_png(path: Path, picture: Tensor) -> None:
    """[3, H, W] in 0…1."""
    from matplotlib.image import imsave

    imsave(path, picture.permute(1, 2, 0).clamp(0, 1).numpy())


def _lips_box(spoken: Tensor, size: int) -> tuple[slice, slice, slice]:
    """The region of `metrics.lips_box`, in a patch [3, S, S]."""
    low, high = spoken[:40].amin(0), spoken[:40].amax(0)
    grown = 0.1 * (high - low)
    left, top = (low - grown).floor().clamp(0, size - 16).int().tolist()
    right, bottom = (high + grown + 1).ceil().clamp(16, size).int().tolist()
    return slice(None), slice(top, bottom), slice(left, right)


def _crispness(picture: Tensor) -> float:
    """Variance of the Laplacian of luma [3, H, W]."""
    luma = (picture * picture.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(0)
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return float(edges.var(correction=0))
