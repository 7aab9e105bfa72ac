"""The cache of TensorRT engines, and the only reader of what is in it.

An engine is machine code. It is read only from this cache, a folder that nobody but its owner can write to, and only
when its manifest, which we wrote, names this very graph, library, GPU, precision and sizes, and the engine's SHA-256.

An engine lies under its own SHA-256, so that replacing it is the replacing of a manifest: the old or the new, never a
part. Two who need the same engine at once build it once: the second waits for the first one's lock.
"""

import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from models.avatar import write_atomically
from models.runtime.builder import Progress

SCHEMA: Final = 1


class NotBuilt(RuntimeError):
    """There is no engine to trust for this key: the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Key:
    """All that an engine depends on. Two keys that differ anywhere are two engines."""

    graph: str  # SHA-256 of the ONNX that is compiled, which says its precisions
    library: str
    version: str
    cuda: str
    capability: str
    gpu: str
    precision: str
    buckets: tuple[int, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]

    def same_machine(self, other: "Key") -> bool:
        mine, theirs = asdict(self), asdict(other)
        return all(mine[name] == theirs[name] for name in ("library", "version", "cuda", "capability", "gpu"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A manifest of the cache, and what is wrong with its engine ("" when nothing is)."""

    key: Key
    sha256: str
    size: int
    built_at: str
    seconds: float
    wrong: str = ""


class EngineCache:
    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: Key) -> tuple[bytes, tuple[int, ...]]:
        """The engine and the sizes that it has profiles for: those asked for at least. Raises `NotBuilt`."""
        try:
            entry = self._read(key.digest)
            if entry.key != key:
                raise NotBuilt("its manifest in the cache is another engine's")
            return self._engine(entry), key.buckets
        except NotBuilt as reason:
            for other in self._larger(key):
                return self._engine(other), other.key.buckets
            raise reason

    def find_or_build(
        self, key: Key, make: Callable[[Progress], bytes], now: Callable[[], datetime]
    ) -> tuple[bytes, tuple[int, ...]]:
        """`make` is called when there is no engine to trust, by one process at a time for each key."""
        try:
            return self.find(key)
        except NotBuilt as reason:
            self._say(key, f"building: {reason}")
        with self._locked(key):
            try:
                return self.find(key)  # somebody else has built it meanwhile
            except NotBuilt:
                began = now()
                try:
                    engine = make(lambda line: self._say(key, line))
                finally:
                    self._progress(key).unlink(missing_ok=True)
                self.store(key, engine, now(), (now() - began).total_seconds())
                return engine, key.buckets

    def store(self, key: Key, engine: bytes, at: datetime, seconds: float) -> None:
        self._own()
        digest = hashlib.sha256(engine).hexdigest()
        entry = Entry(key, digest, len(engine), at.isoformat(timespec="seconds"), round(seconds, 1))
        write_atomically(self.root / f"{digest}.engine", engine)
        told = asdict(entry) | {"schema": SCHEMA}
        write_atomically(self.root / f"{key.digest}.json", json.dumps(told, indent=2).encode())

    def entries(self) -> Iterator[Entry | str]:
        """Every engine, or the name of a manifest that cannot be read. Engines are read through."""
        for path in sorted(self.root.glob("*.json")) if self.root.is_dir() else []:
            try:
                entry = self._read(path.stem)
            except NotBuilt:
                yield path.name
                continue
            try:
                self._engine(entry)
            except NotBuilt as wrong:
                entry = Entry(entry.key, entry.sha256, entry.size, entry.built_at, entry.seconds, str(wrong))
            yield entry

    def building(self) -> dict[str, str]:
        """What is being built now, by digest of its key, and how far it is."""
        found: dict[str, str] = {}
        for path in sorted(self.root.glob("*.progress")) if self.root.is_dir() else []:
            if _is_locked(path.with_suffix(".lock")):
                found[path.stem] = path.read_text().strip()
        return found

    def prune(self, keep: Callable[[Entry], bool]) -> tuple[int, int]:
        """Remove what is damaged, what `keep` does not want, and what nobody names: how many files, and bytes."""
        if not self.root.is_dir():
            return 0, 0
        busy = set(self.building())
        kept: set[str] = set()
        for entry in self.entries():
            if isinstance(entry, Entry) and not entry.wrong and keep(entry):
                kept |= {f"{entry.key.digest}.json", f"{entry.sha256}.engine"}
        removed = freed = 0
        for path in self.root.iterdir():
            ours = path.suffix in (".json", ".engine", ".progress", ".lock") and not path.is_symlink()
            if ours and path.is_file() and path.name not in kept and path.stem not in busy:
                freed += path.stat().st_size
                removed += path.suffix == ".engine"
                path.unlink()
        return removed, freed

    def _larger(self, key: Key) -> Iterator[Entry]:
        """Sound engines that are the same but for sizes that this key does not ask for."""
        sound = (entry for entry in self.entries() if isinstance(entry, Entry) and not entry.wrong)
        for entry in sound:
            same = replace(entry.key, buckets=key.buckets) == key
            if same and set(entry.key.buckets) >= set(key.buckets):
                yield entry

    def _read(self, digest: str) -> Entry:
        self._own()
        path = self.root / f"{digest}.json"
        if not path.is_file():
            raise NotBuilt("it is not built for this machine yet")
        try:
            told = json.loads(self._trusted(path))
            if told.pop("schema") != SCHEMA:
                raise NotBuilt("its manifest is of another version of this program")
            named = told.pop("key")
            return Entry(key=Key(**{**named, "buckets": tuple(named["buckets"])}), **told)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise NotBuilt(f"its manifest cannot be read ({type(error).__name__})") from error

    def _engine(self, entry: Entry) -> bytes:
        if len(entry.sha256) != 64 or not set(entry.sha256) <= set("0123456789abcdef"):
            raise NotBuilt("its manifest names no engine")
        path = self.root / f"{entry.sha256}.engine"
        if not path.is_file():
            raise NotBuilt("its engine is gone")
        engine = self._trusted(path)
        if len(engine) != entry.size:
            raise NotBuilt(f"its engine is truncated: {len(engine)} bytes of {entry.size}")
        if hashlib.sha256(engine).hexdigest() != entry.sha256:
            raise NotBuilt("its engine is damaged: the SHA-256 is another")
        return engine

    def _own(self) -> None:
        """The folder is there, ours alone. Raises `NotBuilt` when others could have written to it."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_ours(self.root, self.root.stat())

    def _trusted(self, path: Path) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            _require_ours(path, os.fstat(descriptor))
            return file.read()

    @contextmanager
    def _locked(self, key: Key) -> Iterator[None]:
        self._own()
        with (self.root / f"{key.digest}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _progress(self, key: Key) -> Path:
        return self.root / f"{key.digest}.progress"

    def _say(self, key: Key, line: str) -> None:
        self._own()
        self._progress(key).write_text(f"{key.precision}, {key.graph[:8]}: {line}\n")
        print(f"{key.graph[:8]} {key.precision}: {line}", flush=True)


def _require_ours(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotBuilt(f"{path.name} in the engine cache can be written by others: nothing in it is trusted")


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/liveface/engines`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "liveface" / "engines"
