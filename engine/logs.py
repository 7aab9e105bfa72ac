"""Logs: text for people, or JSON for machines, one object a line.

    log = logging.getLogger(__name__)
    with about(session_id=session.id, avatar_id="demo"):
        log.info("the session is open", extra={"event": "session.opened", "slot": 3})

What `about` says stands in every line that its block writes, also from the tasks it starts. Above DEBUG nothing that
opens a door or tells who somebody is gets into a line, whoever wrote it: tokens, passwords, SDP, candidates.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal, TextIO

FIELDS = ("session_id", "avatar_id", "event")
"""The fields that every JSON line has, null when there is nothing to say. More may follow, as `extra` gives them."""

LOQUACIOUS = ("aioice", "aiortc", "aiohttp.access", "websockets", "asyncio")
"""Libraries that tell addresses and keys at INFO: they are heard from WARNING up, and from DEBUG when we are."""

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_HIDDEN = (
    (re.compile(r"v=0\r?\n(?:[a-z]=[^\r\n]*(?:\r?\n|$))+"), "[SDP]"),
    (re.compile(r"v=0(?:\\+r)?\\+n[^'\"]*"), "[SDP]"),  # inside a repr
    (re.compile(r"\b(?:a=)?candidate:[^\r\n\"']+"), "[candidate]"),
    (re.compile(r"\ba=(?:ice-pwd|ice-ufrag|fingerprint|crypto):[^\r\n\"']+"), "[SDP]"),
    (re.compile(r"(?i)\bbearer\s+[\w.~+/=-]+"), "Bearer [token]"),
    (
        re.compile(r"(?i)(token|secret|password|credential|authorization)([\\\"']*\s*[=:]\s*[\\\"']*)[^\s\\\"'&,;}]+"),
        r"\1\2[hidden]",
    ),
    (re.compile(r"\b(?:lf1|eyJ[\w-]*)\.[\w-]+\.[\w-]+"), "[token]"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Say these fields with every line of this block and of the tasks that it starts."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def redact(text: str) -> str:
    """`text` without tokens, passwords, SDP and candidates."""
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return text


def set_up(level: str = "info", form: Literal["text", "json"] = "text", stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error), replacing what was set up before."""
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, (TextLines, JsonLines)):
            root.removeHandler(old)
    lines = logging.StreamHandler(stream or sys.stderr)
    lines.setFormatter(JsonLines() if form == "json" else TextLines())
    root.addHandler(lines)
    root.setLevel(level.upper())
    quiet = logging.NOTSET if root.level <= logging.DEBUG else logging.WARNING
    for name in LOQUACIOUS:
        logging.getLogger(name).setLevel(quiet)


class JsonLines(logging.Formatter):
    """ts, level, logger, msg, then FIELDS, then what else `extra` and `about` said, then the exception, if any."""

    def format(self, record: logging.LogRecord) -> str:
        told = _told(record)
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _message(record),
        }
        line.update({name: told.pop(name, None) for name in FIELDS})
        line.update({name: value for name, value in told.items() if name not in line})
        if record.exc_info:
            line["exception"] = _safe(record, self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """Time, level, logger, the message, then `name=value` for the rest. One line, but for a traceback under it."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        rest = "".join(f" {name}={value}" for name, value in _told(record).items() if value is not None)
        line = f"{clock} {record.levelname.lower():7} {record.name}: {_message(record)}{rest}".replace("\n", "\\n")
        if record.exc_info:
            line += "\n" + _safe(record, self.formatException(record.exc_info))
        return line


def _told(record: logging.LogRecord) -> dict[str, object]:
    told = dict(_about.get())
    told.update({name: value for name, value in vars(record).items() if name not in _OWN})
    plain = (int, float, type(None))
    return {name: value if isinstance(value, plain) else _safe(record, str(value)) for name, value in told.items()}


def _message(record: logging.LogRecord) -> str:
    return _safe(record, record.getMessage())


def _safe(record: logging.LogRecord, text: str) -> str:
    """Nothing secret above DEBUG; never a control character, with which a client could write lines of its own."""
    shown = redact(text) if record.levelno > logging.DEBUG else text
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", shown.replace("\r\n", "\n"))
