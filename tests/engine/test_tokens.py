"""Tokens: what they open, and what a thief cannot do with them."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokens import Mint, TokenError, same, turn_credentials

NOW = 1_800_000_000.0
SECRET = b"a secret of the test, 32 bytes ok"


@pytest.fixture
def mint() -> Mint:
    return Mint(SECRET)


def test_a_token_speaks_for_its_session_until_it_expires(mint: Mint) -> None:
    token = mint.issue("alice", NOW)
    assert mint.read(token, NOW + 3599, "alice").session_id == "alice"
    with pytest.raises(TokenError, match="expired"):
        mint.read(token, NOW + 3600, "alice")


def test_s2_a_token_of_another_session_is_refused(mint: Mint) -> None:
    with pytest.raises(TokenError, match="another session"):
        mint.read(mint.issue("alice", NOW), NOW, "bob")


def test_s2_a_replayed_token_joins_only_once(mint: Mint) -> None:
    token = mint.issue("alice", NOW)
    assert mint.join(token, NOW + 1, "alice").role == "own"
    with pytest.raises(TokenError, match="used already"):
        mint.join(token, NOW + 2, "alice")
    assert mint.read(token, NOW + 2, "alice")  # it still speaks for the session that it opened


def test_s2_a_token_that_nobody_used_within_a_minute_opens_nothing(mint: Mint) -> None:
    with pytest.raises(TokenError, match="in time"):
        mint.join(mint.issue("alice", NOW), NOW + 60, "alice")


def test_used_tokens_are_forgotten_when_they_could_not_join_anyway(mint: Mint) -> None:
    for second in range(500):
        mint.join(mint.issue("alice", NOW + second), NOW + second, "alice")
    assert len(mint._joined) <= 61


def test_s2_alg_none_is_not_a_thing_that_can_be_said(mint: Mint) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = part({"s": "alice", "r": "own", "n": "x", "j": NOW + 60, "e": NOW + 60})
    for forged in (
        f"{part({'alg': 'none'})}.{body}.",
        f"lf1.{body}.",
        f"lf1.{body}",
        f"lf1.{part({'alg': 'none'})}.{body}.",
    ):
        with pytest.raises(TokenError):
            mint.read(forged, NOW, "alice")


def test_a_token_of_another_server_is_refused(mint: Mint) -> None:
    with pytest.raises(TokenError, match="signature"):
        mint.read(Mint(SECRET[::-1]).issue("alice", NOW), NOW, "alice")


def test_a_short_secret_is_not_accepted() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Mint(b"short")


@given(st.text(max_size=600))
def test_whatever_is_sent_as_a_token_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(TokenError):
        Mint(SECRET).read(text, NOW)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_token_with_one_changed_byte_is_refused(where: int, change: int) -> None:
    mint = Mint(SECRET)
    token = bytearray(mint.issue("alice", NOW).encode())
    token[where % len(token)] ^= change
    with pytest.raises(TokenError):
        mint.read(token.decode("latin-1"), NOW, "alice")


def test_turn_credentials_are_what_coturn_computes() -> None:
    got = turn_credentials("north", "session-7", NOW, 600)
    assert got.username == f"{int(NOW) + 600}:session-7"
    assert got.expires_at == int(NOW) + 600
    expected = hmac.new(b"north", got.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(got.credential) == expected


def test_secrets_are_compared_whole() -> None:
    assert same("ä1", "ä1")
    assert not same("ä1", "ä2")
