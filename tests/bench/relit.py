"""Light taken off and put on: LipSync3D's figure 6, on a studio film relit over time.

    python -m tests.bench.relit mira.mp4 --out out/relit

The film is relit while it is read: a lamp that swings from side to side while one learns, then two lights nobody has
seen: a warm lamp far to one side, and a dark room with a moving torch. From the same frames two painters are made, one
of even textures and one of textures as they were filmed. What stands for the network is a linear decoder (ridge, from
lips and jaw to principal components of the texture), solved in a second: the question is what light does to what is
learned, not how well a network learns. `lips` is judged in the pose-normal patch against the film in the same light;
`texture` is 1 − SSIM of held-out textures, the paper's curve. Writes relit.json and relit.png.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from models import face, losses, metrics
from models.renderers.atlas import Atlas, lit
from models.renderers.fit import Clip, Picture, save_png
from models.renderers.placing import Floats, apply, canon, inverse, towards, warped
from models.renderers.unrolled import Unrolled, Unroller
from tests.bench.published import Source, studio
from tests.bench.renderers import in_bytes

SIZE: Final = 128
COMPONENTS: Final = 40
RIDGE: Final = 0.3
Lamp = Callable[[int, int, int], Floats]
"""(frame, height, width) → gains [H, W, 3]"""


def side(strength: float, height: int, width: int, colour: Sequence[float], bright: float = 1.0) -> Floats:
    """Brighter towards one side by `strength`, darker towards the other."""
    slope = bright * (1 + strength * np.linspace(-1, 1, width))
    return np.asarray(slope[None, :, None] * np.array(colour) * np.ones((height, 1, 1)), np.float32)


def swinging(frame: int, height: int, width: int) -> Floats:
    phase = frame / 40
    return side(0.35 * np.sin(phase), height, width, (1, 1, 1), 0.85 + 0.12 * np.cos(0.7 * phase))


def warm(frame: int, height: int, width: int) -> Floats:
    return side(0.65, height, width, (1.0, 0.86, 0.66), 0.85)


def torch_in_the_dark(frame: int, height: int, width: int) -> Floats:
    x, y = np.arange(width), np.arange(height)[:, None]
    middle = width * (0.5 + 0.25 * np.sin(frame / 9)), height * 0.55
    near = np.exp(-(((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (0.22 * width) ** 2))
    return np.asarray((0.25 + 0.75 * near)[..., None] * np.ones(3), np.float32)


LAMPS: Final[dict[str, Lamp]] = {"as learned": swinging, "warm, from the side": warm, "a torch": torch_in_the_dark}


def relit(source: Source, lamp: Lamp, every: int) -> tuple[list[Picture], Floats]:
    def pictures() -> Iterator[Picture]:
        for number, picture in enumerate(source.pictures()):
            if number % every == 0:
                gains = lamp(source.first + number, *picture.shape[:2])
                yield (picture * gains).round().clip(0, 255).astype(np.uint8)

    return list(pictures()), source.points[::every]


@dataclass(frozen=True, eq=False)
class Linear:
    """Lips and jaw → texture."""

    mean: Tensor  # [P]
    weights: Tensor  # [58 × 2 + 1, K]
    basis: Tensor  # [K, P]

    def __call__(self, told: Tensor) -> Tensor:
        return (self.mean + _with_one(told) @ self.weights @ self.basis).reshape(len(told), 3, SIZE, SIZE)


def solved(told: Tensor, texture: Tensor) -> Linear:
    flat = texture.flatten(1)
    mean = flat.mean(0)
    _, _, basis = torch.svd_lowrank(flat - mean, q=COMPONENTS)
    x, y = _with_one(told), (flat - mean) @ basis
    weights = torch.linalg.solve(x.mT @ x + RIDGE * torch.eye(x.shape[1]), x.mT @ y)
    return Linear(mean, weights, basis.mT)


def _with_one(told: Tensor) -> Tensor:
    return torch.cat([told, torch.ones(len(told), 1)], 1)


def seen(unroller: Unroller, pictures: list[Picture], points: Floats, mean: Floats) -> Unrolled:
    return unroller(Clip(pictures, points), mean, SIZE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Light taken off and put on.", epilog="see the top of the file")
    parser.add_argument("film", type=Path)
    parser.add_argument("--out", type=Path, default=Path("out/relit"))
    parser.add_argument("--every", type=int, default=4, help="of the frames, one in so many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    taught, held = studio(arguments.film)
    mean = canon([one.points for one in taught], SIZE)
    renderer = Atlas(SIZE, None, 64)
    places = face.HOUSE[face.HOUSE_SPOKEN]

    def spoken(points: Floats) -> Tensor:
        there = inverse(towards(points, mean))
        return torch.from_numpy(apply(there, points[:, places, :2]))

    with torch.no_grad():
        renderer.rest.copy_(torch.cat([spoken(one.points) for one in taught]).mean(0))
    lessons = [relit(one, swinging, arguments.every) for one in taught]
    told = torch.cat([renderer.told(spoken(points)) for _, points in lessons])
    report: dict[str, dict[str, Any]] = {}
    strips: list[Tensor] = []
    made = {}
    for name, lights in (("with", True), ("without", False)):
        unroller = Unroller.of(lessons[0][0][0], lessons[0][1][0], lights=lights)
        texture = torch.cat([seen(unroller, *lesson, mean).atlas for lesson in lessons]).float() / 255
        made[name] = unroller, solved(told, texture)
    for light, lamp in LAMPS.items():
        pictures, points = relit(held[0], lamp, arguments.every)
        house = apply(inverse(towards(points, mean)), points[:, face.HOUSE])
        true = [warped(picture, there, SIZE) for picture, there in zip(pictures, towards(points, mean), strict=True)]
        shown = [torch.from_numpy(np.stack(true)).permute(0, 3, 1, 2).float() / 255]
        for name, (unroller, decoder) in made.items():
            frames = seen(unroller, pictures, points, mean)
            said = decoder(renderer.told(spoken(points)))
            painted, within = renderer.reprojected(lit(said, frames.gain, frames.colour), frames.maps)
            inside = within * renderer.inside(torch.from_numpy(house[:, face.JAW_LINE_IN_HOUSE, :2]))
            patch = (inside * painted + (1 - inside) * shown[0]).clamp(0, 1)
            boxes = [metrics.lips_box(one, SIZE, SIZE) for one in house]
            both = list(zip(boxes, [in_bytes(one) for one in patch], true, strict=True))
            wrong = [np.square(box.of(ours).astype(float) - box.of(theirs)).mean() for box, ours, theirs in both]
            covered = frames.covered.float()
            textures = [one * covered for one in (said, frames.atlas.float() / 255)]
            report[f"{light}, {name}"] = {
                "lips": float(10 * np.log10(255**2 / np.mean(wrong))),
                "lips_ssim": float(np.mean([metrics.ssim(box.of(ours), box.of(theirs)) for box, ours, theirs in both])),
                "texture": float(losses.dissimilarity(*textures)),
            }
            shown.append(patch)
        columns = torch.linspace(0, len(pictures) - 1, 8).long()
        strips += [torch.cat(list(row[columns]), 2) for row in shown]
    (arguments.out / "relit.json").write_text(json.dumps(report, indent=2))
    save_png(arguments.out / "relit.png", torch.cat(strips, 1))
    Console().print(report)


if __name__ == "__main__":
    main()
