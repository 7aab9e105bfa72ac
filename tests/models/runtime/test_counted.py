"""Sizes of graphs, against what torch says of the layers that they were made of."""

import pytest
import torch
from torch import nn

from models.runtime.counted import count
from models.runtime.ear import LIPS
from models.runtime.graphs import export
from models.streaming import Chain, Conv, Pointwise, gru
from models.voice import VoiceEncoder
from tests.models.runtime.test_interpreted import PLANE, model_of, weights


@pytest.mark.parametrize(
    ("kind", "inputs", "said", "parameters", "macs"),
    [
        ("Conv", [PLANE, weights(5, 4, 3, 3), weights(5)], {"pads": [1, 1, 1, 1]}, 185, 5 * 6 * 8 * 4 * 9),
        ("Conv", [PLANE, weights(4, 1, 3, 3)], {"group": 4, "pads": [1, 1, 1, 1]}, 36, 4 * 6 * 8 * 9),
        ("ConvTranspose", [PLANE, weights(4, 5, 2, 2)], {"strides": [2, 2]}, 80, 4 * 6 * 8 * 5 * 4),
        ("MatMul", [PLANE, weights(8, 3)], {}, 24, 4 * 6 * 8 * 3),
        ("Relu", [PLANE], {}, 0, 0),
    ],
)
def test_an_operation_is_counted_as_on_paper(
    kind: str, inputs: list[object], said: dict[str, object], parameters: int, macs: int
) -> None:
    assert count(model_of(kind, inputs, said)[0]) == (parameters, macs)


def test_an_exported_chain_has_the_parameters_of_its_layers() -> None:
    layer = Chain(Conv(6, 8, kernel=3), Pointwise(nn.Linear(8, 5)), gru(5, 7))
    graph, _ = export(layer, torch.zeros(1, 4, 6))
    size = count(graph)
    assert size.parameters == sum(one.numel() for one in layer.parameters())
    assert size.macs == 4 * (6 * 8 * 3 + 8 * 5) + 4 * 3 * 7 * (5 + 7)


def test_the_shipped_voice_encoder_is_as_large_as_it_was_taught(shipped: bool) -> None:
    if not shipped:
        pytest.skip("no taught voice encoder is shipped")
    taught = sum(one.numel() for one in VoiceEncoder().parameters())
    size = count(LIPS.read_bytes())
    assert taught < size.parameters < 1.3 * taught  # and the tables of the mel
    assert 0.8 * taught < size.macs < 8 * taught
