"""Pictures and sound into what RTP carries: VP8, H.264 and Opus through PyAV, and payloads by RFC 7741 and RFC 6184.

I420 goes in as it is. Nothing here knows of sockets or asyncio: one thread at a time calls `encode`, and `ask_keyframe`
and `set_bitrate` may come from another. Media time is the only clock: pts count 48 kHz samples.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from engine.media import Heard, Picture
from models.rates import FRAME_RATE, HEARD_CHUNK, HEARD_RATE

logger = logging.getLogger(__name__)

PAYLOAD_MOST: Final = 1_100
"""Bytes of RTP payload: with RTP, its extensions, SRTP, UDP and IPv6 under 1,200, so that VPNs pass."""

KEYFRAME_SPACING: Final = HEARD_RATE // 2
"""Samples between key frames that were asked for: a storm of requests costs two a second."""

KEYFRAME_INTERVAL: Final = 20 * FRAME_RATE
"""Frames after which one comes anyway, for a viewer whose requests are all lost."""

BITRATE_LEAST: Final = 120_000
BITRATE_MOST: Final = 4_000_000
BITRATE_RISE: Final = 0.25
BITRATE_FALL: Final = 0.15
"""A wish within these fractions of the running bit rate changes nothing: for VP8 a change costs a key frame."""

BITRATE_SPACING: Final = HEARD_RATE
"""Samples between two changes of the bit rate."""

SIDE_LEAST: Final = 16
PIXELS_MOST: Final = 1_920 * 1_088

SOUND_FRAME: Final = HEARD_RATE // 50
"""960 samples: 20 ms, two to a chunk. Longer frames get wrong RTP times from common receivers."""


class PictureSizeError(ValueError):
    """A picture that no encoder here takes; the message says which sizes it does."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One picture, ready to be cut into payloads."""

    data: bytes  # one VP8 frame, or one H.264 access unit in Annex B
    keyframe: bool
    pts: int


class KeyFrames:
    """Pure: any number of requests, at most one key frame in `KEYFRAME_SPACING`."""

    def __init__(self, spacing: int = KEYFRAME_SPACING) -> None:
        self._spacing = spacing
        self._wanted = True
        self._last: int | None = None

    def ask(self) -> None:
        self._wanted = True

    def due(self, pts: int) -> bool:
        """Whether the picture at `pts` shall be one."""
        return self._wanted and (self._last is None or not 0 <= pts - self._last < self._spacing)

    def made(self, pts: int) -> None:
        """The picture at `pts` was one, asked for or not."""
        self._wanted = False
        self._last = pts


class Bitrate:
    """Pure: follows wishes no faster than once in `BITRATE_SPACING` and not for little."""

    def __init__(self, bits_per_second: int) -> None:
        self.running = bound_bitrate(bits_per_second)
        self.wished = self.running
        self._changed: int | None = None

    def change(self, pts: int) -> int | None:
        """The bit rate to switch to at `pts`, or None to stay."""
        if self.running * (1 - BITRATE_FALL) <= self.wished <= self.running * (1 + BITRATE_RISE):
            return None
        if self._changed is not None and 0 <= pts - self._changed < BITRATE_SPACING:
            return None
        self._changed = pts
        self.running = self.wished
        return self.running


CONGESTED_LOSS: Final = 0.10
CONGESTED_SECONDS: Final = 0.25
"""A round trip this much longer than the shortest one means a queue."""

HICCUP: Final = 0.5
"""The limit falls to this share of itself at most for one bad report: a still face sends little when a hiccup comes."""

GROWTH_PER_SECOND: Final = 1.10
SOUND_BITRATE: Final = 64_000
"""Bits per second that sound and reports take of a path, with headers."""


class Headroom:
    """Pure: what one viewer's path carries, from its own estimates (REMB), its losses and what is being sent to it.

    A receiver's estimate never exceeds about 1.5 times what it is sent: while a still face costs little it says little
    and means nothing. Only an estimate below what is being sent, a tenth of the packets lost, or a round trip that
    shows a queue is congestion; after it the limit grows by a tenth a second until it is none.
    """

    def __init__(self, ceiling: int) -> None:
        self.limit: int | None = None
        """Bits per second to stay below; None when nothing is known to be in the way."""
        self._ceiling = ceiling
        self._changed = 0.0
        self._shortest: float | None = None  # round trip

    def estimated(self, estimate: int, sending: float, now: float) -> None:
        """The receiver estimates `estimate` bits per second while `sending` are being sent."""
        if estimate < sending:
            self._shrink(min(estimate * 0.9 - SOUND_BITRATE, sending * 0.9), now)
        else:
            self._grow(now)

    def lost(self, fraction: float, sending: float, now: float) -> None:
        """The receiver reports this fraction of the packets since its last report as lost."""
        if fraction > CONGESTED_LOSS:
            self._shrink(sending * (1 - fraction / 2), now, least=HICCUP)
        else:
            self._grow(now)

    def travelled(self, round_trip: float, sending: float, now: float) -> None:
        """A packet and its answer took `round_trip` seconds."""
        self._shortest = round_trip if self._shortest is None else min(round_trip, self._shortest)
        if round_trip > self._shortest + CONGESTED_SECONDS:
            self._shrink(sending * 0.7, now, least=HICCUP)

    def _shrink(self, wished: float, now: float, least: float = 0.0) -> None:
        limit = self._ceiling if self.limit is None else self.limit
        self.limit = bound_bitrate(min(round(max(wished, least * limit)), limit))
        self._changed = now

    def _grow(self, now: float) -> None:
        if self.limit is None:
            return
        grown = self.limit * GROWTH_PER_SECOND ** max(0.0, now - self._changed)
        self.limit = round(grown) if grown < self._ceiling else None
        self._changed = now


def bound_bitrate(bits_per_second: int) -> int:
    return max(BITRATE_LEAST, min(int(bits_per_second), BITRATE_MOST))


OpenContext = Callable[[int, int, int], VideoCodecContext]
"""(width, height, bits per second) → an encoder. Add a codec or a chip by writing one of these."""


def _context(name: str, width: int, height: int, bitrate: int, options: Mapping[str, str]) -> VideoCodecContext:
    context = av.CodecContext.create(name, "w")
    if not isinstance(context, VideoCodecContext):
        raise TypeError(f"{name} is no video encoder")
    context.width, context.height = width, height
    context.pix_fmt = "yuv420p"
    context.bit_rate = bitrate
    context.time_base = Fraction(1, FRAME_RATE)
    context.framerate = Fraction(FRAME_RATE)
    context.gop_size = KEYFRAME_INTERVAL
    context.max_b_frames = 0
    context.thread_count = 1  # sessions are what runs in parallel
    context.options = dict(options)
    return context


def open_vp8(width: int, height: int, bitrate: int) -> VideoCodecContext:
    options = {
        "deadline": "realtime",
        "cpu-used": "-8",
        "lag-in-frames": "0",
        "error-resilient": "default",  # a lost frame hurts until the next refresh, not until the next key frame
        "static-thresh": "100",  # what hardly changed is not coded again: bits go to the mouth
        "minrate": str(bitrate),  # equal rates mean constant bit rate
        "maxrate": str(bitrate),
        "bufsize": str(bitrate),
        "undershoot-pct": "100",
        "overshoot-pct": "15",
        "drop-threshold": "30",  # rather fewer pictures than a queue on the way
        "max-intra-rate": "600",  # per cent of a frame's share: caps the burst that a key frame is
        "qmin": "2",
        "qmax": "56",
    }
    return _context("libvpx", width, height, bitrate, options)


def open_x264(width: int, height: int, bitrate: int) -> VideoCodecContext:
    options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "profile": "baseline",
        "forced-idr": "1",
        "maxrate": str(bitrate),
        "bufsize": str(bitrate // 2),
        "x264-params": "scenecut=0:repeat-headers=1",
    }
    return _context("libx264", width, height, bitrate, options)


def open_nvenc(width: int, height: int, bitrate: int) -> VideoCodecContext:
    options = {
        "preset": "p3",
        "tune": "ull",
        "profile": "baseline",
        "rc": "cbr",
        "zerolatency": "1",
        "delay": "0",
        "forced-idr": "1",
        "maxrate": str(bitrate),
        "bufsize": str(bitrate // 2),
    }
    return _context("h264_nvenc", width, height, bitrate, options)


def nvenc_refusal() -> str | None:
    """Why NVENC cannot be used here, or None when it encoded a picture. Blocks for as long as the driver takes."""
    grey = np.full((256, 256), 128, np.uint8)
    picture = Picture(256, 256, grey, grey[:128, :128], grey[:128, :128])
    try:
        context = open_nvenc(256, 256, 500_000)
        context.encode(_frame(picture, 0, keyframe=True))
        context.encode(None)
    except (av.FFmpegError, OSError, ValueError, TypeError) as error:
        return str(error).split(": 'avcodec")[0] or type(error).__name__
    return None


def choose_h264() -> OpenContext:
    """NVENC when this machine has it, else the CPU; a line in the log says which. Blocks: call it at the start."""
    refusal = nvenc_refusal()
    if refusal is None:
        logger.info("H.264 is encoded by NVENC")
        return open_nvenc
    logger.info("H.264 is encoded on the CPU (NVENC did not open: %s)", refusal)
    return open_x264


def _frame(picture: Picture, number: int, keyframe: bool) -> av.VideoFrame:
    frame = av.VideoFrame(picture.width, picture.height, "yuv420p")
    for plane, pixels in zip(frame.planes, (picture.y, picture.u, picture.v), strict=True):
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # writable; rows are padded
        rows[: pixels.shape[0], : pixels.shape[1]] = pixels
    frame.pts = number
    frame.time_base = Fraction(1, FRAME_RATE)
    frame.pict_type = PictureType.I if keyframe else PictureType.NONE
    return frame


class VideoEncoder:
    """One stream of pictures in one codec, for any number of viewers.

    `encode` in media order, from one thread at a time. A new size or bit rate makes a new context and a key frame.
    """

    def __init__(self, open_context: OpenContext, bitrate: int) -> None:
        self._open = open_context
        self._context: VideoCodecContext | None = None
        self._keyframes = KeyFrames()
        self._bitrate = Bitrate(bitrate)
        self._number = 0
        self._last: int | None = None
        self.frames = 0
        self.keyframes = 0
        self.opened = 0
        self.failed = 0

    @property
    def bitrate(self) -> int:
        """Bits per second that the encoder runs at."""
        return self._bitrate.running

    def set_bitrate(self, bits_per_second: int) -> None:
        """Wish for a bit rate; it is bounded, and followed with hysteresis."""
        self._bitrate.wished = bound_bitrate(bits_per_second)

    def ask_keyframe(self) -> None:
        """Wish for a key frame; requests within half a second are one."""
        self._keyframes.ask()

    def encode(self, picture: Picture, pts: int) -> Encoded | None:
        """The picture of media time `pts`, or None when the codec's rate control leaves it out.

        Raises `PictureSizeError` for a size that is not even, too small or too large.
        """
        check_size(picture)
        bitrate = self._bitrate.change(pts)
        context = self._context
        if context is None or bitrate or (context.width, context.height) != (picture.width, picture.height):
            context = self._context = self._open(picture.width, picture.height, self._bitrate.running)
            self._number, self.opened = 0, self.opened + 1
            self._keyframes.ask()
        elif self._last is not None:
            self._number += max(1, round((pts - self._last) / HEARD_CHUNK))
        self._last = pts
        try:
            packets = context.encode(_frame(picture, self._number, self._number == 0 or self._keyframes.due(pts)))
        except av.FFmpegError as error:
            self._fail(error)
            return None
        data = b"".join(bytes(packet) for packet in packets)
        if not data:
            return None
        keyframe = any(packet.is_keyframe for packet in packets)
        self.frames += 1
        if keyframe:
            self.keyframes += 1
            self._keyframes.made(pts)
        return Encoded(data, keyframe, pts)

    def _fail(self, error: av.FFmpegError) -> None:
        """The next picture opens it anew, a chip that gave up is not asked again."""
        logger.warning("an encoder failed and is opened anew: %s", error)
        self.failed += 1
        self._context = None
        if self._open is open_nvenc:
            self._open = open_x264


def check_size(picture: Picture) -> None:
    width, height = picture.width, picture.height
    if width % 2 or height % 2 or min(width, height) < SIDE_LEAST or width * height > PIXELS_MOST:
        raise PictureSizeError(
            f"A picture of {width}x{height} cannot be encoded: sides must be even, at least {SIDE_LEAST} pixels, "
            f"and the area at most {PIXELS_MOST} pixels."
        )


class SoundEncoder:
    """Mono Opus for the ear: each 40 ms become two packets of 20 ms. It delays the sound by Opus' own 6.5 ms."""

    def __init__(self, bitrate: int = 40_000) -> None:
        context = av.CodecContext.create("libopus", "w")
        if not isinstance(context, av.AudioCodecContext):
            raise TypeError("libopus is no audio encoder")
        context.sample_rate = HEARD_RATE
        context.layout = "mono"
        context.format = "s16"
        context.bit_rate = bitrate
        context.time_base = Fraction(1, HEARD_RATE)
        # In-band FEC: browsers mend a lost packet from the one after it.
        context.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "5"}
        self._context = context
        self._samples = 0

    def encode(self, heard: Heard) -> list[bytes]:
        """Payloads of 20 ms each; `heard` is s16 [n x 960]."""
        payloads = []
        for start in range(0, heard.shape[0], SOUND_FRAME):
            frame = av.AudioFrame.from_ndarray(heard[None, start : start + SOUND_FRAME], format="s16", layout="mono")
            frame.sample_rate = HEARD_RATE
            frame.pts = self._samples
            self._samples += SOUND_FRAME
            payloads += [bytes(packet) for packet in self._context.encode(frame)]
        return payloads


def vp8_payloads(data: bytes, picture_id: int, most: int = PAYLOAD_MOST) -> list[bytes]:
    """Cut a VP8 frame into near-equal payloads, each with a descriptor of RFC 7741 and a 15-bit picture id."""
    identity = (0x8000 | (picture_id & 0x7FFF)).to_bytes(2, "big")
    count = -(-len(data) // (most - 4))
    edges = [len(data) * i // count for i in range(count + 1)]
    return [
        bytes([0x90 if i == 0 else 0x80, 0x80]) + identity + data[edges[i] : edges[i + 1]] for i in range(count)
    ]  # X bit, S bit on the first; then I bit


_SEI, _SPS, _PPS, _DELIMITER = 6, 7, 8, 9
_STAP_A, _FU_A = 24, 28


def nal_units(data: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B access unit, without start codes."""
    start = data.find(b"\0\0\1")
    while start >= 0:
        after = data.find(b"\0\0\1", start + 3)
        unit = data[start + 3 : after if after >= 0 else len(data)]
        yield unit.rstrip(b"\0") if after >= 0 else unit  # a four-byte start code leaves a zero behind
        start = after


def h264_payloads(data: bytes, most: int = PAYLOAD_MOST) -> list[bytes]:
    """Cut an access unit into payloads of RFC 6184, packetisation mode 1.

    Parameter sets travel together in one STAP-A, so that one loss cannot part them; SEI and delimiters stay here.
    """
    payloads: list[bytes] = []
    sets: list[bytes] = []
    for unit in nal_units(data):
        if not unit or unit[0] & 0x1F in (_SEI, _DELIMITER):
            continue
        if unit[0] & 0x1F in (_SPS, _PPS):
            sets.append(unit)
            continue
        if sets:
            payloads.append(_aggregate(sets))
            sets = []
        payloads += [unit] if len(unit) <= most else _fragments(unit, most)
    if sets:
        payloads.append(_aggregate(sets))
    return payloads


def _aggregate(units: list[bytes]) -> bytes:
    head = bytes([max(unit[0] & 0x60 for unit in units) | _STAP_A])
    return head + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _fragments(unit: bytes, most: int) -> list[bytes]:
    indicator, kind, body = (unit[0] & 0xE0) | _FU_A, unit[0] & 0x1F, unit[1:]
    count = -(-len(body) // (most - 2))
    edges = [len(body) * i // count for i in range(count + 1)]
    return [
        bytes([indicator, kind | (0x80 if i == 0 else 0) | (0x40 if i == count - 1 else 0)])
        + body[edges[i] : edges[i + 1]]
        for i in range(count)
    ]
