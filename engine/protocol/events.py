"""JSON that comes from strangers, and JSON that goes to them."""

import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import numpy as np

from engine.media import Event
from engine.protocol import MESSAGE_BYTES_MOST
from engine.protocol.closing import Close, ProtocolError

JSON_DEPTH_MOST: Final = 8
JSON_BRACKETS_MOST: Final = 256
JSON_COMMAS_MOST: Final = 1024
_INTEGER_DIGITS_MOST: Final = 19
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class _JsonRefusedError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keyed = dict(pairs)
    if len(keyed) != len(pairs):
        raise _JsonRefusedError("a key comes twice in one object")
    return keyed


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _INTEGER_DIGITS_MOST:
        raise _JsonRefusedError("a number has too many digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _JsonRefusedError("a number is not finite")
    return value


def _constant(name: str) -> float:
    raise _JsonRefusedError(f"{name} is not JSON")


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is. Bounded in size, nesting, members and digits before anything is built, so that no
    text costs more than a few milliseconds; ProtocolError(BAD_MESSAGE) for all that is refused."""
    if len(text) > MESSAGE_BYTES_MOST:
        raise ProtocolError(Close.TOO_BIG, f"a message is at most {MESSAGE_BYTES_MOST} bytes")
    if not text.startswith("{"):
        raise ProtocolError(Close.BAD_MESSAGE, "a text message is one JSON object and starts with {")
    # Counting is done in C; brackets or commas inside strings count too, and no honest event has so many.
    if text.count("{") + text.count("[") > JSON_BRACKETS_MOST or text.count(",") > JSON_COMMAS_MOST:
        raise ProtocolError(Close.BAD_MESSAGE, "the JSON object has too many members")
    try:
        said = json.loads(
            text, object_pairs_hook=_once, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
        if _SURROGATE.search(text):
            json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError as wrong:
        raise ProtocolError(Close.BAD_MESSAGE, "a string holds half a surrogate pair") from wrong
    except (ValueError, RecursionError) as wrong:
        why = str(wrong) if isinstance(wrong, _JsonRefusedError) else "it cannot be parsed"
        raise ProtocolError(Close.BAD_MESSAGE, f"not acceptable as JSON: {why}") from wrong
    if _depth(said) > JSON_DEPTH_MOST:
        raise ProtocolError(Close.BAD_MESSAGE, f"the JSON is nested deeper than {JSON_DEPTH_MOST}")
    object_: dict[str, Any] = said
    return object_


def _depth(value: Any) -> int:
    """Bounded by the count of brackets, which was checked before."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def event_to_json(event: Event) -> str:
    """`{"type": …, …fields}` as one line. Numbers of numpy become plain, and what is not finite becomes null: a
    figure that could not be computed must not end a conversation."""
    return json.dumps({"type": event.type, **_plain(event.fields)}, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Enum):
        return _plain(value.value)
    return value
