import itertools
import logging

import av
import numpy as np
import numpy.typing as npt
import pytest
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import VpxPayloadDescriptor

from engine import encoder
from engine.encoder import (
    BITRATE_LEAST,
    BITRATE_MOST,
    PAYLOAD_MOST,
    SOUND_BITRATE,
    Bitrate,
    Encoded,
    Headroom,
    KeyFrames,
    OpenContext,
    PictureSizeError,
    SoundEncoder,
    VideoEncoder,
    choose_h264,
    h264_payloads,
    nal_units,
    open_vp8,
    open_x264,
    vp8_payloads,
)
from engine.media import Picture
from models.rates import HEARD_CHUNK, HEARD_RATE

FRAME_PTS = HEARD_CHUNK
CODECS = [pytest.param(open_vp8, "libvpx", id="VP8"), pytest.param(open_x264, "h264", id="H264")]


def picture(number: int = 0, width: int = 128, height: int = 96, noise: float = 2.0) -> Picture:
    dice = np.random.default_rng(number)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    luma = 120 + 60 * np.sin((x + 3 * number) / 9) * np.cos(y / 7) + dice.normal(size=(height, width)) * noise
    u = np.full((height // 2, width // 2), 110, np.uint8)
    return Picture(width, height, np.clip(luma, 0, 255).astype(np.uint8), u, u + 30)


def run(subject: VideoEncoder, count: int, first: int = 0, **kwargs: float) -> list[Encoded]:
    pictures = (subject.encode(picture(n, **kwargs), n * FRAME_PTS) for n in range(first, first + count))
    return [encoded for encoded in pictures if encoded is not None]


def decode(name: str, units: list[Encoded]) -> list[npt.NDArray[np.uint8]]:
    context = av.CodecContext.create(name, "r")
    return [frame.to_ndarray() for unit in units for frame in context.decode(av.Packet(unit.data))]


@pytest.mark.parametrize(("opener", "decoder"), CODECS)
def test_what_goes_in_comes_out_in_the_same_call(opener: OpenContext, decoder: str) -> None:
    subject = VideoEncoder(opener, 800_000)
    units = run(subject, 10)
    assert len(units) == 10
    assert [unit.keyframe for unit in units] == [True] + [False] * 9
    frames = decode(decoder, units)
    for number, frame in enumerate(frames):
        expected = picture(number)
        assert np.abs(frame[:96].astype(int) - expected.y).mean() < 6
        assert abs(int(frame[96:].reshape(2, -1)[0].mean()) - 110) <= 3
        assert abs(int(frame[96:].reshape(2, -1)[1].mean()) - 140) <= 3


@pytest.mark.parametrize(("opener", "decoder"), CODECS)
def test_rows_of_a_picture_may_be_views_with_gaps(opener: OpenContext, decoder: str) -> None:
    whole = picture(1, 256, 192)
    part = Picture(100, 64, whole.y[10:74, 20:120], whole.u[5:37, 10:60], whole.v[5:37, 10:60])
    unit = VideoEncoder(opener, 800_000).encode(part, 0)
    assert unit is not None
    frame = decode(decoder, [unit] * 2)[0]
    assert np.abs(frame[:64].astype(int) - part.y).mean() < 8


@pytest.mark.parametrize(("opener", "decoder"), CODECS)
def test_m14_a_keyframe_request_with_every_frame_costs_two_a_second(opener: OpenContext, decoder: str) -> None:
    subject = VideoEncoder(opener, 800_000)
    keys = []
    for n in range(75):
        subject.ask_keyframe()
        unit = subject.encode(picture(n), n * FRAME_PTS)
        assert unit is not None
        keys += [n] if unit.keyframe else []
    assert len(keys) <= 6
    assert min(b - a for a, b in itertools.pairwise(keys)) >= 12


@pytest.mark.parametrize(("opener", "decoder"), CODECS)
def test_a_keyframe_request_is_met_by_the_next_frame(opener: OpenContext, decoder: str) -> None:
    subject = VideoEncoder(opener, 800_000)
    run(subject, 20)
    subject.ask_keyframe()
    units = run(subject, 2, first=20)
    assert [unit.keyframe for unit in units] == [True, False]
    assert len(decode(decoder, units)) >= 1  # decodable on its own


@pytest.mark.parametrize(("opener", "decoder"), CODECS)
def test_m15_a_flapping_estimate_rebuilds_once_a_second_at_most(opener: OpenContext, decoder: str) -> None:
    subject = VideoEncoder(opener, 800_000)
    for n in range(100):
        subject.set_bitrate(1_500_000 if n % 2 else 300_000)
        assert subject.encode(picture(n), n * FRAME_PTS) is not None
    assert subject.opened <= 5


def test_a_small_change_of_the_estimate_changes_nothing() -> None:
    subject = VideoEncoder(open_vp8, 800_000)
    run(subject, 5)
    subject.set_bitrate(950_000)
    run(subject, 30, first=5)
    subject.set_bitrate(690_000)
    run(subject, 30, first=35)
    assert (subject.opened, subject.bitrate) == (1, 800_000)
    subject.set_bitrate(300_000)
    run(subject, 1, first=65)
    assert (subject.opened, subject.bitrate) == (2, 300_000)


def test_bitrates_are_bounded() -> None:
    subject = Bitrate(1)
    assert subject.running == BITRATE_LEAST
    other = VideoEncoder(open_vp8, 10**12)
    assert other.bitrate == BITRATE_MOST
    other.set_bitrate(-5)
    run(other, 1)
    assert other.bitrate == BITRATE_LEAST


def test_an_estimate_above_what_is_sent_is_no_limit() -> None:
    subject = Headroom(800_000)
    subject.estimated(77_000, sending=50_000, now=0.0)
    assert subject.limit is None


def test_congestion_lowers_the_limit_at_once_and_it_grows_back_by_a_tenth_a_second() -> None:
    subject = Headroom(800_000)
    subject.estimated(400_000, sending=790_000, now=0.0)
    assert subject.limit == 360_000 - SOUND_BITRATE
    subject.estimated(400_000, sending=290_000, now=1.0)
    assert subject.limit == pytest.approx((360_000 - SOUND_BITRATE) * 1.1, abs=1)
    subject.lost(0.2, sending=320_000, now=1.5)
    assert subject.limit == 288_000
    subject.lost(0.0, sending=280_000, now=30.0)
    assert subject.limit is None


def test_n3_a_round_trip_that_grows_means_a_queue() -> None:
    subject = Headroom(800_000)
    for round_trip in (0.08, 0.05, 0.2, 0.29):
        subject.travelled(round_trip, sending=700_000, now=0.0)
    assert subject.limit is None
    subject.travelled(0.31, sending=700_000, now=1.0)
    assert subject.limit == 490_000
    subject.travelled(0.9, sending=300_000, now=2.0)
    assert subject.limit == 245_000


def test_one_hiccup_while_a_face_rests_halves_the_limit_and_no_more() -> None:
    subject = Headroom(800_000)
    subject.travelled(0.05, sending=50_000, now=0.0)
    subject.travelled(0.50, sending=50_000, now=1.0)
    assert subject.limit == 400_000


def test_a_collapsed_path_keeps_the_least_bitrate() -> None:
    subject = Headroom(800_000)
    subject.estimated(0, sending=500_000, now=0.0)
    assert subject.limit == BITRATE_LEAST


def test_the_first_keyframe_needs_no_request_and_time_going_back_does_no_harm() -> None:
    subject = KeyFrames()
    assert subject.due(10**9)
    subject.made(10**9)
    subject.ask()
    assert not subject.due(10**9 + 10)
    assert subject.due(0)  # a new timeline


@pytest.mark.parametrize(("opener", "decoder"), CODECS)
def test_bitrate_is_kept_on_hard_content(opener: OpenContext, decoder: str) -> None:
    units = run(VideoEncoder(opener, 300_000), 75, noise=12.0, width=256, height=256)
    assert sum(len(unit.data) for unit in units) * 8 / 3 < 300_000 * 1.6
    assert max(len(unit.data) for unit in units) < 30_000


def test_a_new_size_makes_a_new_stream() -> None:
    subject = VideoEncoder(open_vp8, 800_000)
    run(subject, 3)
    unit = subject.encode(picture(3, 64, 64), 3 * FRAME_PTS)
    assert unit is not None
    assert unit.keyframe
    assert subject.opened == 2


@pytest.mark.parametrize(("width", "height"), [(127, 96), (128, 95), (8, 8), (4_096, 4_096)])
def test_sizes_are_capped_with_a_clear_line(width: int, height: int) -> None:
    plane = np.zeros((height, width), np.uint8)
    with pytest.raises(PictureSizeError, match=f"{width}x{height} cannot be encoded"):
        VideoEncoder(open_vp8, 800_000).encode(Picture(width, height, plane, plane, plane), 0)


def test_nvenc_falls_back_with_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(width: int, height: int, bitrate: int) -> av.VideoCodecContext:
        raise OSError("no capable device")

    monkeypatch.setattr(encoder, "open_nvenc", refuse)
    with caplog.at_level(logging.INFO):
        assert choose_h264() is open_x264
    assert caplog.messages == ["H.264 is encoded on the CPU (NVENC did not open: no capable device)"]


def test_nvenc_is_taken_when_it_encodes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(encoder, "open_nvenc", open_x264)  # any encoder that works
    with caplog.at_level(logging.INFO):
        assert choose_h264() is open_x264
    assert caplog.messages == ["H.264 is encoded by NVENC"]


def test_sound_is_two_packets_of_20_ms_at_once() -> None:
    subject = SoundEncoder()
    tone = (8_000 * np.sin(np.arange(HEARD_RATE) * 2 * np.pi * 300 / HEARD_RATE)).astype(np.int16)
    decoder = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout, decoder.format = HEARD_RATE, "mono", "s16"
    heard = []
    for start in range(0, tone.size, HEARD_CHUNK):
        packets = subject.encode(tone[start : start + HEARD_CHUNK])
        assert len(packets) == 2
        heard += [frame.to_ndarray()[0] for packet in packets for frame in decoder.decode(av.Packet(packet))]
    assert all(frame.size == 960 for frame in heard)
    out = np.concatenate(heard).astype(float)
    lag = 312  # Opus' own 6.5 ms
    assert np.corrcoef(out[lag + 4_800 :], tone[4_800 : tone.size - lag])[0, 1] > 0.9


def test_n8_payloads_fit_small_packets_and_vp8_comes_together_again() -> None:
    unit = VideoEncoder(open_vp8, 4_000_000).encode(picture(0, 512, 512, noise=30), 0)
    assert unit is not None
    payloads = vp8_payloads(unit.data, 0x7FFF)
    assert len(payloads) > 10
    assert max(map(len, payloads)) <= PAYLOAD_MOST
    parts = [VpxPayloadDescriptor.parse(payload) for payload in payloads]
    assert b"".join(part for _, part in parts) == unit.data
    assert [descriptor.partition_start for descriptor, _ in parts] == [1] + [0] * (len(parts) - 1)
    assert {descriptor.picture_id for descriptor, _ in parts} == {0x7FFF}


def test_n8_payloads_fit_small_packets_and_h264_comes_together_again() -> None:
    unit = VideoEncoder(open_x264, 4_000_000).encode(picture(0, 512, 512, noise=30), 0)
    assert unit is not None
    payloads = h264_payloads(unit.data)
    assert len(payloads) > 10
    assert max(map(len, payloads)) <= PAYLOAD_MOST
    joined = b"".join(h264_depayload(payload) for payload in payloads)
    kinds = [nal[0] & 0x1F for nal in nal_units(unit.data)]
    assert {7, 8, 5} <= set(kinds)
    kept = [nal for nal in nal_units(unit.data) if nal[0] & 0x1F not in (6, 9)]
    assert list(nal_units(joined)) == kept
    assert len(decode("h264", [Encoded(joined, True, 0)] * 2)) >= 1


def test_nal_units_of_both_start_codes() -> None:
    assert list(nal_units(b"\0\0\0\1\x67ab\0\0\1\x68c\0\0\0\1\x65d\0")) == [b"\x67ab", b"\x68c", b"\x65d\0"]
    assert list(nal_units(b"nothing")) == []
