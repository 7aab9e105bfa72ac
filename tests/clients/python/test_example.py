"""The examples that newcomers copy run as they stand."""

import re
from pathlib import Path

import pytest

from clients.python import client, example
from tests.clients.streams import a_stream, write_speech

ROOT = Path(__file__).parents[3]


async def test_the_example_finds_the_widest_mouth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_stream() as stream:
        monkeypatch.setattr(example, "connect", lambda **wishes: client.connect(stream.url, **wishes))
        await example.main(write_speech(tmp_path / "speech.wav"))
    assert re.fullmatch(r"widest at 0\.\d\d s: jawOpen 0\.[1-9]\d\n", capsys.readouterr().out)


def test_the_example_of_the_readme_is_python() -> None:
    readme = (ROOT / "clients" / "python" / "README.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL):
        compile(block, "README.md", "exec")
