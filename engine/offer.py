"""Offers, before any parser of SDP sees them: refused when too long, too wide or not for us, and freed of candidates.

Pure. What passes is still only text: aiortc parses it, and whatever it raises then is a `BadOffer` too.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

OFFER_BYTES_MOST: Final = 16_384
OFFER_SECTIONS_MOST: Final = 3


class BadOffer(ValueError):
    """An offer that gets no answer. `status` is the HTTP status to send, `str(error)` one line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Role(Enum):
    """What a connection is for; an offer's own directions decide unless the route does."""

    DUPLEX = "duplex"  # voice up, voice and picture down, events both ways
    WHIP = "whip"  # strict: a voice source; the answer receives only
    WHEP = "whep"  # strict: a viewer; the answer sends only


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer that has passed `read_offer`."""

    sdp: str  # without candidates
    directions: dict[str, str]  # of audio and video
    events: bool

    @property
    def role(self) -> Role:
        directions = set(self.directions.values())
        if directions == {"sendonly"}:
            return Role.WHIP
        return Role.WHEP if directions == {"recvonly"} else Role.DUPLEX


_CODECS: Final = {"audio": ("opus/48000",), "video": ("vp8/90000", "h264/90000")}
_DIRECTION: Final = re.compile(r"^a=(sendrecv|sendonly|recvonly|inactive)\s*$", re.MULTILINE)
_CANDIDATE: Final = re.compile(r"^a=(candidate:|end-of-candidates|remote-candidates:)[^\n]*\n?", re.MULTILINE)


def read_offer(sdp: str) -> Offer:
    """Refuse what is too long, too wide or not for us, before any parser sees it; strip the candidates.

    Raises `BadOffer`: 413 for size, 400 for what is no such offer, 422 for media that we do not speak.
    """
    if len(sdp) > OFFER_BYTES_MOST or len(sdp.encode(errors="replace")) > OFFER_BYTES_MOST:
        raise BadOffer(413, f"The offer is longer than {OFFER_BYTES_MOST} bytes.")
    text = sdp.replace("\r\n", "\n").replace("\r", "\n")
    if not text.startswith("v=0") or "\0" in text:
        raise BadOffer(400, "The body is not an SDP offer: it must begin with v=0.")
    head, *sections = re.split(r"^(?=m=)", text, flags=re.MULTILINE)
    if not 1 <= len(sections) <= OFFER_SECTIONS_MOST:
        raise BadOffer(400, f"The offer has {len(sections)} media sections; send 1 to {OFFER_SECTIONS_MOST}.")
    if re.search(r"^a=ice-lite\s*$", text, re.MULTILINE):
        raise BadOffer(
            422, "The offer is of an ICE lite agent: it must check paths itself, as this server calls nobody."
        )
    session_direction = _DIRECTION.search(head)
    directions: dict[str, str] = {}
    kinds = []
    for section in sections:
        kind = section[2:].split(None, 1)[0] if section[2:].split() else ""
        if kind in kinds or kind not in ("audio", "video", "application"):
            raise BadOffer(400, "The offer must have at most one audio, one video and one data section.")
        kinds.append(kind)
        if kind == "application":
            continue
        direction = _DIRECTION.search(section) or session_direction
        directions[kind] = direction.group(1) if direction else "sendrecv"
        offered = {name.lower() for name in re.findall(r"^a=rtpmap:\d+ ([\w-]+/\d+)", section, re.MULTILINE)}
        if not offered.intersection(_CODECS[kind]):
            wanted = "Opus" if kind == "audio" else "VP8 or H.264"
            raise BadOffer(422, f"The offer's {kind} has no codec that is spoken here: offer {wanted}.")
    if not directions:
        raise BadOffer(400, "The offer has neither audio nor video.")
    return Offer(_CANDIDATE.sub("", text).replace("\n", "\r\n"), directions, "application" in kinds)
