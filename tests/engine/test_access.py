"""The door: who gets in, on loopback, with a key, and with everything open."""

import pytest

from engine.access import Access, Denied, UnsafeBindError, bearer, is_loopback
from engine.tokens import Mint
from tests.fakes import JumpingClock

KEY = "a key of twenty letters"


def access(
    host: str = "127.0.0.1", key: str | None = None, anyone: bool = False, origins: tuple[str, ...] = ()
) -> Access:
    return Access(Mint(b"0" * 32), JumpingClock(), host, key, anyone, origins)


def token(door: Access, session: str = "alice", role: str = "own") -> str:
    return door._mint.issue(session, door._clock.wall(), role)  # type: ignore[arg-type]  # the fixture's own string


def status(call: object, *arguments: object) -> int:
    with pytest.raises(Denied) as denied:
        call(*arguments)  # type: ignore[operator]  # a bound method
    assert "\n" not in str(denied.value)
    return denied.value.status


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_an_address_that_others_reach_needs_a_key_or_a_word(host: str) -> None:
    with pytest.raises(UnsafeBindError, match="LIVEFACE_TOKEN"):
        access(host)
    access(host, key=KEY)
    access(host, anyone=True)


def test_a_short_key_is_refused_at_start() -> None:
    with pytest.raises(UnsafeBindError, match="16"):
        access(key="short")


def test_loopback_needs_no_token() -> None:
    door = access()
    door.check_create(None)
    door.check_admin(None, "127.0.0.1", forwarded=False)
    door.check_session(None, "alice", "control")
    door.check_session("some token of another product", "alice", "control")


def test_s4_even_on_loopback_a_token_speaks_only_for_its_own_session() -> None:
    door = access()
    assert status(door.check_session, token(door, "bob"), "alice", "control") == 403


@pytest.mark.parametrize("host", ["localhost:8800", "127.0.0.1", "127.8.8.8:1", "[::1]:8800"])
def test_loopback_answers_to_its_own_names(host: str) -> None:
    access().check_host(host)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", None, "10.0.0.1:8800", "[", "a@b:c"])
def test_a_rebound_name_is_not_answered(host: str | None) -> None:
    assert status(access().check_host, host) == 421
    access(key=KEY).check_host(host)  # the key guards this one


def test_s3_pages_of_another_site_are_turned_away() -> None:
    door = access(origins=("https://friend.example/",))
    door.check_origin(None, "localhost:8800")  # not a browser
    door.check_origin("http://localhost:8800", "localhost:8800")
    door.check_origin("https://friend.example", "localhost:8800")
    for origin in ("https://evil.example", "null", "http://localhost:9999", "file://", "http://", "", "chrome://x"):
        assert status(door.check_origin, origin, "localhost:8800") == 403
    assert status(door.check_origin, "http://", "") == 403
    access(origins=("*",)).check_origin("https://any.example", "x")


def test_with_a_key_creating_and_administering_need_it() -> None:
    door = access("0.0.0.0", key=KEY)
    for deed in (lambda t: door.check_create(t), lambda t: door.check_admin(t, "127.0.0.1", False)):
        deed(KEY)
        assert status(deed, None) == 401
        assert status(deed, "wrong") == 401
        assert status(deed, token(door)) == 401


def test_with_a_key_a_session_obeys_its_token_and_the_key() -> None:
    door = access("0.0.0.0", key=KEY)
    for deed in ("control", "view"):
        door.check_session(KEY, "alice", deed)  # type: ignore[arg-type]  # the loop's own string
        door.check_session(token(door), "alice", deed)  # type: ignore[arg-type]
        assert status(door.check_session, None, "alice", deed) == 401
        assert status(door.check_session, "wrong", "alice", deed) == 401
        assert status(door.check_session, token(door, "bob"), "alice", deed) == 403
    door.check_session(token(door, role="view"), "alice", "view")
    assert status(door.check_session, token(door, role="view"), "alice", "control") == 403


def test_open_to_anyone_is_not_open_to_act_on_other_peoples_sessions() -> None:
    door = access("0.0.0.0", anyone=True)
    door.check_create(None)
    door.check_session(None, "alice", "view")
    assert status(door.check_session, None, "alice", "control") == 401
    door.check_session(token(door), "alice", "control")


def test_s8_open_to_anyone_shows_numbers_to_loopback_only_and_to_no_proxy() -> None:
    door = access("0.0.0.0", anyone=True)
    door.check_admin(None, "127.0.0.1", forwarded=False)
    assert status(door.check_admin, None, "10.0.0.9", False) == 401
    assert status(door.check_admin, None, "127.0.0.1", True) == 401


def test_an_expired_token_is_refused() -> None:
    door = access("0.0.0.0", key=KEY)
    old = token(door)
    door._clock.jump(3_601)  # type: ignore[attr-defined]  # a JumpingClock
    assert status(door.check_session, old, "alice", "control") == 401


def test_s2_a_token_opens_a_connection_once_and_a_viewers_never() -> None:
    door = access("0.0.0.0", key=KEY)
    mine = token(door)
    assert door.join(mine) == "alice"
    assert status(door.join, mine) == 401
    assert status(door.join, token(door, role="view")) == 403
    assert status(door.join, KEY) == 401


def test_small_readers() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    assert bearer("Basic abc") is bearer(None) is bearer("Bearer ") is None
    assert is_loopback("LOCALHOST")
    assert is_loopback("::1")
    assert not is_loopback("128.0.0.1")
