"""Faces and sound at other rates: nothing missing, nothing twice."""

from typing import Any

import numpy as np
import pytest

from engine.protocol.resampling import FaceRate, SoundRate, slerp
from models.face import ARKIT_52
from models.rates import BLENDSHAPES, HEARD_CHUNK, HEARD_RATE
from tests.engine.protocol.said import GOLDEN, a_moment


@pytest.mark.parametrize("vector", GOLDEN["slerp"], ids=lambda v: v["name"])
def test_slerp(vector: dict[str, Any]) -> None:
    a, b = np.float32(vector["a"]), np.float32(vector["b"])
    mixed = slerp(a, b, vector["t"])
    assert abs(float(np.dot(mixed, np.float32(vector["expect"])))) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("rate", "ticks"), [(25, 26), (50, 51), (60, 61)])
def test_a_second_of_faces_at_every_rate(rate: int, ticks: int) -> None:
    """A ramp of one second comes out as a ramp on the finer grid: no tick missing, none twice, every value in place."""
    turn = FaceRate(rate)
    out = [due for i in range(26) for due in turn.push(i * HEARD_CHUNK, 0, a_moment(i, jaw=i / 25).face)]
    assert [pts for pts, _ in out] == [round(i * 1e6 / rate) for i in range(ticks)]
    for pts, face in out:
        assert face[ARKIT_52.index("jawOpen")] == pytest.approx(pts / 1e6, abs=1e-5)
        assert np.linalg.norm(face[BLENDSHAPES : BLENDSHAPES + 4]) == pytest.approx(1.0)


def test_faces_are_never_blended_across_an_interrupt_or_a_hole() -> None:
    turn = FaceRate(50)
    turn.push(0, 0, a_moment(jaw=0.0).face)
    assert [pts for pts, _ in turn.push(HEARD_CHUNK, 1, a_moment(jaw=1.0).face)] == [40_000]
    assert [pts for pts, _ in turn.push(4 * HEARD_CHUNK, 1, a_moment(jaw=1.0).face)] == [160_000]


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_sound_out_keeps_its_tone_and_its_length(rate: int) -> None:
    n = np.arange(10 * HEARD_CHUNK)
    tone = (10_000 * np.sin(2 * np.pi * 440 * n / HEARD_RATE)).astype(np.int16)
    too_high = (10_000 * np.sin(2 * np.pi * 15_000 * n / HEARD_RATE)).astype(np.int16)
    turn, turn_high = SoundRate(rate), SoundRate(rate)
    parts = [turn.push(chunk) for chunk in tone.reshape(10, -1)]
    assert {part.size for part in parts} == {rate // 25}
    out = np.concatenate(parts).astype(float)
    spectrum = np.abs(np.fft.rfft(out[rate // 25 :] * np.hanning(out.size - rate // 25)))
    assert np.argmax(spectrum) * rate / (out.size - rate // 25) == pytest.approx(440, abs=3)
    assert np.abs(out[rate // 25 :]).max() == pytest.approx(10_000, rel=0.03)
    if rate < 30_000:  # what the slower rate cannot hold is removed, not folded down
        folded = np.concatenate([turn_high.push(chunk) for chunk in too_high.reshape(10, -1)])[rate // 25 :]
        assert np.abs(folded).max() < 100
