"""Stand-ins for what a test cannot have: time that jumps, a model that fails on cue, a bad network, a voice.

- `JumpingClock`: an `engine.clock.Clock` on which only the test moves time.
- `FakeRuntime`: a `models.runtime.Runtime` that follows a script; `open` makes this module a backend (`"tests.fakes"`).
- `LossyLink`: a seeded UDP relay on 127.0.0.1 that loses, delays, reorders, doubles, damages and throttles.
- `vowel`, `breath`, `hum`, `hiss`: sound for the ears of the engine.
"""

import asyncio
import heapq
import json
import math
import os
import random
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from models.rates import BLENDSHAPES, DENSE_POINTS, FACE, POINTS
from models.runtime import AvatarCard, Out, Roi, Row, Wants

# Time


class JumpingClock:
    """Time that stands still until the test moves it. `jump` is a stall: all who slept wake at once, late. `advance`
    is time that passes: each sleeper wakes at its own time and acts before the next one does."""

    def __init__(self, start: float = 1_000.0) -> None:
        self._now = start
        self._wall_ahead = 1_700_000_000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_ahead

    def step_wall(self, seconds: float) -> None:
        """What NTP may do at any time. `now` does not notice."""
        self._wall_ahead += seconds

    async def sleep_until(self, when: float) -> None:
        if when <= self._now:
            await asyncio.sleep(0)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (when, self._count, waiter))
        await waiter

    def call_at(self, when: float, what: Callable[[], None]) -> "asyncio.Future[None]":
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter.add_done_callback(lambda done: None if done.cancelled() else what())
        if when <= self._now:
            waiter.set_result(None)
        else:
            self._count += 1
            heapq.heappush(self._sleepers, (when, self._count, waiter))
        return waiter

    @property
    def next_wake(self) -> float | None:
        """When the next sleeper is due."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def jump(self, seconds: float) -> None:
        self._now += seconds
        while (due := self.next_wake) is not None and due <= self._now:
            heapq.heappop(self._sleepers)[2].set_result(None)

    async def advance(self, seconds: float) -> None:
        end = self._now + seconds
        await settle()
        while (due := self.next_wake) is not None and due <= end:
            self.jump(max(0.0, due - self._now))
            await settle()
        self._now = end
        await settle()


async def settle(turns: int = 20) -> None:
    """Let every task that can go on, go on."""
    for _ in range(turns):
        await asyncio.sleep(0)


# The model

FAKE_SIZE = 64
FAKE_FRAMES = 8


def fake_card(name: str = "demo", lookahead: int = 0, size: int = FAKE_SIZE) -> AvatarCard:
    """A textured loop whose frame i is brighter than frame i - 1 by 4."""
    ramp = (np.arange(size * size * 3 // 2).reshape(size * 3 // 2, size) % 97).astype(np.uint8)
    loop = np.stack([ramp + 4 * frame for frame in range(FAKE_FRAMES)]).astype(np.uint8)
    loop.setflags(write=False)
    return AvatarCard(name, "0" * 64, size, size, lookahead, loop)


class FakeRuntimeError(RuntimeError):
    """What the script asked for."""


class FakeRuntime:
    """A face whose mouth is as bright as its sound is loud: `mouth(chunk)` says how bright, K steps later.

    `script` holds an act for each step, then all goes well:
      "ok" · "sleep 0.1" · "raise" · "hang" (until `unhang`) · "nan" · "shape" · "green" (one colour) ·
      "late" (the answers of the step before) · "segfault" · "killed" (these two end the process)
    """

    def __init__(
        self,
        script: Sequence[str] = (),
        avatars: Sequence[str] = ("demo",),
        slots: int = 4,
        lookahead: int = 0,
        size: int = FAKE_SIZE,
    ) -> None:
        self.slots = slots
        self.steps = 0
        self.rows: list[list[Row]] = []
        """The last 64 batches."""
        self.closed = False
        self.unhang = threading.Event()
        self._script = deque(script)
        self._cards = {name: fake_card(name, lookahead, size) for name in avatars}
        self._heard: dict[int, deque[float]] = {}
        self._before: list[Out] = []

    @property
    def cards(self) -> Mapping[str, AvatarCard]:
        return self._cards

    def step(self, rows: Sequence[Row]) -> list[Out]:
        if self.closed:
            raise FakeRuntimeError("stepped after close")
        self.steps += 1
        self.rows = [*self.rows[-63:], list(rows)]
        act, _, seconds = (self._script.popleft() if self._script else "ok").partition(" ")
        match act:
            case "sleep":
                time.sleep(float(seconds))
            case "raise":
                raise FakeRuntimeError("the script says raise")
            case "hang":
                self.unhang.wait()
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "ok" | "nan" | "shape" | "green" | "late":
                pass
            case _:
                raise ValueError(f"no act is called {act!r}")
        outs = [self._answer(row, act) for row in rows]
        late, self._before = self._before, outs
        return late if act == "late" else outs

    def close(self) -> None:
        self.closed = True
        self.unhang.set()

    def _answer(self, row: Row, act: str) -> Out:
        card = self._cards[row.avatar]
        if row.reset or row.slot not in self._heard:
            self._heard[row.slot] = deque([0.0] * card.lookahead)
        heard = self._heard[row.slot]
        heard.append(loudness(row.pcm))
        loud = heard.popleft()
        points = np.full((POINTS, 3), 1.0 + loud, np.float32)
        face = np.zeros(FACE, np.float32)
        face[:BLENDSHAPES] = min(1.0, loud)
        face[BLENDSHAPES + 3] = 1.0
        size = card.width // 2
        luma = np.full((size, size), mouth(loud), np.uint8)
        luma[::2, ::2] = 60  # also a shut mouth has texture: one colour is a fault of the renderer
        if act == "nan":
            points[:] = np.nan
            face[:] = np.nan
        if act == "shape":
            points, luma = points[:3], luma[:1]
        if act == "green":
            luma[:] = 0
        chroma = np.full((size // 2, size // 2), 0 if act == "green" else 128, np.uint8)
        return Out(
            row.slot,
            row.generation,
            points=points if Wants.POINTS in row.wants else None,
            face=face if Wants.FACE in row.wants else None,
            mesh=np.full((DENSE_POINTS, 3), loud, np.float32) if Wants.MESH in row.wants else None,
            roi=Roi(size // 2, size // 2, luma, chroma, chroma) if Wants.PICTURE in row.wants else None,
            stage_seconds={"voice": 0.001, "render": 0.001},
        )


def loudness(pcm: npt.NDArray[np.float32]) -> float:
    """Root mean square."""
    return math.sqrt(float(np.mean(np.square(pcm, dtype=np.float64))))


def mouth(loud: float) -> int:
    """How bright a FakeRuntime paints the mouth."""
    return min(235, 16 + round(400 * loud))


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None) -> FakeRuntime:  # noqa: A001 - the seam's name
    """A backend: every package is an avatar of its directory's name; `script.json` in the first is what happens."""
    script = Path(packages[0]) / "script.json"
    acts = json.loads(script.read_text()) if script.exists() else []
    return FakeRuntime(acts, [Path(package).name for package in packages], slots, lookahead or 0)


# The network


@dataclass(frozen=True, slots=True)
class Impair:
    """What one direction of a link does to datagrams. Times in seconds, chances 0…1."""

    script: Sequence[bool] = ()
    """True loses: of the first datagrams, one by one. `loss` and `bursts` begin after it."""
    loss: float = 0.0
    bursts: tuple[float, float] | None = None
    """Gilbert-Elliott: the chance to enter the bad state and the chance to leave it, for each datagram; bad loses."""
    delay: float = 0.0
    jitter: float = 0.0
    """Standard deviation of the delay. Order is kept, as a queue does."""
    reorder: float = 0.0
    reorder_delay: float = 0.03
    duplicate: float = 0.0
    copies: int = 1
    flip: float = 0.0
    """The chance that one bit of a datagram is turned."""
    rate: float = math.inf
    """Bits a second, headers not counted."""
    queue: float = 1.0
    """Seconds of traffic that wait for `rate`; more is lost."""
    mtu: int = 65_535
    """Larger payloads are lost without a word."""


PRESETS = {
    "3G": Impair(rate=780e3, delay=0.050),
    "DSL": Impair(rate=2e6, delay=0.005),
    "EDGE": Impair(rate=240e3, delay=0.200),
    "LTE": Impair(rate=10e6, delay=0.025, jitter=0.005),
    "Wi-Fi": Impair(rate=30e6, delay=0.002, jitter=0.003, loss=0.001),
    "VeryBad": Impair(rate=1e6, delay=0.250, loss=0.10),
}


class Weather:
    """The fate of each datagram in one direction. Pure and seeded: the same datagrams get the same fates."""

    def __init__(self, impair: Impair, seed: int) -> None:
        self.impair = impair
        self.seen = 0
        self.lost = 0
        self._random = random.Random(seed)
        self._bad = False
        self._free_at = 0.0  # when the throttled line has sent all that waits
        self._last = 0.0

    def fate(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
        """When it arrives, and as what. Empty: it does not."""
        chance, impair = self._random.random, self.impair
        scripted = self.seen < len(impair.script)
        lost = bool(impair.script[self.seen]) if scripted else chance() < impair.loss
        self.seen += 1
        if impair.bursts is not None and not scripted:
            enter, leave = impair.bursts
            self._bad = chance() >= leave if self._bad else chance() < enter
            lost = lost or self._bad
        start = max(now, self._free_at)
        if lost or len(datagram) > impair.mtu or start - now > impair.queue:
            self.lost += 1
            return []
        self._free_at = start + 8 * len(datagram) / impair.rate
        when = self._free_at + max(0.0, impair.delay + (self._random.gauss(0, impair.jitter) if impair.jitter else 0.0))
        if impair.reorder and chance() < impair.reorder:
            when += impair.reorder_delay
        else:
            when = self._last = max(when, self._last + 1e-6)  # timers of one time may go off in any order
        if impair.flip and datagram and chance() < impair.flip:
            bit = self._random.randrange(8 * len(datagram))
            damaged = bytearray(datagram)
            damaged[bit // 8] ^= 1 << bit % 8
            datagram = bytes(damaged)
        times = 1 + (impair.copies if impair.duplicate and chance() < impair.duplicate else 0)
        return [(when, datagram)] * times


Take = Callable[[bytes, tuple[str, int]], None]
Send = Callable[[bytes], object]


class LossyLink:
    """A UDP relay: what a client sends to `address` reaches `target`, and what `target` answers comes back.

    One client at a time, the last one that sent; for WebRTC, write `address` into the candidate of one side.
    """

    def __init__(
        self, target: tuple[str, int], up: Impair | None = None, down: Impair | None = None, seed: int = 1
    ) -> None:
        if not target[0].startswith("127."):
            raise ValueError(f"tests stay on this machine, {target[0]} is not")
        self.target = target
        self.up = Weather(up or Impair(), seed)
        self.down = Weather(down or Impair(), seed + 1)
        self.dark = False
        """A blackout while True: nothing passes."""
        self.client: tuple[str, int] | None = None
        self._front: asyncio.DatagramTransport | None = None
        self._back: asyncio.DatagramTransport | None = None
        self._timers: set[asyncio.TimerHandle] = set()

    @property
    def address(self) -> tuple[str, int]:
        assert self._front is not None, "the link is not open"
        host, port = self._front.get_extra_info("sockname")[:2]
        return str(host), int(port)

    @property
    def source(self) -> tuple[str, int]:
        """Where the target sees the client."""
        assert self._back is not None, "the link is not open"
        host, port = self._back.get_extra_info("sockname")[:2]
        return str(host), int(port)

    async def rebind(self) -> None:
        """What a NAT does when it forgets: the target sees another source port from now on."""
        old = self._back
        self._back = await self._socket(self._from_target)
        if old is not None:
            old.close()

    async def blackout(self, seconds: float) -> None:
        self.dark = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self.dark = False

    async def __aenter__(self) -> Self:
        self._front = await self._socket(self._from_client)
        self._back = await self._socket(self._from_target)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for timer in self._timers:
            timer.cancel()
        for transport in (self._front, self._back):
            if transport is not None:
                transport.close()
        await asyncio.sleep(0)

    async def _socket(self, take: Take) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Ear(take), local_addr=("127.0.0.1", 0))
        return transport

    def _from_client(self, datagram: bytes, source: tuple[str, int]) -> None:
        self.client = source
        self._pass(self.up, datagram, lambda late: self._back and self._back.sendto(late, self.target))

    def _from_target(self, datagram: bytes, source: tuple[str, int]) -> None:
        if source == self.target and self.client is not None:
            self._pass(self.down, datagram, lambda late: self._front and self._front.sendto(late, self.client))

    def _pass(self, weather: Weather, datagram: bytes, send: Send) -> None:
        if self.dark:
            return
        loop = asyncio.get_running_loop()
        for when, arrival in weather.fate(datagram, loop.time()):
            if when <= loop.time():
                send(arrival)
            else:
                self._later(loop, when, arrival, send)

    def _later(self, loop: asyncio.AbstractEventLoop, when: float, datagram: bytes, send: Send) -> None:
        def arrive() -> None:
            self._timers.discard(timer)
            if not self.dark:
                send(datagram)

        timer = loop.call_at(when, arrive)
        self._timers.add(timer)


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, take: Take) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._take(data, (addr[0], addr[1]))


# Sound

Sound = npt.NDArray[np.float32]
FORMANTS = ((700, 90), (1_200, 120), (2_500, 150))  # of an "a": hertz, and how broad


def vowel(seconds: float, rate: int = 16_000, amplitude: float = 0.2, pitch: float = 120.0) -> Sound:
    """A held "a": harmonics of `pitch` under three formants."""
    time_axis = np.arange(round(seconds * rate)) / rate
    sound = np.zeros(len(time_axis))
    for harmonic in range(1, int(min(4_000, rate / 2) // pitch)):
        frequency = harmonic * pitch
        weight = sum(1 / (1 + ((frequency - formant) / width) ** 2) for formant, width in FORMANTS)
        sound += weight * np.sin(2 * np.pi * frequency * time_axis + harmonic)
    return (amplitude * sound / max(1e-9, np.abs(sound).max(initial=0.0))).astype(np.float32)


def hiss(seconds: float, rate: int = 16_000, amplitude: float = 0.01, seed: int = 1) -> Sound:
    """White noise of this root mean square: a fan, an amplifier."""
    return (amplitude * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def breath(seconds: float, rate: int = 16_000, amplitude: float = 0.01, seed: int = 1) -> Sound:
    """Noise without pitch between 400 and 3,500 Hz that swells and fades."""
    count = round(seconds * rate)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / rate)
    spectrum[(frequency < 400) | (frequency > 3_500)] = 0
    sound = np.fft.irfft(spectrum, count)
    sound *= amplitude / max(1e-9, float(np.sqrt(np.mean(sound**2))))
    return (sound * np.sin(np.pi * np.arange(count) / count) ** 2).astype(np.float32)


def hum(seconds: float, rate: int = 16_000, amplitude: float = 0.02, mains: float = 50.0) -> Sound:
    """The mains and its harmonics."""
    time_axis = np.arange(round(seconds * rate)) / rate
    return (amplitude * sum(np.sin(2 * np.pi * mains * k * time_axis) / k for k in range(1, 12))).astype(np.float32)
