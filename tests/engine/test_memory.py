"""What ended sessions leave behind goes back to the system."""

import ctypes
import gc
import resource
import weakref
from pathlib import Path

import pytest

from engine import memory

STATM = Path("/proc/self/statm")


def resident() -> int:
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


class Link:
    """One half of a cycle."""

    def __init__(self) -> None:
        self.other: Link | None = None


def test_a_cycle_of_an_ended_session_is_gone_after_a_collection() -> None:
    gc.disable()
    try:
        one, two = Link(), Link()
        one.other, two.other = two, one
        watched = weakref.ref(one)
        del one, two
        assert watched() is not None
        memory.collect()
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.skipif(not STATM.exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc on Linux")
def test_a_heap_full_of_holes_goes_back_to_the_system() -> None:
    """100 MB in pieces of which one in forty stays: without a trim the holes between them stay resident."""
    before = resident()
    pieces = [bytearray(50_000) for _ in range(2_000)]
    kept = pieces[::40]
    del pieces
    holes = resident() - before
    memory.give_back()
    assert resident() - before < max(sum(map(len, kept)) * 4, holes / 4)


def test_what_is_settled_is_out_of_the_collectors_rounds_until_the_end() -> None:
    frozen = gc.get_freeze_count()
    with memory.settled():
        assert gc.get_freeze_count() > frozen
    assert gc.get_freeze_count() == 0
