"""What is asked at the door, how long anybody is waited for, and what a guest is told of whom it sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from models.runtime import AvatarCard

SOURCE_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for, in seconds."""

    handshake: float = 5.0
    hello: float = 5.0
    stall: float = 10.0
    """One message may take so long to be written, one ping to be answered."""
    ping: float = 5.0
    farewell: float = 1.0


@dataclass(frozen=True, slots=True)
class Admission:
    """What whoever guards the door says about a client."""

    session_id: str | None = None
    """The session its token was made for; None: a new one, or one that it names itself."""
    avatar: str | None = None
    """The only avatar it may have; None: any."""
    may_speak: bool = True
    """False: it may only look on."""


Authorise = Callable[[str | None, str | None, str | None], Admission]
"""(token, session id it wants to resume, origin) → an Admission; raises TokenError."""


def everybody(token: str | None, session_id: str | None, origin: str | None) -> Admission:
    """The door of a server that listens on this machine only."""
    return Admission()


def disclosure(card: AvatarCard) -> dict[str, Any]:
    """Article 50(1) of the EU's AI Act: who talks to a machine is told so at the first interaction."""
    kind = "trainedAlgorithmicMedia" if card.synthetic else "compositeWithTrainedAlgorithmicMedia"
    return {"ai_generated": True, "label": card.label, "digital_source_type": SOURCE_TYPES + kind}
