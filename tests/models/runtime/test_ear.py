"""The shipped ear against the encoder that it came from: same weights, any neighbours, any slot."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.rates import CHUNK
from models.runtime.ear import Ear
from models.voice import LOOKAHEADS, Lips, VoiceEncoder

CHUNKS = 12


@pytest.fixture(scope="module")
def graph(voice: Path) -> Path:
    return voice / "lips.onnx"


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal((3, CHUNKS, CHUNK))).astype(np.float32)


def alone(graph: Path, sound: np.ndarray) -> np.ndarray:
    ear = Ear(1, graph)
    return np.stack([ear.hear([0], [n == 0], chunk[None])[0] for n, chunk in enumerate(sound)])


@torch.no_grad()
def test_it_hears_what_the_encoder_hears(graph: Path, encoder: VoiceEncoder, sound: np.ndarray) -> None:
    lips = Lips(encoder)
    truth, _ = lips(torch.from_numpy(sound[0].reshape(1, -1)), lips.silence(1))
    heard = alone(graph, sound[0])
    assert heard.shape == (CHUNKS, len(LOOKAHEADS), 52)
    np.testing.assert_allclose(heard, truth[0].numpy(), atol=2e-5)


def test_neighbours_and_slots_do_not_matter(graph: Path, sound: np.ndarray) -> None:
    expected = [alone(graph, one) for one in sound]
    ear = Ear(8, graph)
    for n in range(CHUNKS):
        order = [(0, 5), (1, 2), (2, 7)] if n % 2 else [(2, 7), (0, 5), (1, 2)]
        heard = ear.hear([slot for _, slot in order], [n == 0] * 3, np.stack([sound[who, n] for who, _ in order]))
        for row, (who, _) in zip(heard, order, strict=True):
            np.testing.assert_allclose(row, expected[who][n], atol=2e-5)


def test_a_slot_that_is_used_again_starts_from_silence(graph: Path, sound: np.ndarray) -> None:
    ear = Ear(2, graph)
    for chunk in sound[1]:
        ear.hear([1], [False], chunk[None])
    again = np.stack([ear.hear([1], [n == 0], chunk[None])[0] for n, chunk in enumerate(sound[0])])
    np.testing.assert_allclose(again, alone(graph, sound[0]), atol=2e-5)


def test_a_session_that_pauses_goes_on_where_it_was(graph: Path, sound: np.ndarray) -> None:
    ear = Ear(2, graph)
    heard = []
    for n, chunk in enumerate(sound[0]):
        heard.append(ear.hear([0], [n == 0], chunk[None])[0])
        ear.hear([1], [n == 0], sound[1, n][None])
    np.testing.assert_allclose(np.stack(heard), alone(graph, sound[0]), atol=2e-5)


def test_more_sessions_than_a_bucket_holds_are_served_in_turns(
    graph: Path, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.runtime.slots.BUCKETS", (1, 2))
    heard = Ear(3, graph).hear([2, 0, 1], [True] * 3, sound[:, 0])
    for row, one in zip(heard, sound, strict=True):
        np.testing.assert_allclose(row, alone(graph, one[:1])[0], atol=2e-5)


def test_without_a_graph_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no voice encoder has been trained"):
        Ear(1, tmp_path / "lips.onnx")
