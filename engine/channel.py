"""A queue that is bounded, can be closed, and counts. What happens when it is full is said where it is made.

- `"drop_oldest"`: the newest matters (pictures for a viewer). `put_nowait` always succeeds and throws the oldest away.
- `"refuse"`: nothing may be lost in silence (events). `put_nowait` raises `ChannelFullError`; the caller decides.
- `"wait"`: the sender is slowed down (speech faster than real time). `await put(...)` waits for room; `put_nowait`
  raises `ChannelFullError`.

Closing ends iteration after what is already inside has been taken; `close(discard=True)` throws that away and counts
it as dropped. One event loop owns a channel; it is not for threads.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Full = Literal["drop_oldest", "refuse", "wait"]


class ChannelClosedError(Exception):
    """Nothing more goes in, or nothing more comes out."""


class ChannelFullError(Exception):
    """No room, and this channel does not throw away."""


class Channel(Generic[T]):
    """At most `capacity` items between one or more senders and one or more takers, first in, first out."""

    def __init__(self, capacity: int, full: Full = "drop_oldest", name: str = "channel") -> None:
        if capacity < 1:
            raise ValueError(f"channel {name!r} needs a capacity of at least 1, not {capacity}")
        if full not in ("drop_oldest", "refuse", "wait"):
            raise ValueError(f"channel {name!r} cannot do {full!r} when full: drop_oldest, refuse or wait")
        self.capacity = capacity
        self.full = full
        self.name = name
        self.received = 0
        """Items that went in."""
        self.dropped = 0
        """Items that went in and were thrown away, never taken."""
        self._items: deque[T] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()
        self._senders: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        return self._closed

    def put_nowait(self, item: T) -> None:
        """Put without waiting. Raises `ChannelClosedError`, or `ChannelFullError` where nothing may be thrown away."""
        if self._closed:
            raise ChannelClosedError(self.name)
        if len(self._items) >= self.capacity:
            if self.full != "drop_oldest":
                raise ChannelFullError(f"{self.name} holds {self.capacity} items")
            self._items.popleft()
            self.dropped += 1
        self._items.append(item)
        self.received += 1
        _wake_one(self._takers)

    async def put(self, item: T) -> None:
        """Put; on a `"wait"` channel, wait for room. Raises `ChannelClosedError`, also when closed while waiting."""
        while self.full == "wait" and not self._closed and len(self._items) >= self.capacity:
            await self._wait(self._senders)
        self.put_nowait(item)

    def get_nowait(self) -> T | None:
        """The oldest item, or None when nothing is inside."""
        if not self._items:
            return None
        item = self._items.popleft()
        _wake_one(self._senders)
        return item

    async def get(self) -> T:
        """Wait for the oldest item. Raises `ChannelClosedError` when closed and empty. Losing a race loses no item."""
        while not self._items:
            if self._closed:
                raise ChannelClosedError(self.name)
            await self._wait(self._takers)
        item = self._items.popleft()
        _wake_one(self._senders)
        return item

    def clear(self) -> int:
        """Throw away what is inside (an interrupt) and say how many items that was."""
        thrown = len(self._items)
        self._items.clear()
        self.dropped += thrown
        for _ in range(thrown):
            _wake_one(self._senders)
        return thrown

    def close(self, discard: bool = False) -> None:
        """End it; twice is once. Takers get what is inside, then the end; waiting senders get `ChannelClosedError`."""
        self._closed = True
        if discard:
            self.clear()
        for waiter in (*self._takers, *self._senders):
            if not waiter.done():
                waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[T]:
        return self._until_closed()

    async def _until_closed(self) -> AsyncIterator[T]:
        while True:
            try:
                item = await self.get()
            except ChannelClosedError:
                return
            yield item

    async def __aenter__(self) -> "Channel[T]":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(discard=True)

    async def _wait(self, line: deque[asyncio.Future[None]]) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # Woken and cancelled in one turn: the wake belongs to the next in line, or an item would sit unseen.
            if waiter.done() and not waiter.cancelled():
                _wake_one(line)
            raise
        finally:
            if waiter in line:
                line.remove(waiter)


def _wake_one(line: deque[asyncio.Future[None]]) -> None:
    while line:
        waiter = line.popleft()
        if not waiter.done():
            waiter.set_result(None)
            return
