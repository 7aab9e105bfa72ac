"""The binary frame: 24 bytes of header and a payload; dates in microseconds."""

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

from engine.protocol.closing import Close, ProtocolError
from models.rates import HEARD_RATE

MAGIC: Final = 0xA5
VERSION: Final = 1
HEADER: Final = struct.Struct("<BBBBIIIq")
HEADER_BYTES: Final = HEADER.size  # 24
U32: Final = 0xFFFFFFFF

Message = str | bytes
"""As a websocket takes it: an event, or a binary frame."""


class Kind(IntEnum):
    AUDIO_IN = 1
    FACE = 2
    LANDMARKS = 3
    VIDEO = 4
    AUDIO_OUT = 5
    MESH = 6


class Flag(IntFlag):
    SEGMENT_END = 1
    KEYFRAME = 2
    IDLE = 4
    SPEAKING = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One binary message. `kind` is a plain number, because unknown kinds must be ignored and not refused."""

    kind: int
    flags: int
    seq: int
    epoch: int
    pts_us: int
    payload: bytes


def pack_frame(kind: int, flags: int, seq: int, epoch: int, pts_us: int, payload: bytes) -> bytes:
    """The 24-byte header and the payload. `seq` and `epoch` wrap at 2^32."""
    return HEADER.pack(MAGIC, kind, flags, VERSION, seq & U32, epoch & U32, len(payload), pts_us) + payload


def parse_frame(message: bytes) -> Frame:
    """The frame that `message` is, exactly; ProtocolError(BAD_MESSAGE) otherwise."""
    if len(message) < HEADER_BYTES:
        raise ProtocolError(
            Close.BAD_MESSAGE, f"a binary message has a {HEADER_BYTES}-byte header; {len(message)} came"
        )
    magic, kind, flags, version, seq, epoch, length, pts_us = HEADER.unpack_from(message)
    if magic != MAGIC:
        raise ProtocolError(Close.BAD_MESSAGE, f"a binary message starts with 0xA5, not 0x{magic:02X}")
    if version != VERSION:
        raise ProtocolError(Close.BAD_MESSAGE, f"header version {version} is unknown; this is version {VERSION}")
    if length != len(message) - HEADER_BYTES:
        raise ProtocolError(
            Close.BAD_MESSAGE, f"the header announces {length} bytes of payload; {len(message) - HEADER_BYTES} came"
        )
    return Frame(kind, flags, seq, epoch, pts_us, message[HEADER_BYTES:])


def pts_us_from_heard(pts: int) -> int:
    """48 kHz samples → microseconds, nearest."""
    return (pts * 2_000_000 + HEARD_RATE) // (2 * HEARD_RATE)


def samples_from_us(pts_us: int, rate: int) -> int:
    """Microseconds → samples at `rate`, nearest: undoes the rounding of a client that dated a sample index."""
    return (pts_us * 2 * rate + 1_000_000) // 2_000_000
