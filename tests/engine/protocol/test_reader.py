"""The state machine: order, epochs, queues, rates, and a hundred thousand messages of any kind."""

import base64
import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.media import Event
from engine.protocol.closing import Close
from engine.protocol.frames import Flag, pack_frame
from engine.protocol.reader import ClientReader, EndSegment, Fail, Hear, Hush, Leave, Say
from tests.engine.protocol.said import (
    HELLO,
    a_reader,
    check_conversation,
    failure,
    hello,
    mutated,
    sound_frame,
)


@pytest.mark.parametrize(
    "message",
    [b"", b"\xa5", sound_frame(b"\0\0"), '{"type":"ping"}', '{"type":"brand.new"}', "hello", "[]", '{"a":NaN}'],
)
def test_what_is_no_hello_cannot_come_first(message: str | bytes) -> None:
    assert failure(ClientReader(0.0), message) is Close.BAD_HELLO


def test_a_second_hello_ends_the_conversation() -> None:
    assert failure(a_reader(), HELLO) is Close.BAD_MESSAGE


def test_sound_is_dated_in_samples() -> None:
    reader = a_reader(audio={"sample_rate": 44_100})
    third = round(3 * 1e6 / 44_100)
    for pts_us, pts in [(-1, None), (0, 0), (third, 3), (3_600_000_000, 158_760_000)]:
        (heard,) = reader.receive(sound_frame(b"\1\0\2\0", pts_us=pts_us), 0.0)
        assert isinstance(heard, Hear)
        assert heard.pts == pts
        assert heard.pcm.tolist() == [1, 2]


def test_the_end_of_a_segment_follows_its_sound() -> None:
    actions = a_reader().receive(sound_frame(b"\0\0", flags=Flag.SEGMENT_END), 0.0)
    assert [type(action) for action in actions] == [Hear, EndSegment]


def test_json_sound_is_the_same_sound() -> None:
    text = json.dumps({"type": "audio.append", "audio": base64.b64encode(b"\1\0\2\0").decode(), "segment_id": "s"})
    (heard,) = a_reader().receive(text, 0.0)
    assert isinstance(heard, Hear)
    assert (heard.pcm.tolist(), heard.segment_id) == ([1, 2], "s")


def test_sound_of_an_older_epoch_is_dropped_and_told_once() -> None:
    reader = a_reader()
    reader.epoch = 3
    (told,) = reader.receive(sound_frame(b"\0\0", epoch=2), 0.0)
    assert isinstance(told, Say)
    assert told.event.fields == {"code": "stale_epoch", "epoch": 3}
    assert reader.receive(sound_frame(b"\0\0", epoch=1), 0.0) == []
    assert isinstance(reader.receive(sound_frame(b"\0\0", epoch=3), 0.0)[0], Hear)
    assert isinstance(reader.receive(sound_frame(b"\0\0", epoch=4), 0.0)[0], Hear)  # it has interrupted already
    assert reader.stale_frames == 2


def test_epochs_wrap() -> None:
    reader = a_reader()
    reader.epoch = 0
    assert isinstance(reader.receive(sound_frame(b"\0\0", epoch=0xFFFFFFFF), 0.0)[0], Say)


@pytest.mark.parametrize(("pacing", "most"), [("realtime", 2.0), ("burst", 60.0)])
def test_a_file_dumped_at_once_is_taken_up_to_the_limit(pacing: str, most: float) -> None:
    """M12: 120 s of sound in one instant."""
    reader = a_reader(pacing=pacing)
    actions = [a for _ in range(1200) for a in reader.receive(sound_frame(b"\0\0" * 1600), 0.0)]
    heard = [a for a in actions if isinstance(a, Hear)]
    said = [a.event for a in actions if isinstance(a, Say)]
    assert len(heard) * 0.1 == pytest.approx(most)
    assert [(event.type, event.fields["code"]) for event in said] == [
        ("warning", "buffer_high"),
        ("error", "audio_buffer_overflow"),
    ]
    assert said[1].fields["fatal"] is False
    assert reader.queued_seconds(0.0) == pytest.approx(most)
    assert reader.refused_seconds == pytest.approx(120 - most)
    # It drains as it is said, and then there is room again.
    assert isinstance(reader.receive(sound_frame(b"\0\0" * 1600), most / 2)[0], Hear)


def test_an_interrupt_empties_the_queue() -> None:
    reader = a_reader(pacing="burst")
    for _ in range(300):
        reader.receive(sound_frame(b"\0\0" * 1600), 0.0)
    assert [type(a) for a in reader.receive('{"type":"interrupt"}', 0.0)] == [Hush]
    assert reader.queued_seconds(0.0) == 0.0


def test_m11_samples_one_by_one_ten_thousand_times_a_second() -> None:
    """M11: refused for its rate, after the first burst, not for its content."""
    reader = a_reader()
    for i in itertools.count():
        actions = reader.receive(sound_frame(b"\0\0"), i / 10_000)
        if any(isinstance(action, Fail) for action in actions):
            break
    assert 4_000 < i < 4_500
    assert isinstance(actions[0], Fail)
    assert actions[0].error.close is Close.POLICY
    assert reader.receive(sound_frame(b"\0\0"), 1.0) == []


def test_a_microphone_in_five_ms_pieces_may_go_on_for_ever() -> None:
    reader = a_reader()
    for i in range(20_000):
        assert [type(a) for a in reader.receive(sound_frame(b"\0\0" * 80), i * 0.005)] == [Hear]


def test_too_big_for_any_message() -> None:
    assert failure(a_reader(), bytes(65_537)) is Close.TOO_BIG


def test_the_small_words() -> None:
    reader = a_reader()
    (pong,) = reader.receive('{"type":"ping","t":7}', 1.5)
    assert isinstance(pong, Say)
    assert pong.event == Event("pong", {"t": 7, "server_t_us": 1_500_000})
    assert reader.receive('{"type":"from.the.future"}', 1.5) == []
    assert reader.receive(pack_frame(77, 0, 0, 0, 0, b"?"), 1.5) == []
    assert [type(a) for a in reader.receive('{"type":"session.end"}', 1.5)] == [Leave]
    assert reader.receive(sound_frame(b"\0\0"), 1.5) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


TYPES = ["session.start", "audio.append", "audio.end", "interrupt", "session.update", "ping", "session.end", "x"]


FIELDS = ["protocol", "avatar_id", "audio", "face", "video", "auth", "segment_id", "pts_us", "t", "mesh", "resume"]


events = st.fixed_dictionaries({"type": st.sampled_from(TYPES)}, optional=dict.fromkeys(FIELDS, json_values)).map(
    lambda said: json.dumps(said)
)


frames = st.builds(
    lambda kind, flags, seq, epoch, pts, payload, cut: pack_frame(kind, flags, seq, epoch, pts, payload)[cut:],
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=64),
    st.sampled_from([0, 0, 0, 1, 5]),
)


messages = st.one_of(st.text(max_size=40), st.binary(max_size=60), events, frames)


@given(st.booleans(), st.lists(messages, max_size=12))
@settings(max_examples=300, deadline=None)
def test_no_message_does_more_than_end_the_conversation(greeted: bool, said: list[str | bytes]) -> None:
    reader = a_reader() if greeted else ClientReader(0.0)
    check_conversation(reader, said)


def test_p9_a_hundred_thousand_random_messages() -> None:
    """Mutations of good messages, seeded; each conversation is 10 long."""
    dice = random.Random(20261120)
    good: list[str | bytes] = [
        HELLO,
        hello(audio={"format": "pcm_f32le", "sample_rate": 48_000, "channels": 2}, face={"rate": 60, "visemes": True}),
        sound_frame(bytes(640)),
        sound_frame(bytes(640), epoch=5, pts_us=10**12),
        '{"type":"interrupt"}',
        '{"type":"audio.append","audio":"AAAA","pts_us":5}',
        '{"type":"session.update","face":{"rate":50}}',
        '{"type":"ping","t":1}',
    ]
    for _ in range(10_000):
        reader = ClientReader(0.0)
        said: list[str | bytes] = [HELLO] if dice.random() < 0.8 else []
        check_conversation(reader, [*said, *(mutated(dice, dice.choice(good)) for _ in range(10))])
