"""Who may do what to which session: signed tokens, and the credentials of a TURN server. Pure: time is an argument.

A token is `lf1.BODY.SIGNATURE`, base64url, signed with HMAC-SHA256. There is no algorithm field to lie in. It is bound
to one session and one role, must be joined with within a minute and once only, and speaks for its session until it
expires.
"""

import base64
import binascii
import hmac
import json
import math
import secrets
from dataclasses import dataclass
from typing import Final, Literal

Role = Literal["own", "view"]

PREFIX: Final = "lf1"
JOIN_SECONDS: Final = 60.0
TOKEN_SECONDS: Final = 3600.0
TOKEN_LENGTH_MOST: Final = 512


class TokenError(ValueError):
    """The token does not open this door; the message says why and may be shown to whoever holds it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token says once its signature has been checked. Times are unix seconds."""

    session_id: str
    role: Role
    nonce: str
    join_by: float
    expires_at: float


class Mint:
    """Signs and reads tokens with one secret of at least 16 bytes, and remembers which have joined."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the token secret needs at least 16 bytes")
        self._key = hmac.digest(secret, b"liveface session token", "sha256")
        self._joined: dict[str, float] = {}

    def issue(
        self,
        session_id: str,
        now: float,
        role: Role = "own",
        join_seconds: float = JOIN_SECONDS,
        seconds: float = TOKEN_SECONDS,
    ) -> str:
        body = json.dumps(
            {
                "s": session_id,
                "r": role,
                "n": secrets.token_urlsafe(12),
                "j": round(now + join_seconds, 3),
                "e": round(now + seconds, 3),
            },
            separators=(",", ":"),
        )
        signed = f"{PREFIX}.{_encode(body.encode())}"
        return f"{signed}.{_encode(self._sign(signed))}"

    def read(self, token: str, now: float, session_id: str | None = None) -> Grant:
        """The grant of a token that is genuine, in date and (when asked) of this session; TokenError otherwise."""
        prefix, dot, rest = token.partition(".")
        body, dot, signature = rest.partition(".")
        if len(token) > TOKEN_LENGTH_MOST or prefix != PREFIX or not dot:
            raise TokenError("this is not a session token")
        # The signature is checked before the body is parsed: nothing a stranger wrote reaches the JSON reader.
        if not hmac.compare_digest(_encode(self._sign(f"{prefix}.{body}")).encode(), signature.encode()):
            raise TokenError("the token's signature is wrong")
        grant = _grant(body)
        if now >= grant.expires_at:
            raise TokenError("the token has expired")
        if session_id is not None and grant.session_id != session_id:
            raise TokenError("the token belongs to another session")
        return grant

    def join(self, token: str, now: float, session_id: str | None = None) -> Grant:
        """As `read`, once per token and within its minute: what opens a media connection."""
        grant = self.read(token, now, session_id)
        if now >= grant.join_by:
            raise TokenError("the token was not used in time; ask for a new session")
        self._joined = {nonce: until for nonce, until in self._joined.items() if until > now}
        if grant.nonce in self._joined:
            raise TokenError("the token has been used already")
        self._joined[grant.nonce] = grant.join_by
        return grant

    def _sign(self, signed: str) -> bytes:
        return hmac.digest(self._key, signed.encode(), "sha256")


def same(given: str, expected: str) -> bool:
    """Compares secrets without telling by its duration how much of them was right."""
    return hmac.compare_digest(given.encode(), expected.encode())


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    username: str
    credential: str
    expires_at: int


def turn_credentials(secret: str, user: str, now: float, seconds: int = 3600) -> TurnCredentials:
    """A coturn `use-auth-secret` pair (draft-uberti-behave-turn-rest-00, section 2.2): the name carries the expiry."""
    expires_at = math.ceil(now) + seconds
    username = f"{expires_at}:{user}"
    credential = base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()
    return TurnCredentials(username, credential, expires_at)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _grant(body: str) -> Grant:
    try:
        said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        role: Role = "view" if said["r"] == "view" else "own"
        return Grant(str(said["s"]), role, str(said["n"]), float(said["j"]), float(said["e"]))
    except (binascii.Error, ValueError, KeyError, TypeError) as wrong:
        raise TokenError("the token cannot be read") from wrong
