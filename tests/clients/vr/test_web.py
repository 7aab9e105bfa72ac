"""clients/vr/web: its modules under node, its head and its demo page in headless Chromium."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest

from engine.websocket import Stream
from models.face import ARKIT_52
from tests.clients.streams import a_stream
from tests.clients.vr.pages import Found, browse, node_modules
from tests.processor import StarvedError, Waits, remeasured


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream(lookahead=2) as stream:
        yield stream


def pixels(png: Path) -> np.ndarray:
    with av.open(str(png)) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24").astype(int)


def test_under_node() -> None:
    node_modules()
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on this machine")
    ran = subprocess.run(
        [node, "--test", str(Path(__file__).parent / "node" / "wire.test.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]


async def test_the_head_makes_faces(tmp_path: Path) -> None:
    found = await browse("pages/head.html", tmp_path, {"names": quote(json.dumps(ARKIT_52))})
    assert found.said["errors"] == []
    assert found.said["missing"] == []
    shown = {name: pixels(path) for name, path in found.pictures.items()}
    height, width, _ = shown["rest"].shape
    mouth = np.s_[int(0.56 * height) : int(0.76 * height), int(0.33 * width) : int(0.67 * width)]
    eyes = np.s_[int(0.28 * height) : int(0.46 * height), int(0.25 * width) : int(0.72 * width)]

    def changed(name: str, where: tuple[slice, slice]) -> float:
        return float(np.abs(shown[name][where] - shown["rest"][where]).mean())

    assert shown["rest"].std() > 20  # a picture at all
    assert changed("aa", mouth) > 3
    assert changed("ou", mouth) > 3
    assert changed("blink", eyes) > 3
    assert changed("aa", eyes) < 0.5
    # It is dark in an open mouth; mouthClose shuts the one that jawOpen opened.
    dark = {name: int((shown[name][mouth].max(-1) < 75).sum()) for name in ("rest", "mm", "aa")}
    assert dark["aa"] > dark["rest"] + 300
    assert dark["mm"] < dark["rest"] + 60


@pytest.mark.slow  # software WebGL wants a core of its own
@pytest.mark.timeout(600)
@remeasured
async def test_the_demo_page_moves_its_lips_with_the_sound(stream: Stream, tmp_path: Path) -> None:
    async with Waits() as waits:
        found = await browse("web/", tmp_path, {"url": stream.url, "keep": "1", "xr": "1"}, seconds=180)
    try:
        in_step(found)
    except AssertionError as failed:
        if waits.starved:
            raise StarvedError(str(failed)) from failed
        raise


def in_step(found: Found) -> None:
    """The page had no error, and its lips went with its sound."""
    said = found.said
    assert said["errors"] == []
    assert (said["names"], said["missing"], said["mark"], said["state"]) == (52, [], "AI", "running")
    when, head, pts, loud, jaw, buffered = np.array(said["series"]).T
    print(f"r = {np.corrcoef(loud, jaw)[0, 1]:.3f}; {np.median(buffered):.0f} ms of faces in hand")
    print(f"{len(when)} looks in {said['seconds']:.1f} s, {said['frames']} frames drawn, {said['faces']} faces")
    assert len(when) > 20  # drawn by a CPU that has other things to do
    assert np.all(np.diff(pts) >= -1)  # time never runs backwards
    # The face shown is that of the sound heard; only at the interrupt there is neither for a moment.
    apart = np.abs(head - pts)
    print(f"face from sound: median {np.median(apart):.0f}, p90 {np.quantile(apart, 0.9):.0f} us")
    assert np.median(apart) <= 1
    assert np.quantile(apart, 0.9) <= 10_000
    assert np.corrcoef(loud, jaw)[0, 1] > 0.85
    assert jaw.max() > 0.1
    assert "speech.started" in said["events"]
    assert "cleared" in said["events"]
    assert said["epoch"] == 1
    assert said["xr"]["presenting"] is True
    assert said["xr"]["frames"] > 3
    difference = np.abs(pixels(found.pictures["open"]) - pixels(found.pictures["rest"]))
    assert difference.max() > 60
