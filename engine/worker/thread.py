"""The runtime in a thread of this process, for tests and debugging: a step that hangs cannot be killed here."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from engine.worker.host import Calls, Opened, Terms
from engine.worker.process import POLITE_SECONDS
from models.runtime import Out, Row
from models.runtime.sanity import Sane
from models.runtime.serve import Numbered, serve

log = logging.getLogger(__name__)


class ThreadHost:
    """The runtime in a thread of this process."""

    process_id = None

    def __init__(self, terms: Terms, calls: Calls) -> None:
        self._terms = terms
        self._calls = calls
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Opened] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._rows: deque[Numbered] = deque()
        self._changed = threading.Condition()
        self._over = False
        self._dead = False
        self._thread = threading.Thread(target=self._run, name="liveface model", daemon=True)

    async def open(self) -> Opened:
        self._thread.start()
        return await self._opened

    def send(self, sequence: int, row: Row) -> None:
        with self._changed:
            self._rows.append((sequence, row))
            self._changed.notify()

    def collect(self) -> None:
        """Answers come by themselves."""

    def kill(self) -> None:
        self._dead = True
        self._finish()

    async def close(self) -> None:
        self._dead = True
        self._finish()
        if not self._thread.ident:
            return
        try:
            async with asyncio.timeout(POLITE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            log.error("the model's thread hangs in a step and is left behind")
            return
        self._thread.join()

    def _finish(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            chosen = self._terms.open()
            sane = Sane(chosen.runtime)
            self._tell(self._set_opened, Opened(dict(sane.cards), chosen.reason))
            serve(sane, self)
            sane.close()
        except Exception as error:
            self._tell(self._fail, f"{type(error).__name__}: {error}")
        self._tell(self._ended.set)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        if not self._loop.is_closed():  # as it is when this thread was left behind
            self._loop.call_soon_threadsafe(what, *arguments)

    def take(self, wait: bool) -> list[Numbered] | None:
        with self._changed:
            while wait and not self._rows and not self._over:
                self._changed.wait()
            if self._over:
                return None
            rows = list(self._rows)
            self._rows.clear()
            return rows

    def answer(self, outs: Sequence[tuple[int, Out]]) -> None:
        self._tell(self._hand_over, outs)

    def _hand_over(self, outs: Sequence[tuple[int, Out]]) -> None:
        if not self._dead:
            self._calls.answered(outs)

    def _set_opened(self, opened: Opened) -> None:
        if not self._opened.done():
            self._opened.set_result(opened)

    def _fail(self, reason: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(RuntimeError(reason))
        elif not self._dead:
            self._calls.lost(reason)
