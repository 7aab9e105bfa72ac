"""Faces over websockets: last sample in → face frame out, as clients in a process of their own measure it.

    python -m tests.bench.faces --sessions 20 --lookahead 2 --seconds 30

Every client sends 40 ms of speech every 40 ms, all at different phases. Some (`--probes`) ask for their sound back:
what comes back is, sample for sample, a piece that was sent, so its date tells which face answers which piece, and the
time between the sending of that piece and the arrival of that face is the latency. No clock is shared but the client's
own.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from clients.python.wire import AUDIO_OUT, FACE, HEADER, hello, pack_sound
from models.rates import CHUNK, CHUNK_SECONDS, HEARD_CHUNK, HEARD_RATE, SAMPLE_RATE
from tests.fakes import vowel

SETTLE_SECONDS = 3.0
"""Not counted at the beginning: everybody connects at once."""


@dataclass
class Heard:
    """What one client found."""

    latencies: list[float] = field(default_factory=list)
    faces: int = 0
    seconds: float = 0.0
    missing: int = 0  # faces that the sequence numbers say were thrown away
    unmatched: int = 0
    closed: str = ""


def pieces(rate: int, count: int, seed: int) -> list[bytes]:
    """Speech-like sound in 40 ms pieces, no two alike: syllables of a vowel, and a little noise."""
    n = count * rate // 25
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * np.arange(n) / rate) * 1.5, 0, 1)
    noise = np.random.default_rng(seed).normal(0, 0.002, n)
    tone = np.resize(vowel(2.0, rate, amplitude=0.7), n)
    pcm = (np.clip(tone * syllables + noise, -1, 1) * 32_000).astype("<i2")
    return [pcm[i : i + rate // 25].tobytes() for i in range(0, n, rate // 25)]


async def client(url: str, number: int, of: int, seconds: float, probe: bool) -> Heard:
    loop = asyncio.get_running_loop()
    heard = Heard()
    rate = HEARD_RATE if probe else SAMPLE_RATE
    said = pieces(rate, round(seconds / CHUNK_SECONDS), number)
    sent: dict[bytes, float] = {}
    dated: dict[int, float] = {}
    waiting: dict[int, float] = {}
    began = 0.0

    async def talk() -> None:
        due = began
        for i, piece in enumerate(said):
            await asyncio.sleep(max(0.0, due - loop.time()))
            if probe:
                sent[piece] = loop.time()
            await socket_.send(pack_sound(piece, i, 0))
            due += CHUNK_SECONDS

    def match(pts_us: int, sent_at: float, arrived: float) -> None:
        if sent_at - began > SETTLE_SECONDS:
            heard.latencies.append(arrived - sent_at)

    await asyncio.sleep(number / of * CHUNK_SECONDS + 0.02 * number)
    async with connect(url, subprotocols=[Subprotocol("avatar.v1")], compression=None, max_size=None) as socket_:
        await socket_.send(hello(sample_rate=rate, audio_out=rate if probe else None))
        await socket_.recv()
        began = loop.time()
        talking = asyncio.create_task(talk())
        last = -1
        try:
            while loop.time() < began + seconds:
                message = await asyncio.wait_for(socket_.recv(), 5)
                arrived = loop.time()
                if isinstance(message, str):
                    continue
                _, kind, _, _, seq, _, _, pts_us = HEADER.unpack_from(message)
                if kind == FACE:
                    if arrived - began > SETTLE_SECONDS:
                        heard.faces += 1
                        heard.missing += max(0, seq - last - 1) if last >= 0 else 0
                    last = seq
                    if probe and (sent_at := dated.pop(pts_us, None)) is not None:
                        match(pts_us, sent_at, arrived)
                    elif probe:
                        waiting[pts_us] = arrived
                elif kind == AUDIO_OUT:
                    sent_at = sent.pop(message[HEADER.size :], None)
                    if sent_at is None:
                        heard.unmatched += 1
                    elif (face_at := waiting.pop(pts_us, None)) is not None:
                        match(pts_us, sent_at, face_at)
                    else:
                        dated[pts_us] = sent_at
        except (ConnectionClosed, TimeoutError) as closed:
            heard.closed = str(closed) or type(closed).__name__
        heard.seconds = loop.time() - began - SETTLE_SECONDS
        talking.cancel()
        with suppress(asyncio.CancelledError, ConnectionClosed):
            await talking
    return heard


async def measure(url: str, sessions: int, probes: int, seconds: float) -> dict[str, Any]:
    every = max(1, sessions // max(1, probes))
    found = await asyncio.gather(
        *(client(url, i, sessions, seconds, i % every == 0 and i // every < probes) for i in range(sessions))
    )
    latencies = np.array([latency for heard in found for latency in heard.latencies]) * 1000
    if latencies.size == 0:
        raise SystemExit(f"nothing could be matched: {[heard.closed or heard.unmatched for heard in found[:3]]}")
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
    rates = [heard.faces / heard.seconds for heard in found]
    return {
        "sessions": sessions,
        "matched": int(latencies.size),
        "unmatched": sum(heard.unmatched for heard in found),
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "worst_ms": round(float(latencies.max()), 1),
        "faces_per_second_least": round(min(rates), 2),
        "faces_per_second_mean": round(float(np.mean(rates)), 2),
        "faces_spared": sum(heard.missing for heard in found),
        "closed": [heard.closed for heard in found if heard.closed],
        "load_average": round(os.getloadavg()[0], 1),
    }


def calibration() -> float:
    """Seconds of a 1024³ product on one thread: what a figure of a shared machine is to be read against."""
    a = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    clock = asyncio.new_event_loop()
    best = np.inf
    for _ in range(5):
        began = clock.time()
        a @ a
        best = min(best, clock.time() - began)
    clock.close()
    return float(best)


@contextmanager
def server(slots: int, lookahead: int, backend: str, cores: str) -> Iterator[str]:
    """`liveface serve` on free ports of 127.0.0.1."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, ws_port = one.getsockname()[1], two.getsockname()[1]
    command = [sys.executable, "-m", "engine", "serve", "--port", str(port), "--ws-port", str(ws_port)]
    command += ["--slots", str(slots), "--lookahead", str(lookahead), "--backend", backend, "--log-level", "warning"]
    if cores:
        command = ["taskset", "-c", cores, *command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
                    break
                except (urllib.error.URLError, OSError):
                    if process.poll() is not None:
                        log.seek(0)
                        raise SystemExit(f"the server did not start: {log.read().decode()[-500:]}") from None
                    asyncio.run(asyncio.sleep(0.1))
            yield f"ws://127.0.0.1:{ws_port}/v1/stream"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--sessions", type=int, nargs="+", default=[1, 20])
    parse.add_argument("--lookahead", type=int, nargs="+", default=[0, 2])
    parse.add_argument("--seconds", type=float, default=20.0)
    parse.add_argument("--probes", type=int, default=3)
    parse.add_argument("--backend", default="plain")
    parse.add_argument("--cores", default="", help="pin the server to these, as taskset writes them")
    parse.add_argument("--url", help="measure a server that runs, whatever its look-ahead")
    asked = parse.parse_args()
    assert CHUNK * 3 == HEARD_CHUNK
    for lookahead in asked.lookahead:
        for sessions in asked.sessions:
            with server(sessions + 1, lookahead, asked.backend, asked.cores) as url:
                report = asyncio.run(measure(asked.url or url, sessions, asked.probes, asked.seconds))
            print(
                json.dumps(
                    {
                        "lookahead": lookahead,
                        "backend": asked.backend,
                        **report,
                        "calibration_s": round(calibration(), 4),
                    }
                )
            )


if __name__ == "__main__":
    main()
