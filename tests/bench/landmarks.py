"""What a 40 ms step of each landmark system costs on one thread, at the paper's sizes: torch, ONNX Runtime and
OpenVINO, batch 1 and 64; and on the axes of the TCN's paper, what five minutes of sound cost in each form. Weights are
random: a step costs the same. `python -m tests.bench.landmarks [SYSTEM …] [--out SPEED.json]`
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from models.landmarks import LandmarkNetwork
from models.landmarks.forms import FAITHFUL, STREAMING, Form
from models.landmarks.head import Head
from models.landmarks.lipsync3d import LipSync3d
from models.landmarks.pose_lstm import PoseLstm
from models.landmarks.pose_tcn import PoseTcn
from models.landmarks.speech_to_landmarks import SpeechToLandmarks
from models.landmarks.transformer import Transformer
from models.rates import FRAME_RATE
from models.runtime.compiled import Compiled
from models.streaming import leaves
from models.voice import CODE
from tests.bench import median_ms
from tests.bench.mel import calibration_ms
from tests.models.graphs import OnnxLayer
from tests.models.landmarks.conditioned import EXTRA, AsLayer, prepared

SYSTEMS: Final[dict[str, tuple[Callable[[Form], LandmarkNetwork], int]]] = {
    "head": (lambda form: Head(CODE, 320), CODE + 320),
    "pose_lstm": (lambda form: PoseLstm(form=form), 80),
    "pose_tcn": (lambda form: PoseTcn(form=form), 104),
    "speech_to_landmarks": (lambda form: SpeechToLandmarks(CODE, form), CODE),
    "transformer": (lambda form: Transformer(form=form), 320),
    "lipsync3d": (lambda form: LipSync3d(form=form), 2048),
}
MOST_MS: Final = 0.5
"""The bar of the default head, batch 1."""
MINUTES: Final = 5
BATCHES: Final = (1, 64)
PIECE: Final = 10 * FRAME_RATE
"""Convolutions over pictures are fed so many frames at a time: five minutes of them at once would fill the memory."""
IN_PIECES: Final = ("transformer", "lipsync3d")


def costs(name: str) -> dict[int, dict[str, float]]:
    """Milliseconds of a step of the streaming form, by batch."""
    make, code = SYSTEMS[name]
    layer = AsLayer(prepared(make(STREAMING)), code)
    graph = OnnxLayer(layer, torch.randn(1, 1, code + EXTRA))
    served = Compiled(graph.graph, BATCHES)
    return {batch: _steps(layer, graph, served, torch.randn(batch, 1, code + EXTRA)) for batch in BATCHES}


@torch.inference_mode()
def _steps(layer: AsLayer, graph: OnnxLayer, served: Compiled, x: torch.Tensor) -> dict[str, float]:
    state = layer.silence(len(x))
    inputs = dict(zip(served.asks, (t.numpy() for t in (x, *leaves(state))), strict=True))
    runs: dict[str, Callable[[], object]] = {
        "torch": lambda: layer(x, state),
        "onnxruntime": lambda: graph(x, state),
        "openvino": lambda: served(inputs),
    }
    return {runner: median_ms(run, rounds=7, steps=10 if len(x) == 1 else 2) for runner, run in runs.items()}


@torch.inference_mode()
def minutes(name: str, form: Form) -> float:
    """Seconds for five minutes of sound, one voice, in torch."""
    make, code = SYSTEMS[name]
    layer = AsLayer(prepared(make(form)), code)
    frames = MINUTES * 60 * FRAME_RATE
    pieces = [PIECE] * (frames // PIECE) if name in IN_PIECES else [frames]
    state, begun = layer.silence(1), time.perf_counter()
    for piece in pieces:
        _, state = layer(torch.zeros(1, piece, code + EXTRA), state if form.causal else layer.silence(1))
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.landmarks", description=__doc__)
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument("--out", type=Path, default=Path("out/speed.json"))
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    known["calibration kernel, ms"] = yard = calibration_ms()
    print(
        f"{'':20} {'batch':>5} {'torch ms':>9} {'ORT ms':>9} {'OpenVINO ms':>12} {'OV / calibration':>17}   parameters"
    )
    for name in chosen.systems:
        make = SYSTEMS[name][0]
        known[name] = {"parameters": {f.name: _count(make(f)) for f in (STREAMING, FAITHFUL)}}
        count = known[name]["parameters"]["streaming"]
        for batch, one in costs(name).items():
            known[name][f"batch {batch}"] = one
            figures = f"{one['torch']:9.3f} {one['onnxruntime']:9.3f} {one['openvino']:12.3f}"
            print(f"{name:20} {batch:5} {figures} {one['openvino'] / yard:17.4f}   {count:,}")
        forms = (STREAMING,) if name == "head" else (STREAMING, FAITHFUL)
        known[name]["five minutes, s"] = spent = {form.name: minutes(name, form) for form in forms}
        print(f"{'':20} five minutes of sound:", *(f"{form} {seconds:.2f} s" for form, seconds in spent.items()))
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(known, indent=1))
    print(f"calibration kernel {yard:.1f} ms; the bar of the default head is {MOST_MS} ms at batch 1")


def _count(network: torch.nn.Module) -> int:
    return int(np.sum([p.numel() for p in network.parameters()]))


if __name__ == "__main__":
    main()
