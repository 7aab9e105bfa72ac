"""What ended sessions leave behind in this process, given back.

Connections end as cycles of a few thousand objects that hold megabytes, and an encoder's buffers, freed among others
that stay, leave holes in the heap that the C library keeps. Left alone, the collector comes by after some twenty
sessions and pauses everyone, and resident memory climbs by a quarter of a megabyte a session for hundreds of sessions.
"""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def _trimmer() -> Callable[[int], int]:
    """glibc's malloc_trim; where there is another C library, nothing."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return lambda keep: 0
    return trim


_trim = _trimmer()


def collect() -> None:
    """Free what only cycles still hold: 2 to 3 ms for a session's. From the thread that made them."""
    gc.collect()


def give_back() -> None:
    """Give the holes of the heap back to the system. Holds no lock of Python's: call it in a thread."""
    _trim(0)


@contextmanager
def settled() -> Iterator[None]:
    """What exists now lives as long as the block: taken out of the collector's rounds, it pauses nobody."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
