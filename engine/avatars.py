"""`liveface avatars`: packages on disk. List them, look into one, check every byte, pack, unpack or install one."""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.avatar import Avatar, PackageError, Shelf, default_shelf, pack, read_avatar, unpack, walk


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--avatars-dir", type=Path, default=None, help="where your own avatars lie")
    shared.add_argument("--json", action="store_true", help="for programs")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="list | inspect | verify | pack | unpack | install"
    )
    verbs.add_parser("list", parents=[shared], help="every avatar that can be served")
    for verb, says in (("inspect", "what a package says of itself"), ("verify", "check every file of a package")):
        one = verbs.add_parser(verb, parents=[shared], help=says)
        one.add_argument("avatar", help="a name, a package's directory, or a packed avatar")
    packing = verbs.add_parser("pack", parents=[shared], help="a package as one file")
    packing.add_argument("avatar", help="a name, or a package's directory")
    packing.add_argument("file", type=Path, help="the file to write, as alice.avatar")
    unpacking = verbs.add_parser("unpack", parents=[shared], help="a packed avatar as a directory")
    unpacking.add_argument("file", type=Path, help="a packed avatar")
    unpacking.add_argument("folder", type=Path, help="the directory to make")
    installing = verbs.add_parser("install", parents=[shared], help="put a package on the shelf")
    installing.add_argument("file", type=Path, help="a packed avatar, or a package's directory")


def run(arguments: argparse.Namespace) -> int:
    shelf = Shelf(arguments.avatars_dir or default_shelf())
    try:
        return _run(arguments, shelf)
    except (PackageError, OSError) as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace, shelf: Shelf) -> int:
    match arguments.verb:
        case "list":
            found = list(walk(shelf))
            if arguments.json:
                print(json.dumps([_facts(each) if isinstance(each, Avatar) else _fault(n, each) for n, each in found]))
            for name, each in [] if arguments.json else found:
                words = f"{each.title} ({each.kind})" if isinstance(each, Avatar) else f"cannot be served: {each}"
                print(f"{name:20} {words}")
            return 0 if all(isinstance(each, Avatar) for _, each in found) else 1
        case "inspect":
            with _named(shelf, arguments.avatar) as avatar:
                facts = _facts(avatar)
            if _packed(arguments.avatar):
                facts["folder"] = None
            lines = [json.dumps(facts)] if arguments.json else [f"{name:12} {value}" for name, value in facts.items()]
            print("\n".join(lines))
        case "verify":
            with _named(shelf, arguments.avatar) as avatar:
                avatar.verify()
            said = {"name": avatar.name, "revision": avatar.revision, "files": len(avatar.files), "ok": True}
            print(json.dumps(said) if arguments.json else f"{avatar.name}: {len(avatar.files)} files are as sealed")
        case "pack":
            with _named(shelf, arguments.avatar) as avatar:
                avatar.verify()
                pack(avatar.folder, arguments.file)
            print(json.dumps({"file": str(arguments.file)}) if arguments.json else f"{avatar.name} → {arguments.file}")
        case "unpack":
            unpack(arguments.file, arguments.folder)
            try:
                avatar = read_avatar(arguments.folder)
                avatar.verify()
            except PackageError:
                shutil.rmtree(arguments.folder)  # it is ours: `unpack` made it
                raise
            print(json.dumps(_facts(avatar)) if arguments.json else f"{avatar.name} → {arguments.folder}")
        case "install":
            avatar = shelf.install(arguments.file)
            print(json.dumps(_facts(avatar)) if arguments.json else f"{avatar.name} is on the shelf at {shelf.root}")
    return 0


def _packed(name: str) -> bool:
    """No avatar's name has a dot or a slash: a file that is called as one does not stand in its way."""
    return ("." in name or "/" in name) and Path(name).is_file()


@contextmanager
def _named(shelf: Shelf, name: str) -> Iterator[Avatar]:
    path = Path(name)
    if _packed(name):
        with tempfile.TemporaryDirectory() as folder:
            unpack(path, Path(folder) / "avatar")
            yield read_avatar(Path(folder) / "avatar")
    elif "/" in name or (path / "manifest.json").is_file():
        yield read_avatar(path)
    else:
        yield shelf.avatar(name)


def _facts(avatar: Avatar) -> dict[str, Any]:
    return {
        "name": avatar.name,
        "title": avatar.title,
        "kind": avatar.kind,
        "synthetic": avatar.synthetic,
        "consent": None if avatar.consent is None else avatar.consent.subject,
        "lookahead": avatar.lookahead,
        "revision": avatar.revision,
        "files": len(avatar.files),
        "folder": str(avatar.folder),
    }


def _fault(name: str, error: PackageError) -> dict[str, Any]:
    return {"name": name, "error": str(error)}
