"""Where the runtime lives, as the worker sees it: a process (`process`), or a thread (`thread`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.runtime import AvatarCard, OpenRuntime, Out, Row
from models.runtime.choose import Chosen, open_runtime


@dataclass(frozen=True, slots=True)
class Terms:
    """What a runtime is opened with."""

    packages: tuple[Path, ...]
    slots: int
    backend: str | OpenRuntime
    lookahead: int | None

    def open(self) -> Chosen:
        if isinstance(self.backend, str):
            return open_runtime(self.backend, self.packages, self.slots, self.lookahead)
        return Chosen(self.backend(self.packages, self.slots, self.lookahead), "given by the caller")


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What a host tells when its runtime is ready."""

    cards: dict[str, AvatarCard]
    reason: str
    improving: bool = False
    """Something better is being made, and `Calls.better` will come."""


@dataclass(frozen=True, slots=True)
class Calls:
    """What a host calls back, on the event loop. `lost` and `better` come at most once."""

    answered: Callable[[Sequence[tuple[int, Out]]], None]
    """Given the answers of a step, each with its question's number."""

    lost: Callable[[str], None]
    better: Callable[[], None]
    """To open it once more gives something better than this."""


class Host(Protocol):
    """Where the runtime lives: a process, or a thread. Used from the event loop only."""

    @property
    def process_id(self) -> int | None: ...

    async def open(self) -> Opened:
        """Raises `RuntimeError` with one line when the runtime cannot be opened."""
        ...

    def send(self, sequence: int, row: Row) -> None: ...

    def collect(self) -> None:
        """Hand over at once the answers that are there."""
        ...

    def kill(self) -> None:
        """Now. Nothing is called back afterwards."""
        ...

    async def close(self) -> None:
        """End it, politely unless it was killed, and free everything."""
        ...
