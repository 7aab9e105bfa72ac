"""The Prometheus page, read back by a small strict reader."""

import math
import re

import pytest

from engine.metrics import BUCKETS, SERIES_MOST, Counter, Gauge, Histogram, Metrics

SAMPLE = re.compile(r'^([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*)\})? (\S+)$')


def read(page: str) -> dict[tuple[str, str], float]:
    """Every sample of the page; any line that is neither a comment nor a sample fails the test."""
    values = {}
    for line in page.splitlines():
        if not line.startswith(("# HELP ", "# TYPE ")):
            match = SAMPLE.match(line)
            assert match, line
            values[match[1], match[2] or ""] = float(match[3])
    return values


def test_a_histogram_counts_upwards_and_ends_at_infinity() -> None:
    histogram = Histogram("avatar_stage_duration_seconds", "…", ("stage",))
    for value in (0.0005, 0.001, 0.03, 7.0, math.nan):
        histogram.observe(value, stage="render")
    values = read("\n".join(histogram.lines()))
    assert values["avatar_stage_duration_seconds_bucket", 'stage="render",le="0.001"'] == 2
    assert values["avatar_stage_duration_seconds_bucket", 'stage="render",le="0.04"'] == 3
    assert values["avatar_stage_duration_seconds_bucket", 'stage="render",le="1"'] == 3
    assert values["avatar_stage_duration_seconds_bucket", 'stage="render",le="+Inf"'] == 4
    assert values["avatar_stage_duration_seconds_count", 'stage="render"'] == 4
    assert values["avatar_stage_duration_seconds_sum", 'stage="render"'] == pytest.approx(7.0315)


def test_quantiles_are_bucket_edges() -> None:
    histogram = Histogram("avatar_negotiation_seconds", "…")
    assert math.isnan(histogram.quantile(0.5))
    for _ in range(99):
        histogram.observe(0.003)
    histogram.observe(5.0)
    assert histogram.quantile(0.5) == 0.005
    assert histogram.quantile(0.99) == 0.005
    assert histogram.quantile(1.0) == math.inf
    assert histogram.count() == 100


def test_labels_that_a_stranger_chose_are_escaped_and_bounded() -> None:
    counter = Counter("avatar_refused_total", "…", ("reason",))
    counter.add(reason='"}\n evil \\')
    assert list(counter.lines())[-1] == r'avatar_refused_total{reason="\"}\n evil \\"} 1'
    for n in range(10_000):
        counter.add(reason=str(n))
    assert len(list(counter.lines())) == SERIES_MOST + 2


def test_a_counter_never_falls() -> None:
    counter = Counter("avatar_webrtc_pli_total", "…")
    assert read("\n".join(counter.lines())) == {("avatar_webrtc_pli_total", ""): 0.0}
    counter.add(2.5)
    with pytest.raises(ValueError, match="only grows"):
        counter.add(-1)
    assert counter.value() == 2.5


def test_wrong_labels_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="labels"):
        Counter("avatar_frames_total", "…", ("result",)).add(fate="late")


def test_a_gauge_can_be_asked_when_the_page_is_written() -> None:
    free = [3.0]
    gauge = Gauge("avatar_session_slots", "…", ("state",), read=lambda: {("free",): free[0]})
    assert gauge.value(state="free") == 3.0
    free[0] = 1.0
    assert list(gauge.lines())[-1] == 'avatar_session_slots{state="free"} 1'


def test_buckets_must_grow() -> None:
    with pytest.raises(ValueError, match="grow"):
        Histogram("avatar_x", "…", buckets=(1.0, 1.0))


def test_the_page_has_the_names_that_the_wire_promises() -> None:
    metrics = Metrics()
    metrics.build_info.set(1, version="0.1.0", backend="plain")
    page = metrics.expose()
    for name in [
        "sessions_active",
        "session_slots",
        "sessions_total",
        "session_duration_seconds",
        "negotiation_seconds",
        "first_frame_seconds",
        "stage_duration_seconds",
        "audio_to_video_latency_seconds",
        "av_skew_seconds",
        "frames_total",
        "deadline_misses_total",
        "audio_buffer_seconds",
        "audio_gap_seconds_total",
        "interrupt_latency_seconds",
        "batch_size",
        "webrtc_rtt_seconds",
        "webrtc_packets_lost_total",
        "webrtc_pli_total",
        "webrtc_sent_bytes_total",
        "ws_send_queue_dropped_total",
        "build_info",
    ]:
        assert f"# TYPE avatar_{name} " in page
    assert page.endswith("\n")
    assert read(page)["avatar_build_info", 'version="0.1.0",backend="plain"'] == 1
    assert BUCKETS == (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
