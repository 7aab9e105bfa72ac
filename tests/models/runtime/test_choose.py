"""Which backend serves, by name, by path, or by what it found."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from models.avatar import PackageError
from models.runtime import choose, engines
from models.runtime.cache import NotBuilt
from models.runtime.choose import open_runtime
from tests.models.runtime import scripted
from tests.models.runtime.drawn import draw_package


def test_a_backend_is_found_by_its_module() -> None:
    runtime, reason, better = open_runtime("tests.models.runtime.scripted", [Path("anna")], 2, 3)
    assert runtime.cards["anna"].lookahead == 3
    assert reason == "tests.models.runtime.scripted: asked for"
    assert better is None


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"no backend is called 'abacus'; choose auto or one of: .*plain"):
        open_runtime("abacus", [], 1)


def test_a_backend_whose_library_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(choose.importlib, "import_module", missing)
    with pytest.raises(RuntimeError, match=r'^graphed needs torch: pip install "liveface\[torch\]"$'):
        open_runtime("graphed", [], 1)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "DRIVERS", (Path("/nowhere"),))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a driver, and nothing on it that TensorRT or torch could use."""
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(choose, "DRIVERS", (Path("/nowhere"), tmp_path / "nvidiactl"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def refuse(monkeypatch: pytest.MonkeyPatch, backend: str, error: Exception) -> None:
    def opening(*_: object) -> None:
        raise error

    monkeypatch.setattr(f"models.runtime.{backend}.open", opening)


def test_auto_says_what_it_took_and_why(tmp_path: Path, no_gpu: None) -> None:
    runtime, reason, _ = open_runtime("auto", [draw_package(tmp_path / "ellipse")], 1)
    assert list(runtime.cards) == ["ellipse"]
    assert reason.partition(":")[0] in ("openvino", "plain")
    assert "(no NVIDIA GPU" in reason


def test_auto_falls_back_on_the_rule_and_says_what_was_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_gpu: None
) -> None:
    refuse(monkeypatch, "openvino", RuntimeError("lips.onnx is missing"))
    reason = open_runtime("auto", [draw_package(tmp_path / "ellipse")], 1).reason
    assert reason == "plain: it needs nothing (no NVIDIA GPU; openvino is not to be had: lips.onnx is missing)"


def test_on_a_gpu_the_best_that_proves_itself_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: None
) -> None:
    refuse(monkeypatch, "tensorrt", RuntimeError("TensorRT is not installed"))
    monkeypatch.setattr("models.runtime.graphed.open", scripted.open)
    runtime, reason, _ = open_runtime("auto", [Path("anna")], 1)
    assert list(runtime.cards) == ["anna"]
    assert reason == "graphed: the best that proved itself (tensorrt is not to be had: TensorRT is not installed)"


def test_a_gpu_backend_that_does_not_answer_as_the_reference_did_is_named_and_the_next_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: None
) -> None:
    refuse(monkeypatch, "tensorrt", PackageError("demo: in f32 its luma differ from the reference by 30"))
    refuse(monkeypatch, "graphed", RuntimeError("it differs from the reference by 0.2"))
    monkeypatch.setattr("models.runtime.openvino.open", scripted.open)
    _, reason, _ = open_runtime("auto", [Path("anna")], 1)
    assert reason.startswith("openvino: the best that proved itself (tensorrt is not to be had: demo: in f32 its luma")
    assert "graphed is not to be had: it differs from the reference by 0.2" in reason


def test_engines_that_are_missing_are_what_is_better_while_graphed_serves(
    monkeypatch: pytest.MonkeyPatch, gpu: None
) -> None:
    begun: list[tuple[list[Path], int]] = []
    refuse(monkeypatch, "tensorrt", NotBuilt("its engine is truncated: 3 bytes of 5"))
    monkeypatch.setattr("models.runtime.graphed.open", scripted.open)
    monkeypatch.setattr(engines, "built", lambda packages, slots, cache: begun.append((list(packages), slots)) or True)
    _, reason, better = open_runtime("auto", [Path("anna")], 5)
    assert reason.startswith("graphed: the best that proved itself (tensorrt is not to be had: its engine is truncated")
    assert begun == []  # whoever serves decides when
    assert better is not None
    assert better()
    assert begun == [([Path("anna")], 5)]


def test_a_backend_of_ones_own_may_say_what_is_better(tmp_path: Path) -> None:
    _, _, better = open_runtime("tests.models.runtime.improving", [tmp_path], 1)
    (tmp_path / "better").touch()
    assert better is not None
    assert better()
    assert open_runtime("tests.models.runtime.improving", [tmp_path], 1).better is None


@pytest.mark.parametrize(("status", "log"), [(1, "liveface engine build: torch sees no NVIDIA GPU\n"), (-11, "")])
def test_whoever_asks_for_tensorrt_by_name_waits_for_its_engines_and_hears_why_there_are_none(
    monkeypatch: pytest.MonkeyPatch, gpu: None, status: int, log: str
) -> None:
    def build(packages: object, slots: int, path: Path) -> object:
        path.parent.mkdir(parents=True)
        path.write_text(log)
        return SimpleNamespace(wait=lambda: status)

    monkeypatch.setattr(engines, "build_beside", build)
    complaint = "torch sees no NVIDIA GPU" if log else "the builder ended with -11"
    with pytest.raises(RuntimeError, match=f"the engines cannot be built: .*{complaint}"):
        open_runtime("tensorrt", [Path("anna")], 1)
