"""What a client says, read and checked: the hello and every later event."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as with_default
from typing import Any, Final, Literal

from engine.protocol.closing import Close, ProtocolError
from engine.protocol.coords import SYSTEMS, Coords
from engine.protocol.events import parse_object
from models import face as faces
from models.rates import BLENDSHAPES, FACE, HEARD_RATE, VISEMES

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
        face.one_of("coords", tuple(SYSTEMS), "gltf"),
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
        face.one_of("coords", tuple(SYSTEMS), None),
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
