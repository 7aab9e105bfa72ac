"""Where bridges get their faces from: at a steady pace, from a file or from a conversation that runs."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from clients.python import AvatarClosedError, Face, connect
from clients.vr.bridges import feed
from engine.websocket import Stream
from tests.clients.streams import VOICE, a_stream, write_speech
from tests.clients.vr.bridges.receivers import wishes


@pytest.fixture
async def stream() -> AsyncIterator[Stream]:
    async with a_stream() as stream:
        yield stream


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return write_speech(tmp_path / "speech.wav")


async def test_faces_leave_evenly_and_in_order(stream: Stream, speech: Path) -> None:
    shown: list[Face] = []

    async def keep(face: Face) -> None:
        shown.append(face)

    await feed.feed(wishes(stream, speech, "arkit52", "gltf"), keep)
    dates = [face.pts_us for face in shown]
    assert dates == sorted(dates)
    between = [face for face in shown if face.pts_us % 40_000]
    assert len(between) > len(shown) / 3  # mixed, and not only those that came
    assert max(face.weights["jawOpen"] for face in shown) > 0.05


async def test_a_conversation_that_runs_can_be_watched(stream: Stream) -> None:
    async with connect(stream.url, pacing="burst") as speaker:
        watched = wishes(stream, None, "arkit52", "gltf")
        watched.watch = speaker.session_id
        shown: list[Face] = []

        async def keep(face: Face) -> None:
            shown.append(face)

        watching = asyncio.create_task(feed.feed(watched, keep))
        await asyncio.sleep(0.2)
        await speaker.push(VOICE[:16_000], end=True)
        async with asyncio.timeout(10):
            async for _ in speaker:
                if shown and shown[-1].weights["jawOpen"] > 0.05:
                    break
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert await anext(speaker.faces())  # who speaks was not put out


async def test_watching_what_is_not_there_says_so(stream: Stream) -> None:
    watched = wishes(stream, None, "arkit52", "gltf")
    watched.watch = "nothing-of-the-kind"

    async def never(face: Face) -> None:
        raise AssertionError

    with pytest.raises(AvatarClosedError, match="not open"):
        await feed.feed(watched, never)


async def test_a_voice_that_fails_ends_the_feed(stream: Stream) -> None:
    """No microphone, say: nobody waits for ever for what it might have said."""

    async def mute() -> None:
        raise ValueError("no microphone could be opened")

    async def shown(face: Face) -> None: ...

    async with asyncio.timeout(5), connect(stream.url) as avatar:
        with pytest.raises(ValueError, match="no microphone"):
            await feed.paced(avatar, mute(), shown, 60)


def test_the_command_line_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(arguments: object) -> None:
        raise ValueError("there is no voice")

    arguments = feed.parser("vmc", "A bridge.", "vrm1", "unity").parse_args(["--mic"])
    assert feed.run(arguments, broken) == 1
    assert capsys.readouterr().err == "error: there is no voice\n"


def test_a_source_must_be_named() -> None:
    with pytest.raises(SystemExit):
        feed.parser("vmc", "A bridge.", "vrm1", "unity").parse_args([])


def test_faces_are_mixed_at_the_bridge_s_own_rate() -> None:
    """What `paced` relies on: dates between two faces give mixtures, in order."""
    sampler = feed.Sampler()
    for i in range(5):
        sampler.push(Face(40_000 * i, 0, i, True, ("x",), (i / 4,), (0, 0, 0, 1), (0, 0, 0), (0, 0)))
    values = [sampler.at(date).values[0] for date in np.linspace(0, 160_000, 33)]  # type: ignore[union-attr]  # there is one
    assert all(b > a for a, b in itertools.pairwise(values))
