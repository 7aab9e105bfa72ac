"""The state machine that reads a client: messages in, actions out."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.media import Event
from engine.protocol import MESSAGE_BYTES_MOST
from engine.protocol.closing import Close, ProtocolError
from engine.protocol.frames import U32, Flag, Kind, parse_frame, samples_from_us
from engine.protocol.payloads import sound_from_payload
from engine.protocol.wishes import (
    AudioAppend,
    AudioEnd,
    AudioForm,
    ClientEvent,
    InterruptWish,
    Pacing,
    Ping,
    SessionEnd,
    SessionStart,
    SessionUpdate,
    client_event_from_json,
)

Floats = npt.NDArray[np.float32]
Sound = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Open:
    """The hello has come and is well made. Whether it is granted, the caller decides."""

    start: SessionStart


@dataclass(frozen=True, slots=True, eq=False)
class Hear:
    """Sound to push: [n] or [n, channels], s16 or f32. `pts` counts samples of the declared rate; None = contiguous."""

    pcm: npt.NDArray[np.int16] | Floats
    pts: int | None = None
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class EndSegment:
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Hush:
    """The client interrupts."""


@dataclass(frozen=True, slots=True)
class Change:
    update: SessionUpdate


@dataclass(frozen=True, slots=True)
class Say:
    """To be told to the client at once."""

    event: Event


@dataclass(frozen=True, slots=True)
class Leave:
    """The client ended the session."""


@dataclass(frozen=True, slots=True, eq=False)
class Fail:
    """Tell the client `error.event()`, then close with `error.close`. Nothing is read after this."""

    error: ProtocolError


Action = Open | Hear | EndSegment | Hush | Change | Say | Leave | Fail

BUFFER_SECONDS_MOST: Final[dict[Pacing, float]] = {"realtime": 2.0, "burst": 60.0}
MESSAGES_BURST: Final = 4_000.0
MESSAGES_PER_SECOND: Final = 400.0
_SLACK_SECONDS: Final = 0.04


class ClientReader:
    """Messages of one client in, actions out. Holds what the contract bounds: the order of events, the speech that is
    queued, the rate of messages. `epoch` is the session's; whoever runs the session keeps it up to date."""

    def __init__(self, now: float) -> None:
        self.epoch = 0
        self.over = False
        self.audio: AudioForm | None = None
        self.stale_frames = 0
        self.refused_seconds = 0.0
        self._pacing: Pacing = "realtime"
        self._queued = 0.0
        self._credit = MESSAGES_BURST
        self._at = now
        self._warned_high = False
        self._warned_stale: int | None = None
        self._overflow_told = -math.inf

    def queued_seconds(self, now: float) -> float:
        """Speech that came in and has not been played: it drains by a second a second."""
        self._pass(now)
        return self._queued

    def receive(self, message: str | bytes, now: float) -> list[Action]:
        """What to do about a message. Errors come as the action `Fail`, never as exceptions."""
        if self.over:
            return []
        try:
            return self._receive(message, now)
        except ProtocolError as error:
            self.over = True
            if self.audio is None and error.close is Close.BAD_MESSAGE:
                error = ProtocolError(Close.BAD_HELLO, error.message)
            return [Fail(error)]

    def _receive(self, message: str | bytes, now: float) -> list[Action]:
        self._pass(now)
        self._credit -= 1.0
        if self._credit < 0.0:
            raise ProtocolError(
                Close.POLICY, f"more than {MESSAGES_PER_SECOND:.0f} messages a second: send longer pieces of sound"
            )
        if len(message) > MESSAGE_BYTES_MOST:
            raise ProtocolError(Close.TOO_BIG, f"a message is at most {MESSAGE_BYTES_MOST} bytes")
        if isinstance(message, str):
            return self._event(client_event_from_json(message), now)
        if self.audio is None:
            raise ProtocolError(Close.BAD_HELLO, "the first message is session.start, as JSON text")
        frame = parse_frame(message)
        if frame.kind != Kind.AUDIO_IN:
            return []
        if 0 < (self.epoch - frame.epoch) & U32 < 2**31:
            return self._stale()
        pts = samples_from_us(frame.pts_us, self.audio.sample_rate) if frame.pts_us >= 0 else None
        actions = self._sound(frame.payload, pts, None, self.audio, now)
        return [*actions, EndSegment()] if frame.flags & Flag.SEGMENT_END else actions

    def _event(self, event: ClientEvent, now: float) -> list[Action]:
        if isinstance(event, SessionStart):
            if self.audio is not None:
                raise ProtocolError(Close.BAD_MESSAGE, "session.start comes once; use session.update")
            self.audio, self._pacing = event.audio, event.pacing
            return [Open(event)]
        if self.audio is None:
            raise ProtocolError(Close.BAD_HELLO, "the first message is session.start")
        match event:
            case AudioAppend(pcm, pts_us, segment_id):
                pts = samples_from_us(pts_us, self.audio.sample_rate) if pts_us is not None and pts_us >= 0 else None
                return self._sound(pcm, pts, segment_id, self.audio, now)
            case AudioEnd(segment_id):
                return [EndSegment(segment_id)]
            case InterruptWish():
                self._queued = 0.0
                return [Hush()]
            case SessionUpdate():
                return [Change(event)]
            case Ping(t):
                return [Say(Event("pong", {"t": t, "server_t_us": round(now * 1e6)}))]
            case SessionEnd():
                self.over = True
                return [Leave()]
            case _:
                return []

    def _sound(
        self, payload: bytes, pts: int | None, segment_id: str | None, form: AudioForm, now: float
    ) -> list[Action]:
        pcm = sound_from_payload(payload, form)
        if len(pcm) == 0:
            return []
        seconds = len(pcm) / form.sample_rate
        most = BUFFER_SECONDS_MOST[self._pacing]
        # A refused piece is a hole that the client is told of; a queue without end would be a delay without end.
        if self._queued + seconds > most + _SLACK_SECONDS:
            self.refused_seconds += seconds
            return self._overflow(self._queued + seconds - most, now)
        self._queued += seconds
        actions: list[Action] = [Hear(pcm, pts, segment_id)]
        if self._queued > 0.75 * most and not self._warned_high:
            self._warned_high = True
            actions.append(
                Say(
                    Event(
                        "warning",
                        {"code": "buffer_high", "queued_ms": round(self._queued * 1000), "most_ms": round(most * 1000)},
                    )
                )
            )
        return actions

    def _overflow(self, excess: float, now: float) -> list[Action]:
        if now - self._overflow_told < 1.0:
            return []
        self._overflow_told = now
        message = f"more than {BUFFER_SECONDS_MOST[self._pacing]:.0f} s of speech are queued; this piece was not taken"
        fields = {"code": "audio_buffer_overflow", "message": message, "fatal": False}
        return [Say(Event("error", {**fields, "retry_after_ms": max(1, math.ceil(excess * 1000))}))]

    def _stale(self) -> list[Action]:
        """Sound sent before the client knew of an interrupt. Told once an epoch: a client that never follows epochs
        should learn why it is not heard."""
        self.stale_frames += 1
        if self._warned_stale == self.epoch:
            return []
        self._warned_stale = self.epoch
        return [Say(Event("warning", {"code": "stale_epoch", "epoch": self.epoch}))]

    def _pass(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._queued = max(0.0, self._queued - elapsed)
        self._credit = min(MESSAGES_BURST, self._credit + elapsed * MESSAGES_PER_SECOND)
        if self._queued < 0.5 * BUFFER_SECONDS_MOST[self._pacing]:
            self._warned_high = False
