"""Misfortunes of media, M1 to M17, on the whole way from a packet to a moment, on a clock that jumps.

What one file alone answers for is in that file's test: holes and leaps of dates (chunker), lost packets and DTX
(ingress), storms of key frame requests and flapping estimates (encoder), floods and slow readers (protocol,
websocket, WebRTC).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from engine.listener import Listener
from engine.media import Moment
from engine.playout import Playout
from models.rates import CHUNK_SECONDS, HEARD_CHUNK, HEARD_RATE
from tests.engine.test_pipeline import PACKET, VOICE, Stage, on_stage, picture_of
from tests.fakes import hiss, mouth

REST = mouth(0.0) + 2
FRAME = CHUNK_SECONDS


def lags(stage: Stage, begin: int = 0) -> list[float]:
    """How long after its last sample came each moment left; those of invented sound not counted."""
    return [at - moment.arrived for at, moment in stage.left[begin:] if moment.arrived]


def intervals(stage: Stage, begin: int = 0) -> np.ndarray:
    return np.diff([at for at, _ in stage.left[begin:]])


def open_mouths(moments: list[Moment]) -> list[bool]:
    return [picture_of(moment) > REST for moment in moments]


async def lose(stage: Stage, packets: int) -> None:
    """Time goes on, and the packets of that time are never seen."""
    await stage.clock.advance(0.020 * packets)
    stage.sent += packets


# M1, M3, M4, M8: sound that does not come


@pytest.mark.parametrize("lookahead", [0, 2])
async def test_m1_after_one_lost_packet_latency_is_back_within_a_second(lookahead):
    async with on_stage(lookahead) as stage:
        await stage.speak(3.0)
        before = float(np.median(lags(stage)[25:]))
        lost_at = len(stage.left)
        await lose(stage, 1)
        await stage.speak(1.0)
        settled = len(stage.left)
        await stage.speak(2.0)
        assert np.abs(np.array(lags(stage, settled)) - before).max() <= 0.010
        assert intervals(stage, lost_at - 1).max() < 2.6 * FRAME, "seen as one short wait at most"
        positions = [moment.pts // HEARD_CHUNK for moment in stage.moments]
        assert positions == list(range(len(positions)))


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize("seconds", [0.5, 3.0])
async def test_m3_in_a_gap_the_mouth_closes_within_200_ms_and_comes_back_with_the_voice(seconds, lookahead):
    async with on_stage(lookahead) as stage:
        await stage.speak(3.0)
        lag = float(np.median(lags(stage)[25:]))
        gone_at = stage.clock.now()
        await lose(stage, round(seconds * 50))
        back_at = stage.clock.now()
        await stage.speak(2.0)
        in_gap = [(at, moment) for at, moment in stage.left if gone_at + lag + 0.2 < at < back_at]
        assert not any(open_mouths([moment for _, moment in in_gap]))
        assert len(in_gap) >= (seconds - 0.2 - lag) / FRAME - 2, "the face lives on"
        opened = next(at for at, moment in stage.left if at > back_at and picture_of(moment) > REST)
        assert opened - back_at <= FRAME + 0.020 + lag + 0.002, "within a chunk and the look-ahead"
        burst = max(sum(begin <= at < begin + FRAME for at, _ in stage.left) for begin, _ in stage.left[50:])
        assert burst <= 3, "no burst of moments to catch up"
        assert np.median(lags(stage)[-25:]) == pytest.approx(lag, abs=0.010)


async def test_m4_a_sender_that_is_silent_between_words_costs_nothing():
    """Opus DTX: one packet in 400 ms, dated; ten pauses leave the latency of the words where it was."""
    async with on_stage(1) as stage:
        await stage.speak(3.0)
        lag = float(np.median(lags(stage)[25:]))
        for _ in range(10):
            for _ in range(3):
                await lose(stage, 19)
                await stage.speak(0.02, np.zeros_like(VOICE))
            begin = len(stage.left)
            await stage.speak(1.0)
            assert np.median(lags(stage, begin)) == pytest.approx(lag, abs=0.010)


async def test_m8_the_wall_clock_steps_by_an_hour_and_nothing_is_seen():
    left = {}
    for step in (0, 3_600, -3_600):
        async with on_stage(2) as stage:
            await stage.speak(1.0)
            stage.clock.step_wall(step)
            await stage.speak(1.0)
            left[step] = [(at, moment.pts, picture_of(moment)) for at, moment in stage.left]
    assert left[0] == left[3_600] == left[-3_600]


# M2, M10: sound that is damaged


@pytest.mark.parametrize(("loss", "burst"), [(0.02, 1), (0.05, 1), (0.05, 4)])
async def test_m2_loss_does_not_add_up(loss, burst):
    """Nothing conceals here: what is lost is silence, and the rest is not a packet later for it."""
    rng = np.random.default_rng(4)
    async with on_stage(0) as stage:
        await stage.speak(2.0)
        calm = float(np.median(lags(stage)[25:]))
        begin, sent, gone = len(stage.left), 0, 0
        while sent < 1_200:
            if rng.random() < loss / burst:
                await lose(stage, burst)
                gone += burst
                sent += burst
            else:
                await stage.speak(0.02)
                sent += 1
        added = np.array(lags(stage, begin)) - calm
        assert np.percentile(added, 99) <= 0.060
        heard = np.concatenate([moment.heard for moment in stage.moments[begin + 5 :]]).reshape(-1, PACKET)
        missing = float(np.mean(~heard.any(axis=1)))
        assert missing <= 1.2 * gone / sent + 0.02


async def test_m10_what_is_no_number_harms_neither_the_session_nor_its_neighbour():
    """The neighbour's moments are bit-identical to those of a session that never had one."""
    poison = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30] * 192, np.float32)

    async def conversation(neighbour: str) -> tuple[list[Moment], list[Moment]]:
        async with on_stage(1) as healthy, on_stage(1) as other:
            for n in range(100):
                await healthy.speak(0.02)
                await other.clock.advance(0.02)
                if neighbour == "poisoned" and 20 <= n < 60:
                    other.listener.push_live(poison, HEARD_RATE, None, other.clock.now())
                    other.pipeline.notice()
            await other.speak(1.0)
            return healthy.moments, other.moments

    alone, _ = await conversation("silent")
    beside, poisoned = await conversation("poisoned")
    assert len(alone) == len(beside)
    for one, two in zip(alone, beside, strict=True):
        assert np.array_equal(one.heard, two.heard)
        assert np.array_equal(one.picture.y, two.picture.y)
        assert np.array_equal(one.points, two.points)
    assert all(np.isfinite(moment.points).all() for moment in poisoned)
    assert any(open_mouths(poisoned[-10:])), "it speaks again"


async def test_noise_in_the_room_moves_no_lips():
    async with on_stage(0) as stage:
        await stage.speak(4.0, hiss(30, HEARD_RATE, amplitude=0.02))
        assert len(stage.moments) > 90
        assert not any(open_mouths(stage.moments))


# M7: clocks that do not agree


@dataclass(frozen=True)
class Drift:
    """A conversation whose microphone runs `ppm` fast, followed chunk by chunk without an event loop."""

    ppm: float
    seconds: float
    answer_seconds: float = 0.012

    def leave(self, listener: Listener, playout: Playout) -> Iterator[tuple[float, float, float]]:
        """For each chunk: when its sound was whole, when the moment left, and where in the sound it lies (seconds)."""
        rng = np.random.default_rng(5)
        sound = np.zeros(PACKET, np.int16)
        position, spoken = 0, 0.020 / (1 + self.ppm * 1e-6)
        for n in range(int(self.seconds * 50)):
            now = 100.0 + (n + 1) * spoken + float(rng.exponential(0.002))
            listener.push_live(sound, HEARD_RATE, n * PACKET, now)
            for listened in listener.take(now):
                at = now + self.answer_seconds
                playout.ready(position, at)
                due = playout.due(position)
                assert due is not None
                yield listened.chunk.arrived, max(at, due), listened.chunk.pts / HEARD_RATE
                position += 1


def follow(drift: Drift) -> tuple[np.ndarray, Listener]:
    listener = Listener()
    listener.take(100.0)
    rows = np.array(list(drift.leave(listener, Playout())))
    return rows[250:], listener


def check(drift: Drift) -> None:
    rows, listener = follow(drift)
    arrived, left, date = rows.T
    wait = left - arrived
    slope_ms_an_hour = np.polyfit(arrived - arrived[0], wait, 1)[0] * 3_600 * 1e3
    assert abs(slope_ms_an_hour) <= max(1.0, 3_600 / drift.seconds), "short runs measure the slope less exactly"
    assert wait.max() < 0.060, "occupancy stays in its band"
    assert wait.min() >= drift.answer_seconds - 1e-9
    assert np.allclose(np.diff(date), FRAME), "no sound is left out and none put in"
    assert (listener.starved, listener.dropped, listener.skipped) == (0, 0, 0)


@pytest.mark.parametrize("ppm", [-300, -100, 100, 300])
def test_m7_a_microphone_that_runs_fast_or_slow_is_followed(ppm):
    """Five minutes: 300 ppm are 90 ms of drift, which a second clock would show."""
    check(Drift(ppm, 300))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("ppm", [-100, 100])
def test_l6_m7_eight_virtual_hours_at_100_ppm_have_no_slope(ppm):
    """2.88 s of drift between microphone and server."""
    check(Drift(ppm, 8 * 3_600))


# M12, M17: too much, too late


@pytest.mark.parametrize("dated", [True, False])
async def test_m12_a_minute_of_sound_in_one_second_never_becomes_a_minute_of_delay(dated):
    async with on_stage(1) as stage:
        await stage.speak(2.0)
        for second in range(60):
            piece = VOICE[second % 29 * HEARD_RATE :][:HEARD_RATE]
            stage.listener.push_live(piece, HEARD_RATE, (stage.sent * PACKET) if dated else None, stage.clock.now())
            stage.pipeline.notice()
            stage.sent += 50
            await stage.clock.advance(1 / 60)
        assert len(stage.left) <= (3.0 + 0.25) / FRAME, "it is not said faster than a person speaks"
        begin = len(stage.left)
        await stage.clock.advance(4.0)
        loud = [moment for moment in stage.moments[begin:] if moment.heard.any()]
        assert len(loud) * FRAME <= 2.5, "at most two seconds were kept"


@pytest.mark.parametrize("every", [50, 10])
async def test_m17_pictures_that_come_late_are_repeated_and_skipped_and_sound_goes_on(every):
    """The renderer takes 100 ms in every 50th or 10th step: never a queue, never a wait longer than the grace."""
    async with on_stage(2) as stage:
        await stage.speak(3.0)
        before, lag = len(stage.left), float(np.median(lags(stage)[25:]))
        stage.worker.delays.extend(([0.100] + [0.010] * (every - 1)) * (150 // every))
        await stage.speak(6.0)
        late = stage.moments[before:]
        assert [moment.pts for moment in late] == [late[0].pts + n * HEARD_CHUNK for n in range(len(late))]
        slow = intervals(stage, before) > FRAME + 0.060
        assert slow.sum() <= (1 if every < 25 else 0), "when a tenth is late, the beat follows, once"
        await stage.speak(4.0)
        assert np.median(lags(stage)[-25:]) == pytest.approx(lag, abs=0.005), "and afterwards it is as it was"
        assert stage.pipeline.playout.repeated == sum(moment.repeated for moment in stage.moments)
