"""Every kind of hearing gives one row for 40 ms, and streams."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models.landmarks.hearing import HEARINGS, hearing
from models.rates import CHUNK
from models.voice import CODE, VoiceEncoder

from ..theorems import check_chunks_equal_whole, check_future_never_changes_past


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("voice") / "voice.safetensors"
    save_file(VoiceEncoder().state_dict(), path)
    return path


@pytest.mark.parametrize("name", HEARINGS)
def test_a_row_for_every_chunk_and_both_theorems(name: str, voice: Path) -> None:
    heard = hearing(name, voice)
    pcm = 0.1 * torch.randn(2, 6 * CHUNK, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert heard.layer(pcm, heard.layer.silence(2))[0].shape == (2, 6, heard.width)
    check_chunks_equal_whole(heard.layer, pcm, [CHUNK, 3 * CHUNK, 2 * CHUNK])
    check_future_never_changes_past(heard.layer, pcm, 4 * CHUNK)


def test_the_code_comes_first_and_is_not_trained(voice: Path) -> None:
    both, alone = hearing("voice+mel", voice), hearing("voice", voice)
    assert (both.code, alone.code, alone.mel) == (CODE, CODE, 0)
    pcm = 0.1 * torch.randn(1, CHUNK)
    with torch.no_grad():
        row = both.layer(pcm, both.layer.silence(1))[0]
        torch.testing.assert_close(row[..., :CODE], alone.layer(pcm, alone.layer.silence(1))[0])
    assert not any(p.requires_grad for p in both.layer.parameters())


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="is none of"):
        hearing("ears")
    with pytest.raises(ValueError, match=r"voice\.safetensors"):
        hearing("voice")
