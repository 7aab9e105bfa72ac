"""Between an ear and a mouth: K, rest, wild input, and the proof that an ear is the reference's."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from models.rates import CHUNK
from models.runtime import Floats
from models.runtime.ear import Ear
from models.runtime.hearing import ByRule, ByVoice, require_parity
from tests.models.runtime.voices import babble


class Counter:
    """An ear that says, for each K, 10 K and how many chunks its slot has heard."""

    def __init__(self) -> None:
        self.heard: dict[int, int] = {}
        self.wildest = 0.0

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        answers = np.zeros((len(slots), 4, 52), np.float32)
        self.wildest = max(self.wildest, float(np.abs(pcm).max()))
        for row, (slot, reset) in enumerate(zip(slots, resets, strict=True)):
            self.heard[slot] = 1 if reset else self.heard[slot] + 1
            answers[row] = 10 * np.arange(4)[:, None] + self.heard[slot]
        return answers


def silent(rows: int) -> Floats:
    return np.zeros((rows, CHUNK), np.float32)


def test_each_session_gets_the_answer_of_its_own_look_ahead() -> None:
    hearing = ByVoice(Counter(), 4)
    for _ in range(4):
        answers = hearing.listen([2, 0, 1], [False] * 3 if _ else [True] * 3, silent(3), [0, 1, 3])
    assert answers[:, 0].tolist() == [4, 14, 34]


def test_the_first_answers_are_at_rest_after_every_reset_and_for_that_slot_alone() -> None:
    hearing = ByVoice(Counter(), 2)
    seen = [hearing.listen([0, 1], [n in (0, 5), n == 0], silent(2), [2, 1])[:, 0].tolist() for n in range(8)]
    assert [one for one, _ in seen] == [0, 0, 23, 24, 25, 0, 0, 23]
    assert [other for _, other in seen] == [0, 12, 13, 14, 15, 16, 17, 18]


@pytest.mark.parametrize("lookahead", [3, 4, 5])
def test_a_look_ahead_beyond_the_last_head_waits_for_what_it_has_said(lookahead: int) -> None:
    """The last head answers at step n for frame n - 3; whoever may wait longer gets that very answer later."""
    hearing = ByVoice(Counter(), 3)
    seen = [hearing.listen([2, 0], [n in (0, 9)] * 2, silent(2), [lookahead, 1])[0, 0] for n in range(18)]
    once = [0.0] * lookahead + [30.0 + n for n in range(4, 4 + 9 - lookahead)]
    assert seen == once * 2


def test_wild_samples_reach_no_ear() -> None:
    ear = Counter()
    pcm = silent(2)
    pcm[0, :4] = np.nan, np.inf, -np.inf, 1e30
    assert np.isfinite(ByVoice(ear, 2).listen([0, 1], [True, True], pcm, [0, 0])).all()
    assert ear.wildest == 1
    assert np.isfinite(ByRule(2).listen([0, 1], [True, True], pcm, [0, 0])).all()


def test_an_ear_that_is_the_reference_passes(voice: Path) -> None:
    assert require_parity(Ear(2, voice / "lips.onnx"), voice / "golden.safetensors") < 1e-5


class Shifted:
    """An ear that is a little wrong, from some step on."""

    def __init__(self, ear: Ear, error: float) -> None:
        self.ear, self.error, self.steps = ear, error, 0

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        self.steps += 1
        return self.ear.hear(slots, resets, pcm) + (self.error if self.steps > 40 else 0)


@pytest.mark.parametrize("error", [0.003, -0.5, np.nan, np.inf])
def test_an_ear_that_is_a_little_wrong_at_the_end_is_refused(voice: Path, error: float) -> None:
    with pytest.raises(RuntimeError, match="differs from the reference"):
        require_parity(Shifted(Ear(2, voice / "lips.onnx"), error), voice / "golden.safetensors")


class Forgetful(Shifted):
    """An ear whose state is lost at every step."""

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        return self.ear.hear(slots, [True] * len(slots), pcm)


class Mixed(Shifted):
    """An ear that lets a neighbour into a session."""

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        return self.ear.hear(slots, resets, pcm + pcm.mean(0))


@pytest.mark.parametrize("broken", [Forgetful, Mixed])
def test_an_ear_that_forgets_or_mixes_sessions_is_refused(voice: Path, broken: type[Shifted]) -> None:
    with pytest.raises(RuntimeError, match="differs from the reference"):
        require_parity(broken(Ear(2, voice / "lips.onnx"), 0), voice / "golden.safetensors")


def test_a_proof_of_another_graph_is_none(voice: Path, tmp_path: Path) -> None:
    other = tmp_path / "voice"
    shutil.copytree(voice, other)
    ear = Ear(2, other / "lips.onnx")
    with (other / "lips.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(RuntimeError, match=r"belongs to another lips\.onnx"):
        require_parity(ear, other / "golden.safetensors")
    (other / "golden.safetensors").unlink()
    with pytest.raises(RuntimeError, match=r"golden\.safetensors is missing"):
        require_parity(ear, other / "golden.safetensors")


def test_the_rule_keeps_sessions_apart() -> None:
    sounds = [babble(10, seed) for seed in (1, 2)]
    together, apart = ByRule(2), [ByRule(1), ByRule(1)]
    for n in range(10):
        both = together.listen([1, 0], [n == 0] * 2, np.stack([sound[n] for sound in sounds]), [2, 2])
        for row, alone, sound in zip(both, apart, sounds, strict=True):
            assert (row == alone.listen([0], [n == 0], sound[n][None], [2])[0]).all()


def test_weights_are_told_as_they_were_heard_but_for_the_faintest() -> None:
    heard = np.zeros((1, 52), np.float32)
    heard[0, :3] = 0.03, 0.52, 1.0
    expression = ByVoice(Counter(), 1).expression(heard)
    assert expression is not None
    np.testing.assert_allclose(expression[0, :3], [0, 0.5, 1], atol=1e-6)
    assert ByRule(1).expression(heard) is None
