"""A number in the picture, for measuring: what leaves under which date is read from the picture itself. Pure.

With `liveface serve --probe` every moment goes through `stamp`: in the upper left corner its position is written as
blocks of 8 x 8 black or white pixels, three rows of eight: 16 bits of number, one that says whether the moment's own
sound is loud, one that the picture is the one before again, two of nothing, and 4 of check sum. Blocks that large
survive VP8 at 250 kbit/s (tests). A receiver thus knows, without any clock in common, which 40 ms of sound it sees, and
by the loud bit which of its own they are.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.media import Heard, Moment, Picture
from models.rates import HEARD_CHUNK

BLOCK = 8
ROWS, COLUMNS = 3, 8
BITS = 16
NUMBERS = 1 << BITS
"""Numbers go round after so many moments: 43 minutes."""

LOUD = 1_000
"""Root mean square of a loud chunk, in s16 steps: -30 dB of full scale."""

BLACK, WHITE = 16, 235
CLEAR = 40
"""How far from the middle a block must be to count as black or white."""

Luma = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a stamped picture says."""

    number: int
    loud: bool = False
    repeated: bool = False


def stamp(moment: Moment) -> Moment:
    """The same moment with its mark in a copy of its picture; without a picture, the moment itself."""
    picture = moment.picture
    if picture is None or picture.height < ROWS * BLOCK or picture.width < COLUMNS * BLOCK:
        return moment
    bits = _bits(Mark(moment.pts // HEARD_CHUNK % NUMBERS, loud(moment.heard), moment.repeated))
    height, width = ROWS * BLOCK, COLUMNS * BLOCK
    y, u, v = picture.y.copy(), picture.u.copy(), picture.v.copy()
    y[:height, :width] = np.where(bits.reshape(ROWS, COLUMNS), WHITE, BLACK).repeat(BLOCK, 0).repeat(BLOCK, 1)
    u[: height // 2, : width // 2] = 128
    v[: height // 2, : width // 2] = 128
    return replace(moment, picture=Picture(picture.width, picture.height, y, u, v))


def read(luma: Luma) -> Mark | None:
    """The mark of a decoded picture, or None where there is none that can be trusted. `luma` is [height, width]."""
    if luma.shape[0] < ROWS * BLOCK or luma.shape[1] < COLUMNS * BLOCK:
        return None
    blocks = luma[: ROWS * BLOCK, : COLUMNS * BLOCK].reshape(ROWS, BLOCK, COLUMNS, BLOCK)
    # The rim of a block may have run into its neighbour.
    means = blocks[:, 2:-2, :, 2:-2].astype(np.float32).mean(axis=(1, 3)).ravel()
    middle = (BLACK + WHITE) / 2
    if np.abs(means - middle).min() < CLEAR:
        return None
    bits = means > middle
    mark = Mark(int(bits[:BITS] @ (1 << np.arange(BITS))), bool(bits[BITS]), bool(bits[BITS + 1]))
    return mark if np.array_equal(bits, _bits(mark)) else None


def loud(heard: Heard) -> bool:
    """Whether a chunk counts as loud in a mark."""
    return float(np.mean(np.square(heard, dtype=np.float64))) >= LOUD**2


def _bits(mark: Mark) -> npt.NDArray[np.bool_]:
    """24 bits, as they stand in rows."""
    value = mark.number | mark.loud << BITS | mark.repeated << (BITS + 1)
    # Odd factors: any one wrong bit changes the sum.
    check = 9 + sum((value >> shift & 15) * factor for shift, factor in ((0, 1), (4, 3), (8, 5), (12, 7), (16, 11)))
    value |= (check & 15) << 20
    return np.array([value >> bit & 1 for bit in range(ROWS * COLUMNS)], np.bool_)
