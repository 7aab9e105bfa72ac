"""The model's process: `python -m models.runtime.child JSON`, started by `engine/worker/process.py` alone.

It lives as long as its standard input is open and its parent alive, and as long as the runtime does not raise.
"""

import ctypes
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from models.runtime import Out
from models.runtime.choose import Chosen, open_runtime
from models.runtime.loops import LoopStore, place_of
from models.runtime.rings import Rings, card_fields
from models.runtime.sanity import Sane
from models.runtime.serve import Numbered, serve

PR_SET_PDEATHSIG = 1
LIFELINE = 0
"""Standard input: at its end, so ends this process."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What the owner passes on the command line; descriptors are inherited."""

    backend: str
    packages: list[str]
    slots: int
    lookahead: int | None
    capacity: int  # records in each ring
    parent: int
    rows_bell: int
    outs_bell: int
    ring_memory: int
    loop_memory: int
    loop_disk: int  # -1: there is none
    loop_places: list[dict[str, Any]]  # of loops that an earlier process decoded
    status: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class RingLink:
    """Takes rows from the ring when the bell rings, until the lifeline ends."""

    def __init__(self, orders: Orders, rings: Rings, avatars: Sequence[str]) -> None:
        self._bell = orders.rows_bell
        self._answered_bell = orders.outs_bell
        self._rings = rings
        self._avatars = avatars
        self._taken = 0
        self._answered = 0
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(LIFELINE, select.POLLIN | select.POLLHUP)

    def take(self, wait: bool) -> list[Numbered] | None:
        ready = {descriptor for descriptor, _ in self._poll.poll(None if wait else 0)}
        if LIFELINE in ready:
            return None
        if self._bell not in ready:
            return []
        new = os.eventfd_read(self._bell)
        rows = [self._rings.read_row(self._taken + n, self._avatars) for n in range(new)]
        self._taken += new
        return rows

    def answer(self, outs: Sequence[tuple[int, Out]]) -> None:
        for sequence, out in outs:
            self._rings.write_out(self._answered, sequence, out, len(outs))
            self._answered += 1
        os.eventfd_write(self._answered_bell, len(outs))


def main() -> int:
    orders = Orders(**json.loads(sys.argv[1]))
    die_with(orders.parent)
    for asked in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the server decides when to end
        signal.signal(asked, signal.SIG_IGN)
    store = LoopStore(orders.loop_memory, orders.loop_disk, places=[place_of(told) for told in orders.loop_places])
    try:
        with store.serving():
            chosen = open_runtime(
                orders.backend, [Path(package) for package in orders.packages], orders.slots, orders.lookahead
            )
    except Exception as error:
        ours = isinstance(error, RuntimeError | ValueError)  # says all in its own words
        tell(orders.status, failed=" ".join(str(error).split()) if ours and str(error) else one_line(error))
        return 1
    sane = Sane(chosen.runtime)
    try:
        rings = publish(orders, chosen, store)
        if chosen.better is not None:
            Thread(target=await_better, args=(orders.status, chosen.better), daemon=True).start()
        serve(sane, RingLink(orders, rings, list(sane.cards)))
    except Exception as error:
        tell(orders.status, lost=one_line(error))
        return 1
    sane.close()
    return 0


def await_better(status: int, better: Callable[[], bool]) -> None:
    """In a thread of its own, which only waits: something better is made in another process."""
    if better():
        tell(status, better=True)


def publish(orders: Orders, chosen: Chosen, store: LoopStore) -> Rings:
    """Make the rings' memory and say that this process is ready."""
    cards = list(chosen.runtime.cards.values())
    largest = max((card.width * card.height * 3 // 2 for card in cards), default=0)
    Rings.resize(orders.ring_memory, orders.capacity, largest)
    tell(
        orders.status,
        reason=chosen.reason + ("; it takes over as soon as it is built" if chosen.better is not None else ""),
        improving=chosen.better is not None,
        picture_bytes=largest,
        places=[asdict(store.publish(card)) for card in cards],
        cards=[card_fields(card) for card in cards],
    )
    return Rings(orders.ring_memory, orders.capacity, largest)


def tell(status: int, **fields: object) -> None:
    os.write(status, json.dumps(fields).encode() + b"\n")


def one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, also while a step hangs."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main())
