"""Layers become graphs with named state; the silent state that travels with them is the layer's own."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from models.mel import running_mean
from models.runtime.compiled import Compiled
from models.runtime.ear import LIPS
from models.runtime.graphs import OPSET, By, export, export_named
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


class Heard(torch.nn.Module):
    """As painters are called: two arguments by name, any number after them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, points: torch.Tensor, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        frame, state = given
        return self.layer(points) + frame, 0.5 * state + frame


@pytest.mark.parametrize("by", ["dynamo", "tracing"])
def test_both_exporters_write_the_same_sums_for_any_batch(by: By) -> None:
    torch.manual_seed(0)
    module = Heard()
    given = {"points": torch.rand(2, 3), "frame_u": torch.rand(2, 2), "state_0": torch.rand(2, 2)}
    graph = export_named(module, given, ["y", "after_0"], by=by)
    compiled = Compiled(graph, [5], "f32")
    assert set(compiled.asks) == set(given)
    rows = {name: torch.rand(5, *tensor.shape[1:]) for name, tensor in given.items()}
    said = compiled({name: row.numpy() for name, row in rows.items()})
    with torch.no_grad():
        for name, wanted in zip(("y", "after_0"), module(*rows.values()), strict=True):
            np.testing.assert_allclose(said[name], wanted.numpy(), atol=1e-5)
