"""What browser tests stand on: Chromium with a voice for a microphone, a real `liveface serve`, eyes for pictures."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from models.face import HOUSE_LIPS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "clients" / "browser"
NODE = Path(__file__).parent / "node"
RATE = 48_000
LIVE_MS = 15_000
"""Milliseconds within which a page must be live: a cold Chromium and a cold server share two cores here."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
)


def chromium() -> str:
    """The path of a Chromium. Without one the test is skipped, but never in CI."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium in CI: the browser tests must run there (apt-get install chromium)")
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    return found


def node_module(*parts: str) -> Path:
    """A file of an npm package that `npm ci` put beside these tests; skips without it, but never in CI."""
    path = NODE.joinpath("node_modules", *parts)
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path.name} is missing in CI: run `npm ci --ignore-scripts` in tests/clients/node")
        pytest.skip(f"no {'/'.join(parts[:2])}: run `npm ci --ignore-scripts` in tests/clients/node")
    return path


def write_wav(path: Path, samples: npt.NDArray[np.float64]) -> Path:
    """Mono 48 kHz."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((np.clip(samples, -1, 1) * 32_000).astype("<i2").tobytes())
    return path


def voice(seconds: float, seed: int = 7) -> npt.NDArray[np.float64]:
    """Something like speech: open and closed syllables of a buzzing voice, pauses of irregular length between words."""
    rng = np.random.default_rng(seed)
    out = np.zeros(int(seconds * RATE))
    at = int(0.3 * RATE)
    while at < len(out):
        for _ in range(rng.integers(2, 5)):
            length = int(rng.uniform(0.13, 0.26) * RATE)
            if at + length >= len(out):
                return out
            t = np.arange(length) / RATE
            pitch = rng.uniform(105, 150) * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))
            phase = 2 * np.pi * np.cumsum(pitch) / RATE
            buzz = sum(np.sin(k * phase) / k**0.7 for k in range(1, 22))
            shape = np.sin(np.pi * np.arange(length) / length) ** 0.5
            out[at : at + length] = 0.12 * buzz * shape
            at += length + int(rng.uniform(0.02, 0.07) * RATE)
        at += int(rng.uniform(0.35, 0.8) * RATE)
    return out


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """`liveface serve` in a process of its own, on 127.0.0.1 alone. A block: entering waits until it is ready."""

    options: Sequence[str] = ()
    avatar: str = "demo"
    port: int = 0
    environ: dict[str, str] = field(default_factory=dict)
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        self.port = self.port or free_port()
        command = [sys.executable, "-m", "engine", "serve", "--port", str(self.port), "--ws-port", "0"]
        command += ["--host-address", "127.0.0.1", "--avatar", self.avatar, *self.options]
        out = subprocess.DEVNULL if self.log is None else self.log.open("ab")
        environ = {**os.environ, "OMP_NUM_THREADS": "1", **self.environ}
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environ)
        deadline = time.monotonic() + 60
        while True:
            if self.process.poll() is not None:
                said = self.log.read_text()[-2000:] if self.log else "run it by hand to see why"
                pytest.fail(f"`{' '.join(command)}` ended with {self.process.returncode}: {said}")
            try:
                with urllib.request.urlopen(self.url + "readyz", timeout=2):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > deadline:
                    self.stop()
                    pytest.fail("the server was not ready within 60 s")
                time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process = None

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return json.loads(answer.read())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


@contextmanager
def browser(
    driver: Any,
    profile: Path,
    microphone: Path | None = None,
    *,
    deny: bool = False,
    size: tuple[int, int] = (1280, 860),
    scheme: str = "light",
    scale: float = 1,
    touch: bool = False,
    flags: Sequence[str] = (),
) -> Iterator[Any]:
    """A Chromium of its own, with a fresh profile and `microphone` (a WAV, looped) for its fake device.

    Yields a Playwright context; what its pages complain of is in `complaints`, what they fetched in `fetched`.
    """
    arguments = [*FLAGS, *flags, "--deny-permission-prompts" if deny else "--use-fake-ui-for-media-stream"]
    if microphone is not None:
        arguments.append(f"--use-file-for-fake-audio-capture={microphone}")
    context = driver.chromium.launch_persistent_context(
        str(profile),
        executable_path=chromium(),
        headless=True,
        args=arguments,
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        device_scale_factor=scale,
        has_touch=touch,
        is_mobile=touch,
    )
    context.complaints = []
    context.fetched = []
    context.on("weberror", lambda error: context.complaints.append(str(error.error)))
    context.on("request", lambda request: context.fetched.append(request.url))
    try:
        yield context
    finally:
        context.close()


def start(page: Any, url: str, *, button: str = "#start") -> None:
    """Open the page, press the one button, wait until the presenter is there."""
    page.goto(url)
    page.wait_for_selector(".gallery input:checked", state="attached", timeout=LIVE_MS)
    page.click(button)
    live(page)


def live(page: Any, milliseconds: int = LIVE_MS) -> None:
    page.wait_for_selector("#stage[data-live]", timeout=milliseconds)


def playing(page: Any, frames: int = 10) -> None:
    """Wait until `frames` more pictures have been shown."""
    page.evaluate(
        """frames => new Promise((resolve, reject) => {
            const video = document.querySelector("video");
            let left = frames;
            setTimeout(() => reject(new Error(`the picture stands still, ${left} of ${frames} missing`)), 10000);
            video.requestVideoFrameCallback(function shown() {
                if (--left <= 0) resolve();
                else video.requestVideoFrameCallback(shown);
            });
        })""",
        frames,
    )


# What a page sees and hears, every picture for some seconds: the time it was shown, its lower middle (where a mouth
# is), the loudness of what the loudspeaker gets, and that of the microphone.
WATCH = """
async ({ seconds, box, pictures }) => {
  const video = document.querySelector("video");
  const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 24 });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const context = new AudioContext();
  await context.resume();
  const ear = (stream) => {
    if (!stream || !stream.getAudioTracks().length) return () => 0;
    const analyser = Object.assign(context.createAnalyser(), { fftSize: 2048 });
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    return () => {
      analyser.getFloatTimeDomainData(samples);
      return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    };
  };
  const remote = ear(liveface.stream), local = ear(liveface.microphone);
  const seen = [];
  const began = performance.now();
  await new Promise((resolve) => video.requestVideoFrameCallback(function shown(now, frame) {
    const [w, h] = [video.videoWidth, video.videoHeight];
    pen.drawImage(video, box[0] * w, box[1] * h, box[2] * w, box[3] * h, 0, 0, 32, 24);
    const pixels = pen.getImageData(0, 0, 32, 24).data;
    const luma = [];
    for (let i = 0; i < pixels.length; i += 4)
      luma.push(Math.round(0.3 * pixels[i] + 0.59 * pixels[i + 1] + 0.11 * pixels[i + 2]));
    seen.push({ at: now, luma, remote: remote(), local: local() });
    const waited = now - began;
    if (waited < seconds * 1000 || (seen.length < pictures && waited < 45000)) video.requestVideoFrameCallback(shown);
    else resolve();
  }));
  await context.close();
  return seen;
}
"""


@dataclass(frozen=True)
class Seen:
    """A few seconds at a page, one row per picture."""

    at: npt.NDArray[np.float64]  # [n] milliseconds
    luma: npt.NDArray[np.float64]  # [n, 24, 32]
    remote: npt.NDArray[np.float64]  # [n] loudness of what is heard
    local: npt.NDArray[np.float64]  # [n] loudness of the microphone


def watch(
    page: Any,
    seconds: float,
    box: Sequence[float] = (0, 0, 1, 1),
    pictures: int = 0,
    meanwhile: Callable[[], None] | None = None,
) -> Seen:
    """Look at `box` for so long; longer, on a machine that is too busy to show so many pictures in that time.

    `meanwhile` is called as soon as the looking has begun, and may touch the page.
    """
    page.evaluate(
        f"(wanted) => {{ window.watching = ({WATCH})(wanted); }}",
        {"seconds": seconds, "box": list(box), "pictures": pictures},
    )
    if meanwhile is not None:
        meanwhile()
    rows = page.evaluate("window.watching")
    return Seen(
        np.array([row["at"] for row in rows]),
        np.array([row["luma"] for row in rows], dtype=float).reshape(-1, 24, 32),
        np.array([row["remote"] for row in rows]),
        np.array([row["local"] for row in rows]),
    )


def mouth_of(page: Any) -> list[float]:
    """Where the mouth is, as the engine's own landmarks say: x, y, width and height, as shares of the picture."""
    points = page.evaluate(
        """() => new Promise((resolve, reject) => {
            setTimeout(() => reject(new Error("no landmarks within 10 s")), 10000);
            liveface.addEventListener("landmarks", ({ detail }) => resolve(detail.points), { once: true });
            liveface.landmarks(true);
        })"""
    )
    page.evaluate("liveface.landmarks(false)")
    lips = np.asarray(points)[HOUSE_LIPS]
    low, high = lips.min(0), lips.max(0)
    size = (high - low) * [1.3, 2.4]  # a closed mouth, and room for an open one
    corner = (low + high) / 2 - size / 2
    return [*corner.tolist(), *size.tolist()]


def until(page: Any, expression: str, milliseconds: int = LIVE_MS) -> None:
    """Wait until a JavaScript expression holds. Asked from outside: the page's own policy forbids evaluating text."""
    deadline = time.monotonic() + milliseconds / 1000
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {milliseconds} ms: {expression}; the page says {page.inner_text('body')[:600]!r}")
        page.wait_for_timeout(80)
