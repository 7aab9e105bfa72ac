"""Lips over the socket do what the phones of synthetic speech ask for."""

import shutil

import numpy as np
import pytest

from models.studio.articulation import TAUGHT, Phone, articulate
from models.studio.speech import Utterance
from tests.bench.lips import REST_SECONDS, Seen, measure, score

PHONES = (Phone("pau", 0.0, 0.2), Phone("m", 0.2, 0.32), Phone("uw", 0.32, 0.6), Phone("b", 0.6, 0.7))
PHONES += (Phone("iy", 0.7, 1.0), Phone("pau", 1.0, 1.2))


def seen(delay: float = 0.0) -> Seen:
    """A face that does exactly what was said, or the same too late."""
    late = tuple(Phone(phone.name, phone.start + delay, phone.end + delay) for phone in PHONES)
    frames = round((1.2 + REST_SECONDS) * 25)
    return Seen(
        Utterance("none", "", np.zeros(int(1.2 * 16_000), np.float32), PHONES), articulate(late, 25, frames, TAUGHT)
    )


def test_a_face_that_does_what_was_said_has_every_mark() -> None:
    row = score([seen()])
    assert (row["closure_recall"], row["closure_precision"], row["round"]) == (1.0, 1.0, 1.0)
    assert row["opening_r"] == pytest.approx(1.0)
    assert row["rest_most"] < 0.01
    assert row["round_mean"] > row["spread_mean"] + 0.3


def test_a_face_that_is_late_has_not() -> None:
    row = score([seen(0.24)])
    assert row["closure_recall"] < 1.0 or row["closure_precision"] < 1.0
    assert row["opening_r"] < 0.7


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
async def test_the_shipped_encoder_shuts_rounds_and_rests_lips_of_voices_that_it_knows() -> None:
    """On the beat: needs a machine that has time for twelve sessions."""
    found = await measure(["rms", "awb", "espeak:en-us"], 12, 2)
    recall = sum(row["closure_recall"] for row in found.values()) / len(found)
    assert recall >= 0.95, found
    for voice, row in found.items():
        assert row["round"] >= 0.90, voice
        assert row["rest_most"] == 0.0, voice
