"""`liveface bench`: what it takes, and how long it lasts, from the other side of the wire."""

import argparse
import asyncio
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.bench import barge, lag
from engine.bench.barge import BargePlan
from engine.bench.faces import FacesPlan, Heard
from engine.bench.latency import NotMatchedError, Record, Report, analyse, split_by_hold, summary
from engine.bench.launch import BenchError, Serving, call, call_barge, call_faces, own_server
from engine.bench.peer import Plan
from engine.clock import RealClock
from models.avatar import PackageError, Shelf, default_shelf

CONTROL_SECONDS = 0.080
FRAMES_LEAST = 24.5
"""A session below this has been let down."""

LATENCY_MOST = {0: (35.0, 70.0), 2: (115.0, 150.0)}
"""By look-ahead: p50 and p99 in milliseconds that one session may have."""

SEVERAL_MORE = 20.0
"""Milliseconds of p99 that several sessions may have more than one."""

CPU_SHARE = 0.9
"""Of all cores: beyond it, queues grow."""

FACES_P99_MOST = 160.0
"""Milliseconds, of faces over websockets."""

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`latency`, `sessions` and `interrupt`, and what they share; `runtime`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="latency | sessions | interrupt | runtime")
    runtime = verbs.add_parser("runtime", help="what a step of the model costs, by batch, stage and backend")
    _runtime_bench().add_arguments(runtime)
    latency = verbs.add_parser("latency", help="sound in → picture out, and lip sync, as a client measures them")
    latency.add_argument("--sessions", type=int, default=1, metavar="N", help="clients at one time (default: 1)")
    latency.add_argument("--url", help="measure a server that runs with --probe, instead of one of our own")
    latency.add_argument(
        "--control", action="store_true", help="hold what arrives for 80 ms, every other 2 s: must read 80 ± 5"
    )
    latency.add_argument(
        "--offers", action="store_true", help="offer the server 600 KB twice a second meanwhile, which it must not feel"
    )
    interrupt = verbs.add_parser("interrupt", help="from an interrupt to the last old sound and picture")
    interrupt.add_argument("--times", type=int, default=20, metavar="N", help="how often (default: 20)")
    sessions = verbs.add_parser("sessions", help="how many sessions until one of them is let down")
    sessions.add_argument("--most", type=int, default=16, metavar="N", help="stop after so many (default: 16)")
    sessions.add_argument(
        "--avatars", type=int, default=1, metavar="N", help="among so many copies of the avatar (default: 1)"
    )
    sessions.add_argument("--faces-only", action="store_true", help="no pictures; what --transport websocket measures")
    for verb in (latency, sessions):
        verb.add_argument("--transport", choices=("webrtc", "websocket"), default="webrtc", help="(default: webrtc)")
        verb.add_argument("--seconds", type=float, default=20.0, help="for how long each time (default: 20)")
        verb.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the distributions")
    for verb in (latency, sessions, interrupt):
        verb.add_argument("--avatar", default="demo", help="which avatar (default: demo)")
        verb.add_argument("--lookahead", type=int, metavar="K", help="frames of look-ahead of our own server")
        verb.add_argument(
            "--serve",
            action="append",
            default=[],
            metavar="FLAG",
            help="one more word for our own server, as --serve=--backend=plain",
        )
        verb.add_argument("--token", help="for a server that asks for one")
        verb.add_argument("--json", action="store_true", help="print JSON")
    latency.epilog = "example:\n  liveface bench latency --sessions 4 --control --plot latency.png"
    sessions.epilog = "example:\n  liveface bench sessions --most 8 --json"
    latency.formatter_class = sessions.formatter_class = argparse.RawDescriptionHelpFormatter


def run(arguments: argparse.Namespace) -> int:
    """0 when it was measured, 1 when not, with one line."""
    if arguments.verb == "runtime":
        return int(_runtime_bench().run(arguments))
    if arguments.verb == "interrupt":
        return _interrupt(arguments)
    refusal = _runtime_bench().undrawable(arguments.plot) if arguments.plot is not None else None
    if refusal is not None:
        return _fail(refusal)
    if arguments.seconds < 10:
        return _fail("--seconds: less than 10 s hold too few bursts to match sound and picture by")
    if getattr(arguments, "avatars", 1) > 1 and arguments.transport != "webrtc":
        return _fail("--avatars: copies of the avatar are called over --transport webrtc")
    if getattr(arguments, "faces_only", False) and arguments.transport != "websocket":
        return _fail("--faces-only: faces without pictures travel over --transport websocket")
    if getattr(arguments, "control", False) and arguments.transport != "webrtc":
        return _fail("--control: the control holds what WebRTC receives")
    try:
        measured = asyncio.run(_sessions(arguments) if arguments.verb == "sessions" else _latency(arguments))
    except (BenchError, NotMatchedError, PackageError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    rows = [row for row, _ in measured]
    if arguments.plot is not None:
        draw(measured, arguments.plot)
    print(json.dumps({"bench": arguments.verb, "rows": rows}, indent=2) if arguments.json else table(rows))
    return 0


def _interrupt(arguments: argparse.Namespace) -> int:
    async def measure() -> Row:
        async with own_server(_words(arguments, 1), RealClock()) as serving:
            return barge.describe(
                await call_barge(BargePlan(serving.url, arguments.times, arguments.avatar, arguments.token))
            )

    try:
        row = asyncio.run(measure())
    except (BenchError, NotMatchedError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        print(json.dumps({"bench": "interrupt", "rows": [row]}, indent=2))
    else:
        for name, told in (("sound", row["last_sound_ms"]), ("picture", row["last_picture_ms"])):
            print(f"last old {name}: p50 {told['p50']:.1f} ms, max {told['max']:.1f} ms, of {told['count']:.0f}")
    return 0


def _runtime_bench() -> Any:
    """It measures the model, not the engine, and lives there."""
    return importlib.import_module("models.runtime.bench")


def describe(reports: Sequence[Report], records: Sequence[Record], server_cpu: float | None, seconds: float) -> Row:
    """All sessions of one measurement in one row. CPU in milliseconds a second and session, summed over cores."""
    count = len(reports)
    return {
        "sessions": count,
        "latency_ms": summary([value for report in reports for value in report.latency]),
        "latency_p99_of_worst_ms": max(summary(report.latency)["p99"] for report in reports),
        "av_offset_ms": summary([value for report in reports for value in report.av_arrival]),
        "av_offset_dated_ms": summary([value for report in reports for value in report.av_dated]),
        "frames_per_second_least": min(report.frames_per_second for report in reports),
        "longest_gap_ms": max(report.longest_gap for report in reports),
        "pictures": sum(report.pictures for report in reports),
        "repeated": sum(report.repeated for report in reports),
        "skipped": sum(report.skipped for report in reports),
        "shifts": sum(report.shifts for report in reports),
        "unreadable": sum(report.unreadable for report in reports),
        "bursts": {
            "sent": sum(report.bursts_sent for report in reports),
            "seen": sum(report.bursts_seen for report in reports),
            "heard": sum(report.bursts_heard for report in reports),
        },
        "kilobits_per_second": sum(report.kilobits_per_second for report in reports) / count,
        "connected_after_ms": max(record.connected_after for record in records) * 1e3,
        "server_cpu_ms": None if server_cpu is None else server_cpu * 1e3 / seconds / count,
        "client_cpu_ms": sum(record.cpu_seconds for record in records) * 1e3 / seconds / count,
    }


def table(rows: Sequence[Row]) -> str:
    """For people: milliseconds, pictures a second, CPU milliseconds a second and session, how many of those sessions
    the machine would serve with its clients elsewhere. The lag of the server's event loop is an upper bound."""
    heads = ("sessions", "K", "p50", "p95", "p99", "max", "A/V", "A/V p99", "fps", "repeated", "lag p99", "server")
    cells = [(*heads, "client", "fit", "")]
    for row in rows:
        latency, offset = row["latency_ms"], row["av_offset_ms"]
        shown = [row["sessions"], row["lookahead"], *(latency.get(name) for name in ("p50", "p95", "p99", "max"))]
        shown += [offset.get("mean"), offset.get("p99"), row["frames_per_second_least"], row["repeated"]]
        shown += [row.get("loop_lag_ms", {}).get("p99"), row["server_cpu_ms"], row["client_cpu_ms"], row.get("fit")]
        cells.append((*map(_cell, shown), row.get("note", "")))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "?" if value is None else str(value) if isinstance(value, int) else f"{value:.1f}"


def draw(measured: Sequence[tuple[Row, Sequence[Report]]], path: Path) -> None:
    """Histograms of latency and A/V offset, a colour a row."""
    backend: Any = importlib.import_module("matplotlib")
    backend.use("Agg")
    plots: Any = importlib.import_module("matplotlib.pyplot")
    figure, (left, right) = plots.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for row, reports in measured:
        label = f"{row['sessions']} session{'s' if row['sessions'] > 1 else ''}{row.get('note', '')}"
        left.hist([value for report in reports for value in report.latency], bins=60, alpha=0.6, label=label)
        right.hist([value for report in reports for value in report.av_arrival], bins=40, alpha=0.6, label=label)
    left.set_xlabel("last packet of its own 40 ms → first packet of the picture, ms")
    right.set_xlabel("A/V offset on arrival, ms (positive: sound early)")
    left.legend()
    figure.savefig(path, dpi=120)
    plots.close(figure)


async def _latency(arguments: argparse.Namespace) -> list[tuple[Row, Sequence[Report]]]:
    clock = RealClock()
    if arguments.url is not None:
        return await _measure(arguments, Serving(arguments.url.rstrip("/")))
    async with own_server(_words(arguments, arguments.sessions), clock) as serving:
        return await _measure(arguments, serving)


async def _measure(arguments: argparse.Namespace, serving: Serving) -> list[tuple[Row, Sequence[Report]]]:
    row, reports = await _once(arguments, serving, arguments.sessions, CONTROL_SECONDS if arguments.control else 0.0)
    if arguments.control:
        split = [split_by_hold(report, CONTROL_SECONDS) for report in reports]
        passed, late = ([value for each in split for value in each[side]] for side in (0, 1))
        if not passed or not late:
            raise BenchError("too few pictures came for the control: measure for longer")
        reads = summary(late)["p50"] - summary(passed)["p50"]
        row.update(latency_ms=summary(passed), held_latency_ms=summary(late), control_reads_ms=reads)
        row["latency_p99_of_worst_ms"] = max(summary(each[0])["p99"] for each in split)
        row["note"] = f"{CONTROL_SECONDS * 1e3:.0f} ms inserted read {reads:.1f}"
        reports = [replace(report, latency=each[0]) for report, each in zip(reports, split, strict=True)]
    return [(row, reports)]


async def _sessions(arguments: argparse.Namespace) -> list[tuple[Row, Sequence[Report]]]:
    """One more session at a time until one is let down."""
    with copies(arguments) as (words, names):
        async with own_server([*_words(arguments, arguments.most), *words], RealClock()) as serving:
            return await _until_let_down(arguments, serving, names)


async def _until_let_down(
    arguments: argparse.Namespace, serving: Serving, names: Sequence[str]
) -> list[tuple[Row, Sequence[Report]]]:
    measured = list[tuple[Row, Sequence[Report]]]()
    for count in counts(arguments):
        measured.append(await _once(arguments, serving, count, names=names))
        row = measured[-1][0]
        if not arguments.json:
            print(table([row]).splitlines()[-1], file=sys.stderr)
        most = FACES_P99_MOST
        if arguments.transport == "webrtc":
            most = LATENCY_MOST.get(row["lookahead"], (0.0, 140.0))[1] + SEVERAL_MORE
        if row["frames_per_second_least"] < FRAMES_LEAST or row["latency_p99_of_worst_ms"] > most:
            row["note"] = f"let down: below {FRAMES_LEAST} fps or p99 above {most:.0f} ms"
            break
    return measured


async def _once(
    arguments: argparse.Namespace, serving: Serving, count: int, inserted: float = 0.0, names: Sequence[str] = ()
) -> tuple[Row, Sequence[Report]]:
    """`count` clients at one time."""
    if arguments.transport == "websocket":
        return await _faces(arguments, serving, count), ()
    plan = Plan(serving.url, arguments.seconds, avatar=arguments.avatar, token=arguments.token, inserted_delay=inserted)
    offers = getattr(arguments, "offers", False)
    before, late = serving.cpu_seconds(), await lag.lags(serving.url, arguments.token)
    async with lag.thrown_offers(serving.url, RealClock()) if offers else nullcontext() as thrown:
        whose = names or (arguments.avatar,)
        records = await call([replace(plan, seed=n + 1, avatar=whose[n % len(whose)]) for n in range(count)])
    after, later = serving.cpu_seconds(), await lag.lags(serving.url, arguments.token)
    used = None if before is None or after is None else after - before
    reports = [analyse(record) for record in records]
    row = describe(reports, records, used, arguments.seconds)
    row |= {"lookahead": arguments.lookahead, "loop_lag_ms": lag.describe(late, later), "avatars": len(whose)}
    row["fit"] = fit(row["server_cpu_ms"])
    if thrown is not None:
        row |= {"offers": thrown.answers, "note": f"while offered 600 KB {sum(thrown.answers.values())} times"}
    return row, reports


async def _faces(arguments: argparse.Namespace, serving: Serving, count: int) -> Row:
    before = serving.cpu_seconds()
    heard = await call_faces(serving, FacesPlan("", count, arguments.seconds, arguments.avatar, arguments.token))
    after = serving.cpu_seconds()
    used = None if before is None or after is None else after - before
    return {**describe_faces(heard, used, arguments.seconds), "lookahead": arguments.lookahead}


def describe_faces(heard: Sequence[Heard], server_cpu: float | None, seconds: float) -> Row:
    """The same row for faces over a websocket: last sample sent → face received."""
    latencies = [[latency * 1e3 for latency in each.latencies] for each in heard if each.latencies]
    if not latencies:
        raise NotMatchedError("no sound came back: nothing can be matched")
    count = len(heard)
    return {
        "sessions": count,
        "latency_ms": summary([latency for each in latencies for latency in each]),
        "latency_p99_of_worst_ms": max(summary(each)["p99"] for each in latencies),
        "av_offset_ms": {},
        "frames_per_second_least": min(0.0 if each.closed else each.faces / each.seconds for each in heard),
        "repeated": 0,
        "spared": sum(each.spared for each in heard),
        "closed": [each.closed for each in heard if each.closed],
        "server_cpu_ms": None if server_cpu is None else server_cpu * 1e3 / seconds / count,
        "client_cpu_ms": sum(each.cpu_seconds for each in heard) * 1e3 / seconds / count,
    }


def counts(arguments: argparse.Namespace) -> list[int]:
    """How many sessions are tried, in order: faces are light, so their steps grow."""
    if arguments.transport == "webrtc":
        return list(range(1, arguments.most + 1))
    steps = [1, 2, 5, 10, *range(20, 201, 20), *range(250, 2_001, 50)]
    return sorted({min(step, arguments.most) for step in steps})


@contextmanager
def copies(arguments: argparse.Namespace) -> Iterator[tuple[list[str], list[str]]]:
    """Our own server's words and the names, for so many copies of the avatar as are asked for; none for one."""
    if arguments.avatars < 2:
        yield [], []
        return
    shelf = Shelf(default_shelf())
    with tempfile.TemporaryDirectory(prefix="liveface-bench-") as folder:
        made = _runtime_bench().siblings(shelf.folder(arguments.avatar), arguments.avatars, Path(folder))
        here = Shelf(Path(folder) / "shelf")
        names = [here.install(copy).name for copy in made]
        yield ["--avatars-dir", str(here.root), *(word for name in names for word in ("--avatar", name))], names


def fit(server_cpu_ms: float | None) -> int | None:
    """How many such sessions the server's share of this machine would serve, if the clients were elsewhere."""
    return int(CPU_SHARE * 1e3 * (os.cpu_count() or 1) / server_cpu_ms) if server_cpu_ms else None


def _words(arguments: argparse.Namespace, slots: int) -> list[str]:
    several = getattr(arguments, "avatars", 1) > 1
    words = [*([] if several else ["--avatar", arguments.avatar]), "--slots", str(slots), *arguments.serve]
    return words if arguments.lookahead is None else [*words, "--lookahead", str(arguments.lookahead)]


def _fail(message: str) -> int:
    print(f"liveface: {message}", file=sys.stderr)
    return 1
