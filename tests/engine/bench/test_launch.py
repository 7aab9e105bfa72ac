"""Servers and clients as processes: they start, they end, and what goes wrong is one line."""

import asyncio
import json
import os
import sys
from dataclasses import asdict

import pytest

from engine.bench.faces import FacesPlan
from engine.bench.latency import analyse, split_by_hold, summary
from engine.bench.launch import BenchError, Serving, call, call_faces, own_server, record_from
from engine.bench.peer import Plan
from engine.clock import RealClock
from tests.engine.bench.test_latency import made


def test_a_record_comes_through_json_as_it_was():
    record = made()
    assert record_from(json.loads(json.dumps(asdict(record)))) == record


async def test_a_server_that_does_not_start_is_one_line():
    with pytest.raises(BenchError, match="the server did not start") as raised:
        async with own_server(["--avatar", "nobody-of-this-name"], RealClock()):
            pass
    assert "\n" not in str(raised.value)


async def test_a_client_that_cannot_connect_is_one_line():
    with pytest.raises(BenchError, match="a client failed: ") as raised:
        await call([Plan("http://127.0.0.1:9", 10.0)])
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


async def test_a_server_that_is_not_there_has_no_websocket():
    with pytest.raises(BenchError, match="does not say where its websocket is"):
        await call_faces(Serving("http://127.0.0.1:9"), FacesPlan("", 1, 10.0))


async def test_the_cpu_of_a_server_is_that_of_its_children_too():
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    child = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(flush=True); sys.stdin.read()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", child, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    serving = Serving("http://127.0.0.1:1", os.getpid())
    try:
        before = serving.cpu_seconds()
        await asyncio.sleep(0.2)
        assert serving.cpu_seconds() > before
        await process.stdout.readline()
        assert serving.cpu_seconds() >= before + 0.3 - 0.02, "what a child has used counts also when it has ended"
        assert Serving("http://127.0.0.1:1").cpu_seconds() is None
    finally:
        process.stdin.close()
        await process.wait()


@pytest.mark.slow
async def test_a_real_server_is_measured_and_80_ms_inserted_read_as_80():
    async with own_server([], RealClock()) as serving:
        (record,) = await call([Plan(serving.url, 20.0, inserted_delay=0.080)])
        assert serving.cpu_seconds() > 0.5
    report = analyse(record)
    passed, late = split_by_hold(report, 0.080)
    assert summary(late)["p50"] - summary(passed)["p50"] == pytest.approx(80, abs=5)
    assert report.unreadable == 0
    assert report.bursts_seen == report.bursts_sent
    assert -40 <= summary(report.av_arrival)["mean"] <= 0
