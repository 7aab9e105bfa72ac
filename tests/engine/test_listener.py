"""What the next 40 ms are, in good times and bad. Times are seconds; one packet is 20 ms."""

import numpy as np
import pytest

from engine.listener import (
    IDLE_AFTER_SECONDS,
    PATIENCE_SECONDS,
    STALL_SECONDS,
    Listened,
    Listener,
    Pacing,
    SpeechFullError,
)
from models.rates import CHUNK_SECONDS, HEARD_CHUNK, HEARD_RATE

PACKET = 960
VOICE = (8_000 * np.sin(2 * np.pi * 150 * np.arange(HEARD_RATE * 70) / HEARD_RATE)).astype(np.int16)
for harmonic in range(2, 12):
    VOICE += (4_000 / harmonic * np.sin(2 * np.pi * 150 * harmonic * np.arange(len(VOICE)) / HEARD_RATE)).astype(
        np.int16
    )


def call(listener: Listener, packets: list[int | None], start: float = 10.0, dated: bool = True) -> list[Listened]:
    """Packet n of 20 ms arrives at `start + 0.02 * n` and holds sound number `packets[n]`; None: nothing arrives."""
    heard: list[Listened] = listener.take(start - 0.020)
    for n, number in enumerate(packets):
        now = start + 0.02 * n
        while (wake := listener.wake_at(now)) is not None and wake <= now:
            before = len(heard)
            heard += listener.take(wake)
            if len(heard) == before:
                break
        if number is not None:
            sound = VOICE[number * PACKET : (number + 1) * PACKET]
            listener.push_live(sound, HEARD_RATE, number * PACKET if dated else None, now)
        heard += listener.take(now)
    return heard


def sounds(heard: list[Listened]) -> np.ndarray:
    return np.concatenate([h.chunk.heard for h in heard])


def test_every_chunk_is_called_the_moment_its_last_packet_is_there() -> None:
    listener = Listener()
    listener.take(9.98)
    for n in range(100):
        now = 10.0 + 0.02 * n
        listener.push_live(VOICE[n * PACKET : (n + 1) * PACKET], HEARD_RATE, n * PACKET, now)
        taken = listener.take(now)
        assert len(taken) == n % 2
        assert all(h.chunk.arrived == now for h in taken)


def test_the_sound_is_whole_and_its_dates_are_contiguous() -> None:
    heard = call(Listener(), list(range(200)))
    assert [h.chunk.pts for h in heard] == [n * HEARD_CHUNK for n in range(100)]
    np.testing.assert_array_equal(sounds(heard), VOICE[: 100 * HEARD_CHUNK])


def test_with_nothing_coming_in_the_clock_calls_silence() -> None:
    heard = call(Listener(), [None] * 100)
    assert len(heard) == pytest.approx(50, abs=1)
    assert not sounds(heard).any()
    assert not any(h.speaking for h in heard)


def test_a_stall_is_silence_and_the_sound_that_comes_late_is_left_out() -> None:
    """500 ms of nothing; then the missing packets all at once, with their own dates: they are history."""
    listener = Listener()
    heard = call(listener, list(range(50)))
    now = 10.0 + 0.02 * 50
    while now < 10.0 + 0.02 * 75:
        now += 0.005
        heard += listener.take(now)
    assert listener.starved >= 1
    for n in range(50, 76):
        listener.push_live(VOICE[n * PACKET : (n + 1) * PACKET], HEARD_RATE, n * PACKET, now)
    heard += listener.take(now)
    after = call(listener, list(range(76, 126)), start=now + 0.02)
    ends = [h.chunk.arrived - 10.0 - (h.chunk.pts + HEARD_CHUNK) / HEARD_RATE for h in after[2:]]
    before = heard[10].chunk.arrived - 10.0 - (heard[10].chunk.pts + HEARD_CHUNK) / HEARD_RATE
    assert np.median(ends) == pytest.approx(before, abs=0.021), "latency is back where it was"


@pytest.mark.parametrize("stall", [0.5, 3.0, 60.0, 3_600.0])
def test_a_long_stall_of_the_loop_does_not_breed_a_longer_one(stall: float) -> None:
    """Nobody asked for so long; what comes out then is the present, not every silent chunk that was missed."""
    listener = Listener()
    heard = call(listener, [None] * 100)
    woken = 12.0 + stall
    after = listener.take(woken)
    assert len(after) * CHUNK_SECONDS < STALL_SECONDS
    gap = after[0].chunk.pts - heard[-1].chunk.pts
    assert gap / HEARD_RATE == pytest.approx(stall, abs=0.1), "the timeline is where the clock is"
    assert listener.leapt == gap // HEARD_CHUNK - 1
    assert len(listener.take(woken + CHUNK_SECONDS + 0.001)) == 1


@pytest.mark.parametrize("stall", [0.1, 0.3, 0.5, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("odd", [0, 1])
def test_a_stall_of_the_loop_amid_speech_costs_what_was_said_then_and_no_latency(stall: float, odd: int) -> None:
    """The packets of the stall wait in the socket and come one by one afterwards, with their own dates."""
    listener = Listener()
    heard = call(listener, list(range(100 + odd)))
    missed = round(stall / 0.020)
    now = 10.0 + 0.020 * (99 + odd) + stall
    for number in range(100 + odd, 100 + odd + missed):
        listener.push_live(VOICE[number * PACKET : (number + 1) * PACKET], HEARD_RATE, number * PACKET, now)
        heard += listener.take(now)
    said = len(heard)
    heard += call(listener, list(range(100 + odd + missed, 500)), start=now + 0.020)
    ends = [h.chunk.arrived - 10.0 - (h.chunk.pts + HEARD_CHUNK) / HEARD_RATE for h in heard[said + 2 :]]
    before = heard[10].chunk.arrived - 10.0 - (heard[10].chunk.pts + HEARD_CHUNK) / HEARD_RATE
    assert max(ends) == pytest.approx(before, abs=0.021), "latency is back where it was"
    assert not any(h.chunk.invented for h in heard[said + 2 :])
    assert np.abs(sounds(heard[said + 2 :])).reshape(-1, HEARD_CHUNK).max(1).min() > 1_000


def test_a_stall_of_the_loop_loses_no_word_that_was_queued_or_has_no_date() -> None:
    queued = Listener(Pacing.BURST)
    queued.push_speech("one", VOICE[: 25 * HEARD_CHUNK], HEARD_RATE)
    heard = queued.take(0.0)
    for step in range(60):
        heard += queued.take(5.0 + 0.04 * step)
    np.testing.assert_array_equal(sounds([h for h in heard if h.segment_id]), VOICE[: 25 * HEARD_CHUNK])

    undated = Listener()
    heard = call(undated, list(range(50)), dated=False)
    undated.push_live(VOICE[50 * PACKET : 100 * PACKET], HEARD_RATE, None, 12.0)
    for step in range(60):
        heard += undated.take(12.0 + 0.04 * step)
    spoken = [h for h in heard if np.abs(h.chunk.heard).max() > 0]
    np.testing.assert_array_equal(sounds(spoken), VOICE[: 100 * PACKET])


def test_one_lost_packet_is_waited_for_no_longer_than_the_patience() -> None:
    listener = Listener()
    call(listener, list(range(50)))
    last = 10.0 + 0.02 * 49
    wake = listener.wake_at(last)
    assert wake is not None
    assert wake - last <= CHUNK_SECONDS + PATIENCE_SECONDS + 1e-6


@pytest.mark.parametrize("packets", [1, 2, 3, 4, 5, 8, 20])
def test_a_way_that_has_become_longer_costs_a_moment_and_not_the_voice(packets: int) -> None:
    """Wi-Fi to mobile: from one moment on every packet comes so much later, for good."""
    heard = call(Listener(), [*range(200), *[None] * packets, *range(200, 600)])
    after = heard[130:]  # 1.2 s later
    assert not any(h.chunk.invented for h in after)
    assert np.abs(sounds(after)).reshape(-1, HEARD_CHUNK).max(1).min() > 1_000


def test_sound_without_dates_that_comes_in_bursts_waits_its_turn_and_is_bounded() -> None:
    """60 s pushed in one second: at most 2 s wait, the oldest goes first, and the counter says so."""
    listener = Listener()
    listener.take(0.0)
    for second in range(60):
        listener.push_live(VOICE[second * HEARD_RATE : (second + 1) * HEARD_RATE], HEARD_RATE, None, 1.0)
    heard = listener.take(1.0)
    assert len(heard) * CHUNK_SECONDS <= 1.0 + 0.1
    assert listener.dropped == 60 * 25 - 50


def test_a_backlog_is_caught_up_with_in_a_pause() -> None:
    """A stalled socket delivers 600 ms late, undated; the pause after the words makes up for it."""
    listener = Listener()
    call(listener, list(range(50)), dated=False)
    now = 11.0 + 0.6
    listener.take(now)
    late = np.concatenate([VOICE[: int(0.3 * HEARD_RATE)], np.zeros(int(0.9 * HEARD_RATE), np.int16)])
    listener.push_live(late, HEARD_RATE, None, now)
    listener.take(now)
    for _ in range(100):
        now += 0.02
        listener.push_live(np.zeros(PACKET, np.int16), HEARD_RATE, None, now)
        listener.take(now)
    assert listener.skipped > 0
    assert len(listener._ready) <= 2


def test_speech_takes_the_place_of_the_live_sound_until_it_is_said() -> None:
    listener = Listener()
    call(listener, list(range(20)))
    listener.push_speech("hello", VOICE[: 3 * HEARD_CHUNK] // 2, HEARD_RATE)
    listener.end_speech("hello")
    heard = call(listener, list(range(20, 40)), start=10.4)
    spoken = [h for h in heard if h.segment_id == "hello"]
    assert len(spoken) == 3
    assert spoken[0].started == "hello"
    assert "hello" in spoken[-1].ended
    np.testing.assert_array_equal(sounds(spoken), VOICE[: 3 * HEARD_CHUNK] // 2)
    assert [h.chunk.pts for h in heard] == [heard[0].chunk.pts + n * HEARD_CHUNK for n in range(len(heard))]


def test_segments_are_said_in_order_and_the_odd_end_is_padded() -> None:
    listener = Listener(Pacing.BURST)
    listener.push_speech("one", VOICE[: HEARD_CHUNK + 100], HEARD_RATE)
    listener.end_speech("one")
    listener.push_speech("two", VOICE[:HEARD_CHUNK], HEARD_RATE)
    listener.end_speech(None)
    heard = []
    for n in range(100):
        heard += listener.take(n * 0.01)
    assert [h.segment_id for h in heard if h.segment_id] == ["one", "one", "two"]
    assert listener.speech_done


def test_more_speech_than_the_lane_holds_is_refused_with_advice() -> None:
    listener = Listener(Pacing.BURST)
    listener.push_speech("long", np.zeros(59 * HEARD_RATE, np.int16), HEARD_RATE)
    with pytest.raises(SpeechFullError, match="send it later"):
        listener.push_speech("long", np.zeros(2 * HEARD_RATE, np.int16), HEARD_RATE)
    assert listener.room == pytest.approx(1.0)


def test_an_interrupt_forgets_what_was_queued_and_keeps_the_timeline() -> None:
    listener = Listener(Pacing.BURST)
    listener.push_speech("one", VOICE[: 10 * HEARD_RATE], HEARD_RATE)
    first = listener.take(0.0) + listener.take(0.2)
    assert listener.interrupt() == ["one"]
    assert listener.queued == 0
    after = listener.take(0.4)
    assert after[0].chunk.pts == first[-1].chunk.pts + HEARD_CHUNK
    assert after[0].chunk.epoch == 1
    assert not sounds(after).any()


def test_live_speech_is_a_segment_from_its_first_word_to_its_pause() -> None:
    listener = Listener()
    heard = call(listener, [None] * 50)
    heard += call(listener, list(range(50)), start=11.0)
    now = 12.0
    for _ in range(100):
        listener.push_live(np.zeros(PACKET, np.int16), HEARD_RATE, None, now)
        heard += listener.take(now)
        now += 0.02
    started = [h.started for h in heard if h.started]
    ended = [segment for h in heard for segment in h.ended]
    assert started == ["live-1"]
    assert ended == ["live-1"]


def test_a_file_is_paced_by_nobody() -> None:
    listener = Listener(Pacing.FILE)
    assert listener.wake_at(0.0) is None
    listener.push_speech("file", VOICE[: 5 * HEARD_CHUNK], HEARD_RATE)
    assert len(listener.take(0.0)) == 5
    assert listener.take(100.0) == []


def test_idle_has_no_patience() -> None:
    """Where nothing was expected nothing is missing, so silence is called on the beat."""
    listener = Listener()
    listener.take(0.0)
    assert listener.wake_at(0.0) == pytest.approx(CHUNK_SECONDS)
    listener.push_live(VOICE[:PACKET], HEARD_RATE, 0, 0.01)
    assert listener.wake_at(0.01) == pytest.approx(CHUNK_SECONDS + PATIENCE_SECONDS)
    assert listener.wake_at(0.02 + IDLE_AFTER_SECONDS) == pytest.approx(CHUNK_SECONDS)


def test_a_burst_at_the_very_beginning_is_not_taken_for_a_pause() -> None:
    """A socket delivers its first half second at once: all of it is heard."""
    listener = Listener()
    listener.take(0.0)
    listener.push_live(VOICE[: HEARD_RATE // 2], HEARD_RATE, None, 0.01)
    heard = []
    for n in range(100):
        heard += listener.take(n * 0.01)
    assert listener.skipped == 0
    np.testing.assert_array_equal(sounds(heard)[: 12 * HEARD_CHUNK], VOICE[: 12 * HEARD_CHUNK])
