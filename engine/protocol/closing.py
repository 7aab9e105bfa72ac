"""How a connection ends, and what is told before."""

from enum import Enum
from typing import Any

from engine.media import Event


class Close(Enum):
    """A websocket close code and the string that stands beside it, in `error.code` and as the close reason."""

    OK = (1000, "ok")
    GOING_AWAY = (1001, "going_away")
    BAD_MESSAGE = (1003, "bad_message")
    POLICY = (1008, "policy")
    TOO_BIG = (1009, "too_big")
    INTERNAL = (1011, "internal")
    RESTART = (1012, "restart")
    TRY_LATER = (1013, "try_later")
    BAD_HELLO = (4400, "bad_hello")
    UNAUTHORISED = (4401, "unauthorised")
    AVATAR_NOT_ALLOWED = (4403, "avatar_not_allowed")
    UNKNOWN_AVATAR = (4404, "unknown_avatar")
    UNSUPPORTED = (4406, "unsupported_format")
    TIMEOUT = (4408, "timeout")
    REPLACED = (4409, "replaced")

    def __init__(self, code: int, string: str) -> None:
        self.code = code
        self.string = string


class ProtocolError(Exception):
    """The client broke the contract, or asked for what it cannot have; the connection ends with `close`."""

    def __init__(self, close: Close, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.close = close
        self.message = message
        self.retry_after_ms = retry_after_ms

    def event(self) -> Event:
        """What the client is told before the close frame."""
        fields: dict[str, Any] = {"code": self.close.string, "message": self.message, "fatal": True}
        if self.retry_after_ms is not None:
            fields["retry_after_ms"] = self.retry_after_ms
        return Event("error", fields)
