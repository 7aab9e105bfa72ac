"""`liveface serve`: settings in, one address to open out, and a clean end on Ctrl-C or SIGTERM."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Final

from engine import config, logs
from engine.clock import RealClock
from engine.config import Config, ConfigError, Loaded, load, show

KEY_VARIABLES: Final = {
    "LIVEFACE_TOKEN": "LIVEFACE_ACCESS__SECRET",
    "LIVEFACE_TOKEN_FILE": "LIVEFACE_ACCESS__SECRET_FILE",
}
"""Short names of the one setting that everybody needs who serves to others."""


def run(arguments: argparse.Namespace) -> int:
    loaded = settle(arguments)
    if loaded is None:
        return 2
    if arguments.print_config:
        print(show(loaded), end="")
        return 0
    from engine.server import serving
    from engine.start import StartError

    async def serve(settings: Config) -> None:
        async with serving(settings, RealClock()) as server:
            server.heed_signals()  # before anybody can know that there is something to end
            print(f"Open {server.url}", flush=True)
            await server.run_until_stopped()

    try:
        asyncio.run(serve(loaded.config))
    except StartError as reason:
        print(f"liveface: {reason}", file=sys.stderr)
        return 1
    return 0


def settle(arguments: argparse.Namespace) -> Loaded | None:
    """The settings of a command, with logging set up as they say; None when they are wrong and that has been said."""
    try:
        loaded = load(arguments, with_short_names(os.environ))
    except ConfigError as wrong:
        print(f"liveface: {wrong}", file=sys.stderr)
        return None
    for warning in loaded.warnings:
        print(f"liveface: {warning}", file=sys.stderr)
    logs.set_up(loaded.config.log.level, loaded.config.log.format)
    return loaded


def with_short_names(environ: Mapping[str, str]) -> dict[str, str]:
    given = dict(environ)
    for short, long in KEY_VARIABLES.items():
        value = given.pop(short, "")
        if value and not given.get(long):
            given[long] = value
    return given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The settings, and short names of those that serving to others needs."""
    config.add_arguments(parser)
    parser.add_argument(
        "--open",
        dest="access.anyone",
        action="store_true",
        default=argparse.SUPPRESS,
        help="the same as --access-anyone",
    )
    parser.add_argument(
        "--token-file",
        dest="access.secret",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="the same as --access-secret-file; LIVEFACE_TOKEN in the environment does it too",
    )
