"""`avatar.v1`'s pure side under atheris, which follows the branches that a message takes:
`python -m tests.soak.fuzz [--runs 100000] [--seconds 600]`.

An input is a conversation: messages of text and bytes, each with its length before it; the first of them may be a good
hello. Whatever is said, the reader answers with actions or one typed failure, and never raises; a message costs at most
MESSAGE_SECONDS. What breaks that is kept as `crash-…` by atheris and can be given again as an argument.
"""

import argparse
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

MESSAGE_SECONDS: Final = 0.5
"""Under atheris Python is some ten times slower than by itself."""


def packed(messages: Sequence[str | bytes]) -> bytes:
    """A conversation as atheris has it."""
    bodies = [(isinstance(one, str), one.encode() if isinstance(one, str) else one) for one in messages]
    return b"".join(struct.pack("<?H", text, len(body)) + body for text, body in bodies)


def unpacked(conversation: bytes) -> Iterator[str | bytes]:
    """Any bytes at all as a conversation."""
    at = 0
    while at + 3 <= len(conversation):
        text, length = conversation[at] & 1, int.from_bytes(conversation[at + 1 : at + 3], "little")
        body = conversation[at + 3 : at + 3 + length]
        at += 3 + length
        yield body.decode(errors="replace") if text else body


def conversation() -> tuple[Callable[[bytes], None], list[bytes]]:
    """What atheris calls, and where it begins. Imports what is looked at, so that atheris may look on."""
    reader, tests = import_module("engine.protocol.reader"), import_module("tests.engine.protocol.said")
    sound = tests.sound_frame(bytes(64), flags=1)
    said: list[str | bytes] = [
        tests.HELLO,
        sound,
        '{"type":"audio.append","audio":"AAAA","pts_us":5,"segment_id":"a"}',
        '{"type":"interrupt"}',
        '{"type":"session.update","mesh":true,"landmarks":true,"face":{"rate":50,"coords":"unity"}}',
        '{"type":"ping","t":1}',
        '{"type":"session.end"}',
    ]

    def converse(given: bytes) -> None:
        messages = list(unpacked(given))
        began = time.monotonic()
        tests.check_conversation(reader.ClientReader(0.0), messages)
        if (took := time.monotonic() - began) > MESSAGE_SECONDS * max(1, len(messages)):
            raise AssertionError(f"{len(messages)} messages took {took:.1f} s")

    return converse, [packed([tests.HELLO, *said[first:]]) for first in range(len(said))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=100_000, help="conversations (default: 100,000)")
    parser.add_argument("--seconds", type=int, default=600, help="at most (default: 600)")
    parser.add_argument("inputs", nargs="*", type=Path, help="crash files of an earlier run, to see them again")
    chosen = parser.parse_args(arguments)
    if chosen.inputs:
        converse, _ = conversation()
        for path in chosen.inputs:
            converse(path.read_bytes())
        return 0
    try:
        import atheris
    except ImportError:
        print("the fuzz of the protocol is left out: pip install 'liveface[fuzz]' brings atheris", file=sys.stderr)
        return 0
    with atheris.instrument_imports(include=["engine.protocol"]):
        converse, beginnings = conversation()
    with tempfile.TemporaryDirectory() as corpus:
        for number, beginning in enumerate(beginnings):
            (Path(corpus) / f"seed-{number}").write_bytes(beginning)
        flags = [f"-runs={chosen.runs}", f"-max_total_time={chosen.seconds}", "-max_len=8192"]
        atheris.Setup([sys.argv[0], *flags, corpus], converse)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
