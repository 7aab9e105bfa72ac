"""JSON from strangers costs nothing, whatever it is."""

import math
import time

import numpy as np
import pytest

from engine.media import Event
from engine.protocol.closing import Close, ProtocolError
from engine.protocol.events import event_to_json, parse_object
from engine.protocol.wishes import (
    client_event_from_json,
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"a":' + "[" * 10_000 + "]" * 10_000 + "}", id="depth 10,000"),
        pytest.param('{"a":' * 10_000, id="depth 10,000, never closed"),
        pytest.param('{"a":' * 200 + "1" + "}" * 200, id="depth 200"),
        pytest.param('{"a":1e400}', id="1e400"),
        pytest.param('{"a":-1e400}', id="-1e400"),
        pytest.param('{"a":NaN}', id="NaN"),
        pytest.param('{"a":Infinity}', id="Infinity"),
        pytest.param('{"a":1,"a":2}', id="a key twice"),
        pytest.param('{"b":{"a":1,"a":2}}', id="a key twice, deeper"),
        pytest.param('{"a":' + "9" * 60_000 + "}", id="60,000 digits"),
        pytest.param('{"a":' + "9" * 4_000 + "}", id="4,000 digits"),
        pytest.param('{"a":"\\ud800"}', id="half a surrogate pair"),
        pytest.param('{"\\udfff":1}', id="half a surrogate pair as a key"),
        pytest.param("{" + ",".join(f'"{i}":1' for i in range(8_000)) + "}", id="8,000 members"),
        pytest.param('{"a":[' + "1," * 30_000 + "1]}", id="30,000 items"),
        pytest.param('{"a":"' + "\\u0041" * 10_000, id="a string that never ends"),
        pytest.param("[1]", id="no object"),
        pytest.param("", id="nothing"),
        pytest.param("\ufeff{}", id="a byte order mark"),
        pytest.param("{" * 65_537, id="too long"),
    ],
)
def test_p10_json_bombs_are_refused_in_no_time(text: str) -> None:
    began = time.process_time()
    with pytest.raises(ProtocolError) as refused:
        client_event_from_json(text)
    assert time.process_time() - began < 0.05  # measured: 2 ms at most
    assert refused.value.close in (Close.BAD_MESSAGE, Close.TOO_BIG)


def test_json_that_is_only_unusual_is_read() -> None:
    assert parse_object('{"a":"\\ud83d\\ude00","b":[[[1]]],"c":1e300,"d":-9223372036854775808}') == {
        "a": "😀",
        "b": [[[1]]],
        "c": 1e300,
        "d": -(2**63),
    }


def test_events_are_written_for_any_reader() -> None:
    event = Event(
        "stats", {"a": np.float32(0.5), "b": math.nan, "c": np.arange(2), "d": (1, {"e": math.inf}), "f": "é"}
    )
    assert event_to_json(event) == '{"type":"stats","a":0.5,"b":null,"c":[0,1],"d":[1,{"e":null}],"f":"é"}'
