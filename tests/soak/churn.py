"""A thousand sessions come and go, one in five of them badly: `python -m tests.soak.churn [--cycles 1000]`.

Fault L4. The server is a process of its own; the clients are here. Afterwards its threads, tasks and file descriptors
must be what they were after the first few sessions, and its memory must not grow by 10 KB a session.

A running session holds some ten megabytes, so memory is read when nobody is there: the cycles come in rounds, and
after each round all guests leave. The line is fitted from WARM_UP of the cycles on: until then caches fill and the heap
finds its size.
"""

import argparse
import asyncio
import json
import math
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

import aiohttp
import numpy as np

from models.rates import HEARD_RATE
from tests.fakes import vowel
from tests.webrtc_client import Client

SLOPE_MOST = 10_000
"""Bytes a cycle."""

WARM_UP = 0.3
"""The share of cycles after which memory is compared."""

ROUND = 25
"""Cycles after which everybody leaves and memory is read."""

VOICE = (vowel(4, HEARD_RATE) * 32_000).astype(np.int16)
SDP = {"Content-Type": "application/sdp"}
ABNORMAL = ("vanish", "never handshakes", "bad offer", "unused ticket", "cut off")


@dataclass
class Churn:
    http: aiohttp.ClientSession
    base: str
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[int, float]] = field(default_factory=list)

    async def cycle(self) -> None:
        ending = self.dice.choice(ABNORMAL) if self.dice.random() < 0.2 else "leaves"
        ticket = await self._ticket()
        path = f"{self.base}/v1/sessions/{ticket['session_id']}"
        if ending == "unused ticket":
            async with self.http.delete(path):
                pass
        elif ending == "bad offer":
            async with self.http.post(f"{path}/whip", data="v=0\r\nm=audio 9 X 0\r\n", headers=SDP):
                pass
        else:
            await self._converse(ticket, ending)
        self.done[ending] += 1

    async def _converse(self, ticket: dict[str, Any], ending: str) -> None:
        client = Client(VOICE, decode=False)
        try:
            offer = await client.offer()
            headers = SDP | {"Authorization": f"Bearer {ticket['token']}"}
            async with self.http.post(self.base + ticket["whip_url"], data=offer, headers=headers) as answer:
                if answer.status == 503:  # this machine is busy; the seat is free again
                    self.done["was too busy"] += 1
                    return
                assert answer.status == 201, await answer.text()
                location, text = answer.headers["Location"], await answer.text()
            if ending == "never handshakes":
                return
            await client.accept(text)
            await client.until(lambda: len(client.pictures) > 2, timeout=30)
            if ending == "vanish":
                await client.vanish()
            elif ending == "leaves":
                async with self.http.delete(self.base + location, headers=headers) as left:
                    assert left.status in (200, 404), left.status
        finally:
            await client.close()

    async def _ticket(self) -> dict[str, Any]:
        while True:
            async with self.http.post(f"{self.base}/v1/sessions", json={}) as answer:
                if answer.status == 201:
                    return dict(await answer.json())
                assert answer.status == 503, await answer.text()
                self.done["was full"] += 1
            await asyncio.sleep(0.5)

    async def numbers(self) -> dict[str, float]:
        async with self.http.get(f"{self.base}/metrics") as page:
            text = await page.text()
        names = ("avatar_event_loop_tasks", "process_open_fds", "process_threads", "process_resident_memory_bytes")
        found = {name: re.search(rf"^{name} (\S+)$", text, re.MULTILINE) for name in names}
        return {name: float(match[1]) for name, match in found.items() if match}

    async def quiet(self) -> dict[str, float]:
        """The numbers when nobody is left."""
        for _ in range(600):
            async with self.http.get(f"{self.base}/v1/sessions") as answer:
                said = await answer.json()
            if not said["sessions"] and not said["connections"]["peers"]:
                await asyncio.sleep(1.0)  # what ends in the turn after
                return await self.numbers()
            await asyncio.sleep(0.2)
        raise AssertionError(f"sessions that nobody holds are still open: {said['sessions']}")


async def churn(cycles: int, at_once: int, seed: int, backend: str) -> dict[str, Any]:
    words = ["--port", "0", "--slots", "32", "--backend", backend, "--log-level", "warning"]
    words += ["--deadlines-silent", "5", "--deadlines-first-media", "10", "--deadlines-drain", "0"]
    environ = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine", "serve", *words, stdout=asyncio.subprocess.PIPE, env=environ
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.fullmatch(r"Open (http://localhost:\d+)/\n", line)
        assert found, f"the server did not start: {line!r}"
        async with aiohttp.ClientSession() as http:
            return await _run(
                Churn(http, found[1].replace("localhost", "127.0.0.1"), random.Random(seed)), cycles, at_once
            )
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0, "the server did not end well"


async def _run(churn: Churn, cycles: int, at_once: int) -> dict[str, Any]:
    began = time.monotonic()
    await _round(churn, at_once, at_once)
    base = after = await churn.quiet()
    done = 0
    while done < cycles:
        await _round(churn, min(ROUND, cycles - done), at_once)
        done = min(cycles, done + ROUND)
        after = await churn.quiet()
        churn.memory.append((done, after["process_resident_memory_bytes"]))
        if done % 100 == 0:
            print(f"{done} cycles, {time.monotonic() - began:.0f} s, {churn.memory[-1][1] / 1e6:.1f} MB", flush=True)
    return {
        "cycles": cycles,
        "seconds": round(time.monotonic() - began, 1),
        "endings": dict(churn.done),
        "before": base,
        "after": after,
        "memory": churn.memory,
        "fitted_from_cycle": math.ceil(WARM_UP * cycles),
        "memory_slope_bytes_per_cycle": round(slope(churn.memory, cycles)),
    }


async def _round(churn: Churn, cycles: int, at_once: int) -> None:
    left = cycles

    async def guest() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await churn.cycle()

    async with asyncio.TaskGroup() as guests:
        for _ in range(at_once):
            guests.create_task(guest())


def slope(memory: list[tuple[int, float]], cycles: int) -> float:
    """Bytes a cycle, of what was read after the warm-up."""
    warm = [(cycle, size) for cycle, size in memory if cycle >= WARM_UP * cycles]
    return linear_regression(*zip(*warm, strict=True)).slope if len(warm) > 2 else 0.0


def faults(report: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    before, after = report["before"], report["after"]
    wrong = [
        f"{name}: {before[name]:g} before, {after[name]:g} after"
        for name, slack in (("avatar_event_loop_tasks", 1), ("process_open_fds", 2), ("process_threads", 1))
        if after[name] > before[name] + slack
    ]
    if report["memory_slope_bytes_per_cycle"] > SLOPE_MOST:
        wrong.append(
            f"memory grows by {report['memory_slope_bytes_per_cycle']} bytes a cycle; {SLOPE_MOST} are the most"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="A thousand sessions come and go, one in five of them badly.")
    parser.add_argument("--cycles", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--backend", default="plain")
    parser.add_argument("--json", type=Path, help="where to write the report")
    arguments = parser.parse_args()
    report = asyncio.run(churn(arguments.cycles, arguments.at_once, arguments.seed, arguments.backend))
    wrong = faults(report)
    print(json.dumps(report, indent=2))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report))
    for line in wrong:
        print(f"FAULT {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
