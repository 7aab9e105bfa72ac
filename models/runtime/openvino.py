"""The CPU's runtime: painted mouths moved by the voice encoder, which OpenVINO computes on one thread. No torch."""

from collections.abc import Sequence
from pathlib import Path

from models.runtime.ear import LIPS, Ear
from models.runtime.hearing import VOICE_LOOKAHEADS, ByVoice, require_parity
from models.runtime.plain import Plain, open_presenters, warm


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None, lips: Path = LIPS) -> Plain:  # noqa: A001 - the seam's name
    """Raises `RuntimeError` if the encoder's graph is missing or does not answer as the reference did."""
    require_parity(Ear(2, lips), lips.with_name("golden.safetensors"))
    presenters = open_presenters(packages, lookahead, VOICE_LOOKAHEADS)
    return warm(Plain(presenters, ByVoice(Ear(slots, lips), slots)))
