"""`python -m clients.python`."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clients.python.__main__ import read_wav
from engine.websocket import Stream
from tests.clients.streams import VOICE, a_stream, write_wav

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream(lookahead=1) as stream:
        yield stream


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
    wav = write_wav(tmp_path / "speech.wav", bytes(6_400) + VOICE)
    code, out, err = await command("--wav", str(wav), "--url", stream.url, "--print", *(["--live"] if live else []))
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) > 20
    assert re.match(r" *\d+\.\d{3} s  jawOpen \d\.\d\d ", lines[0])
    assert any(float(line.split("jawOpen ")[1][:4]) > 0.05 for line in lines)
    assert "faces for 1.20 s of speech" in err


async def test_json_lines(stream: Stream, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "speech.wav", VOICE[:9_600])
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
    with pytest.raises(ValueError, match="does not exist"):
        read_wav(tmp_path / "none.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ValueError, match="ends before"):
        read_wav(tmp_path / "empty.wav")
    with pytest.raises(ValueError, match="16-bit"):
        read_wav(write_wav(tmp_path / "eight.wav", bytes(100), width=1))
    voice = read_wav(write_wav(tmp_path / "good.wav"))
    assert voice.seconds == pytest.approx(1.0)
    assert b"".join(voice.pieces(0.1)) == VOICE
