"""`liveface engine build | list | prune`: the cache of TensorRT engines, and the only reader of what is in it.

An engine is machine code. It is read only from this cache, a folder that nobody but its owner can write to, and only
when its manifest, which we wrote, names this very graph, library, GPU, precision and sizes, and the engine's SHA-256.
Whatever is damaged or another's is built anew: `build` is a process of its own, since a builder can crash.

An engine lies under its own SHA-256, so that replacing it is the replacing of a manifest: the old or the new, never a
part. Two who need the same engine at once build it once: the second waits for the first one's lock.
"""

import argparse
import fcntl
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from models.avatar import Shelf, default_shelf, write_atomically
from models.runtime.builder import Progress

SCHEMA: Final = 1
DEFAULT_SLOTS: Final = 128


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


def build_beside(packages: Sequence[Path], slots: int, log: Path) -> "subprocess.Popen[bytes]":
    """Build what these avatars lack for so many slots in a process of its own, while another backend serves."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [
        "build",
        "--slots",
        str(slots - 1),
        *(word for package in packages for word in ("--package", str(package))),
    ]
    with log.open("wb") as output:
        return subprocess.Popen(
            ["nice", "-n", "10", sys.executable, "-m", "models.runtime.engines", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the engines are")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="build | list | prune")
    build = verbs.add_parser("build", help="compile, prove and keep what some avatars need on this GPU")
    build.add_argument("avatars", nargs="*", default=[], metavar="AVATAR", help="(default: demo)")
    build.add_argument("--package", type=Path, action="append", default=[], help="a package's folder")
    build.add_argument("--avatars-dir", type=Path, default=default_shelf(), help="where installed avatars are")
    build.add_argument("--slots", type=int, default=DEFAULT_SLOTS, help="sessions at once (default: 128)")
    listed = verbs.add_parser("list", help="what is there, and what is being built")
    listed.add_argument("--json", action="store_true", help="print JSON")
    prune = verbs.add_parser("prune", help="remove engines that are damaged, of another GPU or library, or old")
    prune.add_argument("--all", action="store_true", help="remove every engine")
    prune.add_argument("--days", type=float, help="remove those that are older, too")


def run(arguments: argparse.Namespace) -> int:
    """0 well, 1 with one line when not."""
    cache = EngineCache(arguments.cache)
    try:
        if arguments.verb == "build":
            return _build(cache, arguments)
        if arguments.verb == "list":
            return _list(cache, as_json=arguments.json)
        return _prune(cache, arguments)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"liveface engine {arguments.verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _build(cache: EngineCache, arguments: argparse.Namespace) -> int:
    from models.runtime import tensorrt  # needs torch, which list and prune do not

    shelf = Shelf(arguments.avatars_dir)
    named = arguments.avatars or ([] if arguments.package else ["demo"])
    packages = [*arguments.package, *(shelf.folder(name) for name in named)]
    tensorrt.open_with(cache, packages, arguments.slots + 1, None, building=True).close()  # and the canary's
    print("every engine that these avatars need is built and answers as the reference did")
    return 0


def _list(cache: EngineCache, as_json: bool) -> int:
    entries, building = list(cache.entries()), cache.building()
    if as_json:
        told = [
            asdict(entry) if isinstance(entry, Entry) else {"wrong": f"{entry} cannot be read"} for entry in entries
        ]
        print(json.dumps({"cache": str(cache.root), "engines": told, "building": building}, indent=2))
        return 0
    print(f"{cache.root}: {len(entries)} engines")
    for entry in entries:
        if isinstance(entry, str):
            print(f"  {entry} cannot be read")
            continue
        key = entry.key
        print(
            f"  {key.graph[:8]} {key.precision:4} {key.library} {key.version}, CUDA {key.cuda}, {key.gpu} "
            f"(sm {key.capability}), batches {' '.join(map(str, key.buckets))}: {entry.size / 1e6:.1f} MB, "
            f"{entry.built_at}, {entry.seconds:g} s{'; ' if entry.wrong else ''}{entry.wrong}"
        )
    for line in building.values():
        print(f"  being built: {line}")
    return 0


def _prune(cache: EngineCache, arguments: argparse.Namespace) -> int:
    here = None if arguments.all else this_machine()
    oldest = datetime.now(UTC).timestamp() - 86_400 * arguments.days if arguments.days is not None else None

    def keep(entry: Entry) -> bool:
        young = oldest is None or datetime.fromisoformat(entry.built_at).timestamp() >= oldest
        return not arguments.all and young and (here is None or here.same_machine(entry.key))

    removed, freed = cache.prune(keep)
    print(f"{removed} engines removed, {freed / 1e6:.1f} MB freed")
    return 0


def this_machine() -> Key | None:
    """A key of this machine's library and GPU; None where either is missing, and so nothing can be said."""
    try:
        from models.runtime import tensorrt

        return tensorrt.key_of(b"", "f32", ())
    except (ImportError, RuntimeError):
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="liveface engine", description="The cache of TensorRT engines.")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
