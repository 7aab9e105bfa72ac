"""Any PCM in, exact dated chunks out."""

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.chunker import FEATURE_DELAY, RATE_LEAST, RATE_MOST, Chunker, _Run, kernel_half
from models.rates import CHUNK, HEARD_CHUNK, HEARD_RATE, SAMPLE_RATE

RATES = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 8_001, 47_999)


def noise(count: int, seed: int = 0, loud: int = 8_000) -> np.ndarray:
    return np.random.default_rng(seed).integers(-loud, loud, count, dtype=np.int16)


def band_noise(seconds: float, rate: int, highest: float) -> np.ndarray:
    """Noise below `highest` hertz, s16."""
    count = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(3).standard_normal(count))
    spectrum[np.fft.rfftfreq(count, 1 / rate) > highest] = 0
    sound = np.fft.irfft(spectrum, count)
    return np.rint(sound / np.abs(sound).max() * 16_000).astype(np.int16)


def split(pcm: np.ndarray, cuts: list[int]) -> list[np.ndarray]:
    return np.split(pcm, sorted(min(cut, len(pcm)) for cut in cuts))


def chunks_of(packets, rate: int, flush: bool = False):
    chunker, chunks = Chunker(), []
    for packet in packets:
        chunker.push(packet, rate)
        chunks += chunker.take()
    if flush:
        chunker.flush()
        chunks += chunker.take()
    return chunks


def same(chunks, others) -> bool:
    return len(chunks) == len(others) and all(
        one.pts == other.pts
        and one.invented == other.invented
        and np.array_equal(one.heard, other.heard)
        and np.array_equal(one.features, other.features)
        for one, other in zip(chunks, others, strict=True)
    )


def heard(chunks) -> np.ndarray:
    return np.concatenate([chunk.heard for chunk in chunks])


def features(chunks) -> np.ndarray:
    return np.concatenate([chunk.features for chunk in chunks])


# Shapes, dates, exactness


@pytest.mark.parametrize("rate", RATES)
def test_a_second_is_25_chunks_with_exact_dates(rate):
    chunks = chunks_of([noise(rate)], rate)
    assert [chunk.pts for chunk in chunks] == [HEARD_CHUNK * n for n in range(25)]
    for chunk in chunks:
        assert chunk.heard.shape == (HEARD_CHUNK,)
        assert chunk.heard.dtype == np.int16
        assert chunk.features.shape == (CHUNK,)
        assert chunk.features.dtype == np.float32
        assert not chunk.heard.flags.writeable
        assert not chunk.features.flags.writeable


@pytest.mark.parametrize("rate", RATES)
def test_a_chunk_is_ready_the_moment_its_40_ms_are_in(rate):
    chunker, needed = Chunker(), (HEARD_CHUNK - 1) * rate // HEARD_RATE + 1
    chunker.push(noise(needed - 1), rate, arrived=1.0)
    assert chunker.take() == []
    chunker.push(noise(1), rate, arrived=2.0)
    assert [chunk.arrived for chunk in chunker.take()] == [2.0]


def test_48_khz_passes_bit_exact():
    pcm = noise(5 * HEARD_CHUNK, loud=32_767)
    assert np.array_equal(heard(chunks_of(split(pcm, [7, 960, 5_000]), HEARD_RATE)), pcm)


def test_equal_stereo_sides_pass_bit_exact_and_others_are_their_mean():
    pcm = noise(HEARD_CHUNK, loud=32_767)
    assert np.array_equal(chunks_of([np.stack([pcm, pcm], 1)], HEARD_RATE)[0].heard, pcm)
    assert np.array_equal(chunks_of([pcm[:, None]], HEARD_RATE)[0].heard, pcm)
    mean = chunks_of([np.stack([pcm, np.zeros_like(pcm)], 1)], HEARD_RATE)[0].heard
    assert np.abs(mean - pcm / 2).max() <= 0.5


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_float_and_s16_of_one_sound_are_one_sound(kind):
    pcm = (noise(HEARD_CHUNK) // 32) * 32  # exact in 11 bits of float16
    assert np.array_equal(chunks_of([(pcm / 32_768).astype(kind)], HEARD_RATE)[0].heard, pcm)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100])
def test_the_ear_hears_what_soxr_at_its_best_makes_late_by_half_the_kernel(rate):
    pcm = band_noise(3, rate, 0.38 * rate)
    ours = heard(chunks_of([pcm], rate)).astype(np.float64)
    best = soxr.resample(pcm.astype(np.float64), rate, HEARD_RATE, quality="VHQ")
    count = min(len(ours), len(best))
    spectrum, frequency = np.fft.rfft(best[:count]), np.fft.rfftfreq(count)
    delay = kernel_half(rate) * HEARD_RATE / rate
    assert delay <= 1.5e-3 * HEARD_RATE
    error = {}
    for off in (-3, -2, -1, 0, 1, 2, 3):
        late = np.fft.irfft(spectrum * np.exp(-2j * np.pi * frequency * (delay + off)), count)
        error[off] = np.mean((late - ours)[9_600:-9_600] ** 2) / np.mean(best**2)
    assert min(error, key=error.get) == 0
    assert 10 * np.log10(error[0]) < -55


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_ear_and_model_get_the_same_sound_with_one_constant_lag(rate):
    """Cross-correlation of both streams, the ear's taken down to 16 kHz by soxr."""
    chunks = chunks_of([band_noise(3, rate, min(6_500, 0.38 * rate))], rate)
    ear = soxr.resample(heard(chunks) / 32_768, HEARD_RATE, SAMPLE_RATE, quality="VHQ")
    model = features(chunks).astype(np.float64)
    inner = slice(3_200, len(model) - 3_200)
    correlation = {
        lag: np.dot(model[3_200 + lag : len(model) - 3_200 + lag], ear[inner]) / np.dot(ear[inner], ear[inner])
        for lag in range(-80, 81)
    }
    best = max(correlation, key=correlation.get)
    assert best == FEATURE_DELAY == 24
    assert best / SAMPLE_RATE < 0.005
    assert abs(correlation[best] - 1) < 0.001
    residue = model[3_200 + best : len(model) - 3_200 + best] - ear[inner]
    assert 10 * np.log10(np.mean(residue**2) / np.mean(ear[inner] ** 2)) < -60


def test_what_the_model_cannot_hear_does_not_alias():
    tone = (16_000 * np.sin(2 * np.pi * 9_000 * np.arange(HEARD_RATE) / HEARD_RATE)).astype(np.int16)
    model = features(chunks_of([tone], HEARD_RATE))[640:]
    assert 20 * np.log10(np.sqrt(np.mean(model**2)) / (0.5 / np.sqrt(2))) < -55


# The two theorems

cuts = st.lists(st.integers(0, 12_000), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RATES), st.integers(0, 12_000), cuts, st.booleans())
def test_m9_any_split_of_the_same_sound_gives_bit_identical_chunks(rate, count, places, flush):
    pcm = noise(count, seed=count)
    whole = chunks_of([pcm], rate, flush)
    assert same(whole, chunks_of(split(pcm, places), rate, flush))
    assert len(whole) == (-(-count * 25 // rate) if flush else count * 25 // rate)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RATES), st.integers(1, 9_000), st.integers(0, 9_000), st.integers(0, 99))
def test_the_future_never_changes_the_past(rate, count, now, seed):
    past = min(now, count)
    pcm, other = noise(count), noise(count, seed=seed + 1)
    other[:past] = pcm[:past]
    whole = past * 25 // rate
    assert same(chunks_of([pcm], rate)[:whole], chunks_of([other], rate)[:whole])


packets = st.lists(
    st.tuples(
        st.integers(0, 3_000),
        st.one_of(st.none(), st.integers(-(2**63), 2**63), st.integers(0, 100_000)),
        st.sampled_from((8_000, 16_000, 48_000)),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(packets)
def test_no_dates_whatsoever_make_it_grow_or_lose_count(script):
    """A packet is (samples, pts, rate): every sample out was pushed or is counted as invented, at most 1 s a packet."""
    chunker, chunks = Chunker(), []
    for count, pts, rate in script:
        before = chunker.position, chunker.invented
        chunker.push(np.full(count, 100, np.int16), rate, pts=pts)
        assert chunker.invented - before[1] <= HEARD_RATE
        assert 0 <= chunker.position - before[0] <= HEARD_RATE + -(-count * HEARD_RATE // rate)
        chunks += chunker.take()
        assert 0 <= chunker.buffered < HEARD_CHUNK
    assert [chunk.pts for chunk in chunks] == [HEARD_CHUNK * n for n in range(len(chunks))]
    assert sum(chunk.invented for chunk in chunks) <= chunker.invented
    assert all(np.abs(chunk.features).max() <= 1 for chunk in chunks)


# Dates: holes, late sound, leaps


def dated(script, rate: int = 16_000):
    """Push (pts, samples) of a ramp that says its own date; returns the chunker and what came out of `heard`."""
    chunker = Chunker()
    for pts, count in script:
        chunker.push(np.full(count, 1_000, np.int16), rate, pts=pts)
    return chunker, chunker.take()


def test_the_first_date_is_the_beginning_whatever_it_is():
    for first in (0, 7, 2**32 - 5, -(10**12)):
        chunker, chunks = dated([(first, 640), (first + 640, 640)])
        assert [chunk.pts for chunk in chunks] == [0, HEARD_CHUNK]
        assert (chunker.invented, chunker.late, chunker.resyncs) == (0, 0, 0)


def test_dates_that_begin_in_mid_stream_change_nothing():
    chunker = Chunker()
    chunker.push(noise(640), 16_000)
    chunker.push(noise(640), 16_000, pts=999_999)
    chunker.push(noise(640), 16_000, pts=1_000_639)
    assert [chunk.invented for chunk in chunker.take()] == [0, 0, 0]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_hole_is_silence_of_its_own_length(rate):
    """M1: one packet of 20 ms is lost."""
    packet = rate // 50
    sound = np.full(packet, 10_000, np.int16)
    chunker = Chunker()
    for n in (0, 1, 2, 4, 5, 6, 7):
        chunker.push(sound, rate, pts=n * packet)
    chunks = chunker.take()
    assert len(chunks) == 4
    assert [chunk.invented for chunk in chunks] == [0, 960, 0, 0]
    middle = heard(chunks)[3 * 960 + 150 : 4 * 960 - 10]  # without the kernel's 3 ms
    assert np.abs(middle).max() <= 1
    assert np.abs(heard(chunks)[4 * 960 + 200 :] - 10_000).max() < 300


def test_a_second_of_hole_is_filled_and_a_little_more_is_a_new_beginning():
    chunker, _ = dated([(0, 640), (640 + 16_000, 640)])
    assert (chunker.invented, chunker.resyncs) == (HEARD_RATE, 0)
    chunker, chunks = dated([(0, 640), (640 + 16_001, 640), (1_280 + 16_001, 640)])
    assert (chunker.invented, chunker.resyncs) == (0, 1)
    assert len(chunks) == 3


@pytest.mark.parametrize("leap", [3_600 * 16_000, -3_600 * 16_000, 2**62, -(2**62)])
def test_a_leap_of_an_hour_or_more_is_survived_and_what_follows_is_contiguous(leap):
    """M5, F8: timestamps leap; nothing is allocated for it."""
    chunker, chunks = dated([(0, 640), (leap, 640), (leap + 640, 640)])
    assert (chunker.invented, chunker.late, chunker.resyncs) == (0, 0, 1)
    assert len(chunks) == 3


def test_dates_a_little_backwards_are_sound_heard_twice_and_dropped():
    chunker, chunks = dated([(0, 1_600), (1_000, 920)])
    assert chunker.late == 600 * 3
    assert len(chunks) == 3


def test_dates_that_wobble_by_a_millisecond_are_contiguous():
    """A client that counts in microseconds rounds."""
    chunker, chunks = dated([(0, 640), (641, 640), (1_279, 640), (1_920 + 16, 640), (2_560 - 16, 640)])
    assert len(chunks) == 5
    assert (chunker.invented, chunker.late, chunker.resyncs) == (0, 0, 0)


def test_a_wobble_does_not_add_up():
    """A source whose dates run 1 in 1,000 ahead of its samples: holes are made good, not forgotten."""
    chunker = Chunker()
    for n in range(500):
        chunker.push(np.zeros(320, np.int16), 16_000, pts=n * 320 + n * 320 // 1_000)
    drift = 499 * 320 // 1_000
    assert drift - 17 <= chunker.invented / 3 <= drift


def test_after_a_stall_the_late_sound_is_dropped_and_latency_is_back_at_once():
    """M3: 500 ms of nothing; the owner called it silence; then all of it comes in a burst, and then the present."""
    chunker, packet = Chunker(), np.full(960, 500, np.int16)
    for n in range(10):
        chunker.push(packet, HEARD_RATE, pts=n * 960)
    chunker.take()
    for n in range(12):
        assert chunker.fill((10 + 2 * n + 2) * 960) == 1_920
    assert [chunk.invented for chunk in chunker.take()] == [1_920] * 12
    for n in range(10, 34):
        chunker.push(packet, HEARD_RATE, pts=n * 960)
    assert chunker.buffered == 0
    assert chunker.late == 24 * 960
    for n in range(34, 36):
        chunker.push(packet, HEARD_RATE, pts=n * 960)
    (chunk,) = chunker.take()
    assert chunk.pts == 34 * 960
    assert chunk.invented == 0
    assert (chunk.heard == 500).all()


def test_silence_that_was_not_sent_is_not_late():
    """M4: Opus DTX, one packet in 400 ms with dates that leap; and a pause of a minute that the owner filled."""
    chunker, packet = Chunker(), np.zeros(960, np.int16)
    for n in range(5):
        chunker.push(packet, HEARD_RATE, pts=n * 19_200)
    assert chunker.position == 4 * 19_200 + 960
    for _ in range(60):
        chunker.fill(chunker.position + HEARD_RATE)
    chunker.push(packet, HEARD_RATE, pts=4 * 19_200 + 960 + 60 * HEARD_RATE)
    assert (chunker.late, chunker.resyncs) == (0, 0)
    assert chunker.position == 4 * 19_200 + 960 + 60 * HEARD_RATE + 960


def test_a_random_walk_of_losses_keeps_every_date():
    """M2: 5 % of packets are lost; each sound that came is at its own place."""
    rng, chunker, packet = np.random.default_rng(2), Chunker(), 960
    chunks, sent = [], {}
    for n in range(1_000):
        if n == 0 or rng.random() > 0.05:
            sent[n] = int(rng.integers(1, 30_000))
            chunker.push(np.full(packet, sent[n], np.int16), HEARD_RATE, pts=n * packet)
            chunks += chunker.take()
    sound = heard(chunks).reshape(-1, packet)
    assert all((sound[n] == sent.get(n, 0)).all() for n in range(len(sound)))


# fill, flush, clear


def test_fill_is_exact_bounded_and_counts():
    chunker = Chunker()
    assert chunker.fill(0) == 0
    assert chunker.fill(-5) == 0
    assert chunker.fill(10) == 10
    assert chunker.buffered == 10
    assert chunker.fill(10**12) == HEARD_RATE
    assert chunker.position == HEARD_RATE + 10
    assert chunker.invented == HEARD_RATE + 10
    assert len(chunker.take()) == 25


@pytest.mark.parametrize("rate", RATES)
def test_fill_reaches_the_date_at_any_rate_by_at_most_5_samples_more(rate):
    chunker = Chunker()
    chunker.push(noise(333), rate)
    begin = chunker.position
    for until in (begin + 1, begin + 1_000, begin + 2_345):
        chunker.fill(until)
        assert until <= chunker.position <= until + 5


def test_chunk_after_chunk_of_silence_is_exact_at_8_khz():
    chunker = Chunker()
    chunker.push(noise(320), 8_000)
    for n in range(1, 100):
        chunker.fill((n + 1) * HEARD_CHUNK)
        assert chunker.buffered == HEARD_CHUNK * (2 if n == 1 else 1)
        chunker.take()


def test_flush_pads_the_last_chunk_and_the_next_segment_dates_anew():
    for rate in RATES:
        chunker = Chunker()
        chunker.push(noise(rate // 10), rate, pts=5_000)
        chunker.flush(arrived=3.0)
        chunks = chunker.take()
        assert len(chunks) == 3
        assert chunks[-1].arrived == 3.0
        assert 950 <= chunks[-1].invented <= 970
        assert chunker.buffered == 0
        chunker.flush()
        assert chunker.take() == []
        chunker.push(noise(rate // 25 + 1), rate, pts=0)
        (chunk,) = chunker.take()
        assert chunk.pts == 3 * HEARD_CHUNK
        assert chunker.late == chunker.resyncs == 0


def test_clear_forgets_everything_and_begins_a_new_epoch_from_silence():
    used, fresh = Chunker(), Chunker(pts=96_000, epoch=4)
    used.push(noise(20_000), 44_100, pts=77)
    used.clear(96_000, epoch=4)
    assert (used.buffered, used.position) == (0, 96_000)
    for chunker in (used, fresh):
        chunker.push(noise(2_000, seed=9), HEARD_RATE, pts=0)
    ours, theirs = used.take(), fresh.take()
    assert same(ours, theirs)
    assert ours[0].epoch == 4


def test_clear_without_a_date_goes_on_where_taking_stopped():
    chunker = Chunker()
    chunker.push(noise(5_000), HEARD_RATE)
    chunker.take()
    chunker.push(noise(5_000), HEARD_RATE)
    chunker.clear()
    assert chunker.position == 2 * HEARD_CHUNK


def test_another_rate_in_mid_stream_goes_on_without_a_hole():
    chunker = Chunker()
    for rate, pts in ((16_000, 0), (48_000, 7), (8_000, 10**9), (44_100, -1)):
        chunker.push(band_noise(0.4, rate, 3_000), rate, pts=pts)
    chunks = chunker.take()
    assert len(chunks) == 40
    assert (chunker.invented, chunker.late, chunker.resyncs) == (0, 0, 0)
    assert all(np.abs(chunk.heard.astype(int)).max() > 1_000 for chunk in chunks)


# Hostile sound


def test_at_16_khz_the_ear_gets_unasked_what_it_would_be_given() -> None:
    """`heard` is made late, chunk by chunk, and is what the interpolation of the whole would have been."""
    pcm = noise(5 * CHUNK)
    assert np.array_equal(
        heard(chunks_of(split(pcm, [100, 641, 2_000]), SAMPLE_RATE)), _Run(SAMPLE_RATE).interpolate(pcm)
    )


def test_at_16_khz_the_model_gets_the_source_itself() -> None:
    pcm = noise(3 * CHUNK)
    lag = 2 * FEATURE_DELAY
    assert np.array_equal(features(chunks_of([pcm], SAMPLE_RATE))[lag:] * 32_768, pcm[:-lag])


@pytest.mark.parametrize("before", [0, 100, CHUNK, CHUNK + 333])
def test_from_16_khz_to_48_in_mid_chunk_nothing_that_was_heard_is_lost(before: int) -> None:
    first, second = noise(2 * CHUNK + before), noise(2 * HEARD_CHUNK, seed=1)
    chunker = Chunker()
    chunker.push(first, SAMPLE_RATE)
    chunker.push(second, HEARD_RATE)
    chunks = chunker.take()
    made = heard(chunks)
    whole = np.concatenate([_Run(SAMPLE_RATE).interpolate(first), second])
    assert np.array_equal(made, whole[: len(made)])
    whole_features = chunks_of([whole], HEARD_RATE)
    after = len(first) // CHUNK + 1  # the chunk of the change and those before are not made in the same way
    assert np.array_equal(features(chunks[after:]), features(whole_features[after : len(chunks)]))


def test_what_is_no_number_becomes_silence_and_is_counted():
    """M10."""
    chunker = Chunker()
    chunker.push(np.array([np.nan, np.inf, -np.inf, 0.5] * 480, np.float32), HEARD_RATE)
    (chunk,) = chunker.take()
    assert chunker.mended == 3 * 480
    assert sorted(set(chunk.heard.tolist())) == [0, 16_384]
    assert np.isfinite(chunk.features).all()


def test_what_is_too_loud_is_clipped():
    (chunk,) = chunks_of([np.array([1e30, -1e30, 1.0, -1.0] * 480)], HEARD_RATE)
    assert chunk.heard[:4].tolist() == [32_767, -32_768, 32_767, -32_768]
    assert np.abs(chunk.features).max() <= 1


def test_direct_current_and_a_full_scale_square_pass():
    dc = chunks_of([np.full(HEARD_CHUNK * 2, 12_345, np.int16)], HEARD_RATE)
    assert (heard(dc) == 12_345).all()
    assert np.allclose(dc[1].features, 12_345 / 32_768, atol=1e-6)
    square = np.where(np.arange(HEARD_CHUNK * 3) % 480 < 240, 32_767, -32_768).astype(np.int16)
    for rate in RATES:
        chunks = chunks_of([square], rate)
        assert np.abs(features(chunks)).max() <= 1
        assert np.abs(heard(chunks)[4_000:].astype(int)).max() > 32_000
    assert np.array_equal(heard(chunks_of([square], HEARD_RATE)), square)


def test_silence_is_exactly_silent():
    for rate in RATES:
        chunks = chunks_of([np.zeros(rate, np.int16)], rate)
        assert not heard(chunks).any()
        assert not features(chunks).any()


def test_an_empty_packet_is_nothing():
    chunker = Chunker()
    for kind in (np.int16, np.float32):
        chunker.push(np.zeros(0, kind), 16_000)
        chunker.push(np.zeros((0, 2), kind), 16_000, pts=0)
    assert chunker.take() == []
    assert chunker.buffered == 0


def test_ten_seconds_in_one_packet_come_out_at_once():
    for rate in (8_000, 16_000, 48_000):
        pcm = noise(10 * rate)
        assert same(chunks_of([pcm], rate), chunks_of(np.split(pcm, 500), rate))
        assert len(chunks_of([pcm], rate)) == 250


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((8_000, 16_000, 48_000)),
    st.lists(st.floats(width=32), max_size=300),
    st.integers(1, 40),
)
def test_any_floats_at_all_leave_it_sane(rate, values, times):
    chunker = Chunker()
    chunker.push(np.array(values * times, np.float32), rate)
    chunker.push(noise(rate), rate)
    for chunk in chunker.take():
        assert np.isfinite(chunk.features).all()
        assert np.abs(chunk.features).max() <= 1


def test_the_callers_buffer_may_be_reused():
    buffer, chunker = noise(640), Chunker()
    chunker.push(buffer, HEARD_RATE)
    kept = buffer.copy()
    buffer[:] = 0
    chunker.push(noise(1_280, seed=5), HEARD_RATE)
    assert np.array_equal(chunker.take()[0].heard[:640], kept)


@pytest.mark.parametrize("rate", [0, -16_000, RATE_LEAST - 1, RATE_MOST + 1, 96_000, 16_000.0, True, None])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="8000 to 48000 Hz"):
        Chunker().push(noise(10), rate)


@pytest.mark.parametrize(
    ("pcm", "says"),
    [
        (np.zeros((4, 3), np.int16), "shape"),
        (np.zeros((2, 960), np.int16), "shape"),
        (np.zeros((2, 2, 2), np.int16), "shape"),
        (np.int16(3), "shape"),
        (np.zeros(4, np.uint8), "type"),
        (np.zeros(4, np.int32), "type"),
        (np.zeros(4, np.complex64), "type"),
        (np.array(["a"]), "type"),
        (np.array([None]), "type"),
    ],
)
def test_sound_of_another_kind_is_refused_and_changes_nothing(pcm, says):
    chunker = Chunker()
    with pytest.raises(ValueError, match=says):
        chunker.push(pcm, 16_000)
    assert chunker.position == 0
    chunker.push(noise(640), 16_000)
    assert len(chunker.take()) == 1


@pytest.mark.parametrize("rate", [8_000, 44_100, HEARD_RATE])
def test_a_skipped_hour_is_not_made_and_its_sound_is_late_when_it_comes(rate: int) -> None:
    chunker = Chunker()
    second = noise(rate)
    chunker.push(second, rate, pts=0)
    chunker.take()
    until = 3_601 * HEARD_RATE
    chunker.skip(until)
    assert len(chunker.take()) <= 26
    assert until <= chunker.position <= until + 5
    chunker.push(second, rate, pts=600 * rate)
    assert (chunker.resyncs, chunker.take(), chunker.late) == (0, [], HEARD_RATE)
    chunker.push(second, rate, pts=3_601 * rate)
    assert chunker.resyncs == 0
    assert chunker.take()[0].pts == until
    chunker.push(second, rate, pts=600 * rate)
    assert chunker.resyncs == 1, "after sound in time, an hour back is a leap of dates again"
