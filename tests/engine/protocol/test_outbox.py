"""What is owed: the newest face, every event."""

import json

import pytest

from engine.protocol.closing import Close, ProtocolError
from engine.protocol.frames import Kind
from engine.protocol.outbox import CONTROL_MOST, Outbox


def drain(outbox: Outbox, now: float = 0.0) -> list[str | bytes]:
    return list(iter(lambda: outbox.take(now), None))


def test_the_newest_face_wins_and_the_count_is_told() -> None:
    outbox = Outbox()
    outbox.put(Kind.FACE, [b"old", b"old too"])
    outbox.put(Kind.FACE, [b"new"])
    warning, face = drain(outbox)
    assert json.loads(warning) == {"type": "warning", "code": "frames_dropped", "count": 2}
    assert face == b"new"
    outbox.put(Kind.FACE, [b"a"])
    outbox.put(Kind.FACE, [b"b"])
    assert drain(outbox, 0.5) == [b"b"]  # at most one warning a second
    assert [json.loads(m)["count"] for m in drain(outbox, 1.5)] == [3]


def test_events_go_first_and_none_is_lost() -> None:
    outbox = Outbox()
    outbox.put(Kind.FACE, [b"face"])
    outbox.put(Kind.AUDIO_OUT, [b"sound"])
    for i in range(CONTROL_MOST):
        outbox.tell(str(i))
    with pytest.raises(ProtocolError) as stalled:
        outbox.tell("one too many")
    assert stalled.value.close is Close.TIMEOUT
    assert drain(outbox) == [*map(str, range(CONTROL_MOST)), b"sound", b"face"]
    assert not outbox


def test_sound_out_keeps_a_second() -> None:
    outbox = Outbox()
    for i in range(30):
        outbox.put(Kind.AUDIO_OUT, [bytes([i])])
    assert drain(outbox)[1:] == [bytes([i]) for i in range(5, 30)]
    assert outbox.dropped == {Kind.AUDIO_OUT: 5}


def test_an_interrupt_voids_media_and_keeps_events() -> None:
    outbox = Outbox()
    outbox.put(Kind.FACE, [b"face"])
    outbox.put(Kind.AUDIO_OUT, [b"sound"])
    outbox.tell("event")
    outbox.void()
    assert drain(outbox) == ["event"]
