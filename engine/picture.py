"""Pictures in I420: the frame of the loop with what was painted laid over it. Pure; never converts a whole frame."""

import numpy as np

from engine.media import Picture, Plane
from models.runtime import AvatarCard, Roi


def loop_index(position: int, frames: int) -> int:
    """The loop's frame at a position of the timeline: there and back again, so that no end of it ever jumps."""
    if frames == 1:
        return 0
    step = position % (2 * (frames - 1))
    return step if step < frames else 2 * (frames - 1) - step


def planes(frame: Plane, width: int, height: int) -> tuple[Plane, Plane, Plane]:
    """Views of the three planes of one I420 frame `[height * 3 / 2, width]`."""
    chroma = frame[height:].reshape(2, height // 2, width // 2)
    return frame[:height], chroma[0], chroma[1]


def lay(card: AvatarCard, index: int, roi: Roi | None) -> Picture:
    """The loop's frame with the painted part laid over it; without one, the frame itself, not copied."""
    frame = card.loop[index]
    if roi is None:
        return Picture(card.width, card.height, *planes(frame, card.width, card.height))
    y, u, v = planes(frame.copy(), card.width, card.height)
    rows, columns = roi.luma.shape
    y[roi.y : roi.y + rows, roi.x : roi.x + columns] = roi.luma
    half_rows, half_columns = slice(roi.y // 2, (roi.y + rows) // 2), slice(roi.x // 2, (roi.x + columns) // 2)
    u[half_rows, half_columns] = roi.u
    v[half_rows, half_columns] = roi.v
    return Picture(card.width, card.height, y, u, v)


def towards_loop(card: AvatarCard, index: int, roi: Roi, share: float) -> Roi:
    """`roi` with `share` (0…1) of the loop's own frame mixed in: how a mouth closes that was cut off mid-word."""
    y, u, v = planes(card.loop[index], card.width, card.height)
    rows, columns = roi.luma.shape
    half = np.s_[roi.y // 2 : (roi.y + rows) // 2, roi.x // 2 : (roi.x + columns) // 2]
    return Roi(
        roi.x,
        roi.y,
        _mix(roi.luma, y[roi.y : roi.y + rows, roi.x : roi.x + columns], share),
        _mix(roi.u, u[half], share),
        _mix(roi.v, v[half], share),
    )


def _mix(ours: Plane, theirs: Plane, share: float) -> Plane:
    weight = round(256 * share)
    mixed = ours.astype(np.uint16) * (256 - weight) + theirs.astype(np.uint16) * weight
    return ((mixed + 128) >> 8).astype(np.uint8)
