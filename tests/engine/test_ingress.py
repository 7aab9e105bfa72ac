"""Packets by script: `loss=[True, False, …]` says which are lost; times are numbers; nothing sleeps."""

import itertools
import random
from collections.abc import Iterable

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.encoder import SoundEncoder
from engine.ingress import (
    CONCEAL_MOST,
    TAKEOVER_AFTER,
    WAIT_SECONDS,
    Ingress,
    OpusDecoder,
    Piece,
    VoiceReceiver,
)
from tests.fakes import vowel

FRAME = 960
PACKET_SECONDS = 0.02


class Numbers:
    """A decoder whose sound is the packet's number; what it invents is -1; it refuses what begins with 'x'."""

    def decode(self, payload: bytes) -> npt.NDArray[np.int16] | None:
        return None if payload[:1] == b"x" else np.full(FRAME, int(payload), np.int16)

    def conceal(self, samples: int) -> npt.NDArray[np.int16]:
        return np.full(samples, -1, np.int16)


class Script:
    """A sender and an ingress on a clock of their own."""

    def __init__(self, sequence: int = 100, timestamp: int = 5_000) -> None:
        self.ingress = Ingress(Numbers())
        self.sequence = sequence
        self.timestamp = timestamp
        self.pieces: list[Piece] = []

    def packet(
        self,
        index: int,
        at: float | None = None,
        *,
        stamp: int | None = None,
        source: int = 7,
        number: int | None = None,
    ) -> list[Piece]:
        """The index-th packet, sent at index x 20 ms; `at` is when it comes."""
        at = index * PACKET_SECONDS if at is None else at
        stamp = self.timestamp + index * FRAME if stamp is None else stamp
        number = self.sequence + index if number is None else number
        self._wait(at)
        new = self.ingress.add(number & 0xFFFF, stamp & 0xFFFFFFFF, b"%d" % (index % 30_000), at, source)
        self.pieces += new
        return new

    def _wait(self, until: float) -> None:
        while (deadline := self.ingress.deadline) is not None and deadline < until:
            self.pieces += self.ingress.due(deadline)

    def finish(self, at: float) -> None:
        self._wait(at)

    @property
    def heard(self) -> list[int]:
        """Numbers of the packets that came out, -1 for each concealed stretch."""
        return [int(piece.pcm[0]) for piece in self.pieces]


def play(loss: Iterable[bool], **kwargs: int) -> Script:
    script = Script(**kwargs)
    for index, lost in enumerate(loss):
        if not lost:
            script.packet(index)
    return script


def latencies(script: Script) -> dict[int, float]:
    """How long after its own end each packet came out, in seconds."""
    return {int(p.pcm[0]): p.arrived - int(p.pcm[0]) * PACKET_SECONDS for p in script.pieces if not p.concealed}


def test_without_loss_every_packet_comes_out_at_once() -> None:
    script = play(loss=[False] * 50)
    assert script.heard == list(range(50))
    assert max(latencies(script).values()) == 0
    assert [p.pts for p in script.pieces] == [i * FRAME for i in range(50)]


def test_m1_one_lost_packet_costs_40_ms_once_and_nothing_later() -> None:
    script = play(loss=[False, False, False, True, False, False, False, False, False])
    assert script.heard == [0, 1, 2, -1, 4, 5, 6, 7, 8]
    late = latencies(script)
    assert late[4] == pytest.approx(0.02)
    assert max(late[i] for i in range(5, 9)) == pytest.approx(0)
    assert [p.pts for p in script.pieces] == [i * FRAME for i in range(9)]
    assert script.ingress.counts.lost == 1
    assert script.ingress.counts.concealed_samples == FRAME


def test_a_long_hole_is_concealed_for_60_ms_and_dated_right_after() -> None:
    script = play(loss=[False, *[True] * 10, False, False])
    concealed = next(p for p in script.pieces if p.concealed)
    assert (concealed.pts, concealed.pcm.size) == (FRAME, CONCEAL_MOST)
    assert [p.pts for p in script.pieces if not p.concealed] == [0, 11 * FRAME, 12 * FRAME]


def test_the_hole_at_the_end_of_a_sentence_is_skipped_after_60_ms() -> None:
    script = play(loss=[False, False, True, False])
    assert script.heard == [0, 1]
    assert script.ingress.deadline == pytest.approx(0.06 + WAIT_SECONDS)
    script.finish(at=1.0)
    assert script.heard == [0, 1, -1, 3]
    assert script.ingress.deadline is None


def test_a_packet_that_comes_after_its_neighbour_is_put_in_order() -> None:
    script = Script()
    for index in (0, 2, 1, 3):
        script.packet(index, at=0.02 * 3)
    assert script.heard == [0, 1, 2, 3]
    assert script.ingress.counts.lost == 0


def test_a_packet_that_comes_after_its_hole_was_skipped_is_late() -> None:
    script = Script()
    for index in (0, 2, 3, 1, 4):
        script.packet(index, at=0.02 * 4)
    assert script.heard == [0, -1, 2, 3, 4]
    assert script.ingress.counts.late == 1


def test_n7_every_packet_three_times() -> None:
    script = Script()
    for index in range(20):
        for _ in range(3):
            script.packet(index)
    assert script.heard == list(range(20))


@pytest.mark.parametrize(
    ("loss", "jitter_ms", "burst", "missing_most"),
    [(0.0, 0.0, 1, 0.0), (0.0, 15.0, 1, 0.5), (0.02, 10.0, 1, 2.5), (0.05, 15.0, 1, 7.0), (0.05, 15.0, 4, 7.0)],
)
def test_m2_what_a_bad_network_costs(loss: float, jitter_ms: float, burst: int, missing_most: float) -> None:
    """Two minutes, three seeds: audio missing before concealment, and the 99th percentile of what the ingress adds."""
    missing, network, added = [], [], []
    for seed in range(3):
        dice, count = random.Random(seed), 3_000
        lost: set[int] = set()
        index = 0
        while index < count:
            if dice.random() < loss / burst:
                lost.update(range(index, index + burst))
                index += burst
            else:
                index += 1
        arrivals = sorted(
            (i * PACKET_SECONDS + max(0.0, dice.gauss(0, jitter_ms / 1_000)), i) for i in range(count) if i not in lost
        )
        script = Script()
        came = {i: at for at, i in arrivals}
        for at, i in arrivals:
            script.packet(i, at)
        script.finish(at=count)
        out = {int(p.pcm[0]): p.arrived for p in script.pieces if not p.concealed}
        missing.append(100 * (1 - len(out) / count))
        network.append(100 * len(lost) / count)
        added += [1_000 * (out[i] - came[i]) for i in out]
    assert np.mean(missing) <= missing_most
    assert np.mean(missing) <= 1.2 * np.mean(network) + (0.5 if jitter_ms else 0)
    assert np.percentile(added, 99) <= 60


def test_m3_after_a_blackout_of_3_s_the_voice_is_current_at_once() -> None:
    script = play(loss=[False] * 10 + [True] * 150 + [False] * 10)
    late = latencies(script)
    assert late[160] == late[169] == 0
    assert script.pieces[-1].pts == 169 * FRAME
    assert sum(p.pcm.size for p in script.pieces if p.concealed) == CONCEAL_MOST


def test_m4_dtx_is_silence_and_not_loss() -> None:
    script = Script()
    for n in range(10):  # contiguous numbers, 400 ms apart in time and timestamp
        script.packet(n, at=0.4 * n, stamp=script.timestamp + n * 20 * FRAME)
    assert [p.pts for p in script.pieces] == [n * 20 * FRAME for n in range(10)]
    assert max(p.arrived - 0.4 * n for n, p in enumerate(script.pieces)) == 0
    assert script.ingress.counts.lost == 0
    assert not any(p.concealed for p in script.pieces)


@pytest.mark.parametrize("leap", [-48_000, -(2**31), 48_000 * 3_600, 2**31 - 1, 48_001 + 960])
def test_m5_a_leap_of_the_timestamp_is_not_believed(leap: int) -> None:
    script = Script()
    for index in range(5):
        script.packet(index)
    for index in range(5, 50):
        script.packet(index, stamp=script.timestamp + leap + index * FRAME)
    assert script.heard == list(range(50))
    assert [p.pts for p in script.pieces] == [i * FRAME for i in range(50)]
    assert script.ingress.counts.resynced == 1


def test_m5_random_timestamps_never_make_more_than_a_second() -> None:
    dice, script = random.Random(5), Script()
    for index in range(500):
        script.packet(index, stamp=dice.getrandbits(32))
    ends = [p.pts + p.pcm.size for p in script.pieces]
    assert all(b - a <= 48_000 + FRAME for a, b in itertools.pairwise(ends))
    assert all(a.pts + a.pcm.size <= b.pts for a, b in zip(script.pieces, script.pieces[1:], strict=False))


def test_m6_sequence_and_timestamp_wrap_without_a_trace() -> None:
    script = play(loss=[i == 40 for i in range(100)], sequence=65_500, timestamp=2**32 - 48_000)
    assert [p.pts for p in script.pieces] == [i * FRAME for i in range(100)]
    assert (script.ingress.counts.lost, script.ingress.counts.resynced) == (1, 0)


def test_m6_eight_virtual_hours_do_not_drift() -> None:
    """One packet in 500 stands for all: the wraps of sequence and timestamp still come."""
    script = Script(sequence=65_000, timestamp=2**32 - 10_000)
    for index in range(0, 8 * 3_600 * 50, 500):
        script.packet(index)
        script.packet(index + 1)
        script.packet(index + 2)
    assert script.pieces[-1].pts == (8 * 3_600 * 50 - 500 + 2) * FRAME


def test_a_stalled_network_that_lets_go_gives_back_all_that_it_held() -> None:
    script = Script()
    for index in range(5):
        script.packet(index)
    for index in range(5, 105):
        script.packet(index, at=2.1)
    assert script.heard == list(range(105))
    assert [p.pts for p in script.pieces] == [i * FRAME for i in range(105)]


def test_a_sender_that_begins_anew_is_heard_from_its_second_packet_on() -> None:
    script = Script()
    for index in range(10):
        script.packet(index)
    for index in range(10, 20):
        script.packet(index, number=script.sequence + 30_000 + index, stamp=99_000_000 + index * FRAME)
    assert script.heard == [*range(10), *range(11, 20)]
    assert script.pieces[-1].pts == pytest.approx(19 * FRAME, abs=CONCEAL_MOST)


def test_p12_a_hundred_thousand_sources_change_nothing() -> None:
    script = Script()
    for index in range(100):
        script.packet(index)
        for foreign in range(1_000):
            script.packet(foreign, at=index * PACKET_SECONDS, source=1_000 + index * 1_000 + foreign)
    assert script.heard == list(range(100))
    assert script.ingress.counts.foreign == 100_000


def test_another_source_may_speak_when_the_first_has_stopped() -> None:
    script = Script()
    for index in range(10):
        script.packet(index)
    later = 10 * PACKET_SECONDS + TAKEOVER_AFTER
    for index in range(5):
        script.packet(index, at=later + index * PACKET_SECONDS, source=8, stamp=123 + index * FRAME)
    assert script.heard == [*range(10), *range(1, 5)]  # one packet alone takes no floor
    began = later + PACKET_SECONDS
    assert script.pieces[10].pts == pytest.approx((began - 9 * PACKET_SECONDS) * 48_000 + 9 * FRAME, abs=2)


def test_p12_a_thousand_sources_of_one_packet_each_take_no_floor_even_in_a_pause() -> None:
    script = Script()
    for index in range(10):
        script.packet(index)
    for n in range(1_000):
        script.packet(n, at=1.0 + n / 1_000, source=100 + n)
    for index in range(100, 110):
        script.packet(index)
    assert script.heard == [*range(10), -1, *range(100, 110)]


def test_padding_has_a_number_and_no_sound() -> None:
    script = Script()
    script.packet(0)
    assert script.ingress.add(101, script.timestamp + FRAME, b"", 0.02, 7) == []
    script.packet(2)
    assert script.heard == [0, 2]
    assert script.ingress.counts.lost == 0


def test_what_cannot_be_decoded_is_counted_and_left_out() -> None:
    script = Script()
    script.packet(0)
    assert script.ingress.add(101, script.timestamp + FRAME, b"x", 0.02, 7) == []
    script.packet(2)
    assert script.ingress.counts.undecodable == 1
    assert script.pieces[-1].pts == 2 * FRAME


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(-(2**31), 2**31)), min_size=1, max_size=80)
)
def test_whatever_comes_the_timeline_only_grows(packets: list[tuple[int, int, int]]) -> None:
    script = Script()
    for at, (index, kind, stamp) in enumerate(packets):
        script.packet(index, at * 0.01, stamp=stamp if kind == 0 else None, number=stamp if kind == 1 else None)
    script.finish(at=10)
    end = 0
    for piece in script.pieces:
        assert piece.pts >= end
        end = piece.pts + piece.pcm.size
    assert len(script.ingress._waiting) <= 3


def encoded(seconds: float) -> tuple[npt.NDArray[np.int16], list[bytes]]:
    voice = (vowel(seconds, 48_000) * 0.5 * 32_767).astype(np.int16)[: int(seconds * 50) * FRAME]
    return voice, SoundEncoder().encode(voice)


def test_opus_conceals_a_lost_packet_with_sound_like_its_neighbours() -> None:
    _, packets = encoded(1.0)
    decoder = OpusDecoder()
    before = [decoder.decode(packet) for packet in packets[:30]][-1]
    concealed = decoder.conceal(FRAME)
    assert before is not None
    assert concealed.size == FRAME
    loudness = np.sqrt(np.mean(concealed.astype(float) ** 2)) / np.sqrt(np.mean(before.astype(float) ** 2))
    assert 0.3 < loudness < 1.5
    after = decoder.decode(packets[31])
    assert after is not None
    assert after.size == FRAME


def test_opus_conceals_any_length_and_silence_before_the_first_packet() -> None:
    decoder = OpusDecoder()
    assert decoder.conceal(1_000).tolist() == [0] * 1_000
    _, packets = encoded(0.2)
    for packet in packets:
        decoder.decode(packet)
    assert decoder.conceal(CONCEAL_MOST).size == CONCEAL_MOST
    assert decoder.conceal(7).size == 7


def test_hostile_opus_is_refused_or_bounded_and_never_raises() -> None:
    dice, decoder = random.Random(3), OpusDecoder()
    for _ in range(500):
        pcm = decoder.decode(dice.randbytes(dice.randrange(0, 60)))
        assert pcm is None or pcm.size <= 5_760  # 120 ms, the most that RFC 6716 has
    _, packets = encoded(0.2)
    sound = [decoder.decode(packet) for packet in packets]
    assert all(pcm is not None and pcm.size == FRAME for pcm in sound)


def test_contract_what_ingress_needs_of_aiortc_is_still_there() -> None:
    """Fails when aiortc changes what `VoiceReceiver` overrides or calls; then read its receiver again."""
    from aiortc import RTCRtpReceiver
    from aiortc.rtcdtlstransport import RTCDtlsTransport

    for name in (
        "receive",
        "stop",
        "_handle_disconnect",
        "_handle_rtcp_packet",
        "_handle_rtp_packet",
        "_set_rtcp_ssrc",
    ):
        assert callable(getattr(RTCRtpReceiver, name))
        if name != "_set_rtcp_ssrc":
            assert name in vars(VoiceReceiver)
    for name in ("_register_rtp_receiver", "_unregister_rtp_receiver"):
        assert callable(getattr(RTCDtlsTransport, name))
    assert av.Codec("libopus", "r").name == "libopus"
