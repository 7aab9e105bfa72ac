"""S2L: displacements from whoever's neutral face."""

from pathlib import Path

import pytest
import torch

from models.landmarks.forms import FAITHFUL
from models.landmarks.speech_to_landmarks import SpeechToLandmarks, Wav2Vec2
from models.rates import CHUNK

from .conditioned import a_head_that_speaks, conditions_of, prepared
from .systems import check_exports, check_streams, parameters
from .test_pose_lstm import linear, lstm_parameters


def made() -> SpeechToLandmarks:
    return SpeechToLandmarks(code=24)


def test_faithful_is_the_papers_three_layers_of_64() -> None:
    network = SpeechToLandmarks(form=FAITHFUL)
    assert parameters(network) == lstm_parameters(768, 64, 3, directions=2) + linear(128, 204)


def test_streaming_obeys_the_theorems() -> None:
    check_streams(made, 24)


@pytest.mark.slow
def test_streaming_is_the_same_in_onnx() -> None:
    check_exports(made, 24)


@torch.no_grad()
def test_the_same_speech_moves_any_face_alike() -> None:
    network = prepared(made())
    conditions, code = conditions_of(a_head_that_speaks(12)[1]), torch.randn(1, 12, 24)
    someone = conditions.identity + 5 * torch.randn_like(conditions.identity)
    own, _ = network.speak(code, conditions, network.begin(conditions.identity))
    other, _ = network.speak(code, conditions, network.begin(someone))
    torch.testing.assert_close(own - own[:, :1], other - other[:, :1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(own, other)


@torch.no_grad()
def test_it_begins_at_the_neutral_face() -> None:
    network = prepared(made())
    conditions = conditions_of(a_head_that_speaks(5)[1])
    said, _ = network.speak(torch.zeros(1, 5, 24), conditions, network.silence(1))
    assert (said - network.truth(conditions_mesh(), conditions)[:, :1]).abs().mean() < 5.0


def conditions_mesh() -> torch.Tensor:
    return torch.tensor(a_head_that_speaks(5)[1], dtype=torch.float32)[None]


def test_wav2vec_loads_a_local_checkpoint_of_the_hubs_format(tmp_path: Path) -> None:
    hub = pytest.importorskip("transformers", reason="pip install transformers")
    config = hub.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    hub.Wav2Vec2Model(config).save_pretrained(tmp_path)
    encoder = Wav2Vec2(tmp_path)
    frames = encoder(torch.randn(2, 25 * CHUNK))
    assert frames.shape == (2, 25, 16)
    assert encoder.width == 16
    torch.testing.assert_close(frames, Wav2Vec2(tmp_path)(torch.randn(2, 25 * CHUNK)) * 0 + frames)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="pip install transformers"):
        Wav2Vec2("nowhere")
