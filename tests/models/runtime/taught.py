"""A tiny package of kind "learned": graphs of a few nodes that say how loud it was, and darken a rectangle by it."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from models.avatar import decode_loop, read_avatar, seal
from models.rates import CHUNK, FACE, POINTS
from models.runtime.hearing import GOLDEN_STEPS
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.voices import babble

HEIGHT, WIDTH = 24, 32
KEEPS = 0.5
"""Of the loudness of the step before."""


def teach_package(folder: Path, name: str = "net", state_of_paint: bool = True) -> Path:
    """Write and seal it; its golden steps are numpy's, not the graphs'."""
    draw_package(folder, name, kind="learned")
    (folder / "mouths.safetensors").unlink()
    (folder / "graphs").mkdir()
    loop = decode_loop(read_avatar(_sealed(folder)))
    frames = len(loop)
    corner = np.array([[40 + 2 * (n % 3), 76] for n in range(frames)], np.float32)
    planes = [_under(frame, x, y) for frame, (x, y) in zip(loop, corner.astype(int), strict=True)]
    arrays = {
        "corner": corner,
        "points": np.random.default_rng(0).normal(64, 20, (frames, POINTS, 3)).astype(np.float32),
        **{plane: np.stack([one[at] for one in planes]) for at, plane in enumerate(("luma", "u", "v"))},
    }
    save_file(arrays, str(folder / "graphs" / "frames.safetensors"))
    silence = {"step.state_0": np.zeros((1, 1), np.float32)}
    if state_of_paint:
        silence["paint.state_0"] = np.zeros((1, 1), np.float32)
    save_file(silence, str(folder / "graphs" / "silence.safetensors"))
    (folder / "graphs" / "step.onnx").write_bytes(_step())
    (folder / "graphs" / "paint.onnx").write_bytes(_paint(state_of_paint))
    save_file(_golden(arrays, frames), str(folder / "golden.safetensors"))
    return _sealed(folder)


def loudness(sound: np.ndarray) -> np.ndarray:
    """[n] of chunks [n, 640]: what the graphs compute, in numpy."""
    said, state = [], np.float32(0)
    for chunk in sound:
        state = np.float32(KEEPS) * state + np.square(chunk).mean(dtype=np.float32)
        said.append(state)
    return np.array(said, np.float32)


def _sealed(folder: Path) -> Path:
    seal(folder)
    return folder


def _under(frame: np.ndarray, x: int, y: int) -> tuple[np.ndarray, ...]:
    height, width = frame.shape[0] * 2 // 3, frame.shape[1]
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    half = np.s_[y // 2 : (y + HEIGHT) // 2, x // 2 : (x + WIDTH) // 2]
    return tuple(p.astype(np.float32) for p in (frame[y : y + HEIGHT, x : x + WIDTH], chroma[0][half], chroma[1][half]))


def _golden(arrays: dict[str, np.ndarray], frames: int) -> dict[str, np.ndarray]:
    sound = babble(GOLDEN_STEPS, 5)
    loud = loudness(sound)[:, None, None]
    index = np.arange(GOLDEN_STEPS) % frames
    return {
        "x": sound,
        "points": arrays["points"][index] + loud,
        "face": np.repeat(loud[:, 0], FACE, 1),
        "luma": np.clip(arrays["luma"][index] - 100 * loud, 0, 255),
    }


def _model(nodes: list, inputs: dict[str, list], outputs: dict[str, list], constants: dict[str, np.ndarray]) -> bytes:
    def port(name: str, shape: list) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    graph = helper.make_graph(
        [helper.make_node(kind, ins, outs) for kind, ins, outs in nodes],
        "graph",
        [port(*one) for one in inputs.items()],
        [port(*one) for one in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def _step() -> bytes:
    return _model(
        [
            ("Mul", ["x", "x"], ["square"]),
            ("ReduceMean", ["square", "axis"], ["power"]),
            ("Mul", ["state_0", "keeps"], ["kept"]),
            ("Add", ["power", "kept"], ["after_0"]),
            ("Unsqueeze", ["after_0", "axis"], ["deep"]),
            ("Add", ["frame_points", "deep"], ["points"]),
            ("Mul", ["after_0", "ones"], ["face"]),
        ],
        {"x": [CHUNK], "state_0": [1], "frame_points": [POINTS, 3]},
        {"points": [POINTS, 3], "face": [FACE], "after_0": [1]},
        {"axis": np.array([1]), "keeps": np.array(KEEPS, np.float32), "ones": np.ones((1, FACE), np.float32)},
    )


def _paint(stateful: bool) -> bytes:
    nodes = [
        ("Slice", ["face", "zero", "one", "one"], ["loud"]),
        ("Unsqueeze", ["loud", "one"], ["deep"]),
        ("Mul", ["deep", "hundred"], ["shade"]),
        ("Sub", ["frame_luma", "shade"], ["luma"]),
        ("Identity", ["frame_u"], ["u"]),
        ("Identity", ["frame_v"], ["v"]),
    ]
    halves = [HEIGHT // 2, WIDTH // 2]
    inputs: dict[str, list] = {"face": [FACE], "frame_luma": [HEIGHT, WIDTH], "frame_u": halves, "frame_v": halves}
    outputs: dict[str, list] = {"luma": [HEIGHT, WIDTH], "u": halves, "v": halves}
    constants = {"zero": np.array([0]), "one": np.array([1]), "hundred": np.array(100, np.float32)}
    if stateful:
        nodes.append(("Add", ["state_0", "loud"], ["after_0"]))
        inputs["state_0"], outputs["after_0"] = [1], [1]
    return _model(nodes, inputs, outputs, constants)
