"""What several tests of the runtimes need, made once."""

from pathlib import Path

import pytest
import torch

from models.runtime.eager import VOICE
from models.runtime.ear import LIPS
from models.voice import VoiceEncoder, load, ship


@pytest.fixture(scope="session")
def shipped() -> bool:
    """Whether a taught voice encoder is shipped: then nobody has to export one, which takes long."""
    torch.set_num_threads(1)
    return (LIPS.with_name("golden.safetensors")).is_file()


@pytest.fixture(scope="session")
def encoder(shipped: bool) -> VoiceEncoder:
    """The shipped voice encoder, or an untaught one, always the same."""
    torch.manual_seed(3)
    return load(VOICE) if shipped else VoiceEncoder().eval()


@pytest.fixture(scope="session")
def voice(shipped: bool, encoder: VoiceEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its directory: weights, graph, proof."""
    if shipped:
        return VOICE.parent
    directory = tmp_path_factory.mktemp("voice")
    ship(directory, encoder)
    return directory
