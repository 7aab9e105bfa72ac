"""One page that holds everything, and advice in words."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from models.create.evaluate import Scores
from models.create.loop import Stretch
from models.create.package import Scene
from models.create.report import Made, _closing, coverage, sheet, warnings
from tests.models.create.test_loop import footage
from tests.models.faces import speaking


def made(track=None, **changed) -> Made:
    track = footage(2000, slice(0, 600)) if track is None else track
    scene = Scene(np.zeros((4, 64, 64, 3), np.uint8), np.zeros((4, 478, 3), np.float32), np.zeros((4, 2), np.float32))
    told = Made("ada", "good", 1.0, (("a.mp4", track),), 120.0, Stretch(0, 0, 300, False, 0.1), scene, 2)
    return replace(told, **changed)


def scores(r: float = 0.9, sync: float = 5.0, silence: float = 0.1, sharp: float = 0.95) -> Scores:
    live = {"opening_r": r, "sync_ms": sync, "silence_motion": silence}
    return Scores(
        {"live": live, "truth": {"silence_motion": 0.1}},
        {"repainted": {"sharpness": sharp, "lips_psnr": 35.0}},
        {},
        10.0,
    )


def test_good_footage_needs_no_advice():
    assert warnings(made(), scores()) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"learned_seconds": 30.0}, "only 30 s"),
        ({"stretch": Stretch(0, 0, 60, False, 0.1)}, "short and will be seen to repeat"),
        ({"stretch": Stretch(0, 0, 300, False, 3.0)}, "turns in mid-motion"),
    ],
)
def test_what_is_short_or_jumps_is_said(changed, says):
    assert says in "; ".join(warnings(made(**changed), scores()))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("covered", np.arange(2000) % 10 == 0, "hands down"),
        ("second", np.arange(2000) % 10 == 0, "film alone"),
        ("turned", np.arange(2000) % 10 == 0, "look towards the camera"),
        ("missing", np.arange(2000) % 10 == 0, "more light"),
        ("cut", np.arange(2000) % 100 == 99, "cut 20 times"),
        ("eye_light", 0.2, "without sunglasses"),
        ("offset_ms", 120.0, "120 ms early"),
        ("rate", 15.0, "25 or more"),
        ("speech", np.ones(2000, bool), "20 s of listening"),
    ],
)
def test_what_to_film_again_is_said_in_words(field, value, says):
    track = replace(footage(2000, slice(0, 600)), **{field: value})
    assert says in "; ".join(warnings(made(track), scores()))


def test_a_mouth_that_never_closes_is_said():
    track = replace(footage(2000), points=speaking(np.full(2000, 12.0)).astype(np.float32))
    assert "rarely closed" in "; ".join(warnings(made(replace(track, speech=np.arange(2000) > 600)), scores()))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"r": 0.6}, "film more speech"),
        ({"sync": -90.0}, "off the voice"),
        ({"silence": 0.5}, "move in silence"),
        ({"sharp": 0.5}, "softer than the film"),
    ],
)
def test_what_the_figures_say_is_said(told, says):
    assert says in "; ".join(warnings(made(), scores(**told)))


def test_how_far_the_head_was_turned():
    told = coverage([footage(500, yaw=np.linspace(-20, 20, 500))])
    assert told["yaw_5"] == pytest.approx(-18, abs=0.3)
    assert told["yaw_95"] == pytest.approx(18, abs=0.3)


def test_the_page_needs_nothing_but_itself(small):
    page = (small.report / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:video/mp4") == 1
    assert "Truth above" in page
    told = json.loads((small.report / "report.json").read_text())
    assert told["runtime"]["core_ms_a_frame"] > 0
    assert told["package_bytes"] > 100_000


def test_lips_that_do_not_meet_are_said_and_shown():
    told = scores()
    told.phones["live"] = {"gap_shut": 0.6}
    assert "do not always meet" in "; ".join(warnings(made(), told))
    assert _closing(told) == [("lips meet at m b p", "0.60", "0.9 is good", False)]
    assert _closing(scores()) == []


def test_the_contact_sheets_columns_are_of_one_width() -> None:
    """Faces as wide as 180, 200 and 240 of 200: every column is 198 wide at 220 pixels of height, then 4 of black."""
    faces = [np.full((200, width, 3), 90 + width // 2, np.uint8) for width in (180, 200, 240)]
    drawn = sheet([(one, one) for one in faces])
    assert drawn.shape == (2 * 220 + 4, 3 * 202, 3)
    for column in range(3):
        assert (drawn[:440, column * 202 : column * 202 + 198] > 100).all(), "faces fill their columns"
        assert not drawn[:, column * 202 + 198 : column * 202 + 202].any()
