"""The model's process by itself: it says when it is ready, ends with its lifeline, and never outlives its parent."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.runtime import Row, Wants
from models.runtime.child import Orders, one_line
from models.runtime.rings import Rings, anonymous
from tests.models.runtime import scripted


class Owner:
    """What the worker does, without asyncio."""

    def __init__(
        self, package: str = "anna", parent: int | None = None, backend: str = "tests.models.runtime.scripted"
    ) -> None:
        lifeline, self.lifeline = os.pipe()
        self.status, status = os.pipe()
        self.rows_bell, self.outs_bell = os.eventfd(0), os.eventfd(0)
        self.rings_memory, loops = anonymous("rings"), anonymous("loops")
        orders = Orders(
            backend=backend,
            packages=[package],
            slots=2,
            lookahead=None,
            capacity=4,
            parent=os.getpid() if parent is None else parent,
            rows_bell=self.rows_bell,
            outs_bell=self.outs_bell,
            ring_memory=self.rings_memory,
            loop_memory=loops,
            loop_disk=-1,
            loop_places=[],
            status=status,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "models.runtime.child", orders.to_json()],
            stdin=lifeline,
            pass_fds=(self.rows_bell, self.outs_bell, self.rings_memory, loops, status),
        )
        for descriptor in (lifeline, status, loops):
            os.close(descriptor)

    def told(self) -> dict[str, Any]:
        """What it says next; nothing at its end."""
        line = b""
        while (letter := os.read(self.status, 1)) not in (b"\n", b""):
            line += letter
        return dict(json.loads(line or "{}"))

    def close(self) -> None:
        for descriptor in {self.lifeline, self.status, self.rows_bell, self.outs_bell, self.rings_memory} - {-1}:
            os.close(descriptor)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def owner() -> Iterator[Owner]:
    owner = Owner()
    yield owner
    owner.close()


def row(order: float = scripted.WELL) -> Row:
    pcm = np.zeros(640, np.float32)
    pcm[:2] = order, 5
    return Row(1, 9, True, "anna", pcm, 0, Wants.POINTS)


def test_it_answers_rows_and_ends_with_its_lifeline(owner: Owner) -> None:
    told = owner.told()
    assert told["cards"][0]["name"] == "anna"
    rings = Rings(owner.rings_memory, 4, told["picture_bytes"])
    for index in range(10):  # more than the ring holds
        rings.write_row(index, 100 + index, row(), 0)
        os.eventfd_write(owner.rows_bell, 1)
        assert os.eventfd_read(owner.outs_bell) == 1
        sequence, out = rings.read_out(index)
        assert (sequence, out.slot, out.generation) == (100 + index, 1, 9)
        assert out.points is not None
        assert out.points[0, 0] == 5
    rings.close()
    os.close(owner.lifeline)
    owner.lifeline = -1
    assert owner.process.wait(timeout=5) == 0


def test_a_step_that_raises_ends_it_and_says_why(owner: Owner) -> None:
    rings = Rings(owner.rings_memory, 4, owner.told()["picture_bytes"])
    rings.write_row(0, 1, row(scripted.RAISE), 0)
    rings.close()
    os.eventfd_write(owner.rows_bell, 1)
    assert owner.told() == {"lost": "RuntimeError: an illegal address"}
    assert owner.process.wait(timeout=5) == 1


def test_a_package_that_does_not_open_ends_it_and_says_why() -> None:
    owner = Owner("broken")
    assert "does not match the manifest" in owner.told()["failed"]
    assert owner.process.wait(timeout=5) == 1
    owner.close()


def test_it_does_not_begin_when_its_parent_is_gone_already() -> None:
    owner = Owner(parent=1)
    assert owner.told() == {}
    assert owner.process.wait(timeout=5) == 1
    owner.close()


def test_it_tells_when_something_better_can_be_had(tmp_path: Path) -> None:
    owner = Owner(str(tmp_path), backend="tests.models.runtime.improving")
    told = owner.told()
    assert told["improving"]
    assert told["reason"].endswith("; it takes over as soon as it is built")
    (tmp_path / "better").touch()
    assert owner.told() == {"better": True}
    owner.close()
    owner = Owner(str(tmp_path), backend="tests.models.runtime.improving")
    assert not owner.told()["improving"]
    owner.close()


def test_reasons_are_one_line() -> None:
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"


def test_serving_on_a_cpu_names_no_torch() -> None:
    code = "import models.runtime.child, models.runtime.plain, engine.worker, sys; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert done.stdout.strip() == "False"
