"""What every command that runs an avatar begins with: the packages are found, consent is there, the model is open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.clock import Clock
from engine.config import Config
from engine.worker import Worker
from models.avatar import PackageError, Shelf, default_shelf


class StartError(RuntimeError):
    """The program cannot start; the message is the one line that says why and what to change."""


def shelf_of(config: Config) -> Shelf:
    return Shelf(config.avatars_dir or default_shelf())


@asynccontextmanager
async def open_worker(config: Config, clock: Clock, patience: float | None = None) -> AsyncIterator[Worker]:
    """The model with the configured avatars, open and warm. Raises StartError."""
    try:
        shelf = shelf_of(config)
        worker = Worker(
            [_folder(shelf, name, config, clock) for name in config.avatar],
            config.slots,
            config.backend,
            inline=config.runtime == "inline",
            clock=clock,
            lookahead=config.lookahead,
            patience=patience,
        )
        await worker.__aenter__()
    except (PackageError, RuntimeError, ValueError, OSError, ImportError) as broken:
        raise StartError(one_line(broken)) from broken
    try:
        yield worker
    finally:
        await worker.__aexit__(None, None, None)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _folder(shelf: Shelf, name: str, config: Config, clock: Clock) -> Path:
    avatar = shelf.avatar(name)
    if not (config.allow_unconsented and avatar.synthetic):
        avatar.require_consent(clock.wall())
    return avatar.folder
