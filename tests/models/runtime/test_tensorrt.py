"""Engines at work, on a fake library and a device that records. The promises of the seam are in `test_init.py`."""

from pathlib import Path

import pytest
import torch

from models.avatar import PackageError, seal
from models.runtime import builder, tensorrt
from models.runtime.cache import EngineCache, NotBuilt
from models.runtime.tensorrt import EngineNet
from tests.models.runtime import faketrt, taught
from tests.models.runtime.recording import RecordingDevice
from tests.models.runtime.test_networks import change


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "library", lambda: faketrt)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA Fake")


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "cache" / "engines")


def new_net(sizes: tuple[int, ...] = (1, 4), profiles: tuple[int, ...] = (1, 2, 4)) -> EngineNet:
    engine = builder.build(faketrt, taught._step(), profiles)
    return EngineNet(faketrt, engine, profiles, sizes, RecordingDevice())


def test_an_engine_answers_for_each_of_its_sizes_and_no_other() -> None:
    net = new_net()
    assert sorted(net.asks) == ["frame_points", "state_0", "x"]
    assert net.shapes["frame_points"] == (131, 3)
    for rows in (1, 4, 1):
        inputs = {name: torch.full((rows, *shape), 0.5) for name, shape in net.shapes.items()}
        with torch.inference_mode():
            out = net(inputs)
        assert out["face"].shape == (rows, 61)
        assert out["face"].eq(0.5 * 0.5 + 0.25).all()
    with pytest.raises(KeyError):
        net({name: torch.zeros(2, *shape) for name, shape in net.shapes.items()})


def test_contexts_share_one_working_memory_as_large_as_the_largest_needs() -> None:
    net = new_net(sizes=(1, 4))
    assert [context._memory for context in net._contexts.values()] == [3000, 3000]
    assert net._working.nbytes >= 3000
    assert set(new_net(sizes=(1,))._contexts) == {1}


def test_what_no_engine_is_is_refused_in_the_librarys_words() -> None:
    with pytest.raises(RuntimeError, match="TensorRT does not take its engine: magic tag does not match"):
        EngineNet(faketrt, b"of another library", (1,), (1,), RecordingDevice())


def test_a_kind_of_number_that_torch_has_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faketrt.ICudaEngine, "get_tensor_dtype", lambda *_: "FP4")
    with pytest.raises(RuntimeError, match="an engine that takes or gives FP4 is not known here"):
        new_net()


@pytest.mark.parametrize("step", ["execute_async_v3", "set_tensor_address", "set_input_shape"])
def test_a_context_that_says_no_is_believed(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(faketrt.IExecutionContext, step, lambda *_: False)

    def use() -> None:
        net = new_net()
        net({name: torch.zeros(1, *shape) for name, shape in net.shapes.items()})

    with pytest.raises(RuntimeError, match=r"TensorRT does not (run|take)"):
        use()


def test_serving_builds_nothing_and_says_what_is_missing(cache: EngineCache, tmp_path: Path) -> None:
    package = taught.teach_package(tmp_path / "net")
    with pytest.raises(NotBuilt, match="it is not built for this machine yet"):
        tensorrt.open_with(cache, [package], 3, None, device=RecordingDevice())
    assert list(cache.entries()) == []


def test_what_was_built_serves_and_is_built_once(
    cache: EngineCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = taught.teach_package(tmp_path / "net")
    tensorrt.open_with(cache, [package], 5, None, building=True, device=RecordingDevice()).close()
    keys = [entry.key for entry in cache.entries() if not isinstance(entry, str)]
    assert sorted((key.precision, key.buckets) for key in keys) == [("f16", (1, 2, 4, 8)), ("f32", (1, 2, 4, 8))]
    assert {(key.gpu, key.capability, key.version) for key in keys} == {("NVIDIA Fake", "9.0", "11.4.0")}
    monkeypatch.setattr(faketrt.Builder, "fails", True)
    for slots in (5, 2, 1):  # fewer slots need fewer sizes
        tensorrt.open_with(cache, [package], slots, None, device=RecordingDevice()).close()


def test_a_spoiled_engine_is_not_opened_but_built_again(cache: EngineCache, tmp_path: Path) -> None:
    package = taught.teach_package(tmp_path / "net")
    tensorrt.open_with(cache, [package], 2, None, building=True, device=RecordingDevice()).close()
    for path in cache.root.glob("*.engine"):
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(NotBuilt, match="its engine is truncated"):
        tensorrt.open_with(cache, [package], 2, None, device=RecordingDevice())
    tensorrt.open_with(cache, [package], 2, None, building=True, device=RecordingDevice()).close()
    tensorrt.open_with(cache, [package], 2, None, device=RecordingDevice()).close()


def test_an_engine_that_answers_otherwise_than_the_reference_is_refused(cache: EngineCache, tmp_path: Path) -> None:
    package = taught.teach_package(tmp_path / "net")
    change(package, "golden.safetensors", lambda arrays: arrays["luma"].__iadd__(9))
    seal(package)
    with pytest.raises(PackageError, match="in f32 its luma differ from the reference by"):
        tensorrt.open_with(cache, [package], 2, None, building=True, device=RecordingDevice())


def test_without_a_gpu_there_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(RuntimeError, match="torch sees no NVIDIA GPU"):
        tensorrt.key_of(b"", "f32", ())
