"""Memory shared by the model's process and its owner: rows one way, answers the other.

Everything lives in anonymous memory (memfd), so nothing is left behind when both sides are gone, however they went.
A ring is an array of fixed-size records. Its reader learns how many are new from an eventfd, which is also the memory
barrier; the owner never has more rows under way than the rings have records, so neither can overflow.
"""

import mmap
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.rates import CHUNK, DENSE_POINTS, FACE, POINTS
from models.runtime import STAGES, Bytes, Out, Roi, Row, Wants

Record = npt.NDArray[np.void]

ROW = np.dtype(
    [
        ("sequence", "<i8"),
        ("generation", "<i8"),
        ("slot", "<i4"),
        ("avatar", "<i4"),  # its place in the order of the packages
        ("loop_index", "<i4"),
        ("wants", "<i4"),
        ("reset", "<i4"),
        ("pcm", "<f4", CHUNK),
    ],
    align=True,
)


def out_record(picture_bytes: int) -> np.dtype[np.void]:
    """The record of an answer whose picture is at most that large, in I420."""
    return np.dtype(
        [
            ("sequence", "<i8"),
            ("generation", "<i8"),
            ("slot", "<i4"),
            ("has", "<i4"),  # Wants flags of what is there, and TIMED
            ("held", "<i4"),
            ("rows", "<i4"),  # of the step that made it
            ("rectangle", "<i4", 4),  # x, y, width, height
            ("stages", "<f4", len(STAGES)),
            ("points", "<f4", (POINTS, 3)),
            ("face", "<f4", FACE),
            ("mesh", "<f4", (DENSE_POINTS, 3)),
            ("picture", "u1", picture_bytes),
        ],
        align=True,
    )


TIMED = 1 << 16


def anonymous(name: str) -> int:
    """A file descriptor of memory with no name in any file system, closed on exec unless it is passed on."""
    if not hasattr(os, "memfd_create"):
        raise RuntimeError("the model's process needs Linux (memfd); use --runtime inline here")
    return os.memfd_create(f"liveface-{name}")


class Rings:
    """Both rings over one shared memory. Each side makes one; the first `resize`s the memory."""

    def __init__(self, memory: int, capacity: int, picture_bytes: int) -> None:
        out = out_record(picture_bytes)
        rows_bytes = ROW.itemsize * capacity
        self._map = mmap.mmap(memory, rows_bytes + out.itemsize * capacity)
        self._rows: Record = np.frombuffer(self._map, ROW, capacity)
        self._outs: Record = np.frombuffer(self._map, out, capacity, offset=rows_bytes)
        self._capacity = capacity

    @staticmethod
    def resize(memory: int, capacity: int, picture_bytes: int) -> None:
        """Give the memory its size; pages are taken only as they are written."""
        os.ftruncate(memory, (ROW.itemsize + out_record(picture_bytes).itemsize) * capacity)

    def write_row(self, index: int, sequence: int, row: Row, avatar: int) -> None:
        record = self._rows[index % self._capacity]
        record["sequence"] = sequence
        record["generation"] = row.generation
        record["slot"] = row.slot
        record["avatar"] = avatar
        record["loop_index"] = row.loop_index
        record["wants"] = row.wants.value
        record["reset"] = row.reset
        record["pcm"] = row.pcm

    def read_row(self, index: int, avatars: Sequence[str]) -> tuple[int, Row]:
        record = self._rows[index % self._capacity]
        row = Row(
            slot=int(record["slot"]),
            generation=int(record["generation"]),
            reset=bool(record["reset"]),
            avatar=avatars[int(record["avatar"])],
            pcm=record["pcm"].copy(),
            loop_index=int(record["loop_index"]),
            wants=Wants(int(record["wants"])),
        )
        return int(record["sequence"]), row

    def write_out(self, index: int, sequence: int, out: Out, rows: int = 1) -> None:
        record = self._outs[index % self._capacity]
        record["sequence"] = sequence
        record["generation"] = out.generation
        record["slot"] = out.slot
        record["held"] = out.held
        record["rows"] = rows
        has = 0
        if out.points is not None:
            has |= Wants.POINTS.value
            record["points"] = out.points
        if out.face is not None:
            has |= Wants.FACE.value
            record["face"] = out.face
        if out.mesh is not None:
            has |= Wants.MESH.value
            record["mesh"] = out.mesh
        if out.roi is not None:
            has |= Wants.PICTURE.value
            height, width = out.roi.luma.shape
            record["rectangle"] = out.roi.x, out.roi.y, width, height
            luma, quarter = width * height, width * height // 4
            picture = record["picture"]
            picture[:luma].reshape(height, width)[:] = out.roi.luma
            picture[luma : luma + quarter].reshape(height // 2, width // 2)[:] = out.roi.u
            picture[luma + quarter : luma + 2 * quarter].reshape(height // 2, width // 2)[:] = out.roi.v
        if out.stage_seconds is not None:
            has |= TIMED
            record["stages"] = [out.stage_seconds.get(stage, 0.0) for stage in STAGES]
        record["has"] = has

    def rows_of(self, index: int) -> int:
        """How many rows the step had that made this answer."""
        return int(self._outs[index % self._capacity]["rows"])

    def read_out(self, index: int) -> tuple[int, Out]:
        """The arrays of the answer are copies: the record is free when this returns."""
        record = self._outs[index % self._capacity]
        has = int(record["has"])
        roi = None
        if has & Wants.PICTURE.value:
            x, y, width, height = record["rectangle"].tolist()
            luma, quarter = width * height, width * height // 4
            picture: Bytes = record["picture"][: luma + 2 * quarter].copy()
            picture.flags.writeable = False
            roi = Roi(
                x,
                y,
                picture[:luma].reshape(height, width),
                picture[luma : luma + quarter].reshape(height // 2, width // 2),
                picture[luma + quarter :].reshape(height // 2, width // 2),
            )
        stages: Mapping[str, float] | None = None
        if has & TIMED:
            stages = dict(zip(STAGES, record["stages"].tolist(), strict=True))
        out = Out(
            slot=int(record["slot"]),
            generation=int(record["generation"]),
            points=record["points"].copy() if has & Wants.POINTS.value else None,
            face=record["face"].copy() if has & Wants.FACE.value else None,
            mesh=record["mesh"].copy() if has & Wants.MESH.value else None,
            roi=roi,
            stage_seconds=stages,
            held=bool(record["held"]),
        )
        return int(record["sequence"]), out

    def close(self) -> None:
        """Unmap. The rings are not to be used afterwards."""
        del self._rows, self._outs
        self._map.close()


def card_fields(card: Any) -> dict[str, Any]:
    """An `AvatarCard` without its loop, as JSON."""
    return {
        "name": card.name,
        "revision": card.revision,
        "width": card.width,
        "height": card.height,
        "lookahead": card.lookahead,
        "synthetic": card.synthetic,
        "label": card.label,
    }
