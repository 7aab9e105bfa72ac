"""The wire format and its state machine, by the contract (clients/PROTOCOL.md) and its golden vectors."""

import base64
import itertools
import json
import math
import random
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import protocol
from engine.media import Event, Moment
from engine.protocol import (
    AudioEnd,
    ClientReader,
    Close,
    EndSegment,
    FaceForm,
    FaceRate,
    Fail,
    Flag,
    Hear,
    Hush,
    Kind,
    Leave,
    MomentWriter,
    Open,
    Outbox,
    Ping,
    ProtocolError,
    Say,
    SessionStart,
    SessionUpdate,
    SoundRate,
    Unknown,
    client_event_from_json,
    event_to_json,
    head_in,
    pack_frame,
    parse_frame,
    parse_object,
    slerp,
)
from models.face import ARKIT_52, OCULUS_15, VRM_EXPRESSIONS
from models.rates import BLENDSHAPES, DENSE_POINTS, FACE, HEARD_CHUNK, HEARD_RATE, POINTS

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parents[2] / "clients" / "golden.json").read_text())
HELLO = '{"type":"session.start","protocol":"1.0"}'


def hello(**fields: Any) -> str:
    return json.dumps({"type": "session.start", "protocol": "1.0", **fields})


def a_reader(**fields: Any) -> ClientReader:
    """One that has had its hello at time 0."""
    reader = ClientReader(0.0)
    (action,) = reader.receive(hello(**fields), 0.0)
    assert isinstance(action, Open)
    return reader


def failure(reader: ClientReader, message: str | bytes, now: float = 0.0) -> Close:
    (action,) = reader.receive(message, now)
    assert isinstance(action, Fail), action
    return action.error.close


def sound_frame(pcm: bytes, seq: int = 0, epoch: int = 0, pts_us: int = -1, flags: int = 0) -> bytes:
    return pack_frame(Kind.AUDIO_IN, flags, seq, epoch, pts_us, pcm)


def a_moment(position: int = 0, epoch: int = 0, jaw: float = 0.0, speaking: bool = True) -> Moment:
    face = np.zeros(FACE, np.float32)
    face[ARKIT_52.index("jawOpen")] = jaw
    face[BLENDSHAPES + 3] = 1.0
    return Moment(
        position * HEARD_CHUNK,
        epoch,
        np.full(HEARD_CHUNK, position, np.int16),
        speaking,
        face=face,
        points=np.full((POINTS, 3), 32.0, np.float32),
        mesh=np.full((DENSE_POINTS, 3), 16.0, np.float32),
    )


# Golden vectors


@pytest.mark.parametrize("vector", GOLDEN["headers"], ids=lambda v: v["name"])
def test_headers_are_as_the_contract_draws_them(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload_hex"])
    fields = vector["type"], vector["flags"], vector["seq"], vector["epoch"], int(vector["pts_us"])
    assert pack_frame(*fields, payload).hex() == vector["hex"]
    assert parse_frame(bytes.fromhex(vector["hex"])) == protocol.Frame(*fields, payload)


@pytest.mark.parametrize("vector", GOLDEN["refused"], ids=lambda v: v["name"])
def test_broken_frames_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as refused:
        parse_frame(bytes.fromhex(vector["hex"]))
    assert refused.value.close is Close.BAD_MESSAGE


@pytest.mark.parametrize("vector", GOLDEN["coordinates"], ids=lambda v: v["name"])
@pytest.mark.parametrize("coords", ["gltf", "unity", "unreal"])
def test_coordinates(vector: dict[str, Any], coords: protocol.Coords) -> None:
    def head(system: str) -> np.ndarray:
        return np.concatenate([vector[system][part] for part in ("rotation", "position", "gaze")])

    np.testing.assert_allclose(head_in(coords, head("gltf")), head(coords), atol=1e-5)


@pytest.mark.parametrize("coords", ["unity", "unreal"])
def test_a_rotation_turns_points_alike_in_every_system(coords: protocol.Coords) -> None:
    """The quaternion and the position rules belong together: converting a turned point = turning the converted one."""
    random_ = np.random.default_rng(5)
    for _ in range(20):
        q = random_.normal(size=4)
        q /= np.linalg.norm(q)
        point = random_.normal(size=3)
        there = head_in(coords, np.concatenate([q, point, [0, 0]]))
        turned_here = head_in(coords, np.concatenate([q, _turn(q, point), [0, 0]]))[4:7]
        np.testing.assert_allclose(_turn(there[:4], there[4:7]), turned_here, atol=1e-4)


def _turn(q: np.ndarray, point: np.ndarray) -> np.ndarray:
    axis, w = q[:3], q[3]
    return point + 2 * np.cross(axis, np.cross(axis, point) + w * point)


@pytest.mark.parametrize("vector", GOLDEN["slerp"], ids=lambda v: v["name"])
def test_slerp(vector: dict[str, Any]) -> None:
    a, b = np.float32(vector["a"]), np.float32(vector["b"])
    mixed = slerp(a, b, vector["t"])
    assert abs(float(np.dot(mixed, np.float32(vector["expect"])))) == pytest.approx(1.0, abs=1e-6)


def test_the_example_hello_is_read() -> None:
    start = client_event_from_json(GOLDEN["hello"]["text"])
    assert isinstance(start, SessionStart)
    assert (start.avatar, start.client, start.face) == ("alice", "VRPlugin 1.2 unity", FaceForm(coords="unity"))


# JSON


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
    began = time.perf_counter()
    with pytest.raises(ProtocolError) as refused:
        client_event_from_json(text)
    assert time.perf_counter() - began < 0.05  # measured: 2 ms at most; ten times that for a busy machine
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


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ('{"type":"audio.end","segment_id":"a-1"}', AudioEnd("a-1")),
        ('{"type":"audio.end"}', AudioEnd(None)),
        ('{"type":"ping","t":1.5}', Ping(1.5)),
        ('{"type":"brand.new","x":{}}', Unknown("brand.new")),
        ('{"type":"session.update","face":{"rate":60},"mesh":true}', SessionUpdate(face_rate=60, mesh=True)),
        ('{"type":"audio.append","audio":"AAA=","new":1}', protocol.AudioAppend(b"\0\0")),
    ],
)
def test_client_events(text: str, event: protocol.ClientEvent) -> None:
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


# The hello


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


@pytest.mark.parametrize(
    "message",
    [b"", b"\xa5", sound_frame(b"\0\0"), '{"type":"ping"}', '{"type":"brand.new"}', "hello", "[]", '{"a":NaN}'],
)
def test_what_is_no_hello_cannot_come_first(message: str | bytes) -> None:
    assert failure(ClientReader(0.0), message) is Close.BAD_HELLO


def test_a_second_hello_ends_the_conversation() -> None:
    assert failure(a_reader(), HELLO) is Close.BAD_MESSAGE


def test_a_face_may_be_declined() -> None:
    start = client_event_from_json(hello(face=False, audio_out=True, landmarks=True))
    assert isinstance(start, SessionStart)
    assert (start.face, start.audio_out, start.landmarks) == (None, HEARD_RATE, True)


# Sound in


def test_sound_is_dated_in_samples() -> None:
    reader = a_reader(audio={"sample_rate": 44_100})
    third = round(3 * 1e6 / 44_100)
    for pts_us, pts in [(-1, None), (0, 0), (third, 3), (3_600_000_000, 158_760_000)]:
        (heard,) = reader.receive(sound_frame(b"\1\0\2\0", pts_us=pts_us), 0.0)
        assert isinstance(heard, Hear)
        assert heard.pts == pts
        assert heard.pcm.tolist() == [1, 2]


def test_two_channels_stay_two() -> None:
    reader = a_reader(audio={"channels": 2})
    (heard,) = reader.receive(sound_frame(b"\1\0\2\0\3\0\4\0"), 0.0)
    assert isinstance(heard, Hear)
    assert heard.pcm.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(("form", "size"), [("pcm_s16le", 3), ("pcm_f32le", 6), ("pcm_s16le", 1)])
def test_m9_half_a_sample_is_a_wrong_declaration(form: str, size: int) -> None:
    assert failure(a_reader(audio={"format": form}), sound_frame(b"\0" * size)) is Close.BAD_MESSAGE


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=64))
@settings(max_examples=200, deadline=None)
def test_wild_floats_come_in_tame(numbers: list[float]) -> None:
    reader = a_reader(audio={"format": "pcm_f32le"})
    (heard,) = reader.receive(sound_frame(struct.pack(f"<{len(numbers)}f", *numbers)), 0.0)
    assert isinstance(heard, Hear)
    assert np.isfinite(heard.pcm).all()
    assert np.abs(heard.pcm).max() <= 1.0
    tame = [number for number in numbers if abs(number) <= 1.0]
    assert [x for x, number in zip(heard.pcm.tolist(), numbers, strict=True) if abs(number) <= 1.0] == tame


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


# Faces out


@pytest.mark.parametrize("schema", ["arkit52", "vrm1", "oculus15"])
@pytest.mark.parametrize("visemes", [False, True])
def test_a_face_has_the_numbers_that_were_announced(schema: protocol.Schema, visemes: bool) -> None:
    form = FaceForm(schema=schema, visemes=visemes)
    (message,) = MomentWriter(SessionStart(face=form), 64, 64).write(a_moment(jaw=0.5))[Kind.FACE]
    assert isinstance(message, bytes)
    frame = parse_frame(message)
    assert len(frame.payload) == 4 * form.floats
    assert len(form.names) == {"arkit52": 52, "vrm1": len(VRM_EXPRESSIONS), "oculus15": len(OCULUS_15)}[schema]
    numbers = np.frombuffer(frame.payload, "<f4")
    assert numbers[len(form.names) : len(form.names) + 4].tolist() == [0, 0, 0, 1]
    assert ((numbers[: len(form.names)] >= 0) & (numbers[: len(form.names)] <= 1)).all()


def test_a_face_in_json_says_the_same() -> None:
    form = FaceForm(encoding="json", visemes=True)
    (text,) = MomentWriter(SessionStart(face=form), 64, 64).write(a_moment(position=2, jaw=0.5))[Kind.FACE]
    said = json.loads(text)
    assert said["type"] == "face"
    assert (said["pts_us"], said["seq"], said["speaking"]) == (80_000, 0, True)
    assert dict(zip(form.names, said["weights"], strict=True))["jawOpen"] == 0.5
    assert said["head"]["rotation"] == [0, 0, 0, 1]
    assert len(said["visemes"]) == 15


def test_points_are_normalised_to_the_picture() -> None:
    written = MomentWriter(SessionStart(landmarks=True, mesh=True), 64, 128).write(a_moment())
    for kind, n, xyz in [(Kind.LANDMARKS, 68, [0.5, 0.25, 0.5]), (Kind.MESH, DENSE_POINTS, [0.25, 0.125, 0.25])]:
        (message,) = written[kind]
        assert isinstance(message, bytes)
        payload = parse_frame(message).payload
        assert struct.unpack_from("<HH", payload) == (n, 3)
        points = np.frombuffer(payload, "<f4", offset=4).reshape(n, 3)
        np.testing.assert_allclose(points, np.tile(xyz, (n, 1)))


def test_flags_and_sequence_numbers() -> None:
    writer = MomentWriter(SessionStart(), 64, 64)
    frames = [
        parse_frame(message)
        for moment, end in [(a_moment(0), False), (a_moment(1), True), (a_moment(2, speaking=False), False)]
        for message in writer.write(moment, end)[Kind.FACE]
        if isinstance(message, bytes)
    ]
    assert [frame.seq for frame in frames] == [0, 1, 2]
    assert [frame.flags for frame in frames] == [Flag.SPEAKING, Flag.SPEAKING | Flag.SEGMENT_END, Flag.IDLE]
    assert [frame.pts_us for frame in frames] == [0, 40_000, 80_000]


def test_a_moment_that_never_came_leaves_a_gap_in_the_count() -> None:
    writer = MomentWriter(SessionStart(audio_out=16_000), 64, 64)
    seen = []
    for position in (0, 1, 4, 5):
        written = writer.write(a_moment(position))
        seen.append([parse_frame(written[kind][0]).seq for kind in (Kind.FACE, Kind.AUDIO_OUT)])
    assert seen == [[0, 0], [1, 1], [4, 4], [5, 5]]
    assert writer.lost == 2
    outbox = Outbox()
    outbox.miss(Kind.FACE, writer.lost)
    assert json.loads(outbox.take(0.0) or "") == {"type": "warning", "code": "frames_dropped", "count": 2}


@pytest.mark.parametrize(("rate", "ticks"), [(25, 26), (50, 51), (60, 61)])
def test_a_second_of_faces_at_every_rate(rate: int, ticks: int) -> None:
    """A ramp of one second comes out as a ramp on the finer grid: no tick missing, none twice, every value in place."""
    turn = FaceRate(rate)
    out = [due for i in range(26) for due in turn.push(i * HEARD_CHUNK, 0, a_moment(i, jaw=i / 25).face)]
    assert [pts for pts, _ in out] == [round(i * 1e6 / rate) for i in range(ticks)]
    for pts, face in out:
        assert face[ARKIT_52.index("jawOpen")] == pytest.approx(pts / 1e6, abs=1e-5)
        assert np.linalg.norm(face[BLENDSHAPES : BLENDSHAPES + 4]) == pytest.approx(1.0)


def test_faces_are_never_blended_across_an_interrupt_or_a_hole() -> None:
    turn = FaceRate(50)
    turn.push(0, 0, a_moment(jaw=0.0).face)
    assert [pts for pts, _ in turn.push(HEARD_CHUNK, 1, a_moment(jaw=1.0).face)] == [40_000]
    assert [pts for pts, _ in turn.push(4 * HEARD_CHUNK, 1, a_moment(jaw=1.0).face)] == [160_000]


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_sound_out_keeps_its_tone_and_its_length(rate: int) -> None:
    n = np.arange(10 * HEARD_CHUNK)
    tone = (10_000 * np.sin(2 * np.pi * 440 * n / HEARD_RATE)).astype(np.int16)
    too_high = (10_000 * np.sin(2 * np.pi * 15_000 * n / HEARD_RATE)).astype(np.int16)
    turn, turn_high = SoundRate(rate), SoundRate(rate)
    parts = [turn.push(chunk) for chunk in tone.reshape(10, -1)]
    assert {part.size for part in parts} == {rate // 25}
    out = np.concatenate(parts).astype(float)
    spectrum = np.abs(np.fft.rfft(out[rate // 25 :] * np.hanning(out.size - rate // 25)))
    assert np.argmax(spectrum) * rate / (out.size - rate // 25) == pytest.approx(440, abs=3)
    assert np.abs(out[rate // 25 :]).max() == pytest.approx(10_000, rel=0.03)
    if rate < 30_000:  # what the slower rate cannot hold is removed, not folded down
        folded = np.concatenate([turn_high.push(chunk) for chunk in too_high.reshape(10, -1)])[rate // 25 :]
        assert np.abs(folded).max() < 100


# The box of what is owed


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
    for i in range(protocol.CONTROL_MOST):
        outbox.tell(str(i))
    with pytest.raises(ProtocolError) as stalled:
        outbox.tell("one too many")
    assert stalled.value.close is Close.TIMEOUT
    assert drain(outbox) == [*map(str, range(protocol.CONTROL_MOST)), b"sound", b"face"]
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


# Fuzz

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


def check_conversation(reader: ClientReader, said: list[str | bytes]) -> None:
    failed = False
    for message in said:
        actions = reader.receive(message, 0.0)
        assert not (failed and actions)
        for action in actions:
            if isinstance(action, Fail):
                failed = True
                assert action.error.message
                json.loads(event_to_json(action.error.event()))
            if isinstance(action, Hear):
                assert action.pcm.size > 0
                assert action.pts is None or 0 <= action.pts < 2**63
            if isinstance(action, Say):
                json.loads(event_to_json(action.event))


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


def mutated(dice: random.Random, message: str | bytes) -> str | bytes:
    raw = bytearray(message.encode() if isinstance(message, str) else message)
    for _ in range(dice.choice([0, 1, 1, 2, 8])):
        at = dice.randrange(len(raw) + 1)
        match dice.randrange(4):
            case 0 if at < len(raw):
                raw[at] ^= 1 << dice.randrange(8)
            case 1:
                raw[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 2:
                del raw[at : at + dice.randrange(1, 9)]
            case _:
                raw[at:at] = raw[: dice.randrange(1, 40)]
    return bytes(raw).decode(errors="replace") if isinstance(message, str) else bytes(raw)
