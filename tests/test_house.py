"""The laws of the house, checked by a machine: who imports whom, what is tested where, what things are called.

A new file of `engine/` must be given its floor here; that is the moment to think about what it may know.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    # A file imports only files of lower floors. The first knows nothing of the engine.
    {"audiofile", "avatars", "clock", "config", "limits", "logs", "media", "memory", "metrics", "tokens", "voices"},
    {
        "access",
        "channel",
        "chunker",
        "encoder",
        "gate",
        "icefilter",
        "ingress",
        "offer",
        "picture",
        "playout",
        "probe",
        "protocol",
    },
    {"egress", "listener", "worker"},
    {"connection", "pipeline", "start"},
    {"session"},
    {"broadcast"},
    {"datachannel"},
    {"render", "webrtc", "websocket"},
    {"lobby"},
    {"rooms"},
    {"doors"},
    {"bodies", "reception"},
    {"pages", "signalling"},
    {"api"},
    {"server"},
    {"serve"},
    {"bench", "microphone"},
    {"__main__"},
)

FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}

EVERYWHERE_IN_ENGINE = {"models.avatar", "models.face", "models.rates", "models.runtime", "models.triangles"}
"""What any file of the engine may know of the models. The rest of `models.runtime` is for the worker alone."""

ONLY_IN = {
    "time": {"engine/clock.py": "one clock, injected, so that tests can jump it"},
    "sounddevice": {"engine/microphone.py": "an extra, imported when the microphone is opened"},
    "aiortc": {
        "engine/webrtc.py": "the skin",
        "engine/connection.py": "puts our parts into its connection",
        "engine/ingress.py": "takes the place of its jitter buffer",
        "engine/egress.py": "takes the place of its senders",
        "engine/icefilter.py": "hardens its transports",
        "engine/bench/peer.py": "is a client, in a process of its own",
    },
    "aioice": {"engine/icefilter.py": "hardens it", "engine/bench/peer.py": "a client"},
}
"""Packages that only these files of engine/ may name."""

TORCH_FREE = (
    "models/__init__.py",
    "models/avatar.py",
    "models/face.py",
    "models/rates.py",
    "models/triangles.py",
    "models/runtime/__init__.py",
    "models/runtime/child.py",
    "models/runtime/choose.py",
    "models/runtime/openvino.py",
    "models/runtime/plain.py",
    "models/runtime/rings.py",
    "models/runtime/sanity.py",
    "models/runtime/serve.py",
)
"""What serving on a CPU runs, besides all of engine/."""

NO_NAMES = {"opt", "opts", "util", "utils", "manager", "handler", "helper", "helpers", "data", "misc", "common"}
"""Words that say nothing, in names of files, classes and functions."""

NAMES_OF_OTHERS: dict[str, str] = {
    "engine/icefilter.py:data_received": "aioice calls it",
    "engine/icefilter.py:_handle_rtcp_data": "aiortc calls it",
    "engine/icefilter.py:_send_data": "aiortc calls it",
    "engine/icefilter.py:_handle_rtp_data": "aiortc calls it",
    "tests/models/runtime/faketrt.py:DataType": "TensorRT calls it so",
}
"""path:name → why a library makes us use it."""

SHOWN_ELSEWHERE: dict[str, str] = {
    "engine/rooms.py": "a value without a deed; tests/engine/test_server.py lives in it",
}
"""Source file → the test that shows it works, where it cannot be a file of its own."""

TESTS_OF_MORE = {
    "tests/test_house.py": "this file",
    "tests/test_fakes.py": "the fakes themselves",
    "tests/test_processor.py": "tests/processor.py, which says what a busy machine is to blame for",
    "tests/test_media_faults.py": "M1 to M17 on the whole way from packet to moment",
    "tests/test_network_faults.py": "N1 to N9 on whole connections",
    "tests/test_newcomer.py": "a fresh clone, as a newcomer meets it",
    "tests/models/renderers/test_heads.py": "the default renderer's whole way, for heads of any size and turn",
    "tests/models/renderers/test_seam.py": "all four renderers through their seam",
    "tests/clients/test_browser.py": "clients/browser, which is not Python",
    "tests/clients/python/test_lips.py": "tests/bench/lips.py, which goes through everything",
}
"""Test files that belong to no single source file."""


@dataclass(frozen=True)
class Source:
    path: str  # from the root
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def package(self) -> str:
        return self.module if self.path.endswith("__init__.py") else self.module.rpartition(".")[0]


@dataclass(frozen=True)
class Import:
    line: int
    module: str
    lazy: bool  # inside a function, or for the type checker only


@cache
def sources(*tops: str) -> tuple[Source, ...]:
    """Every Python file that git knows or would know, so that a file of tomorrow is checked today."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *(f"{top}/*.py" for top in tops)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        paths = sorted(set(listed.stdout.split()))
    else:  # an unpacked archive
        paths = sorted(str(path.relative_to(ROOT)) for top in tops for path in (ROOT / top).rglob("*.py"))
    return tuple(Source(path, ast.parse((ROOT / path).read_text())) for path in paths if (ROOT / path).exists())


MODULES = frozenset(source.module for source in sources("engine", "models", "clients"))


@cache
def imports(source: Source) -> tuple[Import, ...]:
    """All imports, wherever they stand; `from models import face` is an import of models.face."""
    return tuple(_imports(source, source.tree, lazy=False))


def _imports(source: Source, node: ast.AST, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(child.lineno, name.name, lazy) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parents = source.package.split(".")
                base = ".".join([*parents[: len(parents) - child.level + 1], *([base] if base else [])])
            for name in child.names:
                inner = f"{base}.{name.name}"
                yield Import(child.lineno, inner if inner in MODULES else base, lazy)
        else:
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(source, child, lazy or typing_only or inside)


def room(module: str) -> str:
    """engine.bench.peer is in the room "bench"; engine itself in none."""
    return [*module.split("."), ""][1]


def lawful(broken: list[str]) -> None:
    assert not broken, "\n" + "\n".join(broken)


# Who imports whom


def test_every_file_of_the_engine_has_its_floor():
    lawful(
        [
            f"{source.path}: give it a floor in FLOORS"
            for source in sources("engine")
            if room(source.module) and room(source.module) not in FLOOR
        ]
    )


def test_imports_in_the_engine_go_down():
    broken = []
    for source in sources("engine"):
        here = room(source.module)
        for each in imports(source):
            there = room(each.module)
            if each.module.startswith("engine.") and there != here and FLOOR.get(there, 99) >= FLOOR.get(here, 99):
                broken.append(f"{source.path}:{each.line}: {here} may not know {there}")
    lawful(broken)


def test_models_never_import_the_engine_and_clients_know_only_the_wire():
    broken = []
    for source in sources("models", "clients"):
        top = source.path.split("/")[0]
        for each in imports(source):
            other = each.module.split(".")[0]
            if other in {"engine", "models", "clients", "tests"} - {top}:
                broken.append(f"{source.path}:{each.line}: {top} may not know {each.module}")
    lawful(broken)


def test_the_engine_knows_of_the_models_only_what_serving_needs():
    broken = []
    for source in sources("engine"):
        for each in imports(source):
            known = each.module in EVERYWHERE_IN_ENGINE or each.module == "models"
            if each.module.startswith("models.runtime.") and source.path.startswith("engine/worker/"):
                known = True
            if (
                each.module.startswith("models")
                and not known
                and not (each.lazy and source.path == "engine/__main__.py")
            ):
                broken.append(f"{source.path}:{each.line}: {each.module} is not for the engine")
            if each.module == "tests" or each.module.startswith("tests."):
                broken.append(f"{source.path}:{each.line}: what is shipped does not know tests")
    lawful(broken)


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_some_packages_have_one_door(package):
    broken = []
    for source in sources("engine"):
        for each in imports(source):
            if each.module.split(".")[0] == package and source.path not in ONLY_IN[package]:
                broken.append(f"{source.path}:{each.line}: {package} only in {', '.join(ONLY_IN[package])}")
            if package == "sounddevice" and each.module == package and not each.lazy:
                broken.append(f"{source.path}:{each.line}: {package} only inside a function")
    lawful(broken)


def test_nobody_asks_another_clock():
    """`loop.time()`, `datetime.now()` and the like cannot be made to jump by a test."""
    broken = []
    for source in sources("engine"):
        for node in ast.walk(source.tree):
            if (
                not isinstance(node, ast.Call)
                or not isinstance(node.func, ast.Attribute)
                or source.path == "engine/clock.py"
            ):
                continue
            asked = ast.unparse(node.func)
            if (node.func.attr == "time" and not node.args) or re.search(r"date(time)?\.(now|utcnow|today)$", asked):
                broken.append(f"{source.path}:{node.lineno}: {asked}() is another clock")
    lawful(broken)


def test_torch_is_named_only_in_models_and_not_where_serving_needs_it():
    broken = []
    for source in sources("engine", "models", "clients"):
        for each in imports(source):
            named = each.module.split(".")[0] in ("torch", "torchvision", "torchaudio")
            if named and (not source.path.startswith("models/") or source.path in TORCH_FREE):
                broken.append(f"{source.path}:{each.line}: torch has no place here")
    lawful(broken)


def test_what_needs_no_torch_does_not_reach_it_through_others():
    files = {source.module: source for source in sources("models")}
    broken = []
    for path in TORCH_FREE:
        start = next((source for source in files.values() if source.path == path), None)
        seen: set[str] = set()
        line = [(start.module, (start.module,))] if start else []
        while line:
            module, way = line.pop()
            if module in seen or module not in files:
                continue
            seen.add(module)
            for each in imports(files[module]):
                if each.lazy:
                    continue
                if each.module.split(".")[0] == "torch":
                    broken.append(f"{path}: reaches torch by {' → '.join(way)}")
                line.append((each.module, (*way, each.module)))
    lawful(broken)


def test_the_command_line_imports_its_commands_when_they_are_called():
    """`liveface --help` must not wait for a codec, and works with no extra installed."""
    allowed = {"engine", "engine.config", "engine.logs", *sys.stdlib_module_names}
    broken = []
    for source in sources("engine"):
        if source.path == "engine/__main__.py":
            for each in imports(source):
                if (
                    not each.lazy
                    and each.module not in allowed
                    and each.module.split(".")[0] not in sys.stdlib_module_names
                ):
                    broken.append(f"{source.path}:{each.line}: import {each.module} inside the command")
    lawful(broken)


def test_no_file_imports_itself_in_a_circle():
    """Also not by way of an import inside a function: that hides a circle, it does not open it."""
    graph = {
        source.module: {
            each.module for each in imports(source) if each.module in MODULES and each.module != source.module
        }
        for source in sources("engine", "models", "clients")
    }
    done: set[str] = set()
    circles: list[str] = []

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            circles.append(" → ".join([*way[way.index(module) :], module]))
        elif module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
    lawful(circles)


# What is tested where


def needs_test(source: Source) -> bool:
    """A file of a docstring, imports, constants, protocols, enums and dataclasses only needs none."""
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return True
        if isinstance(node, ast.ClassDef):
            value = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
            kind = any(
                re.search(r"Protocol|Enum|Flag|Error|Exception|NamedTuple", ast.unparse(base)) for base in node.bases
            )
            if not (value or kind):
                return True
    return False


def mirror(path: str) -> str:
    """engine/x.py → tests/engine/test_x.py; an `__init__.py` → test_init.py, a `__main__.py` → test_main.py."""
    folder, _, name = path.rpartition("/")
    return f"tests/{folder}/test_{name.strip('_').replace('__.py', '.py')}"


def test_every_source_file_has_its_test_file():
    lawful(
        [
            f"{source.path}: no {mirror(source.path)}"
            for source in sources("engine", "models", "clients")
            if needs_test(source) and source.path not in SHOWN_ELSEWHERE and not (ROOT / mirror(source.path)).exists()
        ]
    )


def test_every_test_file_is_of_a_source_file():
    expected = {mirror(source.path) for source in sources("engine", "models", "clients")}
    # Clients in other languages: clients/vr/web/ and clients/vr/web.js are both tested by tests/clients/vr/test_web.py.
    others = [path.relative_to(ROOT) for path in (ROOT / "clients").rglob("*") if "node_modules" not in path.parts]
    expected |= {f"tests/{path.parent}/test_{path.name.partition('.')[0]}.py" for path in others}
    lawful(
        [
            f"{source.path}: of which file is this the test? Say so in TESTS_OF_MORE"
            for source in sources("tests")
            if Path(source.path).name.startswith("test_") and source.path not in expected | TESTS_OF_MORE.keys()
        ]
    )


def test_the_exceptions_of_these_laws_are_still_needed():
    paths = {source.path for source in sources("engine", "models", "clients", "tests")}
    stale = [path for path in (*SHOWN_ELSEWHERE, *TESTS_OF_MORE) if path not in paths]
    stale += [name for name in NAMES_OF_OTHERS if name.partition(":")[0] not in paths]
    lawful([f"{path} is not there any more" for path in stale])


# What things are called, and said


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def test_names_say_something():
    broken = []
    for source in sources("engine", "models", "clients", "tests"):
        named = [(1, part) for part in source.path.removesuffix(".py").split("/")]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                "test_"
            ):
                named.append((node.lineno, node.name))
        for line, name in named:
            if words(name) & NO_NAMES and f"{source.path}:{name}" not in NAMES_OF_OTHERS:
                broken.append(f"{source.path}:{line}: {name}")
    lawful(broken)


def test_public_functions_are_typed():
    broken = []
    for source in sources("engine", "models", "clients"):
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("_") and not node.name.startswith("__"):
                continue
            inner = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [each.arg for each in inner if each.annotation is None and each.arg not in ("self", "cls")]
            bare += [
                each.arg for each in (node.args.vararg, node.args.kwarg) if each is not None and each.annotation is None
            ]
            if node.returns is None and node.name != "__init__":
                bare.append("what it returns")
            broken += [f"{source.path}:{node.lineno}: {node.name}: {each} has no type" for each in bare]
    lawful(broken)


def test_every_source_file_begins_by_saying_what_it_is_for():
    lawful(
        [
            f"{s.path}: no docstring"
            for s in sources("engine", "models", "clients")
            if s.tree.body and not ast.get_docstring(s.tree)
        ]
    )


def test_nothing_is_left_for_later_and_no_fault_is_swallowed():
    broken = []
    for source in sources("engine", "models", "clients"):
        for number, line in enumerate((ROOT / source.path).read_text().splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                broken.append(f"{source.path}:{number}: {line.strip()}")
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler):
                wide = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                if wide and all(isinstance(each, ast.Pass) for each in node.body):
                    broken.append(f"{source.path}:{node.lineno}: a fault of any kind is swallowed")
    lawful(broken)


# Without torch

BLOCKED = """
import importlib, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "torchaudio"):
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by a test)")

sys.meta_path.insert(0, NoTorch())
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("sounddevice",):
            print(f"{name}: {error}")
"""


def test_engine_and_cpu_runtime_import_with_torch_absent():
    modules = [source.module for source in sources("engine") if not source.path.endswith("__main__.py")]
    modules += [
        source.module for source in sources("models") if source.path in TORCH_FREE and "child" not in source.path
    ]
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED, *modules], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.stdout == ""
    assert run.returncode == 0, run.stderr[-2_000:]
    assert len(modules) > 10


# The laws can be broken


@pytest.mark.parametrize(
    ("text", "module", "lazy"),
    [
        ("import time", "time", False),
        ("from time import sleep", "time", False),
        ("from models import face", "models.face", False),
        ("from models.rates import CHUNK", "models.rates", False),
        ("from . import clock", "engine.clock", False),
        ("from .media import Moment", "engine.media", False),
        ("def f():\n    import torch", "torch", True),
        ("if TYPE_CHECKING:\n    import torch", "torch", True),
        ("try:\n    import torch\nexcept ImportError:\n    torch = None", "torch", False),
        ("class A:\n    import torch", "torch", False),
    ],
)
def test_the_eye_of_the_law_sees_every_import(text, module, lazy):
    assert [(each.module, each.lazy) for each in imports(Source("engine/x.py", ast.parse(text)))] == [(module, lazy)]


def test_the_eye_of_the_law_reads_names():
    assert words("VideoHandler") & NO_NAMES
    assert words("merge_utils") & NO_NAMES
    assert words("load_data") & NO_NAMES
    assert not words("datagram_received") & NO_NAMES
    assert not words("options") & NO_NAMES
    assert mirror("models/runtime/plain.py") == "tests/models/runtime/test_plain.py"
    assert mirror("engine/__main__.py") == "tests/engine/test_main.py"
    assert mirror("models/studio/__init__.py") == "tests/models/studio/test_init.py"


def test_the_readme_names_every_source_file() -> None:
    """The tree in the README is the table of contents: a file that is not in it cannot be found."""
    tree = (ROOT / "README.md").read_text().partition("## The tree")[2]
    lost = [path.name for room in ("engine", "models") for path in (ROOT / room).rglob("*.py")]
    lost = sorted({name for name in lost if name != "__init__.py" and name not in tree})
    presenter = {path.name for path in (ROOT / "models/studio/presenter").glob("*.py")}
    bench = {path.name for path in (ROOT / "engine/bench").glob("*.py")}
    assert not set(lost) - presenter - bench, f"README.md says nothing of {lost}"
