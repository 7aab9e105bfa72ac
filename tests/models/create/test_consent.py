"""No record, no avatar."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from models.avatar import read_consent
from models.create.consent import NoConsent, asked, from_file

NOW = datetime.now(UTC)


def record(**changed) -> str:
    told = {"subject": "Ada", "scope": "a talk", "granted_at": NOW.isoformat(), "expires_at": None}
    return json.dumps({**told, **changed})


def test_a_whole_record_is_taken_as_it_is(tmp_path):
    path = tmp_path / "consent.json"
    path.write_text(record(expires_at=(NOW + timedelta(days=1)).isoformat()))
    assert from_file(path) == path.read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no JSON"),
        ("[]", "no JSON object"),
        (record(subject=""), "must name its subject"),
        (record(granted_at="yesterday"), "must be a date"),
        (record(granted_at=(NOW + timedelta(days=1)).isoformat()), "not valid yet"),
        (record(expires_at=(NOW - timedelta(days=1)).isoformat()), "has expired"),
        (record(withdrawn=True), "has withdrawn"),
    ],
    ids=["nothing", "a list", "nobody", "no date", "not yet", "no more", "withdrawn"],
)
def test_a_record_that_is_none_is_refused_in_one_line(tmp_path, content, says):
    path = tmp_path / "consent.json"
    path.write_text(content)
    with pytest.raises(NoConsent, match=says) as refused:
        from_file(path)
    assert "\n" not in str(refused.value)


def test_a_record_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(NoConsent, match="No such file"):
        from_file(tmp_path / "none.json")


def test_answers_make_a_record_that_ends():
    answers = iter(["Ada Lovelace", "Ada Lovelace", "", "30"])
    consent = read_consent(asked(lambda _: next(answers)))
    assert consent.subject == "Ada Lovelace"
    assert consent.expires_at is not None
    assert 29 < (consent.expires_at - NOW.timestamp()) / 86_400 < 31


@pytest.mark.parametrize(
    ("answers", "says"),
    [([""], "nobody was named"), (["Ada", "yes"], "not confirmed"), (["Ada", "Ada", "", "soon"], "no number of days")],
)
def test_anything_else_is_no_consent(answers, says):
    given = iter(answers)
    with pytest.raises(NoConsent, match=says):
        asked(lambda _: next(given))
