"""One session, followed: listen → move → paint → play. Read this file first.

    push_audio ─→ Listener ─→ Seat.hear ─→ (mel → voice → landmarks → renderer, in the worker) ─→ Moment ─→ outlets
                  which 40 ms   a future                                                          Playout: when

Chunks get positions 0, 1, 2 … on the session's timeline; a moment's pts is its position in 48 kHz samples. The step
that hears chunk n answers for chunk n - K, so the moment at position m holds the sound of chunk m and the answer to
chunk m + K: sound waits for its picture, and neither can be dated without the other.

What can go wrong has one answer each:
- a picture is late: the newest one there is goes out with this moment's date; the late one is skipped;
- the worker is lost: the loop's own picture goes out with the sound until it is back;
- an interrupt: every position that was on its way keeps its place in time but loses its sound, and the mouth is mixed
  towards the loop's resting one over CLOSING_MOMENTS; answers of the old epoch are dropped where they arrive.
"""

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable

import numpy as np

from engine.clock import Alarm, Clock
from engine.listener import Listened, Listener, Pacing
from engine.media import Floats, Heard, Moment
from engine.picture import lay, loop_index, towards_loop
from engine.playout import Playout
from engine.worker import Seat, SeatBusy, WorkerLost
from models.rates import BLENDSHAPES, CHUNK, CHUNK_SECONDS, HEARD_CHUNK, HEARD_RATE
from models.runtime import Out, Roi, Wants

CLOSING_MOMENTS = 2
"""Moments in which a mouth that was cut off comes to rest: 80 ms."""

FADE_SAMPLES = HEARD_RATE // 100
"""10 ms: what is cut off mid-word fades, it does not click."""

HELD_SECONDS = 0.4
"""How long the last painted picture stands in for those that do not come."""

FIRST_PATIENCE_SECONDS = 0.25
"""How long the very first picture is waited for, before any beat is known."""

FILE_FLIGHT = 6
"""Chunks on their way to the worker when no clock paces them."""

STAGES_KEPT = 250
"""Answers whose stage times are kept: ten seconds."""

SILENCE = np.zeros(CHUNK, dtype=np.float32)
QUIET = np.zeros(HEARD_CHUNK, dtype=np.int16)


class Coming:
    """A moment on its way: its sound is there, its picture is not yet."""

    __slots__ = ("answer", "called", "listened", "overdue", "position", "voided")

    def __init__(self, position: int, listened: Listened, answer: "asyncio.Future[Out]", called: float) -> None:
        self.position = position
        self.called = called
        self.overdue = listened.overdue
        """It, or the chunk that answers it, was waited for in vain: when it is ready says nothing of the beat."""
        self.listened = listened
        self.answer = answer
        """Resolved when chunk `position + K` was answered."""
        self.voided = False


class Pipeline:
    """The flow of one session. `deliver` is called with every moment, on its beat, in order, once."""

    def __init__(
        self,
        seat: Seat,
        clock: Clock,
        listener: Listener,
        deliver: Callable[[Moment, Listened], Awaitable[None]],
        wants: Callable[[], Wants],
        listened: Callable[[], bool] = lambda: True,
    ) -> None:
        self.seat = seat
        self.card = seat.card
        self.clock = clock
        self.listener = listener
        self.playout = Playout()
        self.stage_seconds: dict[str, deque[float]] = {}
        """What each stage of the model took, of the last answers."""
        self._deliver = deliver
        self._wants = wants
        self._listened = listened
        self._coming: deque[Coming] = deque()
        self._asked: deque[Coming] = deque()  # those whose answering chunk has not been heard yet
        self._steps = 0
        self._arrived = Alarm(clock)  # something new for the listener
        self._more = Alarm(clock)  # something new for the player
        self._flight = asyncio.Semaphore(FILE_FLIGHT)
        self._looks_at = -math.inf
        """When it looks for what nobody has pushed; -inf while it is about to look anyway."""
        self._reset = True
        self._finishing = False
        self._newest: tuple[int, Out] | None = None
        self._shown: Roi | None = None
        self._shown_face: Floats | None = None
        self._closing = 0
        self._fading: Heard | None = None

    async def run(self) -> None:
        """Live until cancelled or, for a file, until everything pushed before `finish()` has been delivered."""
        async with self._arrived, self._more, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="listen")
            tasks.create_task(self._play(), name="play")

    def notice(self) -> None:
        """The listener was given something. Live sound goes on at once: what nobody has to wait for wakes nobody."""
        if self.listener.pacing is Pacing.FILE:
            self._arrived.ring()
            return
        self._take()
        when = self.listener.wake_at(self.clock.now())
        if when is not None and when < self._looks_at:
            self._arrived.ring()

    def finish(self) -> None:
        """Files only: what was pushed is all there is."""
        self._finishing = True
        self._arrived.ring()

    def interrupt(self) -> list[str]:
        """Void everything that is on its way, at once. Returns the segments that were cut off."""
        cut = self.listener.interrupt()
        coming_on = [coming for coming in self._coming if not coming.voided]
        segments = [coming.listened.segment_id for coming in coming_on if coming.listened.segment_id]
        segments += [segment for coming in coming_on for segment in coming.listened.ended]
        if coming_on:
            self._fading = coming_on[0].listened.chunk.heard
        for coming in coming_on:
            coming.voided = True
            coming.answer.cancel()
        if self._shown is not None:
            self._closing = CLOSING_MOMENTS
        self._newest = None
        self._reset = True
        self._more.ring()
        return list(dict.fromkeys([*segments, *cut]))

    # Listen and move

    async def _listen(self) -> None:
        while True:
            # Cleared before taking, so that what is pushed meanwhile is not slept through.
            self._arrived.clear()
            if self.listener.pacing is Pacing.FILE:
                for listened in self.listener.take(self.clock.now()):
                    await self._flight.acquire()
                    self._hear(listened)
            else:
                self._take()
            if self._finishing and self.listener.speech_done:
                for _ in range(self.card.lookahead):
                    await self._flight.acquire()
                    self._step(SILENCE)
                self._more.ring()
                return
            when = self.listener.wake_at(self.clock.now())
            self._looks_at = math.inf if when is None else when
            await self._arrived.wait(when)

    def _take(self) -> None:
        for listened in self.listener.take(self.clock.now()):
            self._hear(listened)

    def _hear(self, listened: Listened) -> None:
        position = listened.chunk.pts // HEARD_CHUNK
        coming = Coming(position, listened, asyncio.get_running_loop().create_future(), self.clock.now())
        if self._asked and position - self._asked[-1].position > 1:
            for before in self._asked:  # the listener leapt: they are answered that much later
                before.overdue = True
        self._asked.append(coming)
        self._coming.append(coming)
        if len(self._coming) == 1:  # else the player waits for an answer, and this is none
            self._more.ring()
        self._step(listened.chunk.features, listened.overdue)

    def _step(self, features: Floats, overdue: bool = False) -> None:
        """Send one chunk to the worker; what comes back is the picture of the moment K chunks before it."""
        self._steps += 1
        ripe = self._asked.popleft() if self._steps > self.card.lookahead else None
        position = 0 if ripe is None else ripe.position
        if ripe is not None:
            ripe.overdue |= overdue
        reset, self._reset = self._reset, False
        try:
            heard = self.seat.hear(features, loop_index(position, self.card.frames), self._wants(), reset=reset)
        except SeatBusy as busy:
            heard = asyncio.get_running_loop().create_future()
            heard.set_exception(WorkerLost(str(busy)))
        heard.add_done_callback(lambda done: self._passed_on(ripe, done))

    def _passed_on(self, coming: Coming | None, heard: "asyncio.Future[Out]") -> None:
        if self.listener.pacing is Pacing.FILE:
            self._flight.release()
        lost = heard.cancelled() or heard.exception() is not None
        if coming is None or coming.answer.done():
            return
        self._more.ring()
        if lost:
            coming.answer.cancel()
        else:
            coming.answer.set_result(heard.result())
            self._answered(coming, heard.result())

    def _answered(self, coming: Coming, out: Out) -> None:
        if not coming.overdue:
            self.playout.ready(coming.position, self.clock.now())
        for stage, seconds in (out.stage_seconds or {}).items():
            self.stage_seconds.setdefault(stage, deque(maxlen=STAGES_KEPT)).append(seconds)
        if self._newest is None or self._newest[0] < coming.position:
            self._newest = (coming.position, out)

    # Paint and play

    async def _play(self) -> None:
        while True:
            while not self._coming:
                if self._finishing and self.listener.speech_done:
                    return
                self._more.clear()
                await self._more.wait(None)
            coming = self._coming[0]
            out, shown = await self._picture(coming)
            if self.listener.pacing is not Pacing.FILE and Wants.PICTURE in self._wants():
                due = self.playout.due(coming.position)
                if due is not None and due > self.clock.now():
                    await self.clock.sleep_until(due)
            self._coming.popleft()  # only now: an interrupt while we waited voids this one too
            moment = self._moment(coming, out, shown)
            self.playout.left(shown != coming.position)
            await self._deliver(moment, coming.listened)

    async def _picture(self, coming: Coming) -> tuple[Out | None, int | None]:
        """The answer for a moment, or the newest one there is when its time has come; and the position it is of."""
        give_up: float | None = None
        if self.listener.pacing is not Pacing.FILE:
            give_up = self.playout.give_up(coming.position)
            if give_up is None:
                give_up = self.clock.now() + self.card.lookahead * CHUNK_SECONDS + FIRST_PATIENCE_SECONDS
            elif coming.listened.overdue:
                give_up = max(give_up, coming.called + self.playout.grace)
        while not coming.voided and not coming.answer.done():
            if give_up is not None and give_up <= self.clock.now():
                break
            self._more.clear()
            await self._more.wait(give_up)
        if coming.answer.done() and not coming.answer.cancelled():
            return coming.answer.result(), coming.position
        return (None, None) if self._newest is None else (self._newest[1], self._newest[0])

    def _moment(self, coming: Coming, out: Out | None, shown: int | None) -> Moment:
        chunk = coming.listened.chunk
        index = loop_index(coming.position, self.card.frames)
        wants = self._wants()
        heard, face, points, mesh = chunk.heard if self._listened() else QUIET, None, None, None
        roi: Roi | None = None
        behind = 0.0 if shown is None or coming.voided else (coming.position - shown) * CHUNK_SECONDS
        if coming.voided:
            heard, self._fading = self._faded(), None
        elif out is not None:
            roi, face, points, mesh = out.roi, out.face, out.points, out.mesh
            if behind > HELD_SECONDS:
                roi = None  # the model is away: the loop goes on with its own mouth
            elif shown is not None:
                index = loop_index(shown, self.card.frames)  # a mouth fits the frame that it was painted into
        if self._closing:
            roi, face = self._closed(index, face)
        self._shown, self._shown_face = roi, face
        return Moment(
            pts=chunk.pts,
            epoch=self.listener.epoch,
            heard=heard,
            speaking=coming.listened.speaking and not coming.voided,
            picture=lay(self.card, index, roi) if Wants.PICTURE in wants else None,
            face=face,
            points=points,
            mesh=mesh,
            repeated=shown != coming.position and not coming.voided,
            behind=behind,
            arrived=0.0 if coming.voided else chunk.arrived,
            loop_index=index,
        )

    def _faded(self) -> Heard:
        if self._fading is None:
            return QUIET
        faded = QUIET.copy()
        ramp = np.linspace(1, 0, FADE_SAMPLES, endpoint=False)
        faded[:FADE_SAMPLES] = (self._fading[:FADE_SAMPLES] * ramp).astype(np.int16)
        return faded

    def _closed(self, index: int, face: Floats | None) -> tuple[Roi | None, Floats | None]:
        """The last shown mouth on its way to rest."""
        share = 1 / self._closing
        self._closing -= 1
        roi = None if self._shown is None or share == 1 else towards_loop(self.card, index, self._shown, share)
        if face is None and self._shown_face is not None:
            face = self._shown_face.copy()
            face[:BLENDSHAPES] *= 1 - share
        return roi, face
