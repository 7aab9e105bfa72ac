"""Which moment is due now. Pure: times come in as arguments, decisions go out.

A moment leaves when its picture is ready, but not before its turn: the beat is a high quantile of how late moments
were ready over the last two seconds, so one slow picture moves nothing and a machine that slowed down is followed
within two seconds, both ways. A picture that misses its turn by more than the grace is not waited for: the one before
is shown again, the sound goes on, and the late one is skipped. Nothing is ever queued up behind it.

The beat follows the sound that comes in, not the server's clock: a microphone that runs 100 ppm fast moves it by as
much, and sound and picture stay one value all along.
"""

from bisect import bisect_left, insort
from collections import deque

from models.rates import CHUNK_SECONDS

WINDOW = 50
"""Moments that the beat is made of: two seconds."""

QUANTILE = 0.9
GRACE_SECONDS = 0.030
"""How far behind the beat a picture may be before the one before it is repeated."""


class Playout:
    """The beat of one session. `position` counts moments; times are seconds of one clock."""

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self.on_time = 0
        self.repeated = 0
        self._offsets: deque[float] = deque()
        self._ranked: list[float] = []  # the same, rising
        self._beat: float | None = None

    def ready(self, position: int, at: float) -> None:
        """The sound and the picture of `position` were both there at `at`, in time or not."""
        offset, ranked = at - position * CHUNK_SECONDS, self._ranked
        if len(self._offsets) == WINDOW:
            del ranked[bisect_left(ranked, self._offsets.popleft())]
        self._offsets.append(offset)
        insort(ranked, offset)
        self._beat = ranked[min(len(ranked) - 1, int(QUANTILE * len(ranked)))]

    def due(self, position: int) -> float | None:
        """When `position` should leave. None while nothing is known: as soon as it can."""
        return None if self._beat is None else self._beat + position * CHUNK_SECONDS

    def give_up(self, position: int) -> float | None:
        """When to stop waiting for the picture of `position` and show the one before it again."""
        due = self.due(position)
        return None if due is None else due + self.grace

    def left(self, repeated: bool) -> None:
        """A moment went out, with its own picture or with the one before."""
        if repeated:
            self.repeated += 1
        else:
            self.on_time += 1

    def restart(self) -> None:
        """Forget the beat: the session stood still for a reason that says nothing of the next moments."""
        self._offsets.clear()
        self._ranked.clear()
        self._beat = None
