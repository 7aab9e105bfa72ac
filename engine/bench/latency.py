"""From what one client sent and received to latency and lip sync. Pure: a `Record` in, a `Report` out.

The client speaks in bursts of 1 kHz, 120 ms long, that begin where a 40 ms chunk of its own begins, after gaps of
pseudo-random length. A server under `--probe` writes into each picture its number and whether that moment's own sound
is loud. The first loud picture after a burst was sent is that burst's, which matches the two countings; where two
bursts in a row agree, every picture between them tells which 40 ms of the client's sound it belongs to. (Where they do
not, the server has left sound out or put silence in: a `shift`.) No clock is shared but the client's own.

- latency: the last packet of a frame's own 40 ms left the client → the first packet of that frame reached it.
- A/V offset, as it arrives: when the whole picture of a chunk was there, less when the sound of that chunk was.
  Positive: the sound is early. Bursts are found in the decoded sound: the 6.5 ms by which Opus delays it are inside.
- A/V offset, as sender reports date it: what a browser makes of it.
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.rates import FRAME_RATE, HEARD_CHUNK, HEARD_RATE

TONE_HERTZ = 1_000
TONE_LEVEL = 2_000
"""Root mean square, s16. Twice what a mark calls loud: then 13.5 ms of it make a chunk loud, and 6.5 ms do not."""

BURST_CHUNKS = 3
QUIET_SECONDS = 2.0
"""Before the first burst: connecting, and the beat of the playout."""

PACKET = HEARD_RATE // 50
CODEC_DELAY = 312
"""Samples by which Opus delays sound: its look-ahead of 6.5 ms."""

FIRST_GAP_SECONDS = 1.0
"""The least time between two bursts: within it, what is seen or heard belongs to the last one."""

HOLD_SECONDS = 2.0
"""The negative control holds what arrives in every other stretch of this length."""

PICTURE_CLOCK = 90_000
NUMBERS = 1 << 16

Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Stimulus:
    """What a client says: bursts at these chunks of its own counting, `chunks` in all."""

    chunks: int
    bursts: tuple[int, ...]

    @staticmethod
    def of(seconds: float, seed: int) -> "Stimulus":
        """Gaps of 1 to 3 s, the same for the same seed."""
        rng = np.random.default_rng(seed)
        chunks, at = int(seconds * FRAME_RATE), int(QUIET_SECONDS * FRAME_RATE)
        bursts = []
        while at + 2 * BURST_CHUNKS < chunks:
            bursts.append(at)
            at += int(rng.integers(FRAME_RATE, 3 * FRAME_RATE))
        return Stimulus(chunks, tuple(bursts))

    def pcm(self) -> Pcm:
        """Mono at 48 kHz."""
        tone = (
            TONE_LEVEL
            * np.sqrt(2)
            * np.sin(2 * np.pi * TONE_HERTZ * np.arange(BURST_CHUNKS * HEARD_CHUNK) / HEARD_RATE)
        )
        sound = np.zeros(self.chunks * HEARD_CHUNK, np.int16)
        for burst in self.bursts:
            sound[burst * HEARD_CHUNK :][: len(tone)] = np.rint(tone).astype(np.int16)
        return sound


@dataclass(frozen=True, slots=True)
class Sent:
    at: float
    sample: int  # of the client's own sound, where the packet begins


@dataclass(frozen=True, slots=True)
class Sound:
    at: float
    stamp: int  # RTP, 48 kHz


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture, all its packets there."""

    first: float
    last: float
    stamp: int  # RTP, 90 kHz
    size: int
    key: bool
    number: int | None
    loud: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Dated:
    """A sender report: `stamp` is of the wall time `ntp`, in seconds."""

    kind: str
    ntp: float
    stamp: int


@dataclass(frozen=True, slots=True)
class Record:
    """What one client saw. Times in seconds of its own clock."""

    stimulus: Stimulus
    sent: list[Sent]
    sounds: list[Sound]
    onsets: list[int]  # RTP times at which bursts begin in the decoded sound
    pictures: list[Seen]
    reports: list[Dated] = field(default_factory=list)
    connected_after: float = 0.0
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """Milliseconds, but for counts and rates."""

    latency: list[float]
    seen_at: list[float]
    """When each picture of `latency` came, in seconds."""
    av_arrival: list[float]
    av_dated: list[float]
    bursts_sent: int
    bursts_seen: int
    bursts_heard: int
    pictures: int
    unreadable: int
    repeated: int
    skipped: int
    frames_per_second: float
    longest_gap: float
    kilobits_per_second: float
    key_frames: int
    shifts: int
    """How often the server's counting moved against the client's: sound left out, or silence put in."""
    half_chunk: bool
    """The server's chunks begin 20 ms beside the client's: the first packet was not heard."""


class NotMatchedError(ValueError):
    """The record does not show which picture belongs to which sound."""


def find_onsets(pcm: Pcm, level: float = TONE_LEVEL) -> list[int]:
    """Where bursts of the tone begin, in samples: half its level is reached after 200 ms below."""
    period = HEARD_RATE // TONE_HERTZ
    blocks = pcm[: len(pcm) // period * period].reshape(-1, period).astype(np.float64)
    above = np.sqrt(np.mean(blocks**2, axis=1)) > level / 2
    onsets, quiet = [], HEARD_RATE
    for index, high in enumerate(above):
        if high and quiet >= HEARD_RATE // 5:
            onsets.append(index * period)
        quiet = 0 if high else quiet + period
    return onsets


def analyse(record: Record) -> Report:
    """Raises `NotMatchedError` with one line when nothing can be said."""
    marked = [picture for picture in record.pictures if picture.number is not None]
    if not marked:
        raise NotMatchedError("no picture carries a mark: is the server running with --probe?")
    numbers = _unwrap([picture.number or 0 for picture in marked], NUMBERS)
    flashes, half = _flashes(numbers, marked)
    left = {sent.sample: sent.at for sent in record.sent}
    ahead = _match(flashes, record.stimulus.bursts, left)
    latency = _latency(record, marked, numbers, ahead, left, half)
    heard = _chunk_arrivals(record, left, half)
    seen = dict(zip(numbers, marked, strict=True))
    pairs = [(seen[burst + ahead[burst]], *heard[burst]) for burst in ahead if burst in heard]
    span = record.pictures[-1].last - record.pictures[0].last
    arrivals = np.diff([picture.last for picture in record.pictures])
    steps = np.diff(numbers)
    return Report(
        latency=[(at - sent) * 1e3 for at, sent in latency],
        seen_at=[at for at, _ in latency],
        av_arrival=[(picture.last - at) * 1e3 for picture, at, _ in pairs],
        av_dated=_dated(record.reports, [(picture.stamp, stamp) for picture, _, stamp in pairs]),
        bursts_sent=len(record.stimulus.bursts),
        bursts_seen=len(ahead),
        bursts_heard=len(heard),
        pictures=len(record.pictures),
        unreadable=len(record.pictures) - len(marked),
        repeated=sum(picture.repeated for picture in marked),
        skipped=int(np.clip(steps - 1, 0, None).sum()),
        frames_per_second=(len(record.pictures) - 1) / span if span > 0 else 0.0,
        longest_gap=float(arrivals.max(initial=0.0)) * 1e3,
        kilobits_per_second=8e-3 * sum(picture.size for picture in record.pictures) / span if span > 0 else 0.0,
        key_frames=sum(picture.key for picture in record.pictures),
        shifts=sum(one != other for one, other in itertools.pairwise(ahead.values())),
        half_chunk=half,
    )


def held(arrived: float) -> bool:
    """Whether the negative control holds what arrives at this time."""
    return int(arrived / HOLD_SECONDS) % 2 == 1


def split_by_hold(report: Report, inserted: float) -> tuple[list[float], list[float]]:
    """Latencies of pictures that were let through, and of those that were held for `inserted` seconds. Those near the
    ends of a stretch are in neither."""
    passed, late = [], []
    for latency, at in zip(report.latency, report.seen_at, strict=True):
        within = at % HOLD_SECONDS
        if not held(at) and within > 2 * inserted:
            passed.append(latency)
        elif held(at - inserted) and held(at) and within > 2 * inserted:
            late.append(latency)
    return passed, late


def summary(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99, max and mean."""
    if not values:
        return {}
    array = np.asarray(values)
    shares = {f"p{share}": float(np.percentile(array, share)) for share in (1, 50, 95, 99)}
    return {**shares, "max": float(array.max()), "mean": float(array.mean()), "count": len(array)}


def _unwrap(values: Sequence[int], modulus: int) -> list[int]:
    """Counters that go round, as counters that go on."""
    out, last = [], values[0] if values else 0
    for value in values:
        last += (value - last + modulus // 2) % modulus - modulus // 2
        out.append(last)
    return out


def _flashes(numbers: Sequence[int], marked: Sequence[Seen]) -> tuple[dict[int, float], bool]:
    """The numbers at which it became loud, and when that came; whether bursts lie half a chunk beside the chunks."""
    loud = {number: picture.loud for number, picture in zip(numbers, marked, strict=True)}
    starts, lengths = dict[int, float](), list[int]()
    for number, picture in zip(numbers, marked, strict=True):
        if picture.loud and not loud.get(number - 1, False) and number not in starts:
            starts[number] = picture.first
            length = 1
            while loud.get(number + length, False):
                length += 1
            lengths.append(length)
    return starts, bool(lengths) and float(np.median(lengths)) > BURST_CHUNKS


def _match(flashes: dict[int, float], bursts: Sequence[int], left: dict[int, float]) -> dict[int, int]:
    """For each burst that was seen, in order: the server's number less the client's."""
    if not flashes:
        raise NotMatchedError("no picture was loud: did the sound arrive?")
    ahead: dict[int, int] = {}
    for burst, following in itertools.zip_longest(bursts, bursts[1:]):
        begin = left.get(burst * HEARD_CHUNK, math.inf)
        end = begin + FIRST_GAP_SECONDS if following is None else left.get(following * HEARD_CHUNK, -math.inf)
        for number, at in flashes.items():
            if begin < at < end:
                ahead[burst] = number - burst
                break
    if not ahead:
        raise NotMatchedError("no burst was seen within a second: the server is far behind")
    return ahead


def _latency(
    record: Record,
    marked: Sequence[Seen],
    numbers: Sequence[int],
    ahead: dict[int, int],
    left: dict[int, float],
    half: bool,
) -> list[tuple[float, float]]:
    """For each chunk whose own picture came: when that was, and when its last packet had left. A picture that is shown
    again says nothing of its chunk."""
    shift = PACKET if half else 0
    seen = dict(zip(reversed(numbers), reversed(marked), strict=True))  # the first of each number
    latency = []
    bursts = list(ahead)
    for chunk in range(bursts[0], record.stimulus.chunks):
        index = bisect.bisect_right(bursts, chunk) - 1
        before, after = bursts[index], bursts[min(index + 1, len(bursts) - 1)]
        picture = seen.get(chunk + ahead[before])
        at = left.get((chunk + 1) * HEARD_CHUNK - PACKET - shift)
        if ahead[before] == ahead[after] and picture is not None and at is not None and not picture.repeated:
            latency.append((picture.first, at))
    return latency


def _chunk_arrivals(record: Record, left: dict[int, float], half: bool) -> dict[int, tuple[float, float]]:
    """For each burst: when the sound of its chunk's beginning arrived, and its RTP time in the decoded sound."""
    if not record.sounds:
        return {}
    stamps = _unwrap([sound.stamp for sound in record.sounds], 1 << 32)
    at = dict(zip(stamps, (sound.at for sound in record.sounds), strict=True))
    said = [(burst, left[burst * HEARD_CHUNK]) for burst in record.stimulus.bursts if burst * HEARD_CHUNK in left]
    arrived: dict[int, tuple[float, float]] = {}
    for onset in record.onsets:
        # A burst begins CODEC_DELAY into the server's chunk. What Opus delays on the way back is the receiver's.
        begin = stamps[0] + (onset - stamps[0]) % (1 << 32) - CODEC_DELAY - (PACKET if half else 0)
        packet = max((stamp for stamp in stamps if begin - PACKET < stamp <= begin), default=None)
        if packet is None:
            continue
        when = at[packet] + (begin - packet) / HEARD_RATE
        burst = max((burst for burst, sent in said if sent < when), default=None)
        if burst is not None:
            arrived.setdefault(burst, (when, begin))
    return arrived


def _dated(reports: Sequence[Dated], pairs: Sequence[tuple[int, float]]) -> list[float]:
    """Each pair of picture and sound, as the last sender reports of both date them."""
    last = {report.kind: report for report in reports}
    if len(last) < 2:
        return []

    def wall(kind: str, stamp: float, rate: int) -> float:
        report = last[kind]
        return report.ntp + ((stamp - report.stamp + (1 << 31)) % (1 << 32) - (1 << 31)) / rate

    return [
        (wall("video", picture, PICTURE_CLOCK) - wall("audio", sound, HEARD_RATE)) * 1e3 for picture, sound in pairs
    ]
