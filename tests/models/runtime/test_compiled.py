"""OpenVINO behind one call."""

import os
import threading

import numpy as np
import openvino
import pytest
from onnx import TensorProto, helper

from models.runtime.compiled import Compiled, best_precision
from models.runtime.ear import LIPS


def doubling() -> bytes:
    """y = 2 x + state; after = x."""
    shape = ["batch", 3]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "x"], ["twice"]),
            helper.make_node("Add", ["twice", "state"], ["y"]),
            helper.make_node("Identity", ["x"], ["after"]),
        ],
        "doubling",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "state")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("y", "after")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def test_every_size_it_was_compiled_for_and_no_other() -> None:
    graph = Compiled(doubling(), [1, 4])
    assert graph.sizes == [1, 4]
    for size in (1, 4):
        x = np.random.default_rng(size).normal(size=(size, 3)).astype(np.float32)
        out = graph({"state": np.ones_like(x), "x": x})
        np.testing.assert_allclose(out["y"], 2 * x + 1, rtol=1e-6)
        assert (out["after"] == x).all()
    with pytest.raises(KeyError):
        graph({"x": np.zeros((2, 3), np.float32), "state": np.zeros((2, 3), np.float32)})


def test_what_came_out_stays_as_it_was() -> None:
    graph = Compiled(doubling(), [1])
    first = graph({"x": np.ones((1, 3), np.float32), "state": np.zeros((1, 3), np.float32)})
    graph({"x": np.zeros((1, 3), np.float32), "state": np.zeros((1, 3), np.float32)})
    assert (first["y"] == 2).all()


def test_views_with_strides_are_taken_as_what_they_show() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2]
    out = Compiled(doubling(), [2])({"x": x, "state": np.zeros((2, 3), np.float32)})
    assert (out["y"] == 2 * x).all()


def test_inputs_of_two_sizes_are_refused() -> None:
    graph = Compiled(doubling(), [1, 2])
    with pytest.raises(ValueError, match=r"state is \[1, 3\], not \[2, 3\]"):
        graph({"x": np.zeros((2, 3), np.float32), "state": np.zeros((1, 3), np.float32)})


def test_precision_is_one_that_this_machine_has() -> None:
    assert best_precision() in ("bf16", "f32")
    assert best_precision() == "f32" or "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: there is nowhere else to be")
def test_whoever_asks_stays_free_to_run_on_any_core() -> None:
    """Else every process that computes here would sit on the first core, and the others would stand idle."""
    ear = Compiled(LIPS.read_bytes(), [16])
    silence = {name: np.zeros(place.shape, np.float32) for name, place in ear._inputs[16].items()}
    before, seen = os.sched_getaffinity(0), set()
    asker, done = threading.get_native_id(), threading.Event()

    def look() -> None:
        while not done.wait(0.0005):
            seen.add(frozenset(os.sched_getaffinity(asker)))

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(100):
        ear(silence)
    done.set()
    looking.join()
    assert seen == {frozenset(before)}
