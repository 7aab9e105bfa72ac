"""IP-LAP's generator: five frames at a time as published, a ring of keys and values in the stream."""

import pytest
import torch

from models.landmarks.forms import FAITHFUL, STREAMING, Form
from models.landmarks.transformer import BLOCKS, FRAMES, LIPS, WIDTH, Transformer

from .conditioned import a_head_that_speaks, conditions_of, prepared
from .systems import check_exports, check_streams, parameters


def made(form: Form = STREAMING) -> Transformer:
    return Transformer(form=form, width=32, blocks=2, channels=(4, 4, 6, 8), window=4)


def test_sizes_are_the_papers() -> None:
    streaming, faithful = Transformer(), Transformer(form=FAITHFUL)
    assert parameters(streaming) == parameters(faithful)
    assert (streaming.width, len(streaming.blocks), LIPS) == (WIDTH, BLOCKS, 41) == (512, 4, 41)
    assert streaming.jaw[2].out_features == 32


def test_streaming_obeys_the_theorems() -> None:
    check_streams(made, 320)


@pytest.mark.slow
def test_streaming_is_the_same_in_onnx() -> None:
    check_exports(made, 320)


@torch.no_grad()
def test_faithful_frames_speak_only_within_their_five() -> None:
    network = prepared(made(FAITHFUL))
    conditions, code = conditions_of(a_head_that_speaks(13)[1]), torch.randn(1, 13, 320)
    before, _ = network.speak(code, conditions, network.silence(1))
    moved = conditions._replace(upper=conditions.upper.clone())
    moved.upper[:, 6, 5:] += 3.0
    after, _ = network.speak(code, moved, network.silence(1))
    touched = (after - before).abs().amax((0, 2, 3)) > 1e-7
    assert touched.nonzero().flatten().tolist() == [5, 6, 7, 8, 9]
    assert before.shape[1] == 13
    assert FRAMES == 5


@torch.no_grad()
@pytest.mark.parametrize("form", [STREAMING, FAITHFUL], ids=["streaming", "faithful"])
def test_any_number_of_references_and_each_counts(form: Form) -> None:
    network = prepared(made(form))
    conditions, code = conditions_of(a_head_that_speaks(6)[1]), torch.randn(1, 6, 320)
    fifteen = conditions.identity.repeat(1, 15)
    before, _ = network.speak(code, conditions, network.begin(fifteen))
    fifteen[:, -393:] += 30.0
    after, _ = network.speak(code, conditions, network.begin(fifteen))
    assert not torch.allclose(before, after)


def test_other_hearing_is_refused() -> None:
    with pytest.raises(ValueError, match="4 columns of 80"):
        Transformer(code=80)
