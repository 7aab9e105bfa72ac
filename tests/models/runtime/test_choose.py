"""Which backend serves, by name, by path, or by what it found."""

from pathlib import Path

import pytest

from models.runtime.choose import open_runtime
from tests.models.runtime.drawn import draw_package


def test_a_backend_is_found_by_its_module() -> None:
    runtime, reason = open_runtime("tests.models.runtime.scripted", [Path("anna")], 2, 3)
    assert runtime.cards["anna"].lookahead == 3
    assert reason == "tests.models.runtime.scripted: asked for"


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"no backend is called 'abacus'; choose auto or one of: .*plain"):
        open_runtime("abacus", [], 1)


def test_auto_says_what_it_took_and_why(tmp_path: Path) -> None:
    runtime, reason = open_runtime("auto", [draw_package(tmp_path / "ellipse")], 1)
    assert list(runtime.cards) == ["ellipse"]
    assert reason.partition(":")[0] in ("openvino", "plain")


def test_auto_falls_back_on_the_rule_and_says_what_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("lips.onnx is missing")

    monkeypatch.setattr("models.runtime.openvino.open", missing)
    _, reason = open_runtime("auto", [draw_package(tmp_path / "ellipse")], 1)
    assert reason == "plain: openvino is not to be had: lips.onnx is missing"
