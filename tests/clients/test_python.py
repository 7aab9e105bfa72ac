"""The Python client: golden vectors, a conversation with a server, its command line."""

import asyncio
import json
import re
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.python import AvatarClosedError, Event, Face, Picture, Points, Sampler, Sound, connect, wire
from clients.python.__main__ import read_wav
from engine.clock import RealClock
from engine.session import House
from engine.websocket import Stream, serve_websocket
from tests.fakes import vowel
from tests.seats import FakeWorker

ROOT = Path(__file__).parents[2]
GOLDEN: dict[str, Any] = json.loads((ROOT / "clients" / "golden.json").read_text())
VOICE = (vowel(1, 16_000, amplitude=0.8) * 32_000).astype("<i2").tobytes()


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    clock = RealClock()
    worker = FakeWorker(clock, lookahead=1)  # type: ignore[arg-type]  # it needs now and sleep_until
    async with (
        House(worker, clock) as house,  # type: ignore[arg-type]  # the fake has the worker's shape
        serve_websocket(house, clock, port=0, avatar="demo") as stream,
    ):
        yield stream


def reading(names: list[str], visemes: int = 0) -> wire.Reading:
    return wire.Reading({"epoch": 0, "face": {"names": names, "visemes": ["v"] * visemes}})


# The wire


@pytest.mark.parametrize("vector", GOLDEN["headers"], ids=lambda v: v["name"])
def test_sound_is_packed_as_the_contract_draws_it(vector: dict[str, Any]) -> None:
    assert wire.HEADER.size == GOLDEN["header_bytes"]
    if vector["type"] == wire.AUDIO_IN:
        pcm, end = bytes.fromhex(vector["payload_hex"]), bool(vector["flags"] & wire.SEGMENT_END)
        packed = wire.pack_sound(pcm, vector["seq"], vector["epoch"], int(vector["pts_us"]), end)
        assert packed.hex() == vector["hex"]
    else:
        fields = wire.HEADER.unpack_from(bytes.fromhex(vector["hex"]))
        assert fields[1:3] == (vector["type"], vector["flags"])
        assert fields[7] == int(vector["pts_us"])


@pytest.mark.parametrize("vector", GOLDEN["refused"], ids=lambda v: v["name"])
def test_broken_frames_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(wire.WireError):
        reading([]).read(bytes.fromhex(vector["hex"]))


@pytest.mark.parametrize("vector", GOLDEN["faces"], ids=lambda v: v["name"])
def test_faces_are_read(vector: dict[str, Any]) -> None:
    face = reading(vector["names"], vector["viseme_count"]).read(bytes.fromhex(vector["hex"]))
    assert isinstance(face, Face)
    assert face.weights == pytest.approx(dict(zip(vector["names"], vector["weights"], strict=True)))
    for name in ("rotation", "position", "gaze", "visemes"):
        assert getattr(face, name) == pytest.approx(vector[name], abs=1e-6)
    for name in ("epoch", "seq", "speaking", "segment_end"):
        assert getattr(face, name) == vector[name]
    assert face.pts_us == int(vector["pts_us"])
    with pytest.raises(wire.WireError):
        reading([*vector["names"], "more"], vector["viseme_count"]).read(bytes.fromhex(vector["hex"]))


def test_points_are_read() -> None:
    for vector in GOLDEN["points"]:
        points = reading([]).read(bytes.fromhex(vector["hex"]))
        assert isinstance(points, Points)
        assert [list(point) for point in points.points] == vector["points"]


@pytest.mark.parametrize("vector", GOLDEN["slerp"], ids=lambda v: v["name"])
def test_slerp(vector: dict[str, Any]) -> None:
    mixed = wire.slerp(vector["a"], vector["b"], vector["t"])
    assert abs(sum(x * y for x, y in zip(mixed, vector["expect"], strict=True))) == pytest.approx(1, abs=1e-6)


def a_face(pts_us: int, value: float, epoch: int = 0) -> Face:
    return Face(pts_us, epoch, 0, True, ("x",), (value,), (0, 0, 0, 1), (0, 0, 0), (0, 0))


def test_sampling_between_faces() -> None:
    sampler = Sampler()
    assert sampler.at(0) is None
    for vector in GOLDEN["sampling"]["faces"]:
        sampler.push(a_face(vector["pts_us"], vector["value"]))
    for vector in GOLDEN["sampling"]["samples"]:
        face = sampler.at(vector["pts_us"])
        assert face is not None
        assert face.values == pytest.approx((vector["value"],))
    sampler.push(a_face(120_000, 0.9, epoch=1))
    face = sampler.at(0)
    assert face is not None
    assert face.values == (0.9,)  # what came before the interrupt is void


def test_unknown_messages_are_ignored_and_old_epochs_dropped() -> None:
    read = reading([])
    assert read.read(wire.HEADER.pack(wire.MAGIC, 200, 0, 1, 0, 0, 0, 0)) is None
    assert isinstance(read.read('{"type":"from.the.future","x":1}'), Event)
    read.read('{"type":"cleared","epoch":2}')
    old = bytes.fromhex(GOLDEN["faces"][0]["hex"])  # epoch 1
    assert read.read(old) is None
    assert read.stale == 1


# A conversation


async def test_faces_sound_points_and_pictures(stream: Stream) -> None:
    kinds: dict[type, Any] = {}
    async with connect(
        stream.url, pacing="burst", landmarks=True, mesh=True, video="jpeg", audio_out=24_000, face={"visemes": True}
    ) as avatar:
        assert avatar.lookahead_ms == 40
        assert len(avatar.names) == 52
        await avatar.push(VOICE, end=True)
        async for message in avatar:
            kinds[type(message)] = message
            if isinstance(message, Event) and message.type == "speech.stopped":
                break
    assert set(kinds) == {Face, Points, Picture, Sound, Event}
    assert len(kinds[Sound].pcm) == 2 * 960
    assert kinds[Picture].encoded[:2] == b"\xff\xd8"
    assert sum(kinds[Face].visemes) == pytest.approx(1, abs=1e-5)


async def test_a_face_of_json(stream: Stream) -> None:
    async with connect(stream.url, face={"encoding": "json", "schema": "oculus15", "rate": 50}) as avatar:
        face = await anext(avatar.faces())
        assert face.names[0] == "sil"
        assert len(face.values) == 15


async def test_an_interrupt_counts_at_once(stream: Stream) -> None:
    async with connect(stream.url, pacing="burst") as avatar:
        await avatar.push(VOICE)
        await avatar.interrupt()
        assert avatar.epoch == 1
        await avatar.push(VOICE[:6_400])  # belongs to the new epoch already, though the server has not answered
        async for message in avatar:
            assert isinstance(message, Event) or message.epoch == 1
            if isinstance(message, Event) and message.type == "speech.started" and message["epoch"] == 1:
                break
            assert not (isinstance(message, Event) and message.type == "warning")


async def test_a_refusal_is_an_exception_with_the_servers_sentence(stream: Stream) -> None:
    with pytest.raises(AvatarClosedError, match="nobody") as refused:
        async with connect(stream.url, avatar="nobody"):
            pass
    assert (refused.value.code, refused.value.reason) == (4404, "unknown_avatar")


async def test_no_server_is_one_clear_line() -> None:
    with pytest.raises(AvatarClosedError, match="cannot speak avatar"):
        async with connect("ws://127.0.0.1:9/v1/stream"):
            pass


async def test_a_server_that_closes_ends_the_iteration(stream: Stream) -> None:
    async with connect(stream.url) as avatar:
        await avatar.say("session.end")
        assert [m async for m in avatar if isinstance(m, Event) and m.type == "error"] == []


# The command line


def a_wav(path: Path, pcm: bytes = VOICE, width: int = 2, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pcm)
    return path


async def command(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.python", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("live", [False, True])
async def test_a_file_is_printed_face_by_face(stream: Stream, tmp_path: Path, live: bool) -> None:
    wav = a_wav(tmp_path / "speech.wav", bytes(6_400) + VOICE)
    code, out, err = await command("--wav", str(wav), "--url", stream.url, "--print", *(["--live"] if live else []))
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) > 20
    assert re.match(r" *\d+\.\d{3} s  jawOpen \d\.\d\d ", lines[0])
    assert any(float(line.split("jawOpen ")[1][:4]) > 0.05 for line in lines)
    assert "faces for 1.20 s of speech" in err


async def test_json_lines(stream: Stream, tmp_path: Path) -> None:
    wav = a_wav(tmp_path / "speech.wav", VOICE[:9_600])
    code, out, err = await command("--wav", str(wav), "--url", stream.url, "--json")
    assert code == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    assert {"face", "speech.started", "speech.stopped"} <= {one["type"] for one in said}
    assert len(next(one for one in said if one["type"] == "face")["weights"]) == 52


async def test_what_cannot_be_read_says_how_to_mend_it(tmp_path: Path) -> None:
    bad = tmp_path / "speech.wav"
    bad.write_bytes(b"no wave at all")
    code, _, err = await command("--wav", str(bad))
    assert code == 1
    assert "ffmpeg -i" in err
    assert "Traceback" not in err


def test_other_waves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16-bit"):
        read_wav(a_wav(tmp_path / "eight.wav", bytes(100), width=1))
    voice = read_wav(a_wav(tmp_path / "good.wav"))
    assert voice.seconds == pytest.approx(1.0)
    assert b"".join(voice.pieces(0.1)) == VOICE


def test_clients_know_only_the_wire() -> None:
    for source in [*(ROOT / "clients" / "python").glob("*.py"), *(ROOT / "clients" / "vr").rglob("*.py")]:
        assert not re.search(r"^\s*(from|import) (engine|models)\b", source.read_text(), re.MULTILINE), source


def test_the_example_of_the_readme_is_python() -> None:
    readme = (ROOT / "clients" / "python" / "README.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        compile(block, "README.md", "exec")


def test_numpy_sound_can_be_pushed() -> None:
    """Anything with the buffer protocol, once made bytes, is packed alike."""
    pcm = np.array([1, -2, 3], "<i2")
    assert wire.pack_sound(pcm.tobytes(), 0, 0)[24:] == b"\x01\x00\xfe\xff\x03\x00"
