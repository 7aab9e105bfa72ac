"""Opening the model with the configured avatars: what is needed, what is refused, each in one line."""

import json
import shutil
from pathlib import Path

import pytest

from engine.clock import RealClock
from engine.config import Config
from engine.start import StartError, one_line, open_worker, shelf_of
from models.avatar import SHIPPED, seal


async def refusal(config: Config) -> str:
    with pytest.raises(StartError) as refused:
        async with open_worker(config, RealClock()):
            pytest.fail("it opened")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def persons_shelf(tmp_path: Path, consent: dict[str, object] | None) -> Path:
    """A shelf with one avatar that shows a person, in place of the shipped one."""
    package = tmp_path / "incoming"
    shutil.copytree(SHIPPED / "demo", package)
    card = (package / "avatar.toml").read_text().replace("synthetic = true", "synthetic = false")
    (package / "avatar.toml").write_text(card)
    if consent is not None:
        (package / "consent.json").write_text(json.dumps(consent))
    seal(package)
    shelf = tmp_path / "shelf"
    shelf_of(Config(avatars_dir=shelf)).install(package)
    return shelf


async def test_the_shipped_avatars_open_and_make_a_picture() -> None:
    async with open_worker(Config(slots=1, runtime="inline"), RealClock()) as worker:
        assert list(worker.cards) == ["demo", "ada"]
        assert (await worker.canary()).roi is not None
    assert not worker.alive


async def test_l8_an_unknown_avatar_is_named_with_those_there_are() -> None:
    assert "demo" in await refusal(Config(avatar=("nobody",)))


async def test_l8_an_unknown_backend_is_named() -> None:
    assert "abacus" in await refusal(Config(backend="abacus", runtime="inline"))


async def test_s12_a_person_who_has_not_agreed_is_not_served(tmp_path: Path) -> None:
    shelf = persons_shelf(tmp_path, consent=None)
    assert "consent" in await refusal(Config(avatars_dir=shelf, runtime="inline"))
    assert "consent" in await refusal(Config(avatars_dir=shelf, runtime="inline", allow_unconsented=True))


async def test_s12_consent_that_has_run_out_is_none(tmp_path: Path) -> None:
    consent = {"subject": "A", "scope": "demo", "granted_at": "2020-01-01", "expires_at": "2021-01-01"}
    assert "expired" in await refusal(Config(avatars_dir=persons_shelf(tmp_path, consent), runtime="inline"))


def test_any_error_becomes_one_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "two lines"
    assert one_line(ValueError()) == "ValueError"
