"""The meter is measured: records of which everything is known must read as what they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bench.latency import (
    BURST_CHUNKS,
    CODEC_DELAY,
    NUMBERS,
    PACKET,
    TONE_LEVEL,
    Dated,
    NotMatchedError,
    Record,
    Seen,
    Sent,
    Sound,
    Stimulus,
    analyse,
    find_onsets,
    held,
    split_by_hold,
    summary,
)
from engine.probe import LOUD, loud
from models.rates import HEARD_CHUNK, HEARD_RATE


def made(
    latency: float = 0.1,
    av: float = -0.0065,
    seconds: float = 20.0,
    inserted: float = 0.0,
    first_number: int = 17,
    origin: int = 5_000,
    half: bool = False,
    repeat: tuple[int, ...] = (),
    lose: tuple[int, ...] = (),
    left_out: tuple[int, int] | None = None,
    jitter: float = 0.0,
    seed: int = 3,
) -> Record:
    """What a client would have seen of a server with this latency and A/V offset, both exact.

    `repeat` and `lose`: chunks whose picture is the one before, or does not come. `left_out`: the server leaves so
    many chunks out of what it hears, from a chunk on. `half`: its chunks begin 20 ms beside the client's.
    """
    rng = np.random.default_rng(seed)
    stimulus = Stimulus.of(seconds, seed)
    sent = [Sent(100 + packet * 0.02 + 0.02, packet * PACKET) for packet in range(2 * stimulus.chunks)]
    shift = 1 if half else 0
    pictures, sounds, onsets = [], [], []
    since, missing = left_out or (10**9, 0)
    for chunk in range(-5, stimulus.chunks):
        if since <= chunk < since + missing:
            continue
        number = first_number + chunk - (missing if chunk >= since else 0)
        first = 100 + (chunk + 1) * 0.04 - 0.02 * shift + latency + rng.uniform(0, jitter)
        first += inserted if held(first) else 0.0
        distance = min((chunk - burst for burst in stimulus.bursts if chunk >= burst), default=99)
        if chunk not in lose:
            pictures.append(
                Seen(
                    first,
                    first + 0.001,
                    number * 3_600,
                    4_000,
                    chunk == -5,
                    number % NUMBERS,
                    distance < BURST_CHUNKS + shift,
                    chunk in repeat,
                )
            )
        begin = origin + (number - first_number) * HEARD_CHUNK
        for half_packet in (0, 1):
            stamp = (begin + half_packet * PACKET) % (1 << 32)
            sounds.append(Sound(first + 0.001 - av - CODEC_DELAY / HEARD_RATE, stamp))
        if chunk in stimulus.bursts:
            onsets.append((begin + 2 * CODEC_DELAY + PACKET * shift) % (1 << 32))
    reports = [Dated("audio", 1_000.0, origin % (1 << 32)), Dated("video", 1_000.0, first_number * 3_600)]
    return Record(stimulus, sent, sounds, onsets, pictures, reports)


@pytest.mark.parametrize("latency", [0.02, 0.1, 0.45])
def test_a_known_latency_is_read(latency):
    report = analyse(made(latency))
    assert summary(report.latency)["p50"] == pytest.approx(latency * 1e3, abs=0.01)
    assert summary(report.latency)["max"] == pytest.approx(latency * 1e3, abs=0.01)
    assert len(report.latency) > 400
    assert report.bursts_seen == report.bursts_heard == report.bursts_sent > 5
    assert report.frames_per_second == pytest.approx(25, abs=0.01)
    assert (report.repeated, report.skipped, report.shifts, report.unreadable) == (0, 0, 0, 0)


@pytest.mark.parametrize("inserted", [0.0, 0.08, 0.2])
def test_80_ms_inserted_read_as_80(inserted):
    """The negative control, on the arithmetic alone; `--control` does it with real packets."""
    passed, late = split_by_hold(analyse(made(inserted=inserted, jitter=0.005)), inserted)
    assert summary(late)["p50"] - summary(passed)["p50"] == pytest.approx(1e3 * inserted, abs=1)
    assert summary(late)["max"] - summary(passed)["p1"] < 1e3 * inserted + 6, "no picture is on the wrong side"
    assert len(passed) > 100
    assert len(late) > 100


@pytest.mark.parametrize("av", [-0.120, -0.02, 0.0, 0.045])
def test_a_known_av_offset_is_read_and_early_sound_is_positive(av):
    report = analyse(made(av=av))
    assert report.av_arrival == pytest.approx([av * 1e3] * report.bursts_sent, abs=0.05)


def test_sender_reports_that_agree_read_as_the_decoders_delay():
    report = analyse(made(av=0.03))
    assert report.av_dated == pytest.approx([-6.5] * report.bursts_sent, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 70_000), st.integers(0, 2**32 - 1), st.integers(0, 50), st.booleans())
def test_wherever_the_counters_stand_the_reading_is_the_same(first_number, origin, seed, half):
    """Numbers go round at 65,536 and RTP times at 2^32."""
    report = analyse(made(first_number=first_number, origin=origin, seed=seed, half=half))
    assert summary(report.latency)["max"] == pytest.approx(100, abs=0.05)
    assert report.av_arrival == pytest.approx([-6.5] * report.bursts_sent, abs=0.05)
    assert report.half_chunk is half


def test_a_picture_that_is_shown_again_says_nothing_of_its_chunk():
    plain, report = analyse(made()), analyse(made(repeat=(100, 101, 200)))
    assert report.repeated == 3
    assert len(report.latency) == len(plain.latency) - 3


def test_a_picture_that_does_not_come_is_counted():
    report = analyse(made(lose=(100, 101, 200)))
    assert report.skipped == 3
    assert report.longest_gap == pytest.approx(120, abs=0.01)


def test_when_the_server_leaves_sound_out_the_countings_are_matched_anew():
    """What lies between two bursts that do not agree is not guessed at."""
    stimulus = Stimulus.of(20.0, 3)
    between = (stimulus.bursts[2] + stimulus.bursts[3]) // 2
    report = analyse(made(left_out=(between, 2)))
    assert report.shifts == 1
    assert report.bursts_seen == report.bursts_sent
    assert summary(report.latency)["max"] == pytest.approx(100, abs=0.05)
    assert len(report.latency) < len(analyse(made()).latency) - 20


def test_without_marks_or_bursts_nothing_is_said():
    record = made()
    bare = [Seen(seen.first, seen.last, seen.stamp, seen.size, seen.key, None) for seen in record.pictures]
    dark = [Seen(seen.first, seen.last, seen.stamp, seen.size, seen.key, seen.number) for seen in record.pictures]
    for pictures, says in ((bare, "--probe"), (dark, "did the sound arrive"), ([], "--probe")):
        with pytest.raises(NotMatchedError, match=says):
            analyse(Record(record.stimulus, record.sent, record.sounds, record.onsets, pictures))
    with pytest.raises(NotMatchedError, match="far behind"):
        analyse(made(latency=60.0))


def test_without_sound_the_latency_is_still_read():
    record = made()
    report = analyse(Record(record.stimulus, record.sent, [], [], record.pictures))
    assert report.av_arrival == []
    assert report.bursts_heard == 0
    assert summary(report.latency)["p50"] == pytest.approx(100, abs=0.01)


# The stimulus


def test_the_gaps_are_one_to_three_seconds_and_tell_one_burst_from_another():
    bursts = Stimulus.of(600, 1).bursts
    gaps = np.diff(bursts)
    assert gaps.min() >= 25
    assert gaps.max() < 75
    assert len(set(gaps)) > 20
    assert Stimulus.of(600, 1).bursts == bursts != Stimulus.of(600, 2).bursts


def test_a_burst_makes_its_own_chunks_loud_and_its_tail_in_the_next_does_not():
    """Opus delays it by 6.5 ms; half a chunk of misalignment shows as a fourth loud chunk."""
    pcm = Stimulus.of(12, 1).pcm()
    burst = Stimulus.of(12, 1).bursts[0]
    for delay, expected in ((0, 3), (CODEC_DELAY, 3), (CODEC_DELAY + PACKET, 4)):
        chunks = np.concatenate([np.zeros(delay, np.int16), pcm])[: len(pcm)].reshape(-1, HEARD_CHUNK)
        assert [loud(chunk) for chunk in chunks[burst - 1 : burst + 5]] == [
            False,
            *[True] * expected,
            *[False] * (5 - expected),
        ]
    assert TONE_LEVEL == 2 * LOUD


def test_bursts_are_found_to_the_millisecond_under_noise():
    stimulus = Stimulus.of(12, 1)
    pcm = stimulus.pcm() + np.random.default_rng(1).normal(0, 50, stimulus.chunks * HEARD_CHUNK).astype(np.int16)
    delayed = np.concatenate([np.zeros(777, np.int16), pcm])
    found = find_onsets(delayed)
    assert np.abs(np.array(found) - 777 - np.array(stimulus.bursts) * HEARD_CHUNK).max() <= 48
    assert find_onsets(np.zeros(48_000, np.int16)) == []


def test_a_summary_of_nothing_is_empty():
    assert summary([]) == {}
    assert summary([1.0, 2.0, 3.0])["p50"] == 2.0
