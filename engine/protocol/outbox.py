"""What a client has yet to be sent."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

from engine.media import Event
from engine.protocol.closing import Close, ProtocolError
from engine.protocol.events import event_to_json
from engine.protocol.frames import Kind, Message

CONTROL_MOST: Final = 256
SOUND_MOST: Final = 25  # a second


class Outbox:
    """At most one moment's worth of each kind of media, newest wins; every control message, in order, first.

    Sound keeps a second, so that a hiccup of the network is heard as a delay and not as a hole.
    """

    def __init__(self) -> None:
        self.dropped: dict[Kind, int] = {}
        """Messages thrown away unsent."""
        self._control: deque[str] = deque()
        self._sound: deque[Message] = deque()
        self._media: dict[Kind, deque[Message]] = {}
        self._told = 0
        self._told_at = -math.inf

    def __bool__(self) -> bool:
        return bool(self._control or self._sound or self._media)

    @property
    def frames_dropped(self) -> int:
        return sum(self.dropped.values())

    def tell(self, text: str) -> None:
        """Never dropped; ProtocolError(TIMEOUT) when the client has left 256 of them unread."""
        if len(self._control) >= CONTROL_MOST:
            raise ProtocolError(Close.TIMEOUT, f"{CONTROL_MOST} events wait to be read: the client has stalled")
        self._control.append(text)

    def put(self, kind: Kind, messages: Sequence[Message]) -> None:
        if not messages:
            return
        if kind is Kind.AUDIO_OUT:
            self._sound.extend(messages)
            while len(self._sound) > SOUND_MOST:
                self._sound.popleft()
                self._count(kind, 1)
            return
        unsent = self._media.pop(kind, None)
        if unsent:
            self._count(kind, len(unsent))
        self._media[kind] = deque(messages)

    def miss(self, kind: Kind, n: int) -> None:
        """Count what was lost before it came here."""
        if n:
            self._count(kind, n)

    def void(self) -> None:
        """An interrupt: what has not been sent belongs to an epoch that is over."""
        self._sound.clear()
        self._media.clear()

    def take(self, now: float) -> Message | None:
        """The next message to send, or None."""
        if self.frames_dropped > self._told and now - self._told_at >= 1.0:
            event = Event("warning", {"code": "frames_dropped", "count": self.frames_dropped})
            self._told, self._told_at = self.frames_dropped, now
            return event_to_json(event)
        if self._control:
            return self._control.popleft()
        if self._sound:
            return self._sound.popleft()
        for kind, messages in self._media.items():
            message = messages.popleft()
            if not messages:
                del self._media[kind]
            return message
        return None

    def _count(self, kind: Kind, n: int) -> None:
        self.dropped[kind] = self.dropped.get(kind, 0) + n
