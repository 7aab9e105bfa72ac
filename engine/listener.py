"""What the next 40 ms are: of the live sound, of queued speech, or silence. Pure: times come in as arguments.

Two lanes feed one timeline. The live lane (microphone, WebRTC, a socket in real time) beats time: a chunk is called as
soon as its last sample is there, and when nothing comes, the clock calls silence, so the face lives on. The speech
lane (text-to-speech, files: faster than real time) is queued by segment and takes the place of the live sound, chunk
by chunk, until it has been said.

`origin` is where position 0 of the live sound ends up on the clock: a leaky maximum of its arrivals. It decides only
how long a missing chunk is waited for and how far ahead of time a burst may run; a chunk in time is never held.

- A live chunk that is missing is waited for PATIENCE (the ingress has concealed what it could by then), then called as
  silence; its samples, should they still come with their own dates, are dropped. Latency is back at once. When all
  that comes is too late, the way has become longer: the origin moves by as much, and leaks back when it can.
- Live sound without dates that comes in bursts may run LEAD ahead of time; what is more waits, at most LIVE_MOST
  seconds (then the oldest goes), and quiet chunks are left out while any wait, so that a stall is caught up with in
  the next pause.
- Speech is bounded to SPEECH_MOST seconds; `room` says how much more may come.
- When nobody asked for STALL seconds (the event loop stood still), what was missed is not made up for: the timeline
  leaps to the present, so that a long stall does not breed a longer one. Queued speech and undated sound wait it out.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from engine.chunker import Chunker
from engine.gate import Gate
from engine.media import AudioChunk
from models.rates import CHUNK, CHUNK_SECONDS, FRAME_RATE, HEARD_CHUNK, HEARD_RATE

PATIENCE_SECONDS = 0.060
LEAD_SECONDS = 0.050
LATE_CALLS = 10
LONGER_MOST_SECONDS = 0.5
"""How much longer the way of the live sound may become at once; a larger step is one of dates."""

STALL_SECONDS = 0.400
"""What was missed in less is called at once; what was missed in more would come too late to be played."""

IDLE_AFTER_SECONDS = 0.200
"""Without live sound for this long nothing is missing: there simply is none."""

LIVE_MOST_SECONDS = 2.0
SPEECH_MOST_SECONDS = 60.0
ORIGIN_LEAK_SECONDS = 0.0004
"""How much the origin may fall per chunk: 10 ms a second, far above any clock's drift."""

Sound = npt.NDArray[np.int16] | npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Pacing(Enum):
    REALTIME = "realtime"
    BURST = "burst"
    FILE = "file"
    """No clock at all: as fast as the model goes."""


class SpeechFullError(RuntimeError):
    """More speech than the lane holds."""


@dataclass(frozen=True, slots=True)
class Listened:
    """One chunk of the timeline, its features gated, and the segments that begin and end with it."""

    chunk: AudioChunk
    speaking: bool
    segment_id: str | None = None
    started: str | None = None
    ended: tuple[str, ...] = ()
    overdue: bool = False
    """Called only after it had been waited for in vain: when that was says nothing of when the next ones are due."""


class _Segment:
    def __init__(self, segment_id: str) -> None:
        self.segment_id = segment_id
        self.chunker = Chunker()
        self.ready: deque[AudioChunk] = deque()
        self.ended = False
        self.begun = False

    @property
    def seconds(self) -> float:
        return len(self.ready) * CHUNK_SECONDS + self.chunker.buffered / HEARD_RATE


class Listener:
    """The two lanes of one session."""

    def __init__(self, pacing: Pacing = Pacing.REALTIME) -> None:
        self.pacing = pacing
        self.position = 0
        """The chunk that is called next; its pts is `position * HEARD_CHUNK`."""
        self.epoch = 0
        self.dropped = 0
        """Live chunks thrown away because more than LIVE_MOST seconds of them waited."""
        self.skipped = 0
        """Quiet live chunks left out to catch up."""
        self.starved = 0
        """Live chunks that did not come in time and were called as silence."""
        self.leapt = 0
        """Chunks of the timeline that were never called, as nobody asked for them in time."""
        self._live = Chunker()
        self._ready: deque[AudioChunk] = deque()
        self._live_position = 0
        self._last_live: float | None = None
        self._dated = False
        self._late: tuple[int, float] | None = None
        """The last sample, in 48 kHz, of the newest live sound that came after its time had been called, and when."""
        self._late_calls = 0
        """Chunks called as silence while their sound was still on its way, since the last that was in time."""
        self._origin: float | None = None
        self._segments: deque[_Segment] = deque()
        self._gate = Gate()
        if pacing is not Pacing.REALTIME:
            # A file or a synthesiser may begin in mid-vowel; what a gate hears first it takes for a room's noise.
            self._gate.open(np.zeros(CHUNK, np.float32))
        self._turn = 0
        self._live_segment: str | None = None
        self._unreported: list[str] = []
        self._overdue = False

    # What comes in

    def push_live(self, pcm: Sound, rate: int, pts: int | None, arrived: float) -> None:
        """Sound in real time; `pts` counts samples at `rate`, or None for "right after the last"."""
        self._last_live = arrived
        self._dated = pts is not None
        late = self._live.late
        self._live.push(pcm, rate, pts=pts, arrived=arrived)
        all_late = pts is not None and len(pcm) > 0 and self._live.late - late >= len(pcm) * HEARD_RATE // rate
        self._late = (self._live.position - self._live.behind, arrived) if all_late else None
        self._ready.extend(self._live.take())
        while len(self._ready) > LIVE_MOST_SECONDS * FRAME_RATE:
            self._ready.popleft()
            self.dropped += 1

    def push_speech(self, segment_id: str, pcm: Sound, rate: int) -> None:
        """Sound faster than real time. Raises SpeechFullError when the lane would hold too much."""
        seconds = len(pcm) / rate
        if seconds > self.room:
            raise SpeechFullError(
                f"{seconds:.1f} s of speech do not fit: {self.room:.1f} s of {SPEECH_MOST_SECONDS:.0f} s are free; "
                "send it later or in smaller pieces"
            )
        segment = self._segment(segment_id)
        segment.chunker.push(pcm, rate)
        segment.ready.extend(segment.chunker.take())

    def end_speech(self, segment_id: str | None) -> None:
        """No more comes for this segment (None: for any that is open); its last samples are padded to a chunk."""
        for segment in self._segments:
            if not segment.ended and segment_id in (None, segment.segment_id):
                segment.chunker.flush()
                segment.ready.extend(segment.chunker.take())
                segment.ended = True

    def interrupt(self) -> list[str]:
        """Forget all that was queued and begin a new epoch. Returns the segments that were cut off, oldest first."""
        cut = [segment.segment_id for segment in self._segments]
        if self._live_segment is not None:
            cut.insert(0, self._live_segment)
        self._segments.clear()
        self._live_segment = None
        self._unreported.clear()
        self._ready.clear()
        self._live.clear(self._live_position)
        self._gate.shut()
        self.epoch += 1
        return cut

    @property
    def room(self) -> float:
        """Seconds of speech that may still be pushed."""
        return SPEECH_MOST_SECONDS - self.queued

    @property
    def queued(self) -> float:
        """Seconds of speech that wait."""
        return sum(segment.seconds for segment in self._segments)

    @property
    def open_segment(self) -> str | None:
        """The segment that still takes speech, if any."""
        return next((segment.segment_id for segment in self._segments if not segment.ended), None)

    @property
    def speech_done(self) -> bool:
        return not self._segments

    # What goes on

    def take(self, now: float) -> list[Listened]:
        """The chunks whose time has come."""
        taken: list[Listened] = []
        while (listened := self._next(now)) is not None:
            taken.append(listened)
        return taken

    def wake_at(self, now: float) -> float | None:
        """When to call `take` again though nothing comes in. None: not before something does."""
        if self.pacing is Pacing.FILE:
            return None
        if self._origin is None:
            return now
        turn = self._origin + (self.position + 1) * CHUNK_SECONDS
        return turn - LEAD_SECONDS if self._ready else turn + self._patience(now)

    def _next(self, now: float) -> Listened | None:
        if self.pacing is Pacing.FILE:
            speech = self._speech()
            return None if speech is None else self._listened(None, speech)
        if self._origin is None:
            self._origin = now - self.position * CHUNK_SECONDS
        self._leap(now)
        live = self._called(now)
        return None if live is None else self._listened(live, self._speech())

    def _leap(self, now: float) -> None:
        """Leave out what nobody asked for in time; live sound with dates of then goes with it."""
        assert self._origin is not None
        turn = self._origin + (self.position + 1) * CHUNK_SECONDS
        missed = int((now - turn - self._patience(now)) / CHUNK_SECONDS)
        if missed * CHUNK_SECONDS < STALL_SECONDS:
            return
        self.position += missed
        self.leapt += missed
        if not self._dated:
            return
        self._live_position += missed * HEARD_CHUNK
        self._live.skip(self._live_position)
        self._ready.extend(self._live.take())
        while self._ready and self._ready[0].pts < self._live_position:
            self._ready.popleft()

    def _called(self, now: float) -> AudioChunk | None:
        assert self._origin is not None
        self._overdue = False
        turn = self._origin + (self.position + 1) * CHUNK_SECONDS
        if self._ready:
            if now < turn - LEAD_SECONDS:
                return None
            while len(self._ready) > 2 and self._gate.quiet(self._ready[0].features):
                self._ready.popleft()
                self.skipped += 1
            chunk = self._ready.popleft()
            end = chunk.arrived if chunk.arrived > 0 else now
            if chunk.invented or end > turn + PATIENCE_SECONDS:
                # It became whole by what came after a hole, so it is as late as that; or the loop stood still for a
                # moment, which says nothing of the way either.
                self._overdue = True
            else:
                self._origin = max(self._origin - ORIGIN_LEAK_SECONDS, end - (self.position + 1) * CHUNK_SECONDS)
            self._live_position = chunk.pts + HEARD_CHUNK
            self._late, self._late_calls = None, 0
            return chunk
        if now < turn + self._patience(now):
            return None
        if self._patience(now) > 0:
            self.starved += 1
            self._overdue = True
        self._live.fill(self._live_position + HEARD_CHUNK)
        self._ready.extend(self._live.take())
        chunk = self._ready.popleft()
        self._live_position = chunk.pts + HEARD_CHUNK
        self._late_calls += self._late is not None
        if self._late is not None and self._late_calls >= LATE_CALLS:
            # Sound comes, but all of it too late: its way has become longer for good, and what comes next is waited
            # for as much longer. After a stall the newest sound is in time again, and nothing of this happens.
            end, arrived = self._late
            ahead = (self._live_position + HEARD_CHUNK - end) / HEARD_RATE
            origin = arrived + ahead - (self.position + 2) * CHUNK_SECONDS
            if origin - self._origin <= LONGER_MOST_SECONDS:
                self._origin = max(self._origin, origin)
            self._late_calls = 0
        self._late = None
        return chunk

    def _patience(self, now: float) -> float:
        idle = self._last_live is None or now - self._last_live > IDLE_AFTER_SECONDS
        return 0.0 if idle else PATIENCE_SECONDS

    def _segment(self, segment_id: str) -> _Segment:
        for segment in self._segments:
            if segment.segment_id == segment_id and not segment.ended:
                return segment
        self._segments.append(_Segment(segment_id))
        return self._segments[-1]

    def _speech(self) -> tuple[AudioChunk, str, bool, bool] | None:
        """The next chunk of queued speech, its segment, whether it is the first of it and whether the last."""
        while self._segments:
            segment = self._segments[0]
            if segment.ready:
                chunk = segment.ready.popleft()
                first, segment.begun = not segment.begun, True
                last = segment.ended and not segment.ready
                if last:
                    self._segments.popleft()
                return chunk, segment.segment_id, first, last
            if not segment.ended:
                return None
            self._segments.popleft()
            if segment.begun:
                self._unreported.append(segment.segment_id)
        return None

    def _listened(self, live: AudioChunk | None, speech: tuple[AudioChunk, str, bool, bool] | None) -> Listened:
        content = speech[0] if speech is not None else live
        assert content is not None
        gain = self._gate.open(content.features)
        speaking = self._gate.speaking
        ended, self._unreported = self._unreported, []
        started: str | None = None
        segment_id: str | None = None
        if speech is not None:
            if self._live_segment is not None:
                ended.append(self._live_segment)
                self._live_segment = None
            _, segment_id, first, last = speech
            started = segment_id if first else None
            if last:
                ended.append(segment_id)
        elif speaking and (self._live_segment is not None or not self._gate.quiet()):
            if self._live_segment is None:
                self._turn += 1
                self._live_segment = started = f"live-{self._turn}"
            segment_id = self._live_segment
        elif self._live_segment is not None:
            ended.append(self._live_segment)
            self._live_segment = None
        chunk = AudioChunk(
            pts=self.position * HEARD_CHUNK,
            sound=content.sound,
            features=content.features if gain == 1.0 else content.features * np.float32(gain),
            epoch=self.epoch,
            arrived=live.arrived if live is not None else 0.0,
            invented=content.invented,
        )
        self.position += 1
        return Listened(chunk, speaking, segment_id, started, tuple(ended), self._overdue)
