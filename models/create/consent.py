"""Nobody's face is made to speak without their word: a record of who agreed to what, until when."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from models.avatar import Consent, PackageError, read_consent

USUAL_DAYS: Final = 365
SCOPE: Final = "a talking avatar made from my recordings, for the uses that I name to its maker"


class NoConsent(ValueError):
    """One line that says what is needed."""


def from_file(path: Path) -> bytes:
    """A record that is complete, and valid now."""
    try:
        content = path.read_bytes()
        consent = read_consent(content)
    except OSError as missing:
        raise NoConsent(f"--consent-file {path}: {missing.strerror}") from missing
    except PackageError as wrong:
        raise NoConsent(f"--consent-file {path}: {wrong}") from wrong
    _valid(consent, datetime.now(UTC))
    return content


def asked(ask: Callable[[str], str]) -> bytes:
    """The same from answers at the terminal. `ask` shows a question and returns the answer."""
    subject = ask("Who is seen and heard in the footage? (full name) ").strip()
    if not subject:
        raise NoConsent("no avatar of a person without that person's consent: nobody was named")
    word = ask(f"Has {subject} agreed to “{SCOPE}”? Type the name again to confirm: ").strip()
    if word != subject:
        raise NoConsent("no avatar of a person without that person's consent: it was not confirmed")
    scope = ask("For which uses? (empty: as above) ").strip() or SCOPE
    days = ask(f"For how many days? (empty: {USUAL_DAYS}) ").strip() or str(USUAL_DAYS)
    if not days.isdecimal() or int(days) < 1:
        raise NoConsent(f"{days!r} is no number of days")
    now = datetime.now(UTC)
    expires = now + timedelta(days=min(int(days), 36_500))
    record: dict[str, Any] = {
        "subject": subject,
        "scope": scope,
        "granted_at": now.isoformat(timespec="seconds"),
        "expires_at": expires.isoformat(timespec="seconds"),
        "recorded_by": os.environ.get("USER", "unknown"),
    }
    return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()


def _valid(consent: Consent, now: datetime) -> None:
    if consent.withdrawn:
        raise NoConsent(f"{consent.subject} has withdrawn the consent")
    if consent.granted_at > now.timestamp() + 60:
        raise NoConsent(f"the consent of {consent.subject} is not valid yet")
    if consent.expires_at is not None and consent.expires_at <= now.timestamp():
        raise NoConsent(f"the consent of {consent.subject} has expired: ask again")
