"""One session's sound and pictures, encoded once and given to everyone who watches.

`Broadcast` takes the Moments of one outlet. Each is encoded in a thread of the `Workshop`, its sound once and its
picture once per codec in use, and handed to every `Viewer` in the turn of the loop in which that is done. Nothing
queues: when the machine is behind, pictures are left out and the sound goes on.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from engine.clock import Clock
from engine.encoder import (
    SOUND_FRAME,
    OpenContext,
    PictureSizeError,
    SoundEncoder,
    VideoEncoder,
    h264_payloads,
    open_vp8,
    vp8_payloads,
)
from engine.media import Moment, Picture
from engine.session import SessionClosedError
from models.rates import HEARD_RATE
from models.runtime import Wants

logger = logging.getLogger(__name__)

PENDING_MOST: Final = 8
"""Moments between session and wire when the machine is behind; of several that wait only the newest is seen."""

STAGE_MOMENTS: Final = 250
"""Moments that `figures` looks back on: ten seconds."""


class Source(Protocol):
    """What is taken of a session."""

    @property
    def id(self) -> str: ...

    def outlet(
        self, wants: Wants = Wants.PICTURE, capacity: int = 4
    ) -> AbstractAsyncContextManager[AsyncIterator[Moment]]: ...


class Viewer(Protocol):
    """One who watches and hears. Calls return at once: what cannot be sent now is not sent."""

    @property
    def codec(self) -> str:
        """ "VP8", "H264", or empty while it sees nothing."""
        ...

    @property
    def limit(self) -> int | None:
        """Bits per second of picture that its path carries; None when nothing is known to be in the way."""
        ...

    def send_sound(self, payload: bytes, pts: int) -> None: ...

    def send_picture(self, payloads: Sequence[bytes], keyframe: bool, pts: int) -> None: ...

    def leave(self, reason: str) -> None:
        """The session has ended."""
        ...


@dataclass(slots=True)
class Workshop:
    """What all broadcasts of a server share."""

    clock: Clock
    executor: ThreadPoolExecutor
    """Threads for encoding alone: in the loop's default ones it would wait behind anything that blocks."""
    bitrate: int
    """Bits per second of a picture stream at most."""
    openers: dict[str, OpenContext] = field(default_factory=lambda: {"VP8": open_vp8})
    _warned: set[str] = field(default_factory=set)

    def warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A picture in one codec, in payloads."""

    payloads: list[bytes]
    keyframe: bool


class Broadcast:
    """One session's outlet: every Moment is encoded once per codec in use and sent to every viewer."""

    def __init__(self, session: Source, workshop: Workshop) -> None:
        self.viewers: list[Viewer] = []
        self.encoders: dict[str, VideoEncoder] = {}
        self.reference: tuple[int, float] | None = None
        """The last Moment's media time and when it left, smoothed: what sender reports are made of."""
        self.skipped_pictures = 0
        """Pictures left out because the machine was behind."""
        self.encode_seconds: deque[float] = deque(maxlen=STAGE_MOMENTS)
        self.latencies: deque[float] = deque(maxlen=STAGE_MOMENTS)
        """Seconds from the last sound of a Moment's own 40 ms to its first packet out."""
        self._session = session
        self._workshop = workshop
        self._sound = SoundEncoder()
        self._picture_id = random.getrandbits(15)
        self._pending: deque[Moment] = deque(maxlen=PENDING_MOST)
        self._arrived = asyncio.Event()
        self._ended = False
        self._second_half: asyncio.TimerHandle | None = None
        self._unsent: tuple[bytes, int] | None = None
        self._task = asyncio.create_task(self._run(), name=f"broadcast of {session.id}")

    def add(self, viewer: Viewer) -> None:
        if viewer not in self.viewers:
            self.viewers.append(viewer)
        self.ask_keyframe(viewer)
        self.adapt()

    def remove(self, viewer: Viewer) -> None:
        if viewer in self.viewers:
            self.viewers.remove(viewer)
        for codec in set(self.encoders) - {viewer.codec for viewer in self.viewers}:
            del self.encoders[codec]
        self.adapt()

    def figures(self) -> dict[str, Any]:
        """Of the last ten seconds: seconds from sound to wire, and of encoding."""
        return {
            "skipped_pictures": self.skipped_pictures,
            "latency_p50": quantile(self.latencies, 0.50),
            "latency_p99": quantile(self.latencies, 0.99),
            "encode_p50": quantile(self.encode_seconds, 0.50),
            "encode_p99": quantile(self.encode_seconds, 0.99),
        }

    async def close(self) -> None:
        """End it; nobody is told."""
        self._task.cancel()
        await asyncio.wait([self._task])
        # An encoder holds megabytes, and a task that was cancelled keeps its locals until the collector comes by.
        self.encoders.clear()
        self._pending.clear()

    def ask_keyframe(self, viewer: Viewer) -> None:
        encoder = self.encoders.get(viewer.codec)
        if encoder is not None:
            encoder.ask_keyframe()

    def adapt(self) -> None:
        """Follow the slowest viewer of each codec; one encoding cannot please two, and the floor protects the rest."""
        for codec, encoder in self.encoders.items():
            limits = [viewer.limit for viewer in self.viewers if viewer.codec == codec and viewer.limit is not None]
            encoder.set_bitrate(min([self._workshop.bitrate, *limits]))

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group, self._session.outlet(wants=Wants.PICTURE) as outlet:
                sending = group.create_task(self._send_all())
                async for moment in outlet:
                    if self._pending and self._pending[-1].epoch < moment.epoch:
                        self._pending.clear()  # interrupted: what waits is void
                    self._pending.append(moment)
                    self._arrived.set()
                self._ended = True
                self._arrived.set()
                await sending
        except* SessionClosedError:
            logger.debug("session %s ended before its broadcast began", self._session.id)
        except* Exception:
            logger.exception("the broadcast of session %s failed", self._session.id)
        finally:
            if self._second_half is not None:
                self._second_half.cancel()
            for viewer in list(self.viewers):
                viewer.leave("session ended")

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        now = self._workshop.clock.now
        while True:
            while not self._pending:
                if self._ended:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            # When the machine is behind several wait: all are heard, and only the newest is seen.
            batch = tuple(self._pending)
            self._pending.clear()
            self.skipped_pictures += len(batch) - 1
            encoders = {codec: self._encoder(codec) for codec in {viewer.codec for viewer in self.viewers} if codec}
            began = now()
            sounds, pictures = await loop.run_in_executor(self._workshop.executor, self._encode, batch, encoders)
            self.encode_seconds.append(now() - began)
            for moment, sound in zip(batch, sounds, strict=True):
                self._send(moment, sound, pictures if moment is batch[-1] else {})

    def _encoder(self, codec: str) -> VideoEncoder:
        encoder = self.encoders.get(codec)
        if encoder is None:
            encoder = self.encoders[codec] = VideoEncoder(self._workshop.openers[codec], self._workshop.bitrate)
            self.adapt()
        return encoder

    def _encode(
        self, batch: Sequence[Moment], encoders: dict[str, VideoEncoder]
    ) -> tuple[list[list[bytes]], dict[str, _Cut]]:
        """In an encode thread, once at a time: the sound of all, the picture of the last."""
        sounds = [self._sound.encode(moment.heard) for moment in batch]
        pictures: dict[str, _Cut] = {}
        picture, pts = batch[-1].picture, batch[-1].pts
        for codec, encoder in encoders.items():
            cut = self._cut(codec, encoder, picture, pts) if picture is not None else None
            if cut is not None:
                pictures[codec] = cut
        return sounds, pictures

    def _cut(self, codec: str, encoder: VideoEncoder, picture: Picture, pts: int) -> _Cut | None:
        try:
            encoded = encoder.encode(picture, pts)
        except PictureSizeError as error:
            self._workshop.warn_once(str(error))
            return None
        if encoded is None:
            return None
        if codec == "VP8":
            self._picture_id = (self._picture_id + 1) & 0x7FFF
            return _Cut(vp8_payloads(encoded.data, self._picture_id), encoded.keyframe)
        return _Cut(h264_payloads(encoded.data), encoded.keyframe)

    def _send(self, moment: Moment, sound: list[bytes], pictures: dict[str, _Cut]) -> None:
        self._flush_half()
        sent = self._workshop.clock.now()
        self._refer(moment.pts, sent)
        for viewer in self.viewers:
            if sound:
                viewer.send_sound(sound[0], moment.pts)
            cut = pictures.get(viewer.codec)
            if cut is not None:
                viewer.send_picture(cut.payloads, cut.keyframe, moment.pts)
        if moment.arrived > 0:
            self.latencies.append(sent - moment.arrived)
        if len(sound) > 1:
            # The second 20 ms leave when their time comes: two at once would make every receiver buffer one more.
            self._unsent = (sound[1], moment.pts + SOUND_FRAME)
            delay = SOUND_FRAME / HEARD_RATE
            self._second_half = asyncio.get_running_loop().call_later(delay, self._flush_half)

    def _flush_half(self) -> None:
        if self._second_half is not None:
            self._second_half.cancel()
            self._second_half = None
        if self._unsent is not None:
            payload, pts = self._unsent
            self._unsent = None
            for viewer in self.viewers:
                viewer.send_sound(payload, pts)

    def _refer(self, pts: int, sent: float) -> None:
        if self.reference is not None:
            # Encoding sometimes takes longer; the earliest departures draw the true line. 0.1 ms a Moment of leak
            # follows any clock's drift.
            known_pts, known_sent = self.reference
            expected = known_sent + (pts - known_pts) / HEARD_RATE + 0.0001
            if abs(sent - expected) < 0.5:
                sent = min(sent, expected)
        self.reference = (pts, sent)


def quantile(values: Sequence[float] | deque[float], share: float) -> float | None:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
