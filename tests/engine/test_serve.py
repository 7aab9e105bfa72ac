"""`liveface serve` as a person runs it: a process of its own, its signals, its exit status, its one address."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.__main__ import main
from engine.serve import with_short_names
from tests.webrtc_client import Client


class Process:
    """A server in its own process, with a fake model in the process below it."""

    def __init__(self, process: "subprocess.Popen[str]", base: str, pid: int) -> None:
        self.process, self.base, self.pid = process, base, pid

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, content, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.loads(answer.read() or b"null") if path.startswith("/v1") else None
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    def ends(self) -> tuple[int, str]:
        said = self.process.communicate(timeout=20)[1]
        return self.process.returncode, said


@contextmanager
def serving(*words: str, environ: dict[str, str] | None = None, files: int | None = None) -> Iterator[Process]:
    """`files`: descriptors that the server may have open."""
    command = [sys.executable, "-m", "engine", "serve", "--slots", "2", "--backend", "tests.fakes", *words]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    if "--port" not in words:
        command += ["--port", "0"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LIVEFACE_")} | (environ or {})
    environ["PYTHONUNBUFFERED"] = "1"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"Open (http://localhost:\d+)/\n", line)
            assert found, line or process.communicate(timeout=5)[1]
            yield Process(process, found[1], process.pid)
        finally:
            if process.poll() is None:
                process.kill()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether a process ends in time; the test does not own it, so it cannot wait for it."""
    end = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_ctrl_c_ends_an_idle_server_with_status_zero_and_leaves_nothing() -> None:
    with serving() as server:
        assert server.ask("/healthz")[0] == 200
        workers = children(server.pid)
        server.process.send_signal(signal.SIGINT)
        status, said = server.ends()
        assert status == 0, said
        assert "Traceback" not in said
        assert all(gone(worker) for worker in workers)


def test_l1_sigterm_drains_until_the_deadline_and_ends_well() -> None:
    with serving("--deadlines-drain", "1.5") as server:
        assert server.ask("/readyz")[0] == 200
        assert server.ask("/v1/sessions", {})[0] == 201
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert server.ask("/readyz")[0] == 503
        status, problem = server.ask("/v1/sessions", {})
        assert (status, problem["type"]) == (503, "urn:liveface:draining")
        status, said = server.ends()
        assert status == 0, said
        assert 1.2 < time.monotonic() - began < 20


def test_l1_a_second_sigterm_is_now() -> None:
    with serving("--deadlines-drain", "60") as server:
        assert server.ask("/v1/sessions", {})[0] == 201
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert server.ends()[0] == 0
        assert time.monotonic() - began < 20


async def test_l7_without_descriptors_newcomers_are_refused_and_the_service_lives() -> None:
    """Others hold all of its 64; who is connected already is told to come later, and then all is as it was."""
    with serving(files=64) as server:
        address = ("127.0.0.1", int(server.base.rpartition(":")[2]))
        async with aiohttp.ClientSession(server.base) as http, Client() as client:
            offer = await client.offer()
            async with http.get("/healthz") as alive:
                assert alive.status == 200
            others = [socket.create_connection(address) for _ in range(60)]
            await asyncio.sleep(0.3)
            for _ in range(3):
                async with http.post("/v1/whip", data=offer, headers={"Content-Type": "application/sdp"}) as refused:
                    assert refused.status == 503, await refused.text()
                    assert int(refused.headers["Retry-After"]) >= 1
            for each in others:
                each.close()
            await asyncio.sleep(1.2)  # as long as the loop leaves a listening socket alone that it could not serve
            async with http.post("/v1/whip", data=offer, headers={"Content-Type": "application/sdp"}) as welcome:
                assert welcome.status == 201, await welcome.text()
            async with http.get("/readyz") as ready:
                assert ready.status == 200


def test_l2_a_killed_server_leaves_no_model_port_or_memory_behind() -> None:
    shared = set(Path("/dev/shm").iterdir())
    with serving() as server:
        assert server.ask("/v1/sessions", {})[0] == 201
        port = server.base.rpartition(":")[2]
        workers = children(server.pid)
        server.process.kill()
        server.process.wait(5)
        assert all(gone(worker) for worker in workers)
    with serving("--port", port, "--deadlines-drain", "0") as again:
        assert again.ask("/healthz")[0] == 200
        assert again.ask("/v1/sessions", {})[0] == 201
        again.process.send_signal(signal.SIGTERM)
        assert again.ends()[0] == 0
    assert not {path for path in set(Path("/dev/shm").iterdir()) - shared if "liveface" in path.name}


@pytest.mark.parametrize(
    ("words", "environ", "status", "reason"),
    [
        (["--port", "99999"], {}, 2, "--port: 99999"),
        (["--slots", "many"], {}, 2, "--slots"),
        (["--config", "/nowhere.toml"], {}, 2, "/nowhere.toml"),
        (["--host", "0.0.0.0", "--port", "0"], {}, 1, "LIVEFACE_TOKEN"),
        (["--host", "0.0.0.0", "--port", "0"], {"LIVEFACE_TOKEN": "short"}, 1, "16"),
        (["--port", "0", "--avatar", "nobody"], {}, 1, "no avatar is called 'nobody'"),
        (["--port", "0", "--backend", "abacus", "--runtime", "inline"], {}, 1, "abacus"),
        (["--port", "0", "--token-file", "/nowhere"], {}, 2, "/nowhere"),
        ([], {"LIVEFACE_PORT": "x"}, 2, "LIVEFACE_PORT"),
    ],
)
def test_l8_what_is_wrong_is_one_line_and_a_status(
    words: list[str],
    environ: dict[str, str],
    status: int,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *words]) == status
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_l8_a_taken_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port]) == 1
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said
    assert said.count("\n") == 1


def test_the_settings_can_be_shown_and_hold_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIVEFACE_TOKEN", "a key of twenty letters")
    assert main(["serve", "--print-config", "--slots", "7", "--open"]) == 0
    said = capsys.readouterr().out
    assert "slots = 7  # --slots" in said
    assert "anyone = true" in said
    assert "twenty letters" not in said


def test_short_names_of_the_key_do_not_beat_the_long_ones() -> None:
    long = "LIVEFACE_ACCESS__SECRET"
    assert with_short_names({"LIVEFACE_TOKEN": "a"}) == {long: "a"}
    assert with_short_names({"LIVEFACE_TOKEN": "a", long: "b"}) == {long: "b"}
    assert with_short_names({"LIVEFACE_TOKEN": ""}) == {}
