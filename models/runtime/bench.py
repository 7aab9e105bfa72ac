"""`liveface bench runtime`: what a step costs, by batch size, stage and backend, and how many sessions that lets in.

A step of B rows takes a + b B milliseconds: a and b are fitted over all batches. Absolute milliseconds belong to one
machine at one hour; beside them stands the calibration kernel, a 1024³ product of float32 matrices on one thread, and
CPU time is compared with CPU time, which a busy machine changes least.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import copytree
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np

from models.avatar import Shelf, default_shelf, seal
from models.rates import CHUNK, CHUNK_SECONDS, SAMPLE_RATE
from models.runtime import STAGES, Floats, Row, Runtime, Wants
from models.runtime.choose import open_runtime
from models.runtime.ear import LIPS
from models.runtime.loops import resident_bytes
from models.runtime.slots import BUCKETS

PLOTS: Final = (".png", ".svg", ".pdf")
SHARE: Final = 0.6
"""Of a tick of 40 ms: what the model may take, so that encoding and the network have the rest."""

CALIBRATION: Final = """
import numpy, time
a = numpy.random.default_rng(0).random((1024, 1024), numpy.float32)
best = 9.0
for _ in range(12):
    began = time.process_time()
    a @ a
    best = min(best, time.process_time() - began)
print(best)
"""


LEAST_STEPS: Final = 10
MOST_ROWS: Final = 1_280
"""Of a batch size, once it has had `LEAST_STEPS`: large batches need fewer steps for as good a median."""

MANY_SLOTS: Final = 65

OPENED: Final = """
import sys
from pathlib import Path
from models.runtime.bench import held
from models.runtime.choose import open_runtime
from models.runtime.ear import LIPS
from models.runtime.loops import resident_bytes
runtime = open_runtime(sys.argv[1], [Path(each) for each in sys.argv[3:]], int(sys.argv[2])).runtime
print(held(runtime))
"""


@dataclass(frozen=True, slots=True)
class Line:
    """Milliseconds of a step with B rows: a + b B."""

    a_ms: float
    b_ms: float
    r2: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes, by opening backends in fresh processes and looking what they hold; a GPU's memory is told apart."""

    opened: float
    """With one avatar and one slot."""
    avatar: float
    """For one more avatar."""
    session: float
    """For one more slot, of which everything is allocated when it opens."""


@dataclass(frozen=True, slots=True)
class Step:
    """A batch size, measured. Times in milliseconds."""

    batch: int
    p50: float
    p95: float
    core: float
    """CPU milliseconds of this process, summed over cores."""
    stages: dict[str, float]
    """A row's share of each stage."""

    @property
    def core_stages(self) -> dict[str, float]:
        """A row's share of `core`, by stage: as the time of the step goes to its stages, so does its core time."""
        whole = sum(self.stages.values())
        return {stage: self.core / self.batch * spent / whole for stage, spent in self.stages.items()} if whole else {}


@dataclass(frozen=True, slots=True)
class Report:
    """One backend with some avatars open."""

    backend: str
    avatars: int
    size: str
    machine: str
    calibration_ms: float
    open_seconds: float
    steps: list[Step] = field(default_factory=list)
    whole: Line = Line(0.0, 0.0, 1.0)
    stages: dict[str, Line] = field(default_factory=dict)
    memory: Memory | None = None
    gpu: str = ""
    gpu_mb: float = 0.0
    networks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Graph → its parameters, and its multiply-accumulates for one row of one step."""

    @property
    def sessions(self) -> int:
        """How many fit in `SHARE` of a tick by the fit."""
        line = self.whole
        return max(0, int((SHARE * 1e3 * CHUNK_SECONDS - line.a_ms) / line.b_ms)) if line.b_ms > 0 else 0


def calibrate() -> float:
    """CPU milliseconds of the calibration kernel, in a process of its own with one thread."""
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CALIBRATION], env=dict(os.environ) | single, capture_output=True, text=True, check=True
    )
    return 1e3 * float(done.stdout)


def fit(batches: Sequence[int], milliseconds: Sequence[float]) -> Line:
    """milliseconds = a + b · batch, weighted by 1 / batch so that small batches count as well."""
    x, y = np.array(batches, float), np.array(milliseconds, float)
    if len(x) < 2:
        return Line(0.0, float(y[0] / x[0]), 1.0)
    b, a = (float(value) for value in np.polyfit(x, y, 1, w=1 / x))
    missed, spread = ((y - a - b * x) / x) ** 2, ((y - np.average(y, weights=1 / x**2)) / x) ** 2
    return Line(a, b, 1 - float(missed.sum() / spread.sum()) if spread.any() else 1.0)


def speech(chunks: int) -> Floats:
    """[chunks, 640] of something that keeps a mouth moving."""
    time = np.arange(chunks * CHUNK) / SAMPLE_RATE
    tone = np.sum([np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20)], axis=0)
    moving = tone * (1 + np.sin(2 * np.pi * 3 * time)) + 0.05 * np.random.default_rng(0).normal(size=time.shape)
    return np.asarray((0.1 * moving).reshape(chunks, CHUNK), np.float32)


def measure(runtime: Runtime, batches: Sequence[int], steps: int, wants: Wants) -> list[Step]:
    """Time steps of each batch, `steps` or fewer, after a few that do not count. Rows go round the open avatars."""
    cards = list(runtime.cards.values())
    most, measured = steps, list[Step]()
    for batch in batches:
        steps = min(most, max(LEAST_STEPS, MOST_ROWS // batch))
        sound = speech(steps + 3)
        seconds: list[float] = []
        stages = dict.fromkeys(STAGES, 0.0)
        began_core = process_time()
        for now, chunk in enumerate(sound):
            rows = [
                Row(
                    s,
                    1,
                    now == 0,
                    cards[s % len(cards)].name,
                    chunk,
                    (now + 7 * s) % cards[s % len(cards)].frames,
                    wants,
                )
                for s in range(batch)
            ]
            if now == 3:
                began_core = process_time()
            began = perf_counter()
            outs = runtime.step(rows)
            if now >= 3:
                seconds.append(perf_counter() - began)
                for out in outs:
                    for stage, spent in (out.stage_seconds or {}).items():
                        stages[stage] += 1e3 * spent / (steps * batch)
        core = 1e3 * (process_time() - began_core) / steps
        p50, p95 = (1e3 * float(np.percentile(seconds, q)) for q in (50, 95))
        measured.append(Step(batch, p50, p95, core, {stage: spent for stage, spent in stages.items() if spent}))
    return measured


def report(
    backend: str,
    packages: Sequence[Path],
    batches: Sequence[int],
    steps: int,
    wants: Wants,
    with_memory: bool = False,
) -> Report:
    """Open, measure, close."""
    began = perf_counter()
    runtime, reason, _ = open_runtime(backend, packages, max(batches))
    opened = perf_counter() - began
    card = next(iter(runtime.cards.values()))
    measured = measure(runtime, batches, steps, wants)
    sizes = [step.batch for step in measured]
    spent = {stage: [step.batch * step.stages.get(stage, 0.0) for step in measured] for stage in STAGES}
    gpu, gpu_mb = on_gpu()
    runtime.close()
    return Report(
        backend=reason,
        avatars=len(packages),
        size=f"{card.width}x{card.height}, {card.frames} frames",
        machine=f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        calibration_ms=calibrate(),
        open_seconds=opened,
        steps=measured,
        whole=fit(sizes, [step.p50 for step in measured]),
        stages={stage: fit(sizes, each) for stage, each in spent.items() if any(each)},
        memory=memory(backend, packages) if with_memory else None,
        gpu=gpu,
        gpu_mb=gpu_mb,
        networks=networks(packages[0]),
    )


def held(runtime: Runtime) -> float:
    """Megabytes: what this process alone has written to, and the loops, which it shares with its owner."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) << 10
    return (own + sum(resident_bytes(card.loop) for card in runtime.cards.values())) / 1e6


def memory(backend: str, packages: Sequence[Path]) -> Memory:
    single, many = opened_mb(backend, packages[:1], 1), opened_mb(backend, packages[:1], MANY_SLOTS)
    more = len(packages) - 1
    avatar = (opened_mb(backend, packages, 1) - single) / more if more else 0.0
    return Memory(single, avatar, (many - single) / (MANY_SLOTS - 1))


def opened_mb(backend: str, packages: Sequence[Path], slots: int) -> float:
    words = [sys.executable, "-c", OPENED, backend, str(slots), *map(str, packages)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return float(done.stdout)


def on_gpu() -> tuple[str, float]:
    """The GPU's name, driver and clock, and the megabytes that torch holds of it; nothing where none is used."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "", 0.0
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.max.sm", "--format=csv,noheader"]
    try:
        name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        name = torch.cuda.get_device_name()
    return name, torch.cuda.memory_reserved() / 1e6


def networks(package: Path) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-accumulates of all graphs that serve this avatar; nothing where onnx is not installed."""
    try:
        from models.runtime.counted import count
    except ModuleNotFoundError:
        return {}
    graphs = {"voice": LIPS, **{path.stem: path for path in sorted(package.glob("graphs/*.onnx"))}}
    return {name: count(path.read_bytes()) for name, path in graphs.items() if path.is_file()}


def siblings(package: Path, count: int, folder: Path) -> list[Path]:
    """The same avatar under several names, since one name is open once."""
    copies = []
    for number in range(count):
        copy = folder / f"{package.name[:50]}-{number}"
        copytree(package, copy)
        card = copy / "avatar.toml"
        lines = [f'name = "{copy.name}"' if line.startswith("name") else line for line in card.read_text().splitlines()]
        card.write_text("\n".join(lines) + "\n")
        seal(copy)
        copies.append(copy)
    return copies


def told(one: Report) -> dict[str, Any]:
    """As JSON."""
    steps = [asdict(step) | {"core_stages": step.core_stages} for step in one.steps]
    return asdict(one) | {"steps": steps, "sessions": one.sessions}


def text(reports: Sequence[Report]) -> str:
    lines: list[str] = []
    for one in reports:
        lines += [
            f"{one.backend}",
            f"{one.avatars} avatar{'s' * (one.avatars > 1)} of {one.size}; {one.machine}; "
            f"calibration kernel {one.calibration_ms:.1f} ms; opened in {one.open_seconds:.1f} s",
            f"{'batch':>6} {'p50 ms':>8} {'p95 ms':>8} {'ms/frame':>9} {'core-ms/frame':>14} {'kernels/frame':>14}  "
            "stages, core-ms/frame",
        ]
        for step in one.steps:
            stages = "  ".join(f"{stage} {spent:.2f}" for stage, spent in step.core_stages.items())
            frame = step.p50 / step.batch
            lines.append(
                f"{step.batch:>6} {step.p50:>8.2f} {step.p95:>8.2f} {frame:>9.2f} {step.core / step.batch:>14.2f} "
                f"{step.core / step.batch / one.calibration_ms:>14.3f}  {stages}"
            )
        lines += [
            f"{name:>10} = {line.a_ms:.2f} + {line.b_ms:.2f} B ms (R² {line.r2:.3f})"
            for name, line in {**one.stages, "step": one.whole}.items()
        ]
        lines.append(f"{one.sessions} sessions in {SHARE:.0%} of a tick")
        if one.memory is not None:
            lines.append(
                f"memory: {one.memory.opened:.0f} MB with one avatar and one slot, {one.memory.session:.2f} MB a slot"
                + (f", {one.memory.avatar:.0f} MB an avatar" if one.avatars > 1 else "")
            )
        if one.gpu:
            lines.append(f"{one.gpu}: {one.gpu_mb:.0f} MB of it held")
        lines += [
            f"network {name}: {parameters / 1e6:.2f} M parameters, {macs / 1e6:.2f} M multiply-accumulates a frame"
            for name, (parameters, macs) in one.networks.items()
        ]
        lines.append("")
    return "\n".join(lines)


def undrawable(path: Path) -> str | None:
    """Why no plot can be drawn there, in a line; asked before minutes are spent on what it would show."""
    if importlib.util.find_spec("matplotlib") is None:
        return '--plot needs matplotlib: pip install "liveface[create]"'
    if path.suffix.lower() not in PLOTS:
        return f"--plot: {path.name} must end in one of {' '.join(PLOTS)}"
    if not path.absolute().parent.is_dir():
        return f"--plot: {path.parent} is no directory"
    return None


def plot(reports: Sequence[Report], path: Path) -> None:
    """Left: a whole step by its rows, measured and fitted, against what a tick allows. Right: where a row's core time
    goes."""
    from matplotlib.figure import Figure  # only for those who plot

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2 + len(reports) / 2))
    for one in reports:
        batches = [step.batch for step in one.steps]
        line = one.whole
        fitted = f"{line.a_ms:.1f} + {line.b_ms:.2f} B ms, R² {line.r2:.3f}, {one.sessions} sessions"
        (dots,) = left.plot(batches, [step.p50 for step in one.steps], "o", label=f"{_who(one)}: {fitted}")
        left.plot(batches, [line.a_ms + line.b_ms * batch for batch in batches], color=dots.get_color())
    tick = 1e3 * CHUNK_SECONDS
    for height, name in ((tick, "a tick"), (SHARE * tick, f"{SHARE:.0%} of it")):
        left.axhline(height, color="grey", linestyle=":", linewidth=1)
        left.annotate(name, (1, height), xytext=(2, 3), textcoords="offset points", color="grey", fontsize=8)
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xticks(all_batches := sorted({step.batch for one in reports for step in one.steps}), all_batches)
    left.set_yticks(marks := (1, 2, 5, 10, 20, 50, 100, 200, 500), marks)
    left.minorticks_off()
    left.set(xlabel="rows in a step", ylabel="ms, median", title="A step of the runtime")
    left.legend(fontsize=8)
    width = 0.8 / len(reports)
    for place, one in enumerate(reports):
        above = np.zeros(len(one.steps))
        for stage, colour in zip(STAGES, ("#4c72b0", "#dd8452", "#55a868", "#8172b3"), strict=True):
            spent = np.array([step.core_stages.get(stage, 0.0) for step in one.steps])
            at = np.arange(len(one.steps)) + (place - (len(reports) - 1) / 2) * width
            if spent.any():
                named = stage if place == 0 else "_"
                right.bar(at, spent, 0.9 * width, bottom=above, color=colour, alpha=1 - 0.35 * (place % 2), label=named)
            above += spent
    right.set_xticks(range(len(reports[0].steps)), [step.batch for step in reports[0].steps])
    whose = " | ".join(_who(one) for one in reports)
    right.set(xlabel=f"rows in a step ({whose}, from left to right)", ylabel="core-ms", title="Of one row, by stage")
    right.legend(fontsize=8)
    kernels = ", ".join(sorted({f"{one.calibration_ms:.1f}" for one in reports}))
    figure.suptitle(
        f"{reports[0].size}; {reports[0].machine}; calibration kernel {kernels} ms", fontsize=9, color="grey"
    )
    figure.savefig(path, dpi=120)


def _who(one: Report) -> str:
    return f"{one.backend.partition(':')[0]}, {one.avatars} avatar{'s' * (one.avatars > 1)}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "example:\n  liveface bench runtime --backend plain --backend openvino --most 32 --json --plot runtime.png"
    )
    parser.add_argument("--backend", action="append", help="may be given more than once (default: auto)")
    parser.add_argument("--avatar", default="demo", help="which avatar (default: demo)")
    parser.add_argument("--avatars-dir", type=Path, default=default_shelf(), help="where installed avatars are")
    parser.add_argument(
        "--avatars", type=int, action="append", metavar="N", help="open so many copies (default: 1 and 8)"
    )
    parser.add_argument("--most", type=int, default=BUCKETS[-1], metavar="B", help="largest batch (default: 128)")
    parser.add_argument("--steps", type=int, default=40, metavar="N", help="steps of each batch (default: 40)")
    parser.add_argument("--no-memory", action="store_true", help="do not open everything again to see what it holds")
    parser.add_argument("--face-only", action="store_true", help="no pictures: what a VR client costs")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw it")


def run(arguments: argparse.Namespace) -> int:
    """0 when it was measured, 1 when not, with one line."""
    refusal = undrawable(arguments.plot) if arguments.plot is not None else None
    if refusal is not None:
        print(f"liveface bench runtime: {refusal}", file=sys.stderr)
        return 1
    batches = [size for size in BUCKETS if size <= arguments.most]
    wants = Wants.FACE if arguments.face_only else Wants.PICTURE | Wants.FACE
    reports: list[Report] = []
    try:
        package = Shelf(arguments.avatars_dir).folder(arguments.avatar)
        with tempfile.TemporaryDirectory(prefix="liveface-bench-") as folder:
            copies = siblings(package, max(arguments.avatars or [1, 8]), Path(folder))
            for backend in arguments.backend or ["auto"]:
                for count in arguments.avatars or [1, 8]:
                    reports.append(
                        report(backend, copies[:count], batches, arguments.steps, wants, not arguments.no_memory)
                    )
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"liveface bench runtime: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps([told(one) for one in reports], indent=2))
    else:
        print(text(reports))
    if arguments.plot:
        plot(reports, arguments.plot)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="liveface bench runtime", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
