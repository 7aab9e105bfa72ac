"""The path of somebody who has just cloned the repository. Slow: each installs from the package registry."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git has of HEAD: no virtual environment, nothing that was built here."""
    folder = tmp_path_factory.mktemp("clone") / "liveface"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTHON"))}
    return kept | {"PYTHON": sys.executable}


def demo(clone: Path, port: int) -> tuple["subprocess.Popen[str]", str, float]:
    """`make demo`, the address it prints, and the seconds until it did."""
    begun = time.monotonic()
    process = subprocess.Popen(
        ["make", "demo", f"PORT={port}"],
        cwd=clone,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(r"http://(localhost|127\.0\.0\.1):\d+\S*", line):
            return process, found.group(), time.monotonic() - begun
    raise AssertionError("no address was printed:\n" + "".join(seen))


def stop(process: "subprocess.Popen[str]") -> int:
    """Ctrl-C, as a terminal sends it: to the whole group."""
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert "Traceback" not in output
    return process.returncode


@pytest.mark.timeout(900)
def test_make_demo_serves_a_face_without_torch_and_the_second_run_starts_in_5_seconds(clone: Path) -> None:
    process, address, _ = demo(clone, 8830)
    try:
        with urllib.request.urlopen(address, timeout=10) as page:
            assert b"<html" in page.read().lower()
        with urllib.request.urlopen("http://127.0.0.1:8830/readyz", timeout=10) as ready:
            assert ready.status == 200
    finally:
        stop(process)
    python = clone / ".venv/bin/python"
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode != 0
    process, _, seconds = demo(clone, 8830)
    stop(process)
    assert seconds < 5


@pytest.mark.timeout(900)
def test_the_wheel_works_in_an_empty_environment(clone: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, str(clone)], check=True
    )
    wheel = next(tmp_path.glob("liveface-*.whl"))
    venv.create(tmp_path / "empty", with_pip=True)
    binaries = tmp_path / "empty/bin"
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([binaries / "pip", "install", "--quiet", *constraint, str(wheel)], check=True)

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment())

    liveface = str(binaries / "liveface")
    assert run(liveface, "--help").returncode == 0
    assert re.match(r"liveface \d+\.\d+\.\d+", run(liveface, "--version").stdout)
    assert run(str(binaries / "python"), "-c", "import engine, engine.session, clients").returncode == 0
    assert "demo" in run(liveface, "avatars", "list").stdout
    missing = run(liveface, "studio", "voice", "out")
    assert missing.returncode == 2
    assert 'pip install "liveface[torch]"' in missing.stdout + missing.stderr


def test_everything_that_make_offers_is_explained(clone: Path) -> None:
    told = subprocess.run(["make", "help"], cwd=clone, capture_output=True, text=True, check=True).stdout
    for verb in ("help", "deps", "demo", "test", "style", "bench", "soak", "check", "avatars", "docs"):
        assert re.search(rf"make {verb}\b", told), verb
    shutil.rmtree(clone / "out", ignore_errors=True)
