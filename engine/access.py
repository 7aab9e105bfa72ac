"""Who may do what over HTTP. Pure: headers and times in, `Denied` or nothing out.

Three ways to serve. On loopback no key is needed: whoever reaches it is on this machine, and the Host and Origin checks
keep the web pages of others out. With a key (`access.secret`), creating and administering needs that key, and acting on
a session needs the session's own token or the key. With `access.anyone` everyone may create, a session still obeys
only its token, and administering is for loopback.
"""

import ipaddress
from collections.abc import Collection
from typing import Final, Literal
from urllib.parse import urlsplit

from engine.clock import Clock
from engine.tokens import Grant, Mint, TokenError, same

KEY_LENGTH_LEAST: Final = 16

Deed = Literal["control", "view"]


class Denied(Exception):
    """What the client is told: an HTTP status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class UnsafeBindError(ValueError):
    """The server would be open to strangers without anyone having said so."""


class Access:
    """The door of one server. Raises UnsafeBindError when `host` is reachable from outside and nothing guards it."""

    def __init__(
        self, mint: Mint, clock: Clock, host: str, key: str | None, anyone: bool, origins: Collection[str] = ()
    ) -> None:
        self.local = is_loopback(host)
        self.key = key
        self._anyone = anyone
        self._mint = mint
        self._clock = clock
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        if key is not None and len(key) < KEY_LENGTH_LEAST:
            raise UnsafeBindError(f"the access key has {len(key)} characters; {KEY_LENGTH_LEAST} are the least")
        if not self.local and key is None and not anyone:
            raise UnsafeBindError(
                f"{host} can be reached from outside: set LIVEFACE_TOKEN (or --token-file FILE), "
                "or say --open to serve anyone"
            )

    def check_host(self, host_header: str | None) -> None:
        """Against DNS rebinding: a server on loopback without a key answers only to loopback's own names."""
        if self.local and self.key is None and not is_loopback(_hostname(host_header or "")):
            raise Denied(421, "this server answers on localhost only; serve with --host to be reached by other names")

    def check_origin(self, origin: str | None, host_header: str | None) -> None:
        """A page of another site may not use its reader's session here, unless it is on the list."""
        if origin is not None and not self.origin_allowed(origin, host_header):
            raise Denied(403, "pages of this origin may not connect; the operator can add it with --access-origins")

    def origin_allowed(self, origin: str, host_header: str | None) -> bool:
        parts = urlsplit(origin)
        own = parts.scheme in ("http", "https") and parts.netloc.lower() == (host_header or "").lower() != ""
        return own or origin.rstrip("/").lower() in self._origins or "*" in self._origins

    def check_create(self, token: str | None) -> None:
        """Opening sessions by key. A session's own token does not open others."""
        if self.key is None or (token is not None and same(token, self.key)):
            return
        raise Denied(401, "this server asks for an access key" if token is None else "the access key is wrong")

    def check_admin(self, token: str | None, address: str, forwarded: bool) -> None:
        """What is about everybody. A proxy on this machine makes strangers look local, so it does not count."""
        if self.key is not None:
            self.check_create(token)
        elif not self.local and (forwarded or not is_loopback(address)):
            raise Denied(401, "set an access key (LIVEFACE_TOKEN) to see this from another machine")

    def check_session(self, token: str | None, session_id: str, deed: Deed) -> None:
        """Acting on a session, or looking on."""
        if token is not None:
            if self.key is not None and same(token, self.key):
                return
            grant = self._read(token)
            if grant is not None:
                if grant.session_id != session_id:
                    raise Denied(403, "the token belongs to another session")
                if deed == "control" and grant.role != "own":
                    raise Denied(403, "this token is for looking on")
                return
        if self.key is None and (self.local or deed == "view"):
            return  # a session id is 128 random bits: on this machine, and for looking on, knowing it is enough
        raise Denied(401, "this needs the session's token")

    def session_of(self, token: str) -> str:
        """The session that a token names; Denied when it is none of ours."""
        try:
            return self._mint.read(token, self._clock.wall()).session_id
        except TokenError as refused:
            raise Denied(401, str(refused)) from refused

    def join(self, token: str) -> str:
        """The session that a token opens, once; Denied otherwise."""
        try:
            grant = self._mint.join(token, self._clock.wall())
        except TokenError as refused:
            raise Denied(401, str(refused)) from refused
        if grant.role != "own":
            raise Denied(403, "this token is for looking on")
        return grant.session_id

    def _read(self, token: str) -> Grant | None:
        try:
            return self._mint.read(token, self._clock.wall())
        except TokenError as refused:
            if self.key is None and self.local:
                return None  # a client that always sends some token is served here as if it had none
            raise Denied(401, str(refused)) from refused


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header, or None."""
    kind, _, token = (header or "").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _hostname(host_header: str) -> str:
    try:
        return urlsplit(f"//{host_header}").hostname or ""
    except ValueError:
        return ""
