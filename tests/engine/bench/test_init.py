"""`liveface bench`: what is asked, what is shown."""

import argparse
import contextlib
import json
from pathlib import Path

import pytest

from engine import bench
from engine.bench.barge import Barged
from engine.bench.faces import Heard
from engine.bench.latency import Record, analyse
from engine.bench.launch import BenchError, Serving
from engine.bench.peer import Plan
from tests.engine.bench.test_latency import made
from tests.models.runtime.drawn import draw_package


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def servers(monkeypatch):
    """No processes: servers that are not there, and clients that saw what is known. Returns the servers' words."""
    started: list[list[str]] = []

    class Own:
        def __init__(self, words, clock):
            started.append(words)

        async def __aenter__(self):
            return Serving("http://127.0.0.1:1")

        async def __aexit__(self, *error):
            return None

    async def call(plans: list[Plan]) -> list[Record]:
        return [
            made(0.1 + 0.02 * len(plans), inserted=plan.inserted_delay, seconds=plan.seconds, seed=plan.seed)
            for plan in plans
        ]

    async def lags(url: str, token: str | None) -> dict[float, float]:
        pages.append(url)
        return {0.01: 99.0 * len(pages), 0.02: 100.0 * len(pages)}

    pages: list[str] = []
    monkeypatch.setattr(bench, "own_server", Own)
    monkeypatch.setattr(bench, "call", call)
    monkeypatch.setattr(bench.lag, "lags", lags)
    return started


def test_latency_as_json(servers, capsys):
    assert bench.run(parsed("latency", "--json", "--seconds", "12", "--lookahead", "0", "--sessions", "2")) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bench"] == "latency"
    (row,) = shown["rows"]
    assert row["sessions"] == 2
    assert row["latency_ms"]["p50"] == pytest.approx(140, abs=0.1)
    assert row["av_offset_ms"]["mean"] == pytest.approx(-6.5, abs=0.1)
    assert row["lookahead"] == 0
    assert row["loop_lag_ms"] == {"p50": 10.0, "p99": 10.0, "max": 20.0, "count": 100.0}
    assert servers == [["--avatar", "demo", "--slots", "2", "--lookahead", "0"]]


def test_the_control_reads_80_and_leaves_the_rest_alone(servers, capsys):
    assert bench.run(parsed("latency", "--json", "--seconds", "12", "--control")) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["control_reads_ms"] == pytest.approx(80, abs=0.1)
    assert row["latency_ms"]["max"] == pytest.approx(120, abs=0.1), "without what was held"
    assert row["held_latency_ms"]["p50"] == pytest.approx(200, abs=0.1)


def test_the_table_has_a_row_for_each_measurement(servers, capsys):
    assert bench.run(parsed("latency", "--seconds", "12", "--control")) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert "p50" in head
    assert len(rows) == 1
    assert "80 ms inserted read 80.0" in rows[0]


def test_sessions_go_on_until_one_is_let_down(servers, capsys):
    assert bench.run(parsed("sessions", "--seconds", "12", "--lookahead", "2", "--json", "--most", "9")) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["sessions"] for row in rows] == [1, 2, 3, 4]
    assert "let down" in rows[-1]["note"], "100 + 4 * 20 ms is above 170"


def test_a_picture_is_drawn(servers, capsys, tmp_path):
    assert bench.run(parsed("latency", "--seconds", "12", "--control", "--plot", str(tmp_path / "x.png"))) == 0
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_server_of_somebody_else_is_measured_without_starting_one(servers, capsys):
    assert bench.run(parsed("latency", "--seconds", "12", "--url", "http://127.0.0.1:5/")) == 0
    assert servers == []
    assert "?" in capsys.readouterr().out, "its CPU is not ours to see"


def test_faces_are_measured_over_websockets_in_growing_steps(servers, capsys, monkeypatch):
    asked = []

    async def call_faces(serving, plan):
        asked.append(plan.sessions)
        late = 0.01 if plan.sessions < 20 else 0.2
        return [Heard([late] * 50, 500, 20.0, spared=1, cpu_seconds=1.0) for _ in range(plan.sessions)]

    monkeypatch.setattr(bench, "call_faces", call_faces)
    words = ("sessions", "--transport", "websocket", "--faces-only", "--most", "100", "--json")
    assert bench.run(parsed(*words)) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert asked == [1, 2, 5, 10, 20]
    assert rows[0]["latency_ms"]["p99"] == pytest.approx(10)
    assert rows[0]["frames_per_second_least"] == 25
    assert "let down" in rows[-1]["note"]
    assert bench.run(parsed("latency", "--transport", "websocket", "--sessions", "3")) == 0
    assert "10.0" in capsys.readouterr().out


def test_offers_are_thrown_meanwhile_and_counted(servers, capsys, monkeypatch):
    @contextlib.asynccontextmanager
    async def thrown_offers(url, clock):
        yield bench.lag.Thrown({413: 7})

    monkeypatch.setattr(bench.lag, "thrown_offers", thrown_offers)
    assert bench.run(parsed("latency", "--seconds", "12", "--offers", "--json")) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["offers"] == {"413": 7}
    assert "600 KB 7 times" in row["note"]


def test_interrupts_are_told_by_their_last_old_sound_and_picture(servers, capsys, monkeypatch):
    async def call_barge(plan):
        return Barged([1.0, 3.0], [0.9, 0.98, 1.03, 2.9, 3.05], [0.9, 1.01, 2.9, 2.99])

    monkeypatch.setattr(bench, "call_barge", call_barge)
    assert bench.run(parsed("interrupt", "--lookahead", "2")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "last old sound: p50 40.0 ms, max 50.0 ms, of 2",
        "last old picture: p50 0.0 ms, max 10.0 ms, of 2",
    ]
    assert servers == [["--avatar", "demo", "--slots", "1", "--lookahead", "2"]]
    assert bench.run(parsed("interrupt", "--json")) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["last_sound_ms"]["max"] == pytest.approx(50)


def test_a_client_that_was_closed_had_no_faces():
    row = bench.describe_faces([Heard([0.1], 500, 20.0), Heard([], 400, 20.0, closed="4408")], None, 20.0)
    assert row["frames_per_second_least"] == 0
    assert row["closed"] == ["4408"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("sessions", "--faces-only"), "--faces-only"),
        (("latency", "--control", "--transport", "websocket"), "--control"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_line(capsys, words, says):
    assert bench.run(parsed(*words)) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("error", [BenchError("the server is away"), None])
def test_what_goes_wrong_is_one_line(servers, capsys, monkeypatch, error):
    async def call(plans):
        if error is not None:
            raise error
        return [Record(made().stimulus, [], [], [], []) for _ in plans]

    monkeypatch.setattr(bench, "call", call)
    assert bench.run(parsed("latency", "--seconds", "12")) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("liveface: ")
    assert said.err.count("\n") == 1


def test_too_short_a_time_is_refused(capsys):
    assert bench.run(parsed("latency", "--seconds", "3")) == 1
    assert "less than 10 s" in capsys.readouterr().err


def test_reports_of_several_sessions_are_one_row():
    records = [made(0.1), made(0.2, seed=4)]
    row = bench.describe([analyse(record) for record in records], records, 2.0, 20.0)
    assert row["latency_p99_of_worst_ms"] == pytest.approx(200, abs=0.1)
    assert row["server_cpu_ms"] == pytest.approx(50)
    assert row["frames_per_second_least"] == pytest.approx(25, abs=0.1)


def test_sessions_among_several_avatars(servers, capsys, monkeypatch, tmp_path):
    """Each copy has its callers; what would fit is told for a server whose clients are elsewhere."""
    called: list[str | None] = []
    before = bench.call

    async def call(plans):
        called.extend(plan.avatar for plan in plans)
        return await before(plans)

    monkeypatch.setattr(bench, "call", call)
    monkeypatch.setattr(Serving, "cpu_seconds", lambda _: len(called) * 1.0)
    monkeypatch.setattr(bench.os, "cpu_count", lambda: 4)
    package = draw_package(tmp_path / "ellipse")
    monkeypatch.setattr(bench.Shelf, "folder", lambda _, name: package)
    assert bench.run(parsed("sessions", "--most", "3", "--avatars", "2", "--json", "--seconds", "12")) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    (words,) = servers
    assert [words[at + 1] for at, word in enumerate(words) if word == "--avatar"] == ["ellipse-0", "ellipse-1"]
    assert called[-3:] == ["ellipse-0", "ellipse-1", "ellipse-0"]
    assert rows[0]["avatars"] == 2
    assert rows[0]["server_cpu_ms"] == pytest.approx(1e3 / 12)
    assert rows[0]["fit"] == int(0.9 * 4000 / (1e3 / 12))
    assert bench.run(parsed("sessions", "--avatars", "2", "--transport", "websocket")) == 1
    assert "--avatars" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["latency", "sessions", "runtime"])
@pytest.mark.parametrize(("name", "complaint"), [("nowhere/x.png", "is no directory"), ("x.txt", "must end in one of")])
def test_a_plot_that_cannot_be_drawn_is_said_before_anything_is_measured(
    verb: str, name: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.run(parsed(verb, "--plot", str(tmp_path / name))) == 1
    said = capsys.readouterr()
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert not said.out
