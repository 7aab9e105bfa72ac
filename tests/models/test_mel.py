"""Mel: both theorems, the exporter, and that it hears what it should."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mel import FLOOR, FULL_SCALE, HEARINGS, HIGHEST, LOWEST, Mel, Pressed, Spectrum, mel_40ms, running_mean
from models.rates import CHUNK, MEL_HOP, MELS, SAMPLE_RATE
from models.streaming import Chain, Layer, Stack

from .graphs import OnnxLayer, check_onnx_parity
from .theorems import (
    check_ages_share_a_batch,
    check_chunks_equal_whole,
    check_future_never_changes_past,
    check_reset_touches_one_row,
    cuts,
)

MELS_OF = {
    "mel": (Mel, MEL_HOP),
    "mel 40 ms": (mel_40ms, CHUNK),
    "complex columns, pressed": (HEARINGS["spectrum-pressed"][1], CHUNK),
    "mel less its running mean, stacked": (lambda: Chain(Mel(), running_mean(), Stack(4)), CHUNK),
}
SLOW = {"mel": pytest.mark.slow, "mel 40 ms": pytest.mark.slow}
GROUPS = 10
each_mel = pytest.mark.parametrize("name", MELS_OF)
few = settings(max_examples=10, deadline=None, derandomize=True)


def made(name: str) -> tuple[Layer, int]:
    make, steps = MELS_OF[name]
    return make(), steps


def noise(samples: int, seed: int = 0, batch: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def tone(hertz: float, samples: int = SAMPLE_RATE, level: float = 1.0) -> torch.Tensor:
    return level * torch.sin(2 * math.pi * hertz / SAMPLE_RATE * torch.arange(samples))[None]


@each_mel
@few
@given(cuts=cuts(GROUPS), seed=st.integers(0, 99))
def test_any_chunking_equals_the_whole(name: str, cuts: list[int], seed: int) -> None:
    layer, steps = made(name)
    check_chunks_equal_whole(layer, noise(GROUPS * steps, seed), [size * steps for size in cuts])


@each_mel
@few
@given(at=st.integers(0, GROUPS - 1))
def test_the_future_never_changes_the_past(name: str, at: int) -> None:
    layer, steps = made(name)
    check_future_never_changes_past(layer, noise(GROUPS * steps), at * steps)


@each_mel
@few
@given(heard=st.integers(1, GROUPS - 1))
def test_sessions_of_different_ages_share_a_batch(name: str, heard: int) -> None:
    layer, steps = made(name)
    check_ages_share_a_batch(layer, noise(GROUPS * steps), heard * steps)


@each_mel
@few
@given(heard=st.integers(1, GROUPS), row=st.integers(0, 1))
def test_resetting_a_row_leaves_the_others(name: str, heard: int, row: int) -> None:
    layer, steps = made(name)
    check_reset_touches_one_row(layer, noise(GROUPS * steps), heard * steps, row)


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in MELS_OF])
def test_onnx_runtime_agrees_over_50_chunks(name: str) -> None:
    # What is faint is lifted with its rounding, too.
    check_onnx_parity(made(name)[0], noise(CHUNK), tolerance=1e-4 if "pressed" in name else 1e-5)


def test_a_chunk_is_four_columns_or_one() -> None:
    fine, coarse = Mel(), mel_40ms()
    assert fine(noise(CHUNK), fine.silence(2))[0].shape == (2, 4, MELS)
    assert coarse(noise(CHUNK), coarse.silence(2))[0].shape == (2, 1, MELS)


@pytest.mark.parametrize("hertz", [200.0, 440.0, 1_000.0, 3_150.0, 7_000.0])
def test_a_tone_is_loudest_in_its_own_band(hertz: float) -> None:
    mel = Mel()
    column = mel(tone(hertz), mel.silence(1))[0][0, 50]
    low, high, mine = (2595 * math.log10(1 + f / 700) for f in (LOWEST, HIGHEST, hertz))
    nearest = round((mine - low) / (high - low) * (MELS + 1)) - 1
    assert abs(int(column.argmax()) - nearest) <= 1


def test_levels_are_decibels_of_full_scale() -> None:
    mel = Mel()
    loud, soft = (mel(tone(1_000, level=level), mel.silence(1))[0][0, 50] for level in (1.0, 0.1))
    assert float(loud.max()) == pytest.approx(FULL_SCALE, abs=1.0)
    assert float(loud.max() - soft.max()) == pytest.approx(math.log(100), abs=0.01)


def test_silence_is_nothing_and_every_band_hears() -> None:
    mel = Mel()
    assert not mel(torch.zeros(1, CHUNK), mel.silence(1))[0].any()
    assert float(mel.filters.sum(0).min()) * FLOOR > 0.5


def test_silence_stays_nothing_in_the_graph() -> None:
    """The exporter's optimiser drops small constants; a floor lost would make silence minus infinity."""
    mel = Mel()
    assert not OnnxLayer(mel, noise(CHUNK))(torch.zeros(1, CHUNK), mel.silence(1))[0].any()


def test_a_column_ends_with_its_hop() -> None:
    """A click in the last sample of a hop is in that hop's window already, if faintly: nothing waits."""
    mel = Mel()
    pcm = torch.zeros(1, CHUNK)
    pcm[0, MEL_HOP - 20] = 1.0
    columns = mel(pcm, mel.silence(1))[0][0].mean(-1)
    assert columns[0] > 1.0
    assert columns[3] == 0.0


def test_the_running_mean_takes_a_gain_away() -> None:
    heard = Chain(Mel(), running_mean())
    pcm = noise(12 * SAMPLE_RATE, batch=1)
    usual, louder = (heard(gain * pcm, heard.silence(1))[0] for gain in (1.0, 2.0))
    assert (louder - usual)[:, :10].mean() > 0.8 * math.log(4)
    assert (louder - usual)[:, -50:].mean().abs() < 0.1


def test_a_part_of_a_hop_is_refused() -> None:
    mel = Mel()
    with pytest.raises(ValueError, match="whole hops"):
        mel(noise(100), mel.silence(2))
    with pytest.raises(ValueError, match="skip sound"):
        Mel(window=100, hop=160)


def test_pressed_columns_keep_their_phases_and_lift_what_is_faint() -> None:
    spectrum, press = Spectrum(), Pressed()
    loud, faint = (spectrum(tone(1_000, level=level), spectrum.silence(1))[0][:, 50] for level in (1.0, 0.01))
    at = int(loud[0, : Spectrum.BINS].square().add(loud[0, Spectrum.BINS :].square()).argmax())
    lengths, phases = [], []
    for column in (loud, faint, press(loud), press(faint)):
        real, imaginary = float(column[0, at]), float(column[0, Spectrum.BINS + at])
        lengths.append(math.hypot(real, imaginary))
        phases.append(math.atan2(imaginary, real))
    assert lengths[0] / lengths[1] == pytest.approx(100, rel=0.01)
    assert lengths[2] / lengths[3] == pytest.approx(100**Pressed.PRESS, rel=0.01)
    assert phases == pytest.approx([phases[0]] * 4, abs=1e-3)
    assert not press(torch.zeros(1, 1, 2 * Spectrum.BINS)).any()
