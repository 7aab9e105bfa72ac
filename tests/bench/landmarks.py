"""What a 40 ms step of each landmark system costs on one thread, at the paper's sizes: torch and ONNX Runtime, batch 1
and 64. Weights are random: a step costs the same."""

import sys
from collections.abc import Callable, Sequence

import torch

from models.landmarks import LandmarkNetwork
from models.landmarks.head import Head
from models.landmarks.lipsync3d import LipSync3d
from models.landmarks.pose_lstm import PoseLstm
from models.landmarks.pose_tcn import PoseTcn
from models.landmarks.speech_to_landmarks import SpeechToLandmarks
from models.landmarks.transformer import Transformer
from models.voice import CODE
from tests.bench import median_ms
from tests.bench.mel import calibration_ms
from tests.models.graphs import OnnxLayer
from tests.models.landmarks.conditioned import EXTRA, AsLayer, prepared

SYSTEMS: dict[str, tuple[Callable[[], LandmarkNetwork], int]] = {
    "head": (lambda: Head(CODE, 320), CODE + 320),
    "pose_lstm": (PoseLstm, 80),
    "pose_tcn": (PoseTcn, 104),
    "speech_to_landmarks": (lambda: SpeechToLandmarks(CODE), CODE),
    "transformer": (Transformer, 320),
    "lipsync3d": (LipSync3d, 2048),
}
MOST_MS = 0.5
"""The bar of the default head, batch 1."""


def costs(name: str, batch: int) -> tuple[float, float]:
    """Milliseconds of a step in torch and in ONNX Runtime."""
    make, code = SYSTEMS[name]
    layer = AsLayer(prepared(make()), code)
    graph = OnnxLayer(layer, torch.randn(1, 1, code + EXTRA))
    x, state = torch.randn(batch, 1, code + EXTRA), layer.silence(batch)

    def in_torch() -> None:
        with torch.inference_mode():
            layer(x, state)

    rounds = {"rounds": 7, "steps": 10}
    with torch.no_grad():
        return median_ms(in_torch, **rounds), median_ms(lambda: graph(x, state), **rounds)


def main(names: Sequence[str] = ()) -> None:
    torch.set_num_threads(1)
    yard = calibration_ms()
    print(f"{'':20} {'batch':>5} {'torch ms':>9} {'ORT ms':>9} {'ORT / calibration':>18}   parameters")
    for name in names or SYSTEMS:
        for batch in (1, 64):
            eager, graph = costs(name, batch)
            count = sum(p.numel() for p in SYSTEMS[name][0]().parameters())
            print(f"{name:20} {batch:5} {eager:9.3f} {graph:9.3f} {graph / yard:18.4f}   {count:,}")
    print(f"calibration kernel {yard:.1f} ms; the bar of the default head is {MOST_MS} ms at batch 1")


if __name__ == "__main__":
    main(sys.argv[1:])
