"""clients/vr/unity: its core under Mono, with golden vectors and a running server; its package as Unity expects."""

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.clients.streams import a_stream

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "clients" / "vr" / "unity"
CORE = sorted((PACKAGE / "Runtime" / "Core").glob("*.cs"))


async def run(*command: str | Path, seconds: float = 60) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        told, _ = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, told.decode()
    return told.decode()


async def test_the_core_under_mono(tmp_path: Path) -> None:
    if shutil.which("mcs") is None or shutil.which("mono") is None:
        pytest.skip("no Mono on this machine (apt-get install mono-mcs mono-runtime)")
    program = tmp_path / "check.exe"
    check = Path(__file__).parent / "unity" / "Check.cs"
    told = await run(
        "mcs", "-langversion:7", "-warnaserror", f"-out:{program}", "-r:System.dll", "-r:System.Core.dll", *CORE, check
    )
    assert "error" not in told
    async with a_stream() as stream:
        assert "all good" in await run("mono", program, ROOT / "clients" / "golden.json", stream.url)


def test_the_core_knows_nothing_of_unity() -> None:
    for source in CORE:
        assert "UnityEngine" not in re.sub(r"//.*", "", source.read_text()), source.name


def test_the_package_is_as_unity_expects() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    assert re.fullmatch(r"[a-z0-9.-]+", package["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
    assert re.fullmatch(r"\d{4}\.\d", package["unity"])
    for sample in package["samples"]:
        assert (PACKAGE / sample["path"]).is_dir()
    assembly = json.loads((PACKAGE / "Runtime" / "Liveface.asmdef").read_text())
    assert assembly["name"] == "Liveface"
