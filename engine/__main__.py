"""The command line: `liveface COMMAND`. Commands are imported when they are called, so that `--help` is quick."""

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Final


@dataclass(frozen=True, slots=True)
class Command:
    """A verb. `module` has `add_arguments(parser)` and `run(arguments) -> int`; `extra` is what it needs installed."""

    name: str
    what: str
    example: str
    module: str
    extra: str = ""


COMMANDS: Final = (
    Command("serve", "the server and the browser demo", "liveface serve --avatar demo", "engine.serve"),
    Command(
        "render",
        "an audio file into a video file, faster than real time",
        "liveface render speech.wav out.mp4 --avatar demo",
        "engine.render",
    ),
    Command(
        "mic", "this machine's microphone drives the face", "liveface mic --avatar demo", "engine.microphone", "mic"
    ),
    Command("avatars", "packages on disk", "liveface avatars list", "engine.avatars"),
    Command("bench", "measure: latency, sessions, runtime", "liveface bench latency --json", "engine.bench"),
    Command("engine", "the TensorRT engine cache", "liveface engine list", "models.runtime.engines", "tensorrt"),
    Command(
        "create",
        "a person's videos into an avatar and a quality report",
        "liveface create alice take1.mp4 take2.mp4",
        "models.create.command",
        "create",
    ),
    Command(
        "track", "landmarks and pose of a video", "liveface track take1.mp4 take1.npz", "models.create.track", "create"
    ),
    Command(
        "eval",
        "self-reenactment metrics on footage the avatar has not seen",
        "liveface eval alice held_out.mp4 --json",
        "models.create.evaluate",
        "create",
    ),
    Command(
        "dub",
        "an existing video, new speech, the person's own motion kept",
        "liveface dub take1.mp4 speech.wav out.mp4 --avatar alice",
        "models.create.dub",
        "create",
    ),
    Command(
        "studio", "synthetic voices and presenters", "liveface studio record out.mp4", "models.studio.command", "torch"
    ),
)


SERVING: Final = frozenset({"serve", "render", "mic", "bench"})
"""Commands whose products of matrices are small: a library's second thread would spin on the core of somebody else, and
be counted by a bench as our own work."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0 well, 1 it failed, 2 it was asked wrongly."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((command for command in COMMANDS if words[:1] == [command.name]), None)
    if chosen is None:
        return _overview(words)
    if chosen.name in SERVING:
        for library in ("OMP", "OPENBLAS", "MKL"):
            os.environ.setdefault(f"{library}_NUM_THREADS", "1")  # read when numpy is first imported
    module = _module(chosen)
    if module is None:
        return 2
    parser = argparse.ArgumentParser(
        prog=f"liveface {chosen.name}",
        description=f"{chosen.what[0].upper()}{chosen.what[1:]}.",
        epilog=f"example:\n  {chosen.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    run: Callable[[argparse.Namespace], int] = module.run
    try:
        return run(parser.parse_args(words[1:]))
    except SystemExit as asked:
        return asked.code if isinstance(asked.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); nothing more can be said to them, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as missing:
        return _missing(chosen, missing)


def fail(message: str, status: int = 1) -> int:
    """One line to the person at the terminal, and the exit status."""
    print(f"liveface: {message}", file=sys.stderr)
    return status


def _overview(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="liveface",
        description="A real-time streaming avatar engine: live speech in, a talking face out, 40 ms at a time.",
        epilog="commands:\n"
        + "\n".join(f"  {command.name:8} {command.what}" for command in COMMANDS)
        + "\n\nexample:\n  liveface serve --avatar demo\n\n`liveface COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="liveface [--version] COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"liveface {metadata.version('liveface')}")
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    try:
        given = parser.parse_known_args(words)[0]
    except SystemExit as asked:
        return asked.code if isinstance(asked.code, int) else 2
    if given.command is None:
        parser.print_help()
        return 0
    return fail(f"there is no command {given.command!r}; there are: {', '.join(c.name for c in COMMANDS)}", 2)


def _module(command: Command) -> ModuleType | None:
    try:
        if not _exists(command.module):
            fail(f"`liveface {command.name}` is not part of this version yet")
            return None
        return importlib.import_module(command.module)
    except ModuleNotFoundError as missing:
        _missing(command, missing)
        return None


def _exists(module: str) -> bool:
    parent, _, _ = module.rpartition(".")
    if importlib.util.find_spec(parent) is None:
        return False
    return importlib.util.find_spec(module) is not None


def _missing(command: Command, missing: ModuleNotFoundError) -> int:
    extra = f"liveface[{command.extra}]" if command.extra else "liveface"
    return fail(f'`liveface {command.name}` needs {missing.name}: pip install "{extra}"', 2)


if __name__ == "__main__":
    sys.exit(main())
