"""Processes of a bench: a `liveface serve --probe` of its own, and clients, each by itself."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import aiohttp

from engine.bench.barge import Barged, BargePlan
from engine.bench.faces import FacesPlan, Heard
from engine.bench.latency import Dated, Record, Seen, Sent, Sound, Stimulus
from engine.bench.peer import Plan
from engine.clock import Clock

READY_SECONDS = 60.0
PARTING_SECONDS = 15.0


class BenchError(RuntimeError):
    """It cannot be measured; one line says why."""


class Serving:
    """A running server, ours or somebody else's."""

    def __init__(self, url: str, process: int | None = None) -> None:
        self.url = url
        self.process = process

    def cpu_seconds(self) -> float | None:
        """What the server and its children have used so far; None where it is not ours to look at."""
        if self.process is None:
            return None
        return sum(_cpu_seconds(process) for process in _family(self.process))


@asynccontextmanager
async def own_server(arguments: Sequence[str], clock: Clock) -> AsyncIterator[Serving]:
    """Start a server on free ports of 127.0.0.1, wait until it is ready, and end it with the block."""
    port, ws_port = _free_ports(2)
    fixed = ["--probe", "--host", "127.0.0.1", "--port", str(port), "--ws-port", str(ws_port)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "engine", "serve", *fixed, "--log-level", "warning", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    said: list[str] = []
    listening = asyncio.create_task(_remember(process.stderr, said))
    url = f"http://127.0.0.1:{port}"
    try:
        await _until_ready(url, process, said, clock)
        yield Serving(url, process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            # The second request ends it at once: nobody is left to drain for.
            try:
                async with asyncio.timeout(PARTING_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await listening


async def call(plans: Sequence[Plan]) -> list[Record]:
    """Run a client process for each plan, all at once. Raises `BenchError` with the first one's complaint."""
    return [record_from(spoken) for spoken in await asyncio.gather(*(_client("peer", plan) for plan in plans))]


async def stream_url(serving: Serving) -> str:
    """Where the server's websocket is. Raises `BenchError`."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{serving.url}/version") as answer:
            return str((await answer.json())["ws_url"])
    except (aiohttp.ClientError, KeyError, ValueError) as error:
        raise BenchError(f"{serving.url} does not say where its websocket is: {error}") from None


async def call_faces(serving: Serving, plan: FacesPlan) -> list[Heard]:
    """Run a process of websocket clients; the server says where its websocket is. Raises `BenchError`."""
    plan = replace(plan, url=await stream_url(serving))
    heard = [Heard(**each) for each in await _client("faces", plan)]
    closed = [each.closed for each in heard if each.closed]
    if len(closed) == len(heard):
        raise BenchError(f"every client was closed: {closed[0]}")
    return heard


async def call_barge(plan: BargePlan) -> Barged:
    """Run a process of the client that interrupts. Raises `BenchError`."""
    return Barged(**await _client("barge", plan))


def record_from(spoken: dict[str, Any]) -> Record:
    """What a client wrote, as it was."""
    stimulus = spoken["stimulus"]
    return Record(
        stimulus=Stimulus(stimulus["chunks"], tuple(stimulus["bursts"])),
        sent=[Sent(**each) for each in spoken["sent"]],
        sounds=[Sound(**each) for each in spoken["sounds"]],
        onsets=spoken["onsets"],
        pictures=[Seen(**each) for each in spoken["pictures"]],
        reports=[Dated(**each) for each in spoken["reports"]],
        connected_after=spoken["connected_after"],
        cpu_seconds=spoken["cpu_seconds"],
    )


async def _client(kind: str, plan: Plan | FacesPlan | BargePlan) -> Any:
    # Not -m: this package has imported the module already, and Python would say so each time.
    program = f"import sys; from engine.bench.{kind} import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, json.dumps(asdict(plan))),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        spoken, complaint = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise BenchError(f"a client failed: {lines[-1].removeprefix('liveface: ')}")
    return json.loads(spoken)


async def _until_ready(url: str, process: asyncio.subprocess.Process, said: list[str], clock: Clock) -> None:
    until = clock.now() + READY_SECONDS
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as http:
        while True:
            if process.returncode is not None:
                await asyncio.sleep(0.1)  # its last words are on their way
                raise BenchError(
                    f"the server did not start: {(said or ['it said nothing'])[-1].removeprefix('liveface: ')}"
                )
            try:
                async with http.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass  # it is not listening yet
            if clock.now() > until:
                raise BenchError(f"the server was not ready within {READY_SECONDS:g} s")
            await clock.sleep_until(clock.now() + 0.1)


async def _remember(stream: asyncio.StreamReader, said: list[str]) -> None:
    async for line in stream:
        said.append(line.decode(errors="replace").rstrip())
        del said[:-20]


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _family(process: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    family = [process]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _cpu_seconds(process: int) -> float:
    """Its own, and that of its children that have ended: the model's process may be replaced while it is measured."""
    return sum(map(int, _stat(process)[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none when the process is gone."""
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
