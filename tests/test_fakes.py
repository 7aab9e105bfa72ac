"""The stand-ins do what they say; otherwise every test that leans on them says nothing."""

import asyncio
import json
import math
import subprocess
import sys
import threading

import numpy as np
import pytest

import tests.fakes as fakes
from models.rates import CHUNK, FACE, POINTS
from models.runtime import Row, Wants
from tests.fakes import FakeRuntime, FakeRuntimeError, Impair, JumpingClock, LossyLink, Weather, mouth

EVERYTHING = Wants.POINTS | Wants.FACE | Wants.MESH | Wants.PICTURE


def row(level: float = 0.1, slot: int = 0, generation: int = 1, reset: bool = False, wants: Wants = EVERYTHING) -> Row:
    return Row(slot, generation, reset, "demo", np.full(CHUNK, level, np.float32), 0, wants)


# JumpingClock


async def test_time_passes_for_each_sleeper_in_turn():
    clock, diary = JumpingClock(start=0.0), []

    async def live(name: str, period: float):
        for _ in range(3):
            await clock.sleep_until(clock.now() + period)
            diary.append((name, round(clock.now(), 3)))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(live("a", 0.04))
        tasks.create_task(live("b", 0.05))
        await clock.advance(0.2)
    assert diary == [("a", 0.04), ("b", 0.05), ("a", 0.08), ("b", 0.1), ("a", 0.12), ("b", 0.15)]
    assert clock.now() == 0.2
    assert clock.next_wake is None


async def test_a_stall_wakes_everyone_late_and_at_once():
    clock, late = JumpingClock(start=0.0), []

    async def live(until: float):
        await clock.sleep_until(until)
        late.append(clock.now() - until)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(live(0.04))
        tasks.create_task(live(0.08))
        await fakes.settle()
        clock.jump(1.0)
    assert late == [0.96, 0.92]


async def test_a_cancelled_sleeper_is_forgotten_and_the_wall_may_step():
    clock = JumpingClock()
    sleeper = asyncio.create_task(clock.sleep_until(clock.now() + 1))
    await fakes.settle()
    sleeper.cancel()
    await fakes.settle()
    assert clock.next_wake is None
    before, wall = clock.now(), clock.wall()
    clock.step_wall(-3_600)
    assert clock.now() == before
    assert clock.wall() == wall - 3_600


# FakeRuntime


def test_the_mouth_is_as_bright_as_the_chunk_of_k_steps_ago():
    runtime = FakeRuntime(lookahead=2)
    bright = [
        int(runtime.step([row(level, reset=n == 0)])[0].roi.luma[1, 1]) for n, level in enumerate((0.1, 0.2, 0.3, 0.4))
    ]
    assert bright == [mouth(0), mouth(0), mouth(0.1), mouth(0.2)]
    out = runtime.step([row()])[0]
    assert out.points.shape == (POINTS, 3)
    assert out.face.shape == (FACE,)
    assert runtime.step([row(wants=Wants.FACE)])[0].roi is None


def test_slots_do_not_know_of_each_other_and_reset_forgets():
    runtime = FakeRuntime(lookahead=1)
    runtime.step([row(0.5, slot=0), row(0.1, slot=1)])
    outs = runtime.step([row(0.0, slot=0, reset=True), row(0.0, slot=1)])
    assert [int(out.roi.luma[1, 1]) for out in outs] == [mouth(0), mouth(0.1)]


def test_it_misbehaves_on_cue():
    runtime = FakeRuntime(["ok", "sleep 0.01", "raise", "nan", "shape", "green", "ok", "late"])
    runtime.step([row(generation=1)])
    runtime.step([row()])
    with pytest.raises(FakeRuntimeError):
        runtime.step([row()])
    assert np.isnan(runtime.step([row()])[0].points).all()
    assert runtime.step([row()])[0].points.shape == (3, 3)
    assert np.ptp(runtime.step([row()])[0].roi.u) == 0
    runtime.step([row(generation=1)])
    assert runtime.step([row(generation=2)])[0].generation == 1
    with pytest.raises(ValueError, match="dance"):
        FakeRuntime(["dance"]).step([row()])
    runtime.close()
    with pytest.raises(FakeRuntimeError):
        runtime.step([row()])


def test_it_hangs_until_it_is_let_go():
    runtime = FakeRuntime(["hang"])
    thread = threading.Thread(target=runtime.step, args=([row()],))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    runtime.close()
    thread.join(1)
    assert not thread.is_alive()


def test_it_is_a_backend_with_a_script_in_its_package(tmp_path):
    package = tmp_path / "anna"
    package.mkdir()
    (package / "script.json").write_text(json.dumps(["raise"]))
    runtime = fakes.open([package], slots=2, lookahead=1)
    assert runtime.cards["anna"].lookahead == 1
    with pytest.raises(FakeRuntimeError):
        runtime.step([row()])


@pytest.mark.parametrize(("act", "code"), [("segfault", -11), ("killed", -9)])
def test_it_takes_its_process_with_it(act, code):
    program = f"from tests.fakes import *; from tests.test_fakes import row; FakeRuntime(['{act}']).step([row()])"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == code


# Weather


def fates(impair: Impair, count: int = 4_000, gap: float = 0.02, size: int = 100, seed: int = 1):
    weather = Weather(impair, seed)
    return [weather.fate(n.to_bytes(2, "big") + bytes(size - 2), n * gap) for n in range(count)]


def order(fated) -> list[int]:
    arrivals = sorted((when, n, int.from_bytes(late[:2], "big")) for n, fate in enumerate(fated) for when, late in fate)
    return [number for _, _, number in arrivals]


def test_the_same_seed_is_the_same_weather():
    bad = Impair(loss=0.1, jitter=0.01, reorder=0.1, duplicate=0.1, flip=0.1)
    assert fates(bad) == fates(bad) != fates(bad, seed=2)


def test_a_script_loses_what_it_says():
    fated = fates(Impair(script=[True, False, False, True]), count=6)
    assert [not fate for fate in fated] == [True, False, False, True, False, False]


def test_loss_is_as_frequent_as_it_says():
    lost = [not fate for fate in fates(Impair(loss=0.05))]
    assert 0.04 < np.mean(lost) < 0.06


def test_bursts_come_in_bursts():
    lost = [not fate for fate in fates(Impair(bursts=(0.05 / 0.95 / 4, 0.25)), count=20_000)]
    runs = [len(run) for run in "".join("x" if gone else " " for gone in lost).split()]
    assert 0.04 < np.mean(lost) < 0.06
    assert 3.4 < np.mean(runs) < 4.6


def test_delay_and_jitter_keep_order_and_reorder_does_not():
    calm = fates(Impair(delay=0.1, jitter=0.03))
    lags = [fate[0][0] - n * 0.02 for n, fate in enumerate(calm)]
    assert 0.09 < np.mean(lags) < 0.14
    assert order(calm) == sorted(order(calm))
    wild = order(fates(Impair(delay=0.1, reorder=0.02)))
    assert 0.01 < np.mean(np.diff(wild) < 0) < 0.04


def test_duplicates_damage_and_large_packets():
    assert all(len(fate) == 4 for fate in fates(Impair(duplicate=1, copies=3), count=50))
    clean, dirty = fates(Impair(), count=500), fates(Impair(flip=0.2), count=500)
    turned = [
        sum((one ^ other).bit_count() for one, other in zip(good[0][1], bad[0][1], strict=True))
        for good, bad in zip(clean, dirty, strict=True)
    ]
    assert set(turned) == {0, 1}
    assert 0.1 < np.mean(turned) < 0.3
    assert not any(fates(Impair(mtu=99), count=20))
    assert all(fates(Impair(mtu=100), count=20))


def test_a_narrow_line_queues_and_then_loses():
    fated = fates(Impair(rate=8_000, queue=0.5), count=100, gap=0.05)  # 16 kbit/s into 8 kbit/s
    waits = [fate[0][0] - n * 0.05 for n, fate in enumerate(fated) if fate]
    assert max(waits) <= 0.5 + 0.1 + 1e-9
    assert 0.4 < np.mean([not fate for fate in fated]) < 0.6


# LossyLink


class Echo(asyncio.DatagramProtocol):
    def __init__(self):
        self.sources: list[tuple[str, int]] = []
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.sources.append(addr)
        self.transport.sendto(data.upper(), addr)


class Ears(asyncio.DatagramProtocol):
    def __init__(self):
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data, addr):
        self.heard.put_nowait(data)


@pytest.fixture
async def echo():
    transport, echo = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
    yield echo
    transport.close()


async def test_the_link_relays_loses_goes_dark_and_rebinds(echo):
    loop = asyncio.get_running_loop()
    target = echo.transport.get_extra_info("sockname")
    async with LossyLink(target, up=Impair(script=[True]), down=Impair(delay=0.02)) as link:
        transport, ears = await loop.create_datagram_endpoint(Ears, remote_addr=link.address)
        transport.sendto(b"lost")
        transport.sendto(b"heard")
        begin = loop.time()
        assert await asyncio.wait_for(ears.heard.get(), 2) == b"HEARD"
        assert loop.time() - begin > 0.015
        assert (link.up.lost, link.up.seen, link.down.seen) == (1, 2, 1)

        old = link.source
        await link.rebind()
        transport.sendto(b"again")
        assert await asyncio.wait_for(ears.heard.get(), 2) == b"AGAIN"
        assert echo.sources == [old, link.source]
        assert old != link.source

        dark = asyncio.create_task(link.blackout(0.05))
        await asyncio.sleep(0)
        transport.sendto(b"unseen")
        await dark
        transport.sendto(b"back")
        assert await asyncio.wait_for(ears.heard.get(), 2) == b"BACK"
        transport.close()


def test_the_link_stays_on_this_machine():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1"):
        LossyLink(("10.0.0.1", 9))


# Sound


def test_the_sounds_are_as_long_and_as_loud_as_they_say():
    for sound in (fakes.vowel(0.5), fakes.hiss(0.5), fakes.breath(0.5), fakes.hum(0.5)):
        assert sound.shape == (8_000,)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
    assert math.isclose(np.abs(fakes.vowel(0.5, amplitude=0.3)).max(), 0.3, rel_tol=1e-3)
    assert math.isclose(fakes.loudness(fakes.hiss(2, amplitude=0.05)), 0.05, rel_tol=0.05)
