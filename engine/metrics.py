"""What the server counts, in the Prometheus text format 0.0.4. No dependency, no session ids in labels.

`Metrics` holds every family by name; rooms that count are given the family. `expose()` writes the page.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
LAGS: Final = (0.001, 0.002, 0.005, 0.01, 0.0125, 0.015, 0.0175, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
LONG: Final = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 28800.0)
SIGNED: Final = (-0.125, -0.06, -0.04, -0.02, 0.0, 0.02, 0.04, 0.06, 0.125)
SERIES_MOST: Final = 200
"""Label sets a family may have. A label that a stranger can choose would otherwise grow the page for ever."""

Labels = tuple[str, ...]


class Family(Protocol):
    name: str

    def lines(self) -> Iterable[str]: ...


class Counter:
    """Only grows. Its name ends in `_total`."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        if amount < 0:
            raise ValueError(f"{self.name} only grows")
        key = _key(self.name, self.labels, labels)
        if key in self._values or len(self._values) < SERIES_MOST:
            self._values[key] = self._values.get(key, 0.0) + amount

    def value(self, **labels: str) -> float:
        return self._values.get(_key(self.name, self.labels, labels), 0.0)

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self.help_text, self.kind)
        for key, value in sorted(self._values.items()):
            yield f"{self.name}{_braces(zip(self.labels, key, strict=True))} {_number(value)}"


class Gauge:
    """Goes up and down; set it, or give `read`, which is asked when the page is written."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        read: Callable[[], Mapping[Labels, float]] | None = None,
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        self.read = read
        self._values: dict[Labels, float] = {}

    def set(self, value: float, **labels: str) -> None:
        key = _key(self.name, self.labels, labels)
        if key in self._values or len(self._values) < SERIES_MOST:
            self._values[key] = value

    def value(self, **labels: str) -> float:
        values = self._values if self.read is None else self.read()
        return values.get(_key(self.name, self.labels, labels), math.nan)

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self.help_text, self.kind)
        values = self._values if self.read is None else self.read()
        for key, value in sorted(values.items()):
            yield f"{self.name}{_braces(zip(self.labels, key, strict=True))} {_number(value)}"


class Histogram:
    """How a quantity is spread. Values that are no number are left out."""

    kind = "histogram"

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = BUCKETS
    ) -> None:
        if list(buckets) != sorted(set(buckets)):
            raise ValueError(f"{name}: buckets must grow")
        self.name = name
        self.help_text = help_text
        self.labels = tuple(labels)
        self.buckets = tuple(buckets)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, **labels: str) -> None:
        key = _key(self.name, self.labels, labels)
        if math.isnan(value) or (key not in self._counts and len(self._counts) >= SERIES_MOST):
            return
        counts = self._counts.setdefault(key, [0] * (len(self.buckets) + 1))
        counts[bisect_left(self.buckets, value)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + value

    def count(self, **labels: str) -> int:
        return sum(self._counts.get(_key(self.name, self.labels, labels), ()))

    def quantile(self, share: float, **labels: str) -> float:
        """The upper edge of the bucket in which that share of all values lies; NaN when there are none."""
        counts = self._counts.get(_key(self.name, self.labels, labels), [])
        wanted = share * sum(counts)
        seen = 0
        for edge, count in zip((*self.buckets, math.inf), counts, strict=False):
            seen += count
            if count and seen >= wanted:
                return edge
        return math.nan

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self.help_text, self.kind)
        for key, counts in sorted(self._counts.items()):
            pairs = list(zip(self.labels, key, strict=True))
            seen = 0
            for edge, count in zip((*self.buckets, math.inf), counts, strict=True):
                seen += count
                yield f"{self.name}_bucket{_braces([*pairs, ('le', _number(edge))])} {seen}"
            yield f"{self.name}_sum{_braces(pairs)} {_number(self._sums[key])}"
            yield f"{self.name}_count{_braces(pairs)} {seen}"


class Metrics:
    """Every family that the server exposes."""

    def __init__(self) -> None:
        self.build_info = Gauge("avatar_build_info", "Always 1; what runs.", ("version", "backend"))
        self.sessions_active = Gauge("avatar_sessions_active", "Sessions now.", ("transport",))
        self.session_slots = Gauge("avatar_session_slots", "Slots of the model.", ("state",))
        self.sessions = Counter("avatar_sessions_total", "Sessions that ended, and how.", ("transport", "outcome"))
        self.session_duration = Histogram("avatar_session_duration_seconds", "How long sessions last.", buckets=LONG)
        self.negotiation = Histogram("avatar_negotiation_seconds", "From offer to answer.")
        self.first_frame = Histogram("avatar_first_frame_seconds", "From a session's start to its first picture.")
        self.stage = Histogram("avatar_stage_duration_seconds", "What each stage takes.", ("stage",))
        self.latency = Histogram(
            "avatar_audio_to_video_latency_seconds", "From the last sample of 40 ms to the moment that shows it."
        )
        self.av_skew = Histogram(
            "avatar_av_skew_seconds", "Sound ahead of its picture as they leave; positive: audio early.", buckets=SIGNED
        )
        self.frames = Counter("avatar_frames_total", "Pictures by fate.", ("result",))
        self.deadline_misses = Counter("avatar_deadline_misses_total", "Pictures that were not ready in time.")
        self.audio_buffer = Gauge("avatar_audio_buffer_seconds", "Sound that waits to be spoken, all sessions.")
        self.audio_gap = Counter(
            "avatar_audio_gap_seconds_total", "Sound that never came in time: concealed, or silence."
        )
        self.interrupt_latency = Histogram("avatar_interrupt_latency_seconds", "From interrupt to cleared.")
        self.batch_size = Histogram("avatar_batch_size", "Rows in one step of the model.", buckets=SIZES)
        self.webrtc_rtt = Histogram("avatar_webrtc_rtt_seconds", "Round trip to peers.")
        self.webrtc_lost = Counter("avatar_webrtc_packets_lost_total", "Packets that peers report as lost.")
        self.webrtc_pli = Counter("avatar_webrtc_pli_total", "Key frames that peers asked for.")
        self.webrtc_sent = Counter("avatar_webrtc_sent_bytes_total", "Bytes sent to peers.")
        self.ws_dropped = Counter("avatar_ws_send_queue_dropped_total", "Frames that slow websocket readers missed.")
        self.worker_restarts = Gauge("avatar_worker_restarts", "Times that the model's process was replaced.")
        self.loop_lag = Histogram(
            "avatar_event_loop_lag_seconds", "How late the event loop wakes; sampled each 50 ms.", buckets=LAGS
        )
        self.tasks = Gauge("avatar_event_loop_tasks", "Tasks of the event loop.")
        self.open_files = Gauge("process_open_fds", "Open file descriptors.")
        self.threads = Gauge("process_threads", "Threads.")
        self.memory = Gauge("process_resident_memory_bytes", "Resident memory, without the model's process.")
        self.requests = Counter("avatar_http_requests_total", "HTTP requests.", ("method", "status"))
        self.refused = Counter("avatar_refused_total", "Requests turned away.", ("reason",))

    def families(self) -> list[Family]:
        return sorted(vars(self).values(), key=lambda family: str(family.name))

    def expose(self) -> str:
        return "".join(f"{line}\n" for family in self.families() for line in family.lines())


def _key(name: str, wanted: Labels, given: Mapping[str, str]) -> Labels:
    if given.keys() != set(wanted):
        raise ValueError(f"{name} has labels {list(wanted)}, not {sorted(given)}")
    return tuple([given[label] for label in wanted])


def _head(name: str, help_text: str, kind: str) -> Iterable[str]:
    yield f"# HELP {name} " + help_text.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# TYPE {name} {kind}"


def _braces(pairs: Iterable[tuple[str, str]]) -> str:
    inside = ",".join(f'{label}="{_escape(value)}"' for label, value in pairs)
    return f"{{{inside}}}" if inside else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else f"{value:.10g}"
