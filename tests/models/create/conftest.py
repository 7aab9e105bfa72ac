"""One small avatar, made once by the command itself: networks of four steps, whose likeness nobody asks about."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from engine.__main__ import main
from models.avatar import Avatar, Shelf
from models.create import command, loop
from models.create.fit import QUALITIES, Quality
from models.create.track import Track, track
from tests.models.create.filmed import hum, presenter, shoot

TINY = Quality(head_steps=4, renderer_steps=4, patch=128, patience=2)
FRAMES = 80


@dataclass(frozen=True)
class Small:
    """What the command left behind."""

    film: Path
    shelf: Shelf
    report: Path
    cache: Path

    @property
    def avatar(self) -> Avatar:
        return self.shelf.avatar("small")

    @property
    def track(self) -> Track:
        return track(self.film, kept=self.cache / "liveface" / "tracks")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    folder = tmp_path_factory.mktemp("small")
    if "PYTEST_XDIST_WORKER" in os.environ:  # once, by one worker: a second one fails here
        (tmp_path_factory.getbasetemp().parent / "the small avatar").mkdir()
    film = shoot(folder / "film.mp4", presenter(FRAMES), hum(FRAMES / 25))
    made = Small(film, Shelf(folder / "shelf"), folder / "report", folder / "cache")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(made.cache))
        patched.setitem(QUALITIES, "draft", TINY)
        patched.setattr(command, "check", lambda videos, tracks: None)  # three seconds are too few for anybody
        patched.setattr(loop, "pieces", partial(loop.pieces, seconds=1.0))
        words = ["create", "small", str(film), "--synthetic", "--quality", "draft", "--device", "cpu"]
        words += ["--avatars-dir", str(made.shelf.root), "--report", str(made.report), "--title", "Small"]
        assert main(words) == 0
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first waits for the avatar to be made: half a minute of a machine's own, more of a shared one."""
    for item in items:
        if "small" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(900))
