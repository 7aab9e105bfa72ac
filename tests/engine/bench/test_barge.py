"""From an interrupt to the last of what was cut off, as the receiver has it."""

import pytest

from engine.bench.barge import Barged, BargePlan, describe, tone
from engine.bench.latency import NotMatchedError
from engine.bench.launch import call_barge, own_server
from engine.clock import RealClock
from models.rates import HEARD_RATE


def test_the_last_of_each_tone_counts_and_the_next_tone_does_not():
    barged = Barged([1.0, 4.0], [0.95, 1.02, 1.043, 3.9, 4.01, 5.5], [0.97, 3.95, 3.99])
    told = describe(barged)
    assert told["interrupts"] == 2
    assert told["last_sound_ms"]["max"] == pytest.approx(43)
    assert told["last_picture_ms"]["max"] == pytest.approx(-10), "none came after the word"


@pytest.mark.parametrize("loud", [[], [1.05], [0.2]])
def test_a_tone_that_was_not_there_measures_nothing(loud):
    with pytest.raises(NotMatchedError, match="did not arrive"):
        describe(Barged([1.0], loud, [0.99]))


def test_the_tone_is_loud_throughout():
    pcm = tone(0.1)
    assert len(pcm) == HEARD_RATE // 10
    assert 2_700 < abs(pcm).max() < 2_900


@pytest.mark.slow
@pytest.mark.parametrize("lookahead", [0, 2])
async def test_nothing_old_reaches_the_receiver_120_ms_after_an_interrupt(lookahead):
    async with own_server(["--lookahead", str(lookahead)], RealClock()) as serving:
        told = describe(await call_barge(BargePlan(serving.url, 5, "demo")))
    assert told["interrupts"] == 5
    assert told["last_sound_ms"]["max"] <= 120
    assert told["last_picture_ms"]["max"] <= 120
