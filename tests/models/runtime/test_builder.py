"""The builder on a fake; in `make check` the real one of TensorRT-RTX, and the bindings of TensorRT 10.16 and 11.4."""

import enum
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from models.runtime import builder
from models.runtime.ear import LIPS
from models.runtime.precision import mixed
from tests.models.runtime import faketrt, taught

ROOT = Path(__file__).parents[3]


def test_an_engine_has_a_profile_for_each_size_and_the_graph_as_it_is() -> None:
    said: list[str] = []
    engine = builder.build(faketrt, taught._step(), [1, 2, 4], said.append)
    opened = faketrt.Runtime(faketrt.ILogger()).deserialize_cuda_engine(engine)
    assert opened is not None
    assert [profile["x"] for profile in opened._profiles] == [[1, 640], [2, 640], [4, 640]]
    assert said == ["Building Engine: 1 of 2", "Building Engine: 2 of 2"]


def test_a_graph_that_the_parser_does_not_read_is_refused_in_its_own_words() -> None:
    with pytest.raises(RuntimeError, match="TensorRT does not read this graph: Error parsing message"):
        builder.build(faketrt, b"not a graph", [1])


def test_a_graph_that_cannot_be_built_is_refused_in_the_librarys_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faketrt.Builder, "fails", True)
    with pytest.raises(RuntimeError, match="TensorRT cannot build this graph: no tactic for a node"):
        builder.build(faketrt, taught._step(), [1])


def test_the_first_library_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    rtx = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    assert builder.library() is rtx
    for version in ("10.16.1", "11.4.0.106", "11.0"):
        library = SimpleNamespace(__name__="tensorrt", __version__=version)
        monkeypatch.setitem(sys.modules, "tensorrt", library)
        assert builder.library() is library


@pytest.mark.parametrize("version", ["10.13.2", "12.0", "8.6.1"])
def test_a_library_of_another_age_is_named(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__name__="tensorrt", __version__=version))
    with pytest.raises(RuntimeError, match=rf"TensorRT {version} is installed; 10\.16 to 11\.4 are known to work"):
        builder.library()


def test_without_a_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in builder.LIBRARIES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeError, match=r'pip install "liveface\[tensorrt\]"'):
        builder.library()


# The real things


def new_venv(folder: Path, *packages: str) -> Path:
    """A virtual environment of its own, since TensorRT-RTX has no place among what everybody installs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run([str(python), *words], capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        pytest.skip(f"the package registry does not have {packages[0]}: {done.stderr.strip()[-200:]}")
    return python


BUILD = """
import json, sys
from pathlib import Path
from models.runtime import builder
trt = builder.library()
for path in sys.argv[1:]:
    told = []
    engine = builder.build(trt, Path(path).read_bytes(), [1, 2, 8], told.append)
    print(Path(path).name, len(engine), len(told))
try:
    builder.build(trt, b"not a graph", [1])
except RuntimeError as refusal:
    print("refused:", refusal)
"""


def build_for_real(graphs: Mapping[str, bytes], folder: Path, halves: Sequence[str]) -> Path:
    """By TensorRT-RTX, painters in half as well; the Python of the environment that it was done in."""
    python = new_venv(folder / "rtx", "tensorrt-rtx==1.7.1.116", "numpy")
    every = dict(graphs)
    for name, graph in graphs.items():
        if "paint" in name:
            every |= {f"{precision}-{name}": mixed(graph, precision) for precision in halves}
    for name, graph in every.items():
        onnx.load_from_string(graph)
        (folder / name).write_bytes(graph)
    done = subprocess.run(
        [str(python), "-c", BUILD, *(str(folder / name) for name in every)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=1_200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    built = [line.split() for line in done.stdout.splitlines() if not line.startswith("refused")]
    assert [name for name, *_ in built] == list(every)
    assert all(int(size) > 10_000 and int(told) > 0 for _, size, told in built)
    assert "refused: TensorRT does not read this graph" in done.stdout
    return python


NAMES = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
for path in json.load(open(sys.argv[2])):
    at = trt
    for name in path.split("."):
        at = getattr(at, name, None)
        if at is None:
            print(path)
            break
print("checked", trt.__version__)
"""


def used_names() -> list[str]:
    """Every public name of the fake, and so every name that our code can use."""
    found: list[str] = []
    for name, value in vars(faketrt).items():
        if isinstance(value, type) and value.__module__ == faketrt.__name__:
            inner = list(value.__members__) if issubclass(value, enum.Enum) else [n for n in vars(value) if n[0] != "_"]
            found += [name, *(f"{name}.{one}" for one in inner if one != "fails")]
    return found


def missing_names(python: Path, module: str, folder: Path, **environment: str) -> list[str]:
    names = folder / "names.json"
    names.write_text(json.dumps(used_names()))
    done = subprocess.run(
        [str(python), "-c", NAMES, module, str(names)],
        env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "checked" in done.stdout, done.stderr[-2_000:]
    return done.stdout.splitlines()[:-1]


def test_the_fake_has_what_the_code_uses() -> None:
    assert len(used_names()) > 50
    assert "IExecutionContext.execute_async_v3" in used_names()
    assert "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in used_names()


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_real_builder_of_tensorrt_rtx_takes_every_graph_without_a_gpu(tmp_path: Path) -> None:
    graphs = {"lips.onnx": LIPS.read_bytes(), "step.onnx": taught._step(), "paint.onnx": taught._paint(stateful=True)}
    for package in sorted((ROOT / "models" / "shipped").glob("*/graphs/*.onnx")):
        graphs[f"{package.parts[-3]}-{package.name}"] = package.read_bytes()
    python = build_for_real(graphs, tmp_path, ("f16", "bf16"))
    assert missing_names(python, "tensorrt_rtx", tmp_path) == []


STUB = " ".join(
    f"void *{name}(void) {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
        "getNvOnnxParserVersion",
        "initLibNvInferPlugins",
    )
)
"""All that the bindings want of the library when they are imported."""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["10.16.1.11", "11.4.0.106"])
def test_every_name_that_is_used_is_in_the_real_bindings(tmp_path: Path, version: str) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler for the stub that the bindings are linked with")
    python = new_venv(tmp_path / "venv", "--no-deps", f"tensorrt-cu13-bindings=={version}")
    (tmp_path / "stub.c").write_text(STUB)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.{version.partition('.')[0]}"
        words = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name), str(tmp_path / "stub.c")]
        subprocess.run([compiler, *words], check=True, timeout=60)
    assert missing_names(python, "tensorrt_bindings", tmp_path, LD_LIBRARY_PATH=str(tmp_path)) == []
