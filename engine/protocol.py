"""`avatar.v1` without sockets: messages in, actions out, and back. The public contract is clients/PROTOCOL.md.

Pure: no I/O, no clock (time is an argument, in seconds). From top to bottom: close codes; the binary frame; its
payloads; coordinate systems; rates; JSON events; what a client says; the state machine that reads a client; how a
moment is written down for it; the box of what it has yet to be sent. The JSON events travel on the WebRTC data channel
too.
"""

import base64
import binascii
import json
import math
import re
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as with_default
from enum import Enum, IntEnum, IntFlag
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from engine.media import Event, Moment
from models import face as faces
from models.rates import BLENDSHAPES, FACE, HEARD_CHUNK, HEARD_RATE, VISEMES

Floats = npt.NDArray[np.float32]
Sound = npt.NDArray[np.int16]

SUBPROTOCOL: Final = "avatar.v1"
PROTOCOL: Final = "1.0"
PATH: Final = "/v1/stream"
MESSAGE_BYTES_MOST: Final = 64 * 1024

# --- How a connection ends -------------------------------------------------------------------------------------------


class Close(Enum):
    """A websocket close code and the string that stands beside it, in `error.code` and as the close reason."""

    OK = (1000, "ok")
    GOING_AWAY = (1001, "going_away")
    BAD_MESSAGE = (1003, "bad_message")
    POLICY = (1008, "policy")
    TOO_BIG = (1009, "too_big")
    INTERNAL = (1011, "internal")
    RESTART = (1012, "restart")
    TRY_LATER = (1013, "try_later")
    BAD_HELLO = (4400, "bad_hello")
    UNAUTHORISED = (4401, "unauthorised")
    AVATAR_NOT_ALLOWED = (4403, "avatar_not_allowed")
    UNKNOWN_AVATAR = (4404, "unknown_avatar")
    UNSUPPORTED = (4406, "unsupported_format")
    TIMEOUT = (4408, "timeout")
    REPLACED = (4409, "replaced")

    def __init__(self, code: int, string: str) -> None:
        self.code = code
        self.string = string


class ProtocolError(Exception):
    """The client broke the contract, or asked for what it cannot have; the connection ends with `close`."""

    def __init__(self, close: Close, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.close = close
        self.message = message
        self.retry_after_ms = retry_after_ms

    def event(self) -> Event:
        """What the client is told before the close frame."""
        fields: dict[str, Any] = {"code": self.close.string, "message": self.message, "fatal": True}
        if self.retry_after_ms is not None:
            fields["retry_after_ms"] = self.retry_after_ms
        return Event("error", fields)


# --- The binary frame ------------------------------------------------------------------------------------------------

MAGIC: Final = 0xA5
VERSION: Final = 1
HEADER: Final = struct.Struct("<BBBBIIIq")
HEADER_BYTES: Final = HEADER.size  # 24
_U32: Final = 0xFFFFFFFF


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
    return HEADER.pack(MAGIC, kind, flags, VERSION, seq & _U32, epoch & _U32, len(payload), pts_us) + payload


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


# --- Payloads --------------------------------------------------------------------------------------------------------


def face_payload(face: Floats) -> bytes:
    """[n] → f32 little-endian: weights, head quaternion x y z w, head position, gaze yaw and pitch, then visemes."""
    return np.ascontiguousarray(face, "<f4").tobytes()


def points_payload(points: Floats, width: int, height: int) -> bytes:
    """[n, 3] in loop-frame pixels → u16 n, u16 3, n × 3 f32 normalised to the image (z by its width, as x)."""
    n, dims = points.shape
    normal = np.ascontiguousarray(points / np.array([width, height, width], np.float32)[:dims], "<f4")
    return struct.pack("<HH", n, dims) + normal.tobytes()


def sound_from_payload(payload: bytes, form: "AudioForm") -> npt.NDArray[np.int16] | Floats:
    """Interleaved PCM as declared in the hello → [n] or [n, channels], s16 or finite f32 in -1…1.

    A message holds whole samples of every channel; anything else is a client that declared one thing and sends another.
    """
    width = form.sample_bytes * form.channels
    if len(payload) % width:
        raise ProtocolError(
            Close.BAD_MESSAGE,
            f"{len(payload)} bytes are not whole samples of {form.format} with {form.channels} channel(s): declare "
            "in the hello what is sent",
        )
    pcm: npt.NDArray[np.int16] | Floats
    if form.format == "pcm_s16le":
        pcm = np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
    else:
        # Sanitised where it enters: one NaN in a recurrent state would stay for ever.
        wild = np.frombuffer(payload, "<f4")
        pcm = np.clip(np.nan_to_num(wild, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0).astype(np.float32)
    return pcm if form.channels == 1 else pcm.reshape(-1, form.channels)


# --- Coordinate systems ----------------------------------------------------------------------------------------------

Coords = Literal["gltf", "unity", "unreal"]

_HEAD: Final = BLENDSHAPES
"""Where the head's 4 + 3 + 2 numbers begin in a face of the engine."""

_AXES: Final[dict[Coords, tuple[tuple[int, ...], Floats]]] = {
    # Of the nine head numbers qx qy qz qw px py pz yaw pitch: which canonical one goes where, times what.
    "gltf": (tuple(range(9)), np.ones(9, np.float32)),
    "unity": (tuple(range(9)), np.array([1, -1, -1, 1, -1, 1, 1, -1, 1], np.float32)),
    "unreal": ((2, 0, 1, 3, 6, 4, 5, 7, 8), np.array([-1, 1, -1, 1, 100, -100, 100, -1, -1], np.float32)),
}


def head_in(coords: Coords, head: Floats) -> Floats:
    """[9] canonical (glTF: right-handed, +Y up, +Z forward, metres) → [9] in another system.

    Unity is left-handed, +Y up, +Z forward, metres; Unreal is left-handed, +X forward, +Z up, centimetres. Gaze angles
    follow the system's own rotations: canonical yaw grows to the person's left and pitch downwards; Unity's yaw grows
    to the right; Unreal's yaw grows to the right and its pitch upwards.
    """
    order, sign = _AXES[coords]
    return np.asarray(head, np.float32)[list(order)] * sign


# --- Rates -----------------------------------------------------------------------------------------------------------


def slerp(a: Floats, b: Floats, t: float) -> Floats:
    """Between unit quaternions x y z w, the short way round."""
    cosine = float(np.dot(a, b))
    if cosine < 0.0:
        a, cosine = -a, -cosine
    if cosine > 0.9995:  # so near that the sine in the divisor would lose more than a straight line does
        mixed = a + (b - a) * np.float32(t)
    else:
        angle = math.acos(min(cosine, 1.0))
        mixed = (a * math.sin((1.0 - t) * angle) + b * math.sin(t * angle)) / math.sin(angle)
    return np.asarray(mixed / max(float(np.linalg.norm(mixed)), 1e-12), np.float32)


def blend_faces(a: Floats, b: Floats, t: float) -> Floats:
    """[61] and [61] → [61]: straight for weights, position and gaze, slerp for the head."""
    mixed = np.asarray(a + (b - a) * np.float32(t), np.float32)
    mixed[_HEAD : _HEAD + 4] = slerp(a[_HEAD : _HEAD + 4], b[_HEAD : _HEAD + 4], t)
    return mixed


class FaceRate:
    """25 faces a second in, `rate` a second out, on the grid k / rate. Adds no delay: what is asked for between the
    last face and this one is known when this one comes. Never blends across an epoch or a hole."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._last: tuple[int, int, Floats] | None = None  # epoch, pts in 48 kHz samples, face

    def push(self, pts: int, epoch: int, face: Floats) -> list[tuple[int, Floats]]:
        """The faces due in (last pts, pts], dated in microseconds."""
        before, self._last = self._last, (epoch, pts, face)
        if before is None or before[0] != epoch or not 0 < pts - before[1] <= HEARD_CHUNK:
            return [(pts_us_from_heard(pts), face)]
        _, start, a = before
        out: list[tuple[int, Floats]] = []
        for tick in range(start * self.rate // HEARD_RATE + 1, pts * self.rate // HEARD_RATE + 1):
            t = (tick * HEARD_RATE / self.rate - start) / (pts - start)
            out.append((round(tick * 1_000_000 / self.rate), face if t >= 1.0 else blend_faces(a, face, t)))
        return out


class SoundRate:
    """48 kHz s16 mono → 48, 24 or 16 kHz, a chunk at a time, with a short low-pass whose history is kept."""

    def __init__(self, rate: int) -> None:
        self.step = HEARD_RATE // rate
        reach = 8 * self.step
        n = np.arange(-reach, reach + 1)
        taps = np.sinc(n / self.step * 0.92) * np.hamming(n.size)
        self._taps = taps / taps.sum()
        self._past = np.zeros(2 * reach)

    def push(self, heard: Sound) -> Sound:
        """[1920] → [1920 / step]. The low-pass delays by 8 samples of the slower rate: 0.5 ms at most."""
        if self.step == 1:
            return heard
        whole = np.concatenate([self._past, heard.astype(np.float64)])
        self._past = whole[-self._past.size :]
        low: Sound = np.convolve(whole, self._taps, "valid")[:: self.step].round().clip(-32768, 32767).astype(np.int16)
        return low


# --- JSON ------------------------------------------------------------------------------------------------------------

JSON_DEPTH_MOST: Final = 8
JSON_BRACKETS_MOST: Final = 256
JSON_COMMAS_MOST: Final = 1024
_INTEGER_DIGITS_MOST: Final = 19
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class _JsonRefusedError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keyed = dict(pairs)
    if len(keyed) != len(pairs):
        raise _JsonRefusedError("a key comes twice in one object")
    return keyed


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _INTEGER_DIGITS_MOST:
        raise _JsonRefusedError("a number has too many digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _JsonRefusedError("a number is not finite")
    return value


def _constant(name: str) -> float:
    raise _JsonRefusedError(f"{name} is not JSON")


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is. Bounded in size, nesting, members and digits before anything is built, so that no
    text costs more than a few milliseconds; ProtocolError(BAD_MESSAGE) for all that is refused."""
    if len(text) > MESSAGE_BYTES_MOST:
        raise ProtocolError(Close.TOO_BIG, f"a message is at most {MESSAGE_BYTES_MOST} bytes")
    if not text.startswith("{"):
        raise ProtocolError(Close.BAD_MESSAGE, "a text message is one JSON object and starts with {")
    # Counting is done in C; brackets or commas inside strings count too, and no honest event has so many.
    if text.count("{") + text.count("[") > JSON_BRACKETS_MOST or text.count(",") > JSON_COMMAS_MOST:
        raise ProtocolError(Close.BAD_MESSAGE, "the JSON object has too many members")
    try:
        said = json.loads(
            text, object_pairs_hook=_once, parse_int=_integer, parse_float=_number, parse_constant=_constant
        )
        if _SURROGATE.search(text):
            json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError as wrong:
        raise ProtocolError(Close.BAD_MESSAGE, "a string holds half a surrogate pair") from wrong
    except (ValueError, RecursionError) as wrong:
        why = str(wrong) if isinstance(wrong, _JsonRefusedError) else "it cannot be parsed"
        raise ProtocolError(Close.BAD_MESSAGE, f"not acceptable as JSON: {why}") from wrong
    if _depth(said) > JSON_DEPTH_MOST:
        raise ProtocolError(Close.BAD_MESSAGE, f"the JSON is nested deeper than {JSON_DEPTH_MOST}")
    object_: dict[str, Any] = said
    return object_


def _depth(value: Any) -> int:
    """Bounded by the count of brackets, which was checked before."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def event_to_json(event: Event) -> str:
    """`{"type": …, …fields}` as one line. Numbers of numpy become plain, and what is not finite becomes null: a
    figure that could not be computed must not end a conversation."""
    return json.dumps({"type": event.type, **_plain(event.fields)}, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Enum):
        return _plain(value.value)
    return value


# --- What a client says ----------------------------------------------------------------------------------------------

Schema = Literal["arkit52", "vrm1", "oculus15"]
Encoding = Literal["binary", "json"]
Pacing = Literal["realtime", "burst"]
VideoCodec = Literal["none", "jpeg", "h264"]

SAMPLE_RATES: Final = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
AUDIO_OUT_RATES: Final = (16_000, 24_000, 48_000)
FACE_RATES: Final = (25, 50, 60)
_FORMATS: Final = ("pcm_s16le", "pcm_f32le")
_AVATAR: Final = re.compile(r"[a-z0-9_-]{1,64}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class AudioForm:
    format: Literal["pcm_s16le", "pcm_f32le"] = "pcm_s16le"
    sample_rate: int = 16_000
    channels: int = 1

    @property
    def sample_bytes(self) -> int:
        return 2 if self.format == "pcm_s16le" else 4


@dataclass(frozen=True, slots=True)
class FaceForm:
    schema: Schema = "arkit52"
    encoding: Encoding = "binary"
    rate: int = 25
    coords: Coords = "gltf"
    visemes: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return {"arkit52": faces.ARKIT_52, "vrm1": faces.VRM_EXPRESSIONS, "oculus15": faces.OCULUS_15}[self.schema]

    @property
    def floats(self) -> int:
        """How many numbers a face payload has."""
        return len(self.names) + FACE - BLENDSHAPES + (VISEMES if self.visemes else 0)


@dataclass(frozen=True, slots=True)
class SessionStart:
    """The hello."""

    avatar: str | None = None
    token: str | None = None
    client: str = ""
    audio: AudioForm = with_default(default_factory=AudioForm)
    pacing: Pacing = "realtime"
    face: FaceForm | None = with_default(default_factory=FaceForm)
    landmarks: bool = False
    mesh: bool = False
    video: VideoCodec = "none"
    audio_out: int | None = None  # the rate, in hertz
    resume: str | None = None  # a session's id
    view: bool = False  # look on at that session; never take it over


@dataclass(frozen=True, slots=True)
class AudioAppend:
    """Sound as JSON, for clients that cannot send binary: the bytes are as declared in the hello."""

    pcm: bytes
    pts_us: int | None = None
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class AudioEnd:
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class InterruptWish:
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdate:
    """None means: as it was."""

    face_rate: int | None = None
    coords: Coords | None = None
    landmarks: bool | None = None
    mesh: bool | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    t: float | int | str | None


@dataclass(frozen=True, slots=True)
class SessionEnd:
    pass


@dataclass(frozen=True, slots=True)
class Unknown:
    """A type this version does not know: ignored, as the contract asks."""

    type: str


ClientEvent = SessionStart | AudioAppend | AudioEnd | InterruptWish | SessionUpdate | Ping | SessionEnd | Unknown


def client_event_from_json(text: str) -> ClientEvent:
    """What the client says; ProtocolError when it is no JSON object that may come here, or a known type with wrong
    fields. Over websockets and over the WebRTC data channel alike."""
    said = parse_object(text)
    kind = said.get("type")
    if not isinstance(kind, str):
        raise ProtocolError(Close.BAD_MESSAGE, 'an event has a "type", a string')
    read = _READERS.get(kind)
    return read(_Fields(said)) if read is not None else Unknown(kind[:64])


class _Fields:
    """Reads one JSON object; says which field is wrong, and what it may be, when one is."""

    def __init__(self, said: Mapping[str, Any], where: str = "", close: Close = Close.BAD_MESSAGE) -> None:
        self._said = said
        self._where = where
        self._close = close

    def refuse(self, name: str, want: str, close: Close | None = None) -> ProtocolError:
        return ProtocolError(close or self._close, f'"{self._where}{name}" must be {want}')

    def raw(self, name: str) -> Any:
        return self._said.get(name)

    def inner(self, name: str) -> "_Fields":
        value = self._said.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.refuse(name, "an object")
        return _Fields(value, f"{self._where}{name}.", self._close)

    def text(self, name: str, most: int = 128) -> str | None:
        value = self._said.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) > most:
            raise self.refuse(name, f"a string of at most {most} characters")
        return value

    def name(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not _NAME.fullmatch(value):
            raise self.refuse(name, "1 to 128 of A-Z a-z 0-9 _ . : -")
        return value

    def flag(self, name: str) -> bool | None:
        value = self._said.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.refuse(name, "true or false")

    def whole(self, name: str) -> int | None:
        value = self._said.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise self.refuse(name, "a whole number of 64 bits")
        return value

    def one_of(self, name: str, choices: Sequence[Any], default: Any) -> Any:
        """4406: the field is well made, and asks for what this server has not."""
        value = self._said.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int) or value not in choices:
            listed = ", ".join(json.dumps(choice) for choice in choices)
            raise self.refuse(name, f"one of {listed}", Close.UNSUPPORTED)
        return value


def _session_start(said: _Fields) -> SessionStart:
    said = _Fields(said._said, close=Close.BAD_HELLO)
    protocol = said.text("protocol", 16)
    if protocol is None:
        raise said.refuse("protocol", '"1.0"')
    if not re.fullmatch(r"1\.\d{1,4}", protocol):
        raise said.refuse("protocol", '"1.0"', Close.UNSUPPORTED)
    avatar = said.text("avatar_id", 256)
    if avatar is not None and not _AVATAR.fullmatch(avatar):
        raise ProtocolError(Close.UNKNOWN_AVATAR, "an avatar's name is 1 to 64 of a-z 0-9 _ -")
    audio, client = said.inner("audio"), said.inner("client")
    parts = [client.text("name"), client.text("version"), client.text("engine")]
    return SessionStart(
        avatar=avatar,
        token=said.inner("auth").text("token", 4096),
        client=" ".join(part for part in parts if part),
        audio=AudioForm(
            audio.one_of("format", _FORMATS, "pcm_s16le"),
            audio.one_of("sample_rate", SAMPLE_RATES, 16_000),
            audio.one_of("channels", (1, 2), 1),
        ),
        pacing=said.one_of("pacing", ("realtime", "burst"), "realtime"),
        face=_face_form(said),
        landmarks=said.flag("landmarks") or False,
        mesh=said.flag("mesh") or False,
        video=said.inner("video").one_of("codec", ("none", "jpeg", "h264"), "none"),
        audio_out=_audio_out(said),
        resume=said.name("resume"),
        view=said.flag("view") or False,
    )


def _face_form(said: _Fields) -> FaceForm | None:
    if said.raw("face") is False:
        return None
    face = said.inner("face")
    return FaceForm(
        face.one_of("schema", ("arkit52", "vrm1", "oculus15"), "arkit52"),
        face.one_of("encoding", ("binary", "json"), "binary"),
        face.one_of("rate", FACE_RATES, 25),
        face.one_of("coords", tuple(_AXES), "gltf"),
        face.flag("visemes") or False,
    )


def _audio_out(said: _Fields) -> int | None:
    wish = said.raw("audio_out")
    if wish is None or wish is False:
        return None
    if wish is True:
        return HEARD_RATE
    rate: int = said.inner("audio_out").one_of("sample_rate", AUDIO_OUT_RATES, HEARD_RATE)
    return rate


def _audio_append(said: _Fields) -> AudioAppend:
    audio = said.raw("audio")
    if not isinstance(audio, str):
        raise said.refuse("audio", "a string in base64")
    try:
        pcm = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as wrong:
        raise said.refuse("audio", "a string in base64") from wrong
    return AudioAppend(pcm, said.whole("pts_us"), said.name("segment_id"))


def _session_update(said: _Fields) -> SessionUpdate:
    face = said.inner("face")
    return SessionUpdate(
        face.one_of("rate", FACE_RATES, None),
        face.one_of("coords", tuple(_AXES), None),
        said.flag("landmarks"),
        said.flag("mesh"),
    )


def _ping(said: _Fields) -> Ping:
    t = said.raw("t")
    if t is not None and (isinstance(t, bool) or not isinstance(t, int | float | str) or len(str(t)) > 64):
        raise said.refuse("t", "a number or a short string")
    return Ping(t)


_READERS: Final[dict[str, Callable[[_Fields], ClientEvent]]] = {
    "session.start": _session_start,
    "audio.append": _audio_append,
    "audio.end": lambda said: AudioEnd(said.name("segment_id")),
    "interrupt": lambda said: InterruptWish(said.name("segment_id")),
    "session.update": _session_update,
    "ping": _ping,
    "session.end": lambda said: SessionEnd(),
}


# --- The state machine that reads a client ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """The hello has come and is well made. Whether it is granted, the caller decides."""

    start: SessionStart


@dataclass(frozen=True, slots=True, eq=False)
class Hear:
    """Sound to push: [n] or [n, channels], s16 or f32. `pts` counts samples of the declared rate; None = contiguous."""

    pcm: npt.NDArray[np.int16] | Floats
    pts: int | None = None
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class EndSegment:
    segment_id: str | None = None


@dataclass(frozen=True, slots=True)
class Hush:
    """The client interrupts."""


@dataclass(frozen=True, slots=True)
class Change:
    update: SessionUpdate


@dataclass(frozen=True, slots=True)
class Say:
    """To be told to the client at once."""

    event: Event


@dataclass(frozen=True, slots=True)
class Leave:
    """The client ended the session."""


@dataclass(frozen=True, slots=True, eq=False)
class Fail:
    """Tell the client `error.event()`, then close with `error.close`. Nothing is read after this."""

    error: ProtocolError


Action = Open | Hear | EndSegment | Hush | Change | Say | Leave | Fail

BUFFER_SECONDS_MOST: Final[dict[Pacing, float]] = {"realtime": 2.0, "burst": 60.0}
MESSAGES_BURST: Final = 4_000.0
MESSAGES_PER_SECOND: Final = 400.0
_SLACK_SECONDS: Final = 0.04


class ClientReader:
    """Messages of one client in, actions out. Holds what the contract bounds: the order of events, the speech that is
    queued, the rate of messages. `epoch` is the session's; whoever runs the session keeps it up to date."""

    def __init__(self, now: float) -> None:
        self.epoch = 0
        self.over = False
        self.audio: AudioForm | None = None
        self.stale_frames = 0
        self.refused_seconds = 0.0
        self._pacing: Pacing = "realtime"
        self._queued = 0.0
        self._credit = MESSAGES_BURST
        self._at = now
        self._warned_high = False
        self._warned_stale: int | None = None
        self._overflow_told = -math.inf

    def queued_seconds(self, now: float) -> float:
        """Speech that came in and has not been played: it drains by a second a second."""
        self._pass(now)
        return self._queued

    def receive(self, message: str | bytes, now: float) -> list[Action]:
        """What to do about a message. Errors come as the action `Fail`, never as exceptions."""
        if self.over:
            return []
        try:
            return self._receive(message, now)
        except ProtocolError as error:
            self.over = True
            if self.audio is None and error.close is Close.BAD_MESSAGE:
                error = ProtocolError(Close.BAD_HELLO, error.message)
            return [Fail(error)]

    def _receive(self, message: str | bytes, now: float) -> list[Action]:
        self._pass(now)
        self._credit -= 1.0
        if self._credit < 0.0:
            raise ProtocolError(
                Close.POLICY, f"more than {MESSAGES_PER_SECOND:.0f} messages a second: send longer pieces of sound"
            )
        if len(message) > MESSAGE_BYTES_MOST:
            raise ProtocolError(Close.TOO_BIG, f"a message is at most {MESSAGE_BYTES_MOST} bytes")
        if isinstance(message, str):
            return self._event(client_event_from_json(message), now)
        if self.audio is None:
            raise ProtocolError(Close.BAD_HELLO, "the first message is session.start, as JSON text")
        frame = parse_frame(message)
        if frame.kind != Kind.AUDIO_IN:
            return []
        if 0 < (self.epoch - frame.epoch) & _U32 < 2**31:
            return self._stale()
        pts = samples_from_us(frame.pts_us, self.audio.sample_rate) if frame.pts_us >= 0 else None
        actions = self._sound(frame.payload, pts, None, self.audio, now)
        return [*actions, EndSegment()] if frame.flags & Flag.SEGMENT_END else actions

    def _event(self, event: ClientEvent, now: float) -> list[Action]:
        if isinstance(event, SessionStart):
            if self.audio is not None:
                raise ProtocolError(Close.BAD_MESSAGE, "session.start comes once; use session.update")
            self.audio, self._pacing = event.audio, event.pacing
            return [Open(event)]
        if self.audio is None:
            raise ProtocolError(Close.BAD_HELLO, "the first message is session.start")
        match event:
            case AudioAppend(pcm, pts_us, segment_id):
                pts = samples_from_us(pts_us, self.audio.sample_rate) if pts_us is not None and pts_us >= 0 else None
                return self._sound(pcm, pts, segment_id, self.audio, now)
            case AudioEnd(segment_id):
                return [EndSegment(segment_id)]
            case InterruptWish():
                self._queued = 0.0
                return [Hush()]
            case SessionUpdate():
                return [Change(event)]
            case Ping(t):
                return [Say(Event("pong", {"t": t, "server_t_us": round(now * 1e6)}))]
            case SessionEnd():
                self.over = True
                return [Leave()]
            case _:
                return []

    def _sound(
        self, payload: bytes, pts: int | None, segment_id: str | None, form: AudioForm, now: float
    ) -> list[Action]:
        pcm = sound_from_payload(payload, form)
        if len(pcm) == 0:
            return []
        seconds = len(pcm) / form.sample_rate
        most = BUFFER_SECONDS_MOST[self._pacing]
        # A refused piece is a hole that the client is told of; a queue without end would be a delay without end.
        if self._queued + seconds > most + _SLACK_SECONDS:
            self.refused_seconds += seconds
            return self._overflow(self._queued + seconds - most, now)
        self._queued += seconds
        actions: list[Action] = [Hear(pcm, pts, segment_id)]
        if self._queued > 0.75 * most and not self._warned_high:
            self._warned_high = True
            actions.append(
                Say(
                    Event(
                        "warning",
                        {"code": "buffer_high", "queued_ms": round(self._queued * 1000), "most_ms": round(most * 1000)},
                    )
                )
            )
        return actions

    def _overflow(self, excess: float, now: float) -> list[Action]:
        if now - self._overflow_told < 1.0:
            return []
        self._overflow_told = now
        message = f"more than {BUFFER_SECONDS_MOST[self._pacing]:.0f} s of speech are queued; this piece was not taken"
        fields = {"code": "audio_buffer_overflow", "message": message, "fatal": False}
        return [Say(Event("error", {**fields, "retry_after_ms": max(1, math.ceil(excess * 1000))}))]

    def _stale(self) -> list[Action]:
        """Sound sent before the client knew of an interrupt. Told once an epoch: a client that never follows epochs
        should learn why it is not heard."""
        self.stale_frames += 1
        if self._warned_stale == self.epoch:
            return []
        self._warned_stale = self.epoch
        return [Say(Event("warning", {"code": "stale_epoch", "epoch": self.epoch}))]

    def _pass(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._at = max(self._at, now)
        self._queued = max(0.0, self._queued - elapsed)
        self._credit = min(MESSAGES_BURST, self._credit + elapsed * MESSAGES_PER_SECOND)
        if self._queued < 0.5 * BUFFER_SECONDS_MOST[self._pacing]:
            self._warned_high = False


# --- What a client is told of a moment -------------------------------------------------------------------------------

Message = str | bytes


class MomentWriter:
    """Moments → messages for one client, as its hello asked. Sequence numbers count what was written, so a gap tells
    the client how many frames it was spared."""

    def __init__(self, start: SessionStart, width: int, height: int) -> None:
        self._form = start.face
        self._coords: Coords = start.face.coords if start.face else "gltf"
        self._landmarks = start.landmarks
        self._mesh = start.mesh
        self._size = width, height
        self._rate = FaceRate(start.face.rate) if start.face else None
        self._sound = SoundRate(start.audio_out) if start.audio_out else None
        self._seq = dict.fromkeys(Kind, 0)
        self.lost = 0
        """Moments that never came: their dates were skipped."""
        self._next_pts: int | None = None

    @property
    def wants_face(self) -> bool:
        return self._form is not None

    @property
    def wants_sound(self) -> bool:
        return self._sound is not None

    @property
    def wants_points(self) -> bool:
        return self._landmarks

    @property
    def wants_mesh(self) -> bool:
        return self._mesh

    def update(self, update: SessionUpdate) -> None:
        if update.coords is not None:
            self._coords = update.coords
        if update.face_rate is not None and self._rate is not None:
            self._rate = FaceRate(update.face_rate)
        if update.landmarks is not None:
            self._landmarks = update.landmarks
        if update.mesh is not None:
            self._mesh = update.mesh

    def write(self, moment: Moment, segment_end: bool = False) -> dict[Kind, list[Message]]:
        """Everything but the picture, which takes an encoder: see `video`."""
        self._skip(moment.pts)
        flags = (Flag.SPEAKING if moment.speaking else Flag.IDLE) | (Flag.SEGMENT_END if segment_end else 0)
        pts_us = pts_us_from_heard(moment.pts)
        written: dict[Kind, list[Message]] = {}
        if self._sound is not None:
            sound = self._sound.push(moment.heard).astype("<i2").tobytes()
            written[Kind.AUDIO_OUT] = [self._frame(Kind.AUDIO_OUT, flags, moment.epoch, pts_us, sound)]
        if self._form is not None and self._rate is not None and moment.face is not None:
            due = self._rate.push(moment.pts, moment.epoch, moment.face)
            written[Kind.FACE] = [self._face(self._form, flags, moment.epoch, at, face) for at, face in due]
        if self._landmarks and moment.points is not None:
            payload = points_payload(moment.points[faces.DLIB_IN_HOUSE], *self._size)
            written[Kind.LANDMARKS] = [self._frame(Kind.LANDMARKS, flags, moment.epoch, pts_us, payload)]
        if self._mesh and moment.mesh is not None:
            payload = points_payload(moment.mesh, *self._size)
            written[Kind.MESH] = [self._frame(Kind.MESH, flags, moment.epoch, pts_us, payload)]
        return written

    def _skip(self, pts: int) -> None:
        """Moments that were lost before they came here leave the same gap as those lost after."""
        if self._next_pts is not None and pts > self._next_pts:
            lost = (pts - self._next_pts) // HEARD_CHUNK
            self.lost += lost
            for kind in (Kind.FACE, Kind.LANDMARKS, Kind.AUDIO_OUT, Kind.MESH):
                self._seq[kind] = (self._seq[kind] + lost) & _U32
        self._next_pts = pts + HEARD_CHUNK

    def video(self, pts: int, epoch: int, unit: bytes, keyframe: bool) -> bytes:
        """One JPEG, or one Annex-B access unit."""
        return self._frame(Kind.VIDEO, Flag.KEYFRAME if keyframe else 0, epoch, pts_us_from_heard(pts), unit)

    def _frame(self, kind: Kind, flags: int, epoch: int, pts_us: int, payload: bytes) -> bytes:
        return pack_frame(kind, flags, self._next(kind), epoch, pts_us, payload)

    def _next(self, kind: Kind) -> int:
        seq = self._seq[kind]
        self._seq[kind] = (seq + 1) & _U32
        return seq

    def _face(self, form: FaceForm, flags: int, epoch: int, pts_us: int, face: Floats) -> Message:
        weights = np.clip(face[:BLENDSHAPES], 0.0, 1.0)
        shown = _WEIGHTS[form.schema](weights)
        head = head_in(self._coords, face[BLENDSHAPES:])
        visemes = faces.oculus_from_arkit(weights) if form.visemes else np.empty(0, np.float32)
        if form.encoding == "binary":
            return self._frame(Kind.FACE, flags, epoch, pts_us, face_payload(np.concatenate([shown, head, visemes])))
        fields: dict[str, Any] = {
            "seq": self._next(Kind.FACE),
            "epoch": epoch,
            "pts_us": pts_us,
            "speaking": bool(flags & Flag.SPEAKING),
            "weights": _short(shown),
            "head": {"rotation": _short(head[:4]), "position": _short(head[4:7])},
            "gaze": _short(head[7:]),
        }
        if form.visemes:
            fields["visemes"] = _short(visemes)
        return event_to_json(Event("face", fields))


def _short(numbers: Floats) -> list[float]:
    return [round(float(number), 5) for number in numbers]


_WEIGHTS: Final[dict[Schema, Callable[[Floats], Floats]]] = {
    "arkit52": lambda weights: weights,
    "vrm1": faces.vrm_from_arkit,
    "oculus15": faces.oculus_from_arkit,
}


def started_event(
    start: SessionStart,
    session_id: str,
    server: Mapping[str, str],
    epoch: int,
    lookahead_ms: int,
    disclosure: Mapping[str, Any],
) -> Event:
    """The answer to a hello that was granted."""
    face = start.face
    fields: dict[str, Any] = {
        "session_id": session_id,
        "protocol": PROTOCOL,
        "epoch": epoch,
        "server": dict(server),
        "audio": {
            "format": start.audio.format,
            "sample_rate": start.audio.sample_rate,
            "channels": start.audio.channels,
        },
        "pacing": start.pacing,
        "face": face
        and {
            "schema": face.schema,
            "encoding": face.encoding,
            "names": face.names,
            "rate": face.rate,
            "coords": face.coords,
            "floats": face.floats,
            "visemes": faces.OCULUS_15 if face.visemes else [],
        },
        "landmarks": start.landmarks,
        "mesh": start.mesh,
        "video": {"codec": start.video},
        "audio_out": start.audio_out and {"format": "pcm_s16le", "sample_rate": start.audio_out, "channels": 1},
        "timing": {"chunk_ms": 40, "lookahead_ms": lookahead_ms, "latency_ms": lookahead_ms + 40},
        "limits": {
            "max_message_bytes": MESSAGE_BYTES_MOST,
            "max_buffer_ms": round(BUFFER_SECONDS_MOST[start.pacing] * 1000),
            "max_messages_per_second": round(MESSAGES_PER_SECOND),
        },
        "disclosure": dict(disclosure),
    }
    return Event("session.started", fields)


# --- What a client has yet to be sent --------------------------------------------------------------------------------

CONTROL_MOST: Final = 256
SOUND_MOST: Final = 25  # a second


class Outbox:
    """At most one moment's worth of each kind of media, newest wins; every control message, in order, first.

    Sound keeps a second, so that a hiccup of the network is heard as a delay and not as a hole.
    """

    def __init__(self) -> None:
        self.dropped: dict[Kind, int] = {}
        """Messages thrown away unsent."""
        self._control: deque[str] = deque()
        self._sound: deque[Message] = deque()
        self._media: dict[Kind, deque[Message]] = {}
        self._told = 0
        self._told_at = -math.inf

    def __bool__(self) -> bool:
        return bool(self._control or self._sound or self._media)

    @property
    def frames_dropped(self) -> int:
        return sum(self.dropped.values())

    def tell(self, text: str) -> None:
        """Never dropped; ProtocolError(TIMEOUT) when the client has left 256 of them unread."""
        if len(self._control) >= CONTROL_MOST:
            raise ProtocolError(Close.TIMEOUT, f"{CONTROL_MOST} events wait to be read: the client has stalled")
        self._control.append(text)

    def put(self, kind: Kind, messages: Sequence[Message]) -> None:
        if not messages:
            return
        if kind is Kind.AUDIO_OUT:
            self._sound.extend(messages)
            while len(self._sound) > SOUND_MOST:
                self._sound.popleft()
                self._count(kind, 1)
            return
        unsent = self._media.pop(kind, None)
        if unsent:
            self._count(kind, len(unsent))
        self._media[kind] = deque(messages)

    def miss(self, kind: Kind, n: int) -> None:
        """Count what was lost before it came here."""
        if n:
            self._count(kind, n)

    def void(self) -> None:
        """An interrupt: what has not been sent belongs to an epoch that is over."""
        self._sound.clear()
        self._media.clear()

    def take(self, now: float) -> Message | None:
        """The next message to send, or None."""
        if self.frames_dropped > self._told and now - self._told_at >= 1.0:
            event = Event("warning", {"code": "frames_dropped", "count": self.frames_dropped})
            self._told, self._told_at = self.frames_dropped, now
            return event_to_json(event)
        if self._control:
            return self._control.popleft()
        if self._sound:
            return self._sound.popleft()
        for kind, messages in self._media.items():
            message = messages.popleft()
            if not messages:
                del self._media[kind]
            return message
        return None

    def _count(self, kind: Kind, n: int) -> None:
        self.dropped[kind] = self.dropped.get(kind, 0) + n
