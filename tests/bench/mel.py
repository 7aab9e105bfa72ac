"""What a 40 ms chunk costs to be heard: mel in torch, mel as a graph, and the chunker before it, on one thread."""

import importlib
import io
import logging
import os
import warnings
from collections.abc import Callable

import numpy as np
import torch

from models.mel import Mel
from models.rates import CHUNK, HEARD_CHUNK, HEARD_RATE
from models.streaming import leaves
from tests.bench import median_ms

MOST_MS = 0.3
"""The bar of mel and chunker together, on one core."""


def calibration_ms() -> float:
    """The project's yardstick for shared machines: a 1024³ fp32 matrix product on one thread."""
    square = torch.randn(1024, 1024)
    return median_ms(lambda: square @ square, rounds=7, steps=3)


def mel_graph() -> bytes:
    """Mel as ONNX, batch 1, one chunk."""
    mel = Mel().eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(mel, (torch.randn(1, CHUNK), mel.silence(1)), strict=False)
        graph = torch.onnx.export(program, dynamo=True, opset_version=20, verbose=False)
    assert graph is not None
    graph.save(file)
    return file.getvalue()


def in_torch() -> Callable[[], object]:
    mel, pcm = Mel().eval(), torch.randn(1, CHUNK)
    state = mel.silence(1)

    def step() -> None:
        nonlocal state
        with torch.inference_mode():
            _, state = mel(pcm, state)

    return step


def in_onnxruntime(graph: bytes) -> Callable[[], object]:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    feeds = {names[0]: np.zeros((1, CHUNK), np.float32), names[1]: leaves(Mel().silence(1))[0].numpy()}

    def step() -> None:
        feeds[names[1]] = session.run(None, feeds)[1]

    return step


def in_openvino(graph: bytes) -> Callable[[], object]:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1})
    request = compiled.create_infer_request()
    pcm, past = np.zeros((1, CHUNK), np.float32), leaves(Mel().silence(1))[0].numpy()

    def step() -> None:
        nonlocal past
        request.infer([pcm, past], share_inputs=True)
        past = request.get_output_tensor(1).data.copy()

    return step


def in_chunker() -> Callable[[], object]:
    """Two 20 ms packets of a WebRTC track in, one chunk out."""
    chunker = importlib.import_module("engine.chunker").Chunker()
    packet = (np.random.default_rng(0).standard_normal(HEARD_CHUNK // 2) * 3000).astype(np.int16)

    def step() -> None:
        for _ in range(2):
            chunker.push(packet, HEARD_RATE)
        chunker.take()

    return step


def main() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    graph = mel_graph()
    costs = {
        "mel, torch": median_ms(in_torch()),
        "mel, ONNX Runtime": median_ms(in_onnxruntime(graph)),
        "mel, OpenVINO": median_ms(in_openvino(graph)),
        "chunker, 48 kHz": median_ms(in_chunker()),
    }
    yard = calibration_ms()
    for name, cost in costs.items():
        print(f"{name:20} {cost:7.3f} ms a chunk  {cost / yard:8.5f} of the calibration kernel")
    together = costs["mel, torch"] + costs["chunker, 48 kHz"]
    print(f"mel (torch) + chunker {together:.3f} ms; the bar is {MOST_MS} ms; calibration kernel {yard:.1f} ms")


if __name__ == "__main__":
    main()
