"""The voice encoder: both theorems, the exporter, closures that close, and that it learns from next to nothing."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from models.face import ARKIT_52
from models.rates import CHUNK
from models.studio.articulation import opening
from models.voice import CLOSES, CODE, LOOKAHEADS, MOUTH, SHUT, VISEMES, Heard, Voice, VoiceEncoder, load, mouth, save

from .graphs import check_onnx_parity
from .theorems import (
    check_ages_share_a_batch,
    check_chunks_equal_whole,
    check_future_never_changes_past,
    check_reset_touches_one_row,
    cuts,
)

FRAMES = 10


@pytest.fixture(scope="module")
def voice() -> Voice:
    torch.manual_seed(0)
    return Voice().eval()


def sound(batch: int = 2, frames: int = FRAMES) -> torch.Tensor:
    return 0.1 * torch.randn(batch, frames * CHUNK, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@given(chunks=cuts(FRAMES))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_any_chunking_equals_the_whole(voice: Voice, chunks: list[int]) -> None:
    check_chunks_equal_whole(voice, sound(), [CHUNK * frames for frames in chunks])


@torch.no_grad()
def test_the_future_never_changes_the_past(voice: Voice) -> None:
    check_future_never_changes_past(voice, sound(), 6 * CHUNK)


@torch.no_grad()
def test_sessions_of_different_ages_share_a_batch(voice: Voice) -> None:
    check_ages_share_a_batch(voice, sound(), 4 * CHUNK)


@torch.no_grad()
def test_a_reset_touches_one_row(voice: Voice) -> None:
    check_reset_touches_one_row(voice, sound(), 4 * CHUNK, 1)


def test_onnx_agrees_over_fifty_chunks(voice: Voice) -> None:
    check_onnx_parity(voice, sound(1, 1), tolerance=2e-5)


def test_it_is_of_the_size_that_was_promised(voice: Voice) -> None:
    parameters = sum(p.numel() for p in voice.parameters())
    assert 1_000_000 <= parameters <= 3_000_000


@pytest.mark.parametrize("lookahead", LOOKAHEADS)
@torch.no_grad()
def test_every_head_answers(voice: Voice, lookahead: int) -> None:
    code, _ = voice(sound(), voice.silence(2))
    assert code.shape == (2, FRAMES, CODE)
    heard = voice.encoder.hear(code, lookahead)
    assert heard.visemes.shape == (2, FRAMES, len(VISEMES))
    assert heard.closure.shape == (2, FRAMES)
    assert heard.mouth.shape == (2, FRAMES, len(MOUTH))
    weights = mouth(heard)
    assert weights.shape == (2, FRAMES, 52)
    assert weights.min() >= 0
    assert weights.max() <= 1


def test_a_closure_that_was_heard_shuts_the_lips_whatever_else_was() -> None:
    wide = Heard(torch.zeros(1, 1, len(VISEMES)), torch.tensor([[4.0]]), torch.full((1, 1, len(MOUTH)), 0.8))
    assert opening(mouth(wide).numpy()).max() == pytest.approx(0, abs=0.01)
    parted = wide._replace(closure=torch.tensor([[-4.0]]))
    assert opening(mouth(parted).numpy()).min() > 0.5


def test_lips_meet_between_two_probabilities() -> None:
    probabilities = torch.tensor([[0.1, CLOSES, (CLOSES + SHUT) / 2, SHUT, 0.9]])
    heard = Heard(torch.zeros(1, 5, len(VISEMES)), probabilities.logit(), torch.zeros(1, 5, len(MOUTH)))
    torch.testing.assert_close(heard.sealed(), torch.tensor([[0.0, 0.0, 0.5, 1.0, 1.0]]))
    torch.testing.assert_close(heard.sealed(0.5, 0.95)[0, -1], torch.tensor(0.4 / 0.45))


def test_every_mouth_weight_has_a_name() -> None:
    assert {name for names in MOUTH for name in names} <= set(ARKIT_52)


def test_it_comes_back_from_disk(tmp_path: Path) -> None:
    encoder = VoiceEncoder().eval()
    save(tmp_path / "voice.safetensors", encoder, seed="1")
    back = load(tmp_path / "voice.safetensors")
    columns = torch.rand(1, 8, 80)
    with torch.no_grad():
        torch.testing.assert_close(back(columns, back.silence(1))[0], encoder(columns, encoder.silence(1))[0])
