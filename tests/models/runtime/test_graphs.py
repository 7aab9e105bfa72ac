"""Layers become graphs with named state; the silent state that travels with them is the layer's own."""

from pathlib import Path

import numpy as np
import onnx
import torch

from models.mel import running_mean
from models.runtime.ear import LIPS
from models.runtime.graphs import OPSET, export, export_named
from models.streaming import Chain, Conv, gru, leaves


def test_inputs_and_outputs_are_named_and_the_batch_is_free() -> None:
    layer = Chain(Conv(4, 6, 3), gru(6, 5))
    graph, silence = export(layer, torch.zeros(1, 2, 4))
    model = onnx.load_from_string(graph)
    assert [item.name for item in model.graph.input] == ["x", "state_0", "state_1"]
    assert [item.name for item in model.graph.output] == ["y", "after_0", "after_1"]
    assert model.opset_import[0].version == OPSET
    assert all(item.type.tensor_type.shape.dim[0].dim_param for item in model.graph.input)
    assert [leaf.shape for leaf in silence] == [tuple(leaf.shape) for leaf in leaves(layer.silence(1))]


def test_silence_is_not_always_zero() -> None:
    _, silence = export(running_mean(), torch.zeros(1, 4, 80))
    assert any(np.abs(leaf).max() > 0 for leaf in silence)


def test_a_graph_does_not_say_on_whose_machine_it_was_made() -> None:
    layer = Chain(Conv(4, 6, 3), gru(6, 5))
    named = export_named(torch.nn.Linear(3, 2), {"x": torch.zeros(2, 3)}, ["y"])
    for graph in (export(layer, torch.zeros(1, 2, 4))[0], named, LIPS.read_bytes()):
        assert b"stack_trace" not in graph
        assert b".py" not in graph
        assert str(Path.home()).encode() not in graph
