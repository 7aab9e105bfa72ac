"""What a client may say, and ask for."""

from typing import Any

import pytest

from engine.protocol.closing import Close, ProtocolError
from engine.protocol.reader import ClientReader
from engine.protocol.wishes import (
    AudioAppend,
    AudioEnd,
    ClientEvent,
    FaceForm,
    Ping,
    SessionStart,
    SessionUpdate,
    Unknown,
    client_event_from_json,
)
from models.rates import HEARD_RATE
from tests.engine.protocol.said import GOLDEN, failure, hello


def test_the_example_hello_is_read() -> None:
    start = client_event_from_json(GOLDEN["hello"]["text"])
    assert isinstance(start, SessionStart)
    assert (start.avatar, start.client, start.face) == ("alice", "VRPlugin 1.2 unity", FaceForm(coords="unity"))


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('{"type":"audio.end","segment_id":"a-1"}', AudioEnd("a-1")),
        ('{"type":"audio.end"}', AudioEnd(None)),
        ('{"type":"ping","t":1.5}', Ping(1.5)),
        ('{"type":"brand.new","x":{}}', Unknown("brand.new")),
        ('{"type":"session.update","face":{"rate":60},"mesh":true}', SessionUpdate(face_rate=60, mesh=True)),
        ('{"type":"audio.append","audio":"AAA=","new":1}', AudioAppend(b"\0\0")),
    ],
)
def test_client_events(text: str, event: ClientEvent) -> None:
    assert client_event_from_json(text) == event


@pytest.mark.parametrize(
    "text",
    [
        '{"type":1}',
        "{}",
        '{"type":"audio.append"}',
        '{"type":"audio.append","audio":"***"}',
        '{"type":"audio.append","audio":"AAA=","pts_us":1.5}',
        '{"type":"audio.append","audio":"AAA=","pts_us":9223372036854775808}',
        '{"type":"audio.end","segment_id":"a b"}',
        '{"type":"audio.end","segment_id":["a"]}',
        '{"type":"ping","t":{}}',
        '{"type":"session.update","mesh":1}',
    ],
)
def test_events_with_wrong_fields_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        client_event_from_json(text)
    assert refused.value.close is Close.BAD_MESSAGE


@pytest.mark.parametrize(
    ("fields", "close"),
    [
        ({"protocol": None}, Close.BAD_HELLO),
        ({"protocol": "2.0"}, Close.UNSUPPORTED),
        ({"protocol": 1.0}, Close.BAD_HELLO),
        ({"avatar_id": "../../etc/passwd"}, Close.UNKNOWN_AVATAR),
        ({"avatar_id": "a\u0000b"}, Close.UNKNOWN_AVATAR),
        ({"avatar_id": ["demo"]}, Close.BAD_HELLO),
        ({"audio": {"sample_rate": 12_345}}, Close.UNSUPPORTED),
        ({"audio": {"sample_rate": 16000.0}}, Close.UNSUPPORTED),
        ({"audio": {"sample_rate": True}}, Close.UNSUPPORTED),
        ({"audio": {"format": "opus"}}, Close.UNSUPPORTED),
        ({"audio": {"channels": 6}}, Close.UNSUPPORTED),
        ({"audio": "pcm"}, Close.BAD_HELLO),
        ({"pacing": "slow"}, Close.UNSUPPORTED),
        ({"face": {"rate": 1_000_000}}, Close.UNSUPPORTED),
        ({"face": {"coords": "blender"}}, Close.UNSUPPORTED),
        ({"face": {"schema": "arkit51"}}, Close.UNSUPPORTED),
        ({"face": {"visemes": "yes"}}, Close.BAD_HELLO),
        ({"face": True}, Close.BAD_HELLO),
        ({"video": {"codec": "av1"}}, Close.UNSUPPORTED),
        ({"audio_out": {"sample_rate": 44_100}}, Close.UNSUPPORTED),
        ({"audio_out": 48_000}, Close.BAD_HELLO),
        ({"resume": "a/b"}, Close.BAD_HELLO),
        ({"auth": {"token": "x" * 5000}}, Close.BAD_HELLO),
        ({"auth": "x"}, Close.BAD_HELLO),
    ],
)
def test_a_hello_that_asks_for_too_much(fields: dict[str, Any], close: Close) -> None:
    assert failure(ClientReader(0.0), hello(**fields)) is close


def test_a_face_may_be_declined() -> None:
    start = client_event_from_json(hello(face=False, audio_out=True, landmarks=True))
    assert isinstance(start, SessionStart)
    assert (start.face, start.audio_out, start.landmarks) == (None, HEARD_RATE, True)
