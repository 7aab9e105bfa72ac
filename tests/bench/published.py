"""The three published renderers, each taught on films of one person, narrower than published so that a CPU can.

    python -m tests.bench.published facemap --minutes 12 --out out/facemap           # the research speaker
    python -m tests.bench.published atlas --film mira.mp4 --out out/mira             # a studio film with true labels
    python -m tests.bench.published patch --film mira.mp4 --steps 600 --out out/mira # the default, on the same pieces

Twenty clips (a fifth of a studio film) are never learned from. Minutes are the processor's; a run that was stopped goes
on. Under `--out`: renderer.safetensors, checkpoint.safetensors, curve.png, sheet.png, run.json. What is learned from
the research speaker is never committed. `tests.bench.painters` judges.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress as Bar
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models import face
from models.create.film import sound
from models.mel import SPREAD, USUAL, Mel
from models.rates import CHUNK, FRAME_RATE
from models.renderers import Renderer
from models.renderers.atlas import Atlas
from models.renderers.courses import AtlasCourse, FacemapCourse, PriorCourse, from_shut_to_open, openings
from models.renderers.facemap import Facemap
from models.renderers.faces import Faces, faces, lower_face, whole_face
from models.renderers.fit import Clip, Picture, fit
from models.renderers.fit import Settings as Patching
from models.renderers.placing import Floats, canon
from models.renderers.prior import Prior
from models.renderers.published import Course, Progress, School, Settings
from models.renderers.unrolled import Unrolled, Unroller, joined
from tests.bench.renderers import FILMS, HELD_OUT, tracked

COLUMNS: Final = 4 * 80
"""What IP-LAP's hears of a frame: its four mel columns, through one layer. Published: Wav2Lip's encoder, which would
take a quarter of the minutes to learn."""
SIZES: Final = {"atlas": 128, "facemap": 128, "prior": 96}
"""Of patches. LipSync3D's is as published; Zheng et al. paint 720 pixels, IP-LAP 128."""
NARROW: Final[dict[str, dict[str, Any]]] = {
    "atlas": {"size": SIZES["atlas"], "heard": None, "thinner": 4},
    "facemap": {"size": SIZES["facemap"], "width": 12, "halvings": 3, "blocks": 4, "attentions": 1},
    "prior": {"references": 6, "size": SIZES["prior"], "width": 16, "heard": COLUMNS},
}
BATCH: Final = {"atlas": 8, "facemap": 8, "prior": 6}
MAKERS: Final[dict[str, type[Renderer]]] = {"atlas": Atlas, "facemap": Facemap, "prior": Prior}
REFERENCES: Final = 2
"""In a lesson of IP-LAP's; three are published."""
ATLAS_CLIPS: Final = 48
"""Enough for a texture, whose unrolling takes 15 ms a frame."""
PIECE: Final = 75
"""Frames of a piece of a studio film."""


@dataclass(frozen=True, eq=False)
class Source:
    """Some seconds of a person, read when they are asked for."""

    path: Path
    points: Floats  # [T, 478, 3]
    first: int = 0

    def frames(self, form: str) -> Iterator[Picture]:
        """In a pixel format of PyAV's; a long film is entered where the piece begins."""
        with av.open(str(self.path)) as container:
            container.streams.video[0].thread_count = 1
            if self.first:
                container.seek(self.first * av.time_base // FRAME_RATE)
            for number, frame in enumerate(container.decode(video=0)):
                place = round(frame.time * FRAME_RATE) if self.first else number
                if place >= self.first + len(self.points):
                    return
                if place >= self.first:
                    yield np.asarray(frame.to_ndarray(format=form), np.uint8)

    def pictures(self) -> Iterator[Picture]:
        return self.frames("rgb24")

    def clip(self) -> Clip:
        return Clip(self.pictures(), self.points)

    def heard(self) -> Tensor:
        """[T, 4 × 80]: the mel columns of each frame, about 0 and of variance 1: as they come, a loud word is a glaring
        face to a network that has only begun."""
        count = self.first + len(self.points)
        pcm = torch.from_numpy(sound(self.path)).float()
        pcm = torch.nn.functional.pad(pcm, (0, max(0, count * CHUNK - len(pcm))))[: count * CHUNK]
        mel = Mel()
        columns: Tensor = mel(pcm[None], mel.silence(1))[0][0]
        return (columns.reshape(count, -1)[self.first :] - USUAL) / SPREAD


def speaker(cache: Path) -> tuple[list[Source], list[Source]]:
    """The research speaker: to learn from, and held out, as `tests.bench.renderers` divides them."""
    if not FILMS.is_dir():
        raise SystemExit(f"{FILMS} is not there: this bench needs the research speaker's clips, or --film")
    paths = [path for path in sorted(FILMS.glob("*.mpg")) if np.isfinite(tracked(path, cache)).all()]
    held = paths[HELD_OUT]
    some = [Source(path, tracked(path, cache)) for path in paths]
    return [one for one in some if one.path not in held], [one for one in some if one.path in held]


def studio(path: Path) -> tuple[list[Source], list[Source]]:
    """A film of `liveface studio record`: every fifth piece of three seconds is held out."""
    with np.load(path.with_suffix(".labels.npz")) as labels:
        points = labels["points"].astype(np.float32)
    pieces = [Source(path, points[n : n + PIECE], n) for n in range(0, len(points) - PIECE + 1, PIECE)]
    return [one for n, one in enumerate(pieces) if n % 5 != 2], pieces[2::5]


def clips(sources: Sequence[Source]) -> list[Clip]:
    return [one.clip() for one in sources]


def codes(sources: Sequence[Source]) -> list[Tensor]:
    return [one.heard() for one in sources]


def at_rest(source: Source) -> tuple[Picture, Floats]:
    """The frame of a clip in which the lips are nearest: LipSync3D's reference."""
    house = torch.from_numpy(source.points[:, face.HOUSE, :2])
    row = int(openings(house).argmin())
    return list(source.pictures())[row], source.points[row]


def unrolled(unroller: Unroller, sources: Sequence[Source], mean: Floats) -> Unrolled:
    return joined([unroller(one.clip(), mean, SIZES["atlas"]) for one in sources])


def atlas_course(taught: Sequence[Source], held: Sequence[Source], lights: bool) -> AtlasCourse:
    renderer = Atlas(**NARROW["atlas"], lights=lights)
    mean = canon([one.points for one in taught], SIZES["atlas"])
    taught = taught[:: max(1, len(taught) // ATLAS_CLIPS)][:ATLAS_CLIPS]
    unroller = Unroller.of(*at_rest(taught[0]), lights=lights)
    whole = [faces(clips(some), mean, SIZES["atlas"]) for some in (taught, held)]
    with torch.no_grad():
        renderer.face.copy_(torch.from_numpy(mean))
        renderer.vertices.copy_(torch.from_numpy(unroller.vertices))
        renderer.texture.reference.copy_(unroller.reference)
        renderer.rest.copy_(whole[0].house[:, face.HOUSE_SPOKEN].mean(0))
    return AtlasCourse(
        renderer, (unrolled(unroller, taught, mean), whole[0]), (unrolled(unroller, held, mean), whole[1])
    )


def facemap_course(taught: Sequence[Source], held: Sequence[Source]) -> FacemapCourse:
    renderer = Facemap(**NARROW["facemap"])
    points = [one.points for one in taught]
    mean = whole_face(points, SIZES["facemap"])
    hole, mask = lower_face(points, mean, SIZES["facemap"])
    with torch.no_grad():
        renderer.face.copy_(torch.from_numpy(mean))
        renderer.spoken.copy_(hole)
        renderer.mask.copy_(mask)
    return FacemapCourse(
        renderer, faces(clips(taught), mean, SIZES["facemap"]), faces(clips(held), mean, SIZES["facemap"])
    )


def prior_course(taught: Sequence[Source], held: Sequence[Source]) -> PriorCourse:
    renderer = Prior(**NARROW["prior"])
    mean = whole_face([one.points for one in taught], SIZES["prior"])
    both = [faces(clips(some), mean, SIZES["prior"], codes(some)) for some in (taught, held)]
    return PriorCourse(renderer, both[0], both[1], REFERENCES)


def introduce(renderer: Prior, taught: Sequence[Source]) -> None:
    """IP-LAP's meets a person: as many references as it has places for, from shut to open."""
    points = [one.points for one in taught]
    mean = whole_face(points, renderer.size)
    whole: Faces = faces(clips(taught), mean, renderer.size)
    rows = from_shut_to_open(openings(whole.house), len(renderer.pictures) + 2)[1:-1]
    with torch.no_grad():
        renderer.face.copy_(torch.from_numpy(mean))
    renderer.meet(whole.patches[rows].float() / 255, whole.house[rows], lower_face(points, mean, renderer.size)[1])


def save(renderer: Renderer, name: str, path: Path) -> None:
    tensors = {key: tensor.detach().contiguous().clone() for key, tensor in renderer.state_dict().items()}
    made = NARROW[name] | ({"lights": renderer.lights} if isinstance(renderer, Atlas) else {})
    save_file(tensors, path, {"arch": f"liveface.{name}.1", "made": json.dumps(made)})


def load(path: Path) -> Renderer:
    with safe_open(path, "pt") as file:
        facts = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    renderer = MAKERS[facts["arch"].split(".")[1]](**json.loads(facts["made"]))
    renderer.load_state_dict(tensors)
    return renderer.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Teach a published renderer.", epilog="see the top of the file")
    parser.add_argument("system", choices=(*MAKERS, "patch"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=12.0, help="of the processor")
    parser.add_argument("--start", type=Path, help="weights to begin with; another run begins, in another place")
    parser.add_argument("--alone", type=float, default=Settings.alone, help="share of the minutes without adversary")
    parser.add_argument("--steps", type=int, default=600, help="of the default, which counts no minutes")
    parser.add_argument("--film", type=Path, help="a studio film; its labels lie beside it (default: the speaker)")
    parser.add_argument("--tracks", type=Path, help="where the speaker's tracks are kept (default: OUT/tracks)")
    parser.add_argument("--no-lights", action="store_true", help="atlas: no light is taken off and put on")
    parser.add_argument("--few", type=int, help="clips to learn from, and as many held out: for a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    taught, held = studio(arguments.film) if arguments.film else speaker(arguments.tracks or arguments.out / "tracks")
    taught, held = taught[: arguments.few], held[:: len(held) // 6 or 1][: arguments.few]
    if arguments.system == "patch":
        fit(clips(taught), arguments.out, Patching(steps=arguments.steps), clips(held))
        return
    course: Course
    if arguments.system == "atlas":
        course = atlas_course(taught, held, not arguments.no_lights)
    else:
        course = facemap_course(taught, held) if arguments.system == "facemap" else prior_course(taught, held)
    console.print(f"{len(course)} frames, read in {time.process_time():.0f} s of the processor")
    if arguments.start:
        course.renderer.load_state_dict(load(arguments.start).state_dict())
    settings = Settings(minutes=arguments.minutes, batch=BATCH[arguments.system], alone=arguments.alone)
    school = School(course, arguments.out, settings)
    school.resume()
    with Bar(console=console) as bar:
        task = bar.add_task(arguments.system, total=1.0)

        def told(progress: Progress) -> None:
            bar.update(task, completed=progress.share)
            bar.print(f"{progress.step} steps, cost {progress.cost:.3f}, lips {progress.lips_psnr:.2f} dB")

        for _ in school.run(told):
            pass
    renderer = school.averaged.eval()
    if isinstance(renderer, Prior):
        introduce(renderer, taught[::5])
    save(renderer, arguments.system, arguments.out / "renderer.safetensors")
    told_of = {"steps": school.at, "minutes": school.spent / 60, "frames": len(course), "lips": school.kept[-1][1]}
    (arguments.out / "run.json").write_text(json.dumps(told_of, indent=2))


if __name__ == "__main__":
    main()
