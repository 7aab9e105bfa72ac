"""The meter of the runtime, metered."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from models.avatar import Shelf
from models.runtime import Out, Row, Wants, bench
from models.runtime.bench import Line, fit, measure, siblings
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.scripted import Scripted
from tests.models.runtime.taught import teach_package


def test_the_fit_finds_what_a_line_was_made_of() -> None:
    batches = [1, 2, 4, 8, 16, 32]
    line = fit(batches, [3 + 0.5 * batch for batch in batches])
    assert (line.a_ms, line.b_ms, line.r2) == (pytest.approx(3), pytest.approx(0.5), pytest.approx(1))
    noisy = [(3 + 0.5 * batch) * (1 + 0.2 * (-1) ** n) for n, batch in enumerate(batches)]
    assert fit(batches, noisy).r2 < 0.99
    assert fit([4], [8.0]) == Line(0, 2, 1)
    assert fit(batches, [0.0] * 6) == Line(pytest.approx(0), pytest.approx(0), 1)  # type: ignore[arg-type]


class Hand:
    """A clock that only the runtime under the meter moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Slow(Scripted):
    """2 ms a step and 1 ms a row, by the hand of its clock; half of that is its own core's work."""

    def __init__(self, wall: Hand, core: Hand) -> None:
        super().__init__(["anna", "bert"], 8, None)
        self.wall, self.core = wall, core

    def step(self, rows: list[Row]) -> list[Out]:
        seconds = 0.002 + 0.001 * len(rows)
        self.wall.seconds += seconds
        self.core.seconds += seconds / 2
        return super().step(rows)


def test_a_known_runtime_is_measured_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, core = Hand(), Hand()
    monkeypatch.setattr(bench, "perf_counter", wall)
    monkeypatch.setattr(bench, "process_time", core)
    steps = measure(Slow(wall, core), [1, 4, 8], 15, Wants.PICTURE)
    line = fit([step.batch for step in steps], [step.p50 for step in steps])
    assert (line.a_ms, line.b_ms, line.r2) == (pytest.approx(2), pytest.approx(1), pytest.approx(1))
    assert [step.core for step in steps] == [pytest.approx(step.p50 / 2) for step in steps]
    assert steps[0].stages["place"] == pytest.approx(500)
    assert steps[1].core_stages == {"features": pytest.approx(0.25), "place": pytest.approx(0.5)}  # of 0.75 for a row


def test_siblings_are_whole_packages_of_other_names(tmp_path: Path) -> None:
    copies = siblings(draw_package(tmp_path / "ellipse"), 3, tmp_path)
    assert [copy.name for copy in copies] == ["ellipse-0", "ellipse-1", "ellipse-2"]
    report = bench.report("plain", copies, [1, 2], 3, Wants.FACE)
    assert (report.avatars, report.size) == (3, "128x128, 8 frames")
    assert report.calibration_ms > 0.5
    assert set(report.stages) >= {"features", "landmarks"}
    assert report.memory is None


def test_memory_is_told_by_avatar_and_by_session(tmp_path: Path) -> None:
    copies = siblings(draw_package(tmp_path / "ellipse", frames=200), 2, tmp_path)
    memory = bench.memory("plain", copies)
    loop = 200 * 128 * 192 / 1e6
    assert 20 < memory.opened < 500
    assert 0.9 * loop < memory.avatar < 4 * loop + 10
    assert -0.05 < memory.session < 0.5
    assert bench.memory("plain", copies[:1]).avatar == 0


def test_a_backend_that_does_not_open_is_no_memory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no backend is called 'abacus'"):
        bench.opened_mb("abacus", [tmp_path], 1)


def test_networks_are_counted_when_an_avatar_brings_its_own(tmp_path: Path) -> None:
    counted = bench.networks(teach_package(tmp_path / "net"))
    assert set(counted) >= {"step", "paint"}
    assert counted["paint"] == (1, 0)  # a hundred is its only number


def test_large_batches_take_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, core = Hand(), Hand()
    monkeypatch.setattr(bench, "perf_counter", wall)
    monkeypatch.setattr(bench, "process_time", core)
    monkeypatch.setattr(bench, "MOST_ROWS", 100)
    steps: list[int] = []

    class Counting(Slow):
        def step(self, rows: list[Row]) -> list[Out]:
            steps.append(len(rows))
            return super().step(rows)

    measure(Counting(wall, core), [1, 4, 8], 50, Wants.PICTURE)
    assert [steps.count(batch) for batch in (1, 4, 8)] == [53, 28, 15]


def test_the_command_prints_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_package(tmp_path / "shelf" / "ellipse")
    monkeypatch.setattr(bench, "Shelf", partial(Shelf, shipped=tmp_path / "shelf"))
    monkeypatch.setattr(bench, "calibrate", lambda: 10.0)
    words = [
        "bench",
        "--avatar",
        "ellipse",
        "--backend",
        "plain",
        "--avatars",
        "1",
        "--most",
        "4",
        "--steps",
        "3",
        "--no-memory",
    ]
    monkeypatch.setattr("sys.argv", [*words, "--json", "--plot", str(tmp_path / "plot.png")])
    assert bench.main() == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [step["batch"] for step in told["steps"]] == [1, 2, 4]
    assert told["sessions"] > 0
    assert sum(told["steps"][0]["core_stages"].values()) == pytest.approx(told["steps"][0]["core"])
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("sys.argv", words)
    assert bench.main() == 0
    assert "sessions in 60% of a tick" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*words[:2], "nobody"])
    assert bench.main() == 1
    assert "no avatar is called 'nobody'" in capsys.readouterr().err


def test_the_sound_keeps_a_mouth_moving() -> None:
    assert np.sqrt(np.square(bench.speech(10)).mean()) > 0.03
