"""A runtime out of its parts: which precision serves, and what is refused."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.avatar import PackageError, read_avatar
from models.runtime.assembled import assemble, prove_one
from models.runtime.compiled import Compiled
from models.runtime.stages import Part, Stage, on_host
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.taught import teach_package


class Coarse:
    """A stage whose half precision is worse than real."""

    asked: list[str]

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, part: Part, slots: int) -> Stage:
        self.asked.append(part.precision)
        stage = on_host(lambda graph, sizes, precision: Compiled(graph, sizes, "f32"))(part, slots)
        if part.precision == "f32":
            return stage

        class Off:
            run = stage.run

            def fetch(self, answers: Any) -> Any:
                return {name: array + 20.0 for name, array in stage.fetch(answers).items()}

        return Off()


def test_the_first_precision_that_proves_itself_serves(tmp_path: Path) -> None:
    make = Coarse()
    learned = prove_one(read_avatar(teach_package(tmp_path / "net")), 1, make, ["f16", "bf16", "f32"], None)
    assert learned.precision == "f32"
    assert [precision for precision in dict.fromkeys(make.asked) if precision != "f32"] == ["f16", "bf16"]


def test_when_none_does_the_last_ones_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="in bf16 its luma differ from the reference by"):
        prove_one(read_avatar(teach_package(tmp_path / "net")), 1, Coarse(), ["f16", "bf16"], None)


def test_an_ear_that_hears_otherwise_than_the_reference_is_refused(tmp_path: Path, voice: Path) -> None:
    class Deaf:
        def hear(self, slots: Any, resets: Any, pcm: Any) -> Any:
            return np.full((len(slots), 4, 52), 0.5, np.float32)

    package = draw_package(tmp_path / "ellipse")
    with pytest.raises(RuntimeError, match="it differs from the reference by"):
        assemble([package], 1, None, lambda *_: Deaf(), Coarse(), ["f32"], voice / "lips.onnx")


@pytest.mark.parametrize("beside", [False, True])
def test_the_voice_encoder_is_made_beside_the_rest_only_where_it_may_be(
    tmp_path: Path, voice: Path, beside: bool
) -> None:
    made_in: list[threading.Thread] = []

    def new_ear(slots: int, lips: Path) -> Any:
        made_in.append(threading.current_thread())
        raise RuntimeError("lips.onnx is missing")

    package = draw_package(tmp_path / "ellipse")
    with pytest.raises(RuntimeError, match="is missing"):
        assemble([package], 1, None, new_ear, Coarse(), ["f32"], voice / "lips.onnx", beside=beside)
    assert (made_in[0] is not threading.current_thread()) == beside
    assert not made_in[0].is_alive() or not beside
