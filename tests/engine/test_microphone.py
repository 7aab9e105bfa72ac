"""The microphone: through real PortAudio on an ALSA file device, and what happens when there is none."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import types
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import __main__ as command_line
from engine import microphone
from engine.microphone import BLOCK, BLOCKS_MOST, Block, MicrophoneError, drive, listening
from engine.session import House, SessionClosedError
from tests.fakes import JumpingClock
from tests.seats import FakeWorker

ALSA = """
pcm.speech {{ type file
  slave.pcm {{ type null }}
  file "/dev/null"
  infile "{infile}"
  format "raw"
}}
pcm.!default {{ type plug
  slave.pcm "speech" }}
"""


@pytest.fixture
def alsa(tmp_path: Path) -> dict[str, str]:
    """An environment in which the default microphone is a file: a ramp, so that every sample says where it was.

    ALSA's null device keeps no time: the file comes a hundred times faster than real time, which no real one does.
    """
    if not Path("/usr/share/alsa/alsa.conf").exists():
        pytest.skip("ALSA is not installed: apt install libasound2 libportaudio2")
    (tmp_path / "ramp.raw").write_bytes((np.arange(2_400_000) % 30_000).astype("<i2").tobytes())
    (tmp_path / "asound.conf").write_text(ALSA.format(infile=tmp_path / "ramp.raw"))
    return os.environ | {"ALSA_CONFIG_PATH": str(tmp_path / "asound.conf"), "PYTHONUNBUFFERED": "1"}


def test_real_portaudio_hands_over_every_sample_with_its_date(alsa: dict[str, str]) -> None:
    pytest.importorskip("sounddevice", reason='pip install "liveface[mic]"')
    script = """
        import asyncio
        import numpy as np
        from engine.clock import RealClock
        from engine.microphone import listening

        async def main():
            async with listening(RealClock()) as blocks:
                checked = 0
                async for block in blocks:
                    if block.pts + len(block.pcm) > 2_400_000 or checked == 200:
                        break
                    at = (block.pts + np.arange(len(block.pcm))) % 30_000
                    assert np.array_equal(block.pcm, at), (block.pts, block.pcm[:3], at[:3])
                    checked += 1
            print("heard" if checked >= 50 else checked)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=alsa, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "heard\n", done.stderr


def test_liveface_mic_shows_a_session_that_browsers_can_watch(alsa: dict[str, str]) -> None:
    pytest.importorskip("sounddevice", reason='pip install "liveface[mic]"')
    command = [sys.executable, "-m", "engine", "mic", "--port", "0", "--ws-port", "0"]
    with subprocess.Popen(command, env=alsa, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.match(r"Open (http://localhost:\d+)/watch/([\w-]+)#token=", line)
            assert found, line
            address, session_id = found.groups()
            with urllib.request.urlopen(f"{address}/watch/{session_id}", timeout=5) as page:
                assert page.status == 200
            with urllib.request.urlopen(f"{address}/v1/sessions", timeout=5) as answer:
                sessions = json.load(answer)["sessions"]
            assert [(each["session_id"], each["transport"]) for each in sessions] == [(session_id, "microphone")]
            (model,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()  # one that would not end is nobody's orphan
        assert process.returncode == 0, said
        assert not Path(f"/proc/{model}").exists(), "its model ends with it"


def test_liveface_mic_without_that_microphone_ends_in_one_line() -> None:
    pytest.importorskip("sounddevice", reason='pip install "liveface[mic]"')
    command = [sys.executable, "-m", "engine", "mic", "--port", "0", "--ws-port", "0", "--device", "nobody's"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("ALSA lib")]
    assert done.returncode == 1
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("liveface: no microphone could be opened")


class FakeDevices(types.ModuleType):
    """As much of `sounddevice` as is used; the test is the device's thread."""

    class PortAudioError(Exception):
        pass

    class CallbackAbort(Exception):
        pass

    def __init__(self, broken: str = "") -> None:
        super().__init__("sounddevice")
        self.broken = broken
        self.open = 0

    def InputStream(self, callback: Any, finished_callback: Any, **how: Any) -> "FakeDevices":  # noqa: N802
        if self.broken:
            raise self.PortAudioError(self.broken)
        assert (how["samplerate"], how["channels"], how["dtype"]) == (48_000, 1, "int16")
        self.callback, self.unplugged = callback, finished_callback
        return self

    def start(self) -> None:
        self.open += 1

    def abort(self) -> None:
        return None

    def close(self) -> None:
        self.open -= 1

    def hear(self, value: int, count: int = 1) -> None:
        def call() -> None:
            for _ in range(count):
                self.callback(np.full((BLOCK, 1), value, np.int16), BLOCK, None, None)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> FakeDevices:
    fake = FakeDevices()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake


async def test_blocks_come_dated_from_the_devices_own_thread(devices: FakeDevices) -> None:
    clock = JumpingClock()
    async with listening(clock) as blocks:
        assert devices.open == 1
        devices.hear(7)
        clock.jump(0.01)
        devices.hear(8)
        first, second = await blocks.get(), await blocks.get()
        assert (first.pts, second.pts) == (0, BLOCK)
        assert (int(first.pcm[0]), int(second.pcm[0])) == (7, 8)
        assert second.arrived - first.arrived == pytest.approx(0.01)
    assert devices.open == 0


async def test_a_busy_loop_loses_the_oldest_sound_and_the_device_never_waits(devices: FakeDevices) -> None:
    async with listening(JumpingClock()) as blocks:
        devices.hear(1, count=BLOCKS_MOST + 25)
        await asyncio.sleep(0)
        assert (await blocks.get()).pts == 25 * BLOCK
        assert len(blocks) == BLOCKS_MOST - 1


async def test_an_unplugged_microphone_ends_the_driving(devices: FakeDevices) -> None:
    clock = JumpingClock()
    worker: Any = FakeWorker(clock)
    async with House(worker, clock) as house, house.open("demo") as session, listening(clock) as blocks:
        devices.hear(1, count=3)
        devices.unplugged()
        assert await asyncio.wait_for(drive(session, blocks), 2) == 3 * BLOCK


async def test_no_microphone_is_one_clear_line(devices: FakeDevices) -> None:
    devices.broken = "Error querying device -1\n[PaErrorCode -9996]"
    with pytest.raises(MicrophoneError, match="no microphone could be opened") as refused:
        async with listening(JumpingClock()):
            pytest.fail("it opened")
    assert "\n" not in str(refused.value)


def test_without_sounddevice_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert command_line.main(["mic"]) == 2
    assert 'pip install "liveface[mic]"' in capsys.readouterr().err


def test_without_portaudio_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(microphone.importlib, "import_module", broken)
    with pytest.raises(MicrophoneError, match="apt install libportaudio2"):
        microphone._library()


@pytest.mark.parametrize("words", [["mic"], ["mic", "--list"]])
def test_without_portaudio_the_command_ends_in_one_line(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise MicrophoneError("PortAudio is not installed here")

    monkeypatch.setattr(microphone, "_library", broken)
    assert command_line.main(words) == 1
    assert capsys.readouterr().err == "liveface: PortAudio is not installed here\n"


def test_an_end_that_nobody_asked_for_is_explained() -> None:
    with pytest.raises(MicrophoneError, match="has stopped"):
        microphone.explain(4_800)
    with pytest.raises(ValueError, match="no sound"):
        microphone.explain(ValueError("no sound"))
    microphone.explain(SessionClosedError("somebody ended it"))


def test_a_block_is_ten_milliseconds() -> None:
    assert len(Block(np.zeros(BLOCK, np.int16), 0, 0.0).pcm) * 100 == 48_000
