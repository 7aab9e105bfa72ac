"""One outlet, many viewers, no network: what is encoded how often, and what leaves when."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import av
import numpy as np
import pytest

from engine.broadcast import Broadcast, Workshop, quantile
from engine.channel import Channel
from engine.clock import RealClock
from engine.encoder import VideoEncoder, open_x264
from engine.media import Moment, Picture
from engine.session import SessionClosedError
from models.rates import HEARD_CHUNK
from models.runtime import Wants
from tests.webrtc_client import until

GREY = np.full((32, 32), 128, np.uint8)


def moment(number: int, epoch: int = 0, side: int = 64) -> Moment:
    luma = np.full((side, side), 50 + number % 150, np.uint8)
    chroma = np.full((side // 2, side // 2), 128, np.uint8)
    picture = Picture(side, side, luma, chroma, chroma)
    heard = np.zeros(HEARD_CHUNK, np.int16)
    return Moment(number * HEARD_CHUNK, epoch, heard, True, picture, arrived=time.monotonic())


class Stage:
    """A session with one outlet that the test fills."""

    id = "stage"

    def __init__(self) -> None:
        self.channel: Channel[Moment] = Channel(16, "drop_oldest", "outlet")
        self.wanted: list[Wants] = []
        self.ended = False

    @asynccontextmanager
    async def outlet(self, wants: Wants = Wants.PICTURE, capacity: int = 4) -> AsyncIterator[AsyncIterator[Moment]]:
        if self.ended:
            raise SessionClosedError("it has ended")
        self.wanted.append(wants)
        yield self.channel.__aiter__()


class Eye:
    """A viewer that notes what it is given."""

    def __init__(self, codec: str = "VP8", limit: int | None = None) -> None:
        self.codec = codec
        self.limit = limit
        self.sounds: list[tuple[float, int]] = []
        self.pictures: list[tuple[float, int, bool, Sequence[bytes]]] = []
        self.left: str | None = None

    def send_sound(self, payload: bytes, pts: int) -> None:
        self.sounds.append((time.monotonic(), pts))

    def send_picture(self, payloads: Sequence[bytes], keyframe: bool, pts: int) -> None:
        self.pictures.append((time.monotonic(), pts, keyframe, payloads))

    def leave(self, reason: str) -> None:
        self.left = reason


@asynccontextmanager
async def on_air(*viewers: Eye) -> AsyncIterator[tuple[Stage, Broadcast]]:
    with ThreadPoolExecutor(1) as executor:
        workshop = Workshop(RealClock(), executor, 500_000)
        workshop.openers["H264"] = open_x264
        stage = Stage()
        broadcast = Broadcast(stage, workshop)
        for viewer in viewers:
            broadcast.add(viewer)
        try:
            yield stage, broadcast
        finally:
            await broadcast.close()


async def test_two_viewers_of_a_codec_get_the_same_payloads_of_one_encode() -> None:
    one, two = Eye(), Eye()
    async with on_air(one, two) as (stage, broadcast):
        for number in range(3):
            stage.channel.put_nowait(moment(number))
            await until(lambda: len(one.pictures) > number)  # noqa: B023 - awaited in this turn
        assert [pts for _, pts, _, _ in one.pictures] == [0, HEARD_CHUNK, 2 * HEARD_CHUNK]
        assert all(a[3] is b[3] for a, b in zip(one.pictures, two.pictures, strict=True))
        assert broadcast.encoders["VP8"].frames == 3
        assert stage.wanted == [Wants.PICTURE]


async def test_each_codec_in_use_is_encoded_once_and_dropped_with_its_last_viewer() -> None:
    one, two, three = Eye("VP8"), Eye("H264"), Eye("H264")
    async with on_air(one, two, three) as (stage, broadcast):
        stage.channel.put_nowait(moment(0))
        await until(lambda: one.pictures and two.pictures and three.pictures)
        assert set(broadcast.encoders) == {"VP8", "H264"}
        broadcast.remove(two)
        assert set(broadcast.encoders) == {"VP8", "H264"}
        broadcast.remove(three)
        broadcast.remove(three)
        assert set(broadcast.encoders) == {"VP8"}


async def test_who_only_listens_costs_no_picture() -> None:
    listener = Eye("")
    async with on_air(listener) as (stage, broadcast):
        stage.channel.put_nowait(moment(0))
        await until(lambda: len(listener.sounds) == 2)
        assert broadcast.encoders == {}
        assert listener.pictures == []


async def test_sound_and_picture_leave_together_and_the_second_half_20_ms_later() -> None:
    viewer = Eye()
    async with on_air(viewer) as (stage, _broadcast):
        stage.channel.put_nowait(moment(0))
        await until(lambda: len(viewer.sounds) == 2)
        assert [pts for _, pts in viewer.sounds] == [0, 960]
        assert abs(viewer.pictures[0][0] - viewer.sounds[0][0]) < 0.005
        assert viewer.sounds[1][0] - viewer.sounds[0][0] >= 0.019


async def test_the_next_moment_never_overtakes_the_second_half() -> None:
    viewer = Eye()
    async with on_air(viewer) as (stage, _broadcast):
        for number in range(5):
            stage.channel.put_nowait(moment(number))
        await until(lambda: len(viewer.sounds) == 10)
        assert [pts for _, pts in viewer.sounds] == [n * 960 for n in range(10)]


async def test_m17_sound_never_waits_for_a_slow_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoding takes 70 ms of every 40: pictures are left out, sound keeps its pace."""
    encode = VideoEncoder.encode

    def slow(self: VideoEncoder, picture: Picture, pts: int) -> object:
        time.sleep(0.07)
        return encode(self, picture, pts)

    monkeypatch.setattr(VideoEncoder, "encode", slow)
    viewer = Eye()
    async with on_air(viewer) as (stage, broadcast):
        sent = {}
        for number in range(20):
            sent[number * HEARD_CHUNK] = time.monotonic()
            stage.channel.put_nowait(moment(number))
            await asyncio.sleep(0.04)
        await until(lambda: len(viewer.sounds) == 40)
        assert [pts for _, pts in viewer.sounds] == [n * 960 for n in range(40)]
        assert max(at - sent[pts] for at, pts in viewer.sounds if pts in sent) < 0.4
        assert broadcast.skipped_pictures >= 5
        assert len(viewer.pictures) >= 5


async def test_of_those_that_wait_all_are_heard_and_the_newest_is_seen() -> None:
    """However far behind: every encode has a picture, so a face never freezes for longer than one of them takes."""
    viewer = Eye()
    async with on_air(viewer) as (stage, broadcast):
        for number in range(6):
            stage.channel.put_nowait(moment(number))
        await until(lambda: len(viewer.sounds) == 12)
        assert [pts for _, pts, _, _ in viewer.pictures] == [5 * HEARD_CHUNK]
        assert broadcast.skipped_pictures == 5


async def test_an_interrupt_voids_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = Eye()
    async with on_air(viewer) as (stage, _broadcast):
        for number in range(4):
            stage.channel.put_nowait(moment(number))
        stage.channel.put_nowait(moment(4, epoch=1))
        await until(lambda: any(pts == 4 * HEARD_CHUNK for _, pts in viewer.sounds))
        assert 2 * HEARD_CHUNK not in [pts for _, pts in viewer.sounds]


async def test_the_slowest_viewer_of_a_codec_sets_its_bitrate_and_no_other() -> None:
    slow, fast, other = Eye(limit=200_000), Eye(), Eye("H264")
    async with on_air(slow, fast, other) as (stage, broadcast):
        for number in range(2):
            stage.channel.put_nowait(moment(number))
            await until(lambda: len(other.pictures) > number)  # noqa: B023 - awaited in this turn
        assert broadcast.encoders["VP8"].bitrate == 200_000
        assert broadcast.encoders["H264"].bitrate == 500_000


async def test_a_picture_of_an_impossible_size_is_said_once_and_sound_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    viewer = Eye()
    async with on_air(viewer) as (stage, _broadcast):
        for number in range(3):
            stage.channel.put_nowait(moment(number, side=8))
        await until(lambda: len(viewer.sounds) == 6)
        assert viewer.pictures == []
        assert len([text for text in caplog.messages if "8x8 cannot be encoded" in text]) == 1


async def test_an_encoder_that_breaks_is_opened_anew() -> None:
    viewer = Eye()
    async with on_air(viewer) as (stage, broadcast):
        stage.channel.put_nowait(moment(0))
        await until(lambda: len(viewer.pictures) == 1)

        class Broken:
            width = height = 64

            def encode(self, frame: object) -> list[bytes]:
                raise av.error.ExternalError(1, "the chip is gone")

        broadcast.encoders["VP8"]._context = Broken()
        for number in (1, 2):
            stage.channel.put_nowait(moment(number))
            await until(lambda: len(viewer.sounds) > 2 * number)  # noqa: B023 - awaited in this turn
        await until(lambda: len(viewer.pictures) == 2)
        assert viewer.pictures[1][2]  # a key frame
        assert broadcast.encoders["VP8"].failed == 1


async def test_when_the_session_ends_viewers_are_told() -> None:
    viewer = Eye()
    async with on_air(viewer) as (stage, _broadcast):
        stage.channel.put_nowait(moment(0))
        stage.channel.close()
        await until(lambda: viewer.left == "session ended")
        assert len(viewer.sounds) >= 1  # what had come was still said


async def test_a_session_that_has_ended_already_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(1) as executor:
        stage, viewer = Stage(), Eye()
        stage.ended = True
        broadcast = Broadcast(stage, Workshop(RealClock(), executor, 500_000))
        broadcast.add(viewer)
        await until(lambda: viewer.left == "session ended")
        await broadcast.close()
    assert caplog.messages == []


async def test_the_reference_of_reports_is_the_earliest_line_and_follows_a_slow_clock() -> None:
    async with on_air() as (_stage, broadcast):
        for number in range(500):
            late = 0.03 if number % 3 else 0.0
            broadcast._refer(number * HEARD_CHUNK, 100 + number * 0.04 * (1 + 300e-6) + late)
        assert broadcast.reference is not None
        pts, at = broadcast.reference
        assert at == pytest.approx(100 + pts / 48_000 * (1 + 300e-6), abs=0.002)
        broadcast._refer(10**9, 7.0)  # another timeline: believed at once
        assert broadcast.reference == (10**9, 7.0)


def test_quantiles() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
