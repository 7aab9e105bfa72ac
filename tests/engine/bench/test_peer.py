"""The client's notes, read after the talk."""

import asyncio
from fractions import Fraction

import aioice.ice
import av
import numpy as np
import pytest
from aiortc.rtp import RtpPacket

from engine.bench import peer
from engine.bench.latency import CODEC_DELAY, HOLD_SECONDS, PACKET, Stimulus
from engine.bench.peer import Plan, Voice
from engine.encoder import SoundEncoder
from engine.media import Moment, Picture
from engine.probe import stamp
from models.rates import HEARD_CHUNK
from tests.fakes import JumpingClock, settle

SIZE = 128


def packet(stamp: int, number: int, payload: bytes, marker: bool = True) -> RtpPacket:
    return RtpPacket(payload_type=96, marker=int(marker), sequence_number=number, timestamp=stamp, payload=payload)


def vp8(count: int) -> list[bytes]:
    """Marked grey pictures, numbered from 10; every third is loud, every fourth shown again."""
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width = encoder.height = SIZE
    encoder.pix_fmt, encoder.time_base, encoder.bit_rate = "yuv420p", Fraction(1, 25), 500_000
    encoder.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    coded = []
    for number in range(10, 10 + count):
        grey = [np.full((side, side), 120, np.uint8) for side in (SIZE, SIZE // 2, SIZE // 2)]
        level = 5_000 * (number % 3 == 0)
        moment = Moment(
            number * HEARD_CHUNK, 0, np.full(HEARD_CHUNK, level, np.int16), False,
            picture=Picture(SIZE, SIZE, *grey), repeated=number % 4 == 0,
        )  # fmt: skip
        picture = stamp(moment).picture
        planes = np.concatenate([picture.y.ravel(), picture.u.ravel(), picture.v.ravel()])
        frame = av.VideoFrame.from_ndarray(planes.reshape(SIZE * 3 // 2, SIZE), "yuv420p")
        frame.pts = number
        coded += [bytes(each) for each in encoder.encode(frame)]
    return coded


def test_pictures_are_put_together_and_their_marks_read():
    arrived, number = [], 65_530
    for index, picture in enumerate(vp8(8)):
        half = len(picture) // 2
        for begin, end, first in ((0, half, b"\x10"), (half, len(picture), b"\x00")):
            arrived.append(
                (
                    index + (begin > 0) * 0.25,
                    packet(index * 3_600, number & 0xFFFF, first + picture[begin:end], begin > 0),
                )
            )
            number += 1
    seen = peer.look(arrived)
    assert [each.number for each in seen] == list(range(10, 18))
    assert [each.loud for each in seen] == [number % 3 == 0 for number in range(10, 18)]
    assert [each.repeated for each in seen] == [number % 4 == 0 for number in range(10, 18)]
    assert [each.key for each in seen] == [True] + [False] * 7
    assert (seen[3].first, seen[3].last, seen[3].stamp) == (3, 3.25, 10_800)


def test_pictures_that_were_held_find_their_place():
    coded = vp8(4)
    first = 2**32 - 3_600
    in_order = [(n * 0.04, packet((first + n * 3_600) % 2**32, n, b"\x10" + coded[n])) for n in range(4)]
    mixed = [in_order[0], in_order[2], in_order[1], in_order[3]]
    assert [each.number for each in peer.look(mixed)] == [10, 11, 12, 13]


def test_a_picture_with_a_hole_or_without_its_end_is_left_out():
    pictures = vp8(2)
    arrived = [
        (0.0, packet(0, 1, b"\x10" + pictures[0][:50], marker=False)),
        (0.1, packet(0, 3, b"\x00" + pictures[0][50:])),
        (0.2, packet(3_600, 4, b"\x10" + pictures[1], marker=False)),
    ]
    assert peer.look(arrived) == []


def test_bursts_are_found_in_coded_sound_with_the_delay_of_opus():
    stimulus = Stimulus.of(10, 1)
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = 48_000, "mono", "s16", 32_000
    encoder.options = {"application": "voip", "frame_duration": "20"}
    origin, arrived = 2**32 - 5 * PACKET, []
    for index, piece in enumerate(stimulus.pcm().reshape(-1, PACKET)):
        frame = av.AudioFrame.from_ndarray(piece[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, index * PACKET
        for coded in encoder.encode(frame):
            at = len(arrived)
            arrived.append((at * 0.02, packet((origin + at * PACKET) % 2**32, at, bytes(coded))))
    sounds, onsets = peer._listen(arrived)
    assert len(sounds) == len(arrived)
    off = (np.array(onsets) - origin) % 2**32 - CODEC_DELAY - np.array(stimulus.bursts) * HEARD_CHUNK
    assert np.abs(off).max() <= 96, "2 ms"


def test_no_sound_is_no_onset():
    assert peer._listen([]) == ([], [])


async def test_the_voice_is_handed_over_when_it_is_over():
    clock = JumpingClock(start=0.0)
    voice = Voice(np.arange(3 * PACKET, dtype=np.int16), clock)
    frames = []

    async def listen():
        for _ in range(4):
            frames.append((await voice.recv(), clock.now()))

    listening = asyncio.create_task(listen())
    await settle()
    await clock.advance(0.1)
    await listening
    assert [round(at, 3) for _, at in frames] == [0.02, 0.04, 0.06, 0.08]
    assert [frame.pts for frame, _ in frames] == [0, 960, 1_920, 2_880]
    assert frames[1][0].to_ndarray()[0, 0] == PACKET
    assert not frames[3][0].to_ndarray().any()


async def test_held_arrivals_arrive_so_much_later(monkeypatch: pytest.MonkeyPatch):
    heard = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        aioice.ice.StunProtocol, "datagram_received", lambda *what: heard.append((loop.time(), what[1:]))
    )
    clock = JumpingClock(start=HOLD_SECONDS - 0.1)
    peer.hold_arrivals(0.05, clock)
    protocol = object.__new__(aioice.ice.StunProtocol)
    protocol.datagram_received(b"at once", ("127.0.0.1", 9))
    assert heard.pop()[1] == (b"at once", ("127.0.0.1", 9))
    clock.jump(0.2)
    began = loop.time()
    protocol.datagram_received(b"x", ("127.0.0.1", 9))
    assert heard == []
    await asyncio.sleep(0.1)
    ((at, what),) = heard
    assert what == (b"x", ("127.0.0.1", 9))
    assert at - began >= 0.049


def test_a_plan_is_plain():
    assert Plan("http://127.0.0.1:1", 20.0).inserted_delay == 0.0


def test_packets_with_some_of_the_tone_are_told_from_quiet_ones():
    encoder = SoundEncoder()
    loud = (8_000 * np.sin(2 * np.pi * np.arange(5 * 960) / 48)).astype(np.int16)
    quiet = np.zeros(5 * 960, np.int16)
    payloads = encoder.encode(np.concatenate([quiet, loud, quiet]))
    arrived = [(float(index), packet(index * 960, index, payload)) for index, payload in enumerate(payloads)]
    assert peer.listen_for(arrived, 500) == [5.0, 6.0, 7.0, 8.0, 9.0, 10.0], "the last holds what Opus delays"
