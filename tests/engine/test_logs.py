"""Logs: one object a line, nothing secret in it."""

import asyncio
import io
import json
import logging

import pytest

from engine.logs import LOQUACIOUS, about, redact, set_up

SDP = (
    "v=0\r\no=- 3908 3908 IN IP4 203.0.113.7\r\ns=-\r\nt=0 0\r\nc=IN IP4 203.0.113.7\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:verysecretverysecret1234\r\n"
    "a=candidate:1 1 udp 2130706431 203.0.113.7 5000 typ host\r\n"
)
TOKEN = "lf1.eyJzIjoiYWJjIn0.c2lnbmF0dXJlc2lnbmF0dXJl"


@pytest.fixture
def written():
    """Set the logs up on a stream; put the root logger back as it was."""
    root = logging.getLogger()
    before = list(root.handlers), root.level, {name: logging.getLogger(name).level for name in LOQUACIOUS}

    def start(level: str = "info", form="json") -> io.StringIO:
        stream = io.StringIO()
        set_up(level, form, stream)
        return stream

    yield start
    root.handlers[:], root.level = before[0], before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


def objects(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_with_the_promised_fields(written):
    stream = written()
    logging.getLogger("engine.session").info("a\nb %d", 7, extra={"event": "session.opened", "slot": 3})
    logging.getLogger("engine.session").warning("late")
    first, second = objects(stream)
    assert list(first) == ["ts", "level", "logger", "msg", "session_id", "avatar_id", "event", "slot"]
    assert (first["level"], first["logger"], first["msg"], first["slot"]) == ("info", "engine.session", "a\nb 7", 3)
    assert first["ts"].endswith("Z")
    assert second["session_id"] is second["event"] is None


async def test_what_a_session_says_about_itself_stands_in_the_lines_of_its_tasks(written):
    stream = written()
    log = logging.getLogger("x")

    async def live(name: str):
        with about(session_id=name, avatar_id="demo"):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(speak())

    async def speak():
        await asyncio.sleep(0)
        log.info("spoke")

    await asyncio.gather(live("one"), live("two"))
    log.info("outside")
    assert [line["session_id"] for line in objects(stream)] == ["one", "two", None]


def test_text_is_one_line_a_message_and_a_traceback_under_it(written):
    stream = written(form="text")
    with about(session_id="abc"):
        logging.getLogger("x").info("one\ntwo", extra={"slot": 1})
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line.endswith("info    x: one\\ntwo session_id=abc slot=1\n")
    try:
        raise ValueError(f"bad {TOKEN}")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "Traceback" in stream.getvalue()
    assert TOKEN not in stream.getvalue()


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "secret",
    [
        pytest.param(SDP, id="sdp"),
        pytest.param(repr(SDP), id="sdp in a repr"),
        pytest.param("candidate:1 1 udp 2130706431 203.0.113.7 5000 typ host", id="candidate"),
        pytest.param(f"joined with {TOKEN}.", id="token"),
        pytest.param("Authorization: Bearer c2lnbmF0dXJl203.0.113.7", id="bearer"),
        pytest.param("GET /v1/stream?token=verysecret&x=1", id="query"),
        pytest.param("{'credential': 'verysecret', \"turn_secret\": \"verysecret\"}", id="mapping"),
    ],
)
def test_nothing_that_opens_a_door_is_logged_above_debug(written, form, secret):
    """S7."""
    stream = written(form=form)
    log = logging.getLogger("x")
    log.info("got %s", secret)
    log.error(secret, extra={"what": secret, "nested": {"inner": secret}})
    with about(offer=secret):
        log.warning("x")
    for part in ("203.0.113.7", "verysecret", "c2lnbmF0dXJl", TOKEN):
        assert part not in stream.getvalue()


def test_debug_shows_all(written):
    stream = written("debug")
    logging.getLogger("x").debug(SDP)
    assert "203.0.113.7" in stream.getvalue()


def test_ordinary_words_are_left_alone():
    text = "slot 3 of 4: the token bucket of 127.0.0.1 is empty; engine.websocket restarts models.runtime.openvino"
    assert redact(text) == text


def test_a_client_cannot_write_lines_or_colours_of_its_own(written):
    for form in ("text", "json"):
        stream = written(form=form)
        logging.getLogger("x").info("name %s", "a\r\n12:00 info x: forged\x1b[31m\u2028\x00")
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b" not in stream.getvalue()


def test_loquacious_libraries_are_heard_from_warning_up_unless_debugging(written):
    written("info")
    assert not logging.getLogger("aioice.ice").isEnabledFor(logging.INFO)
    assert logging.getLogger("aioice.ice").isEnabledFor(logging.WARNING)
    written("debug")
    assert logging.getLogger("aioice.ice").isEnabledFor(logging.DEBUG)


def test_setting_up_twice_writes_once(written):
    first, second = written(), written()
    logging.getLogger("x").info("once")
    assert first.getvalue() == ""
    assert len(objects(second)) == 1


def test_what_json_does_not_know_is_said_as_text(written):
    stream = written()
    logging.getLogger("x").info(
        "x",
        extra={
            "path": {
                1,
            },
            "event": "e",
        },
    )
    assert objects(stream)[0]["path"] == "{1}"
