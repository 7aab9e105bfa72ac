"""`liveface engine build | list | prune`: TensorRT engines are made, seen and removed.

What is damaged or another's in the cache is built anew, in a process of its own, since a builder can crash.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Final

from models.avatar import Shelf, default_shelf
from models.runtime.cache import EngineCache, Entry, Key, default_cache

DEFAULT_SLOTS: Final = 128

LOOK_SECONDS: Final = 2.0
"""How often somebody who waits for another's building looks how far it is."""


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


def built(packages: Sequence[Path], slots: int, cache: Path) -> bool:
    """Wait until these avatars' engines are there and proven, as long as it takes; whether they are."""
    while EngineCache(cache).building():  # by somebody who serves the same, or by a process that came before
        sleep(LOOK_SECONDS)
    return build_beside(packages, slots, cache / "building.log").wait() == 0


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
    except ModuleNotFoundError as missing:
        needed = f'needs {missing.name}: pip install "liveface[tensorrt]"'
        print(f"liveface engine {arguments.verb}: {needed}", file=sys.stderr)
        return 1
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
