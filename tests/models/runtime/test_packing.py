"""A renderer packed: whole, small, sealed, and provable."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from models.avatar import read_avatar
from models.runtime.packing import golden_frames
from models.runtime.stages import PLANES
from tests.models.runtime.packed import FRAMES, pack


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("packed") / "ellipse")


def test_the_package_is_whole_and_small(package: Path) -> None:
    avatar = read_avatar(package)
    avatar.verify()
    assert {f"graphs/{name}" for name in ("prepare.onnx", "paint.onnx", "frames.safetensors", "golden.safetensors")} < {
        *avatar.files
    }
    assert (package / "graphs" / "paint.onnx").stat().st_size < 3 << 20  # 16 bits a weight
    assert (package / "graphs" / "prepare.onnx").stat().st_size < 1 << 20


def test_what_must_stay_precise_leaves_the_graph_beside_the_picture(package: Path) -> None:
    """OpenVINO computes in half precision all that no output needs whole."""
    graph = onnx.load(str(package / "graphs" / "paint.onnx")).graph
    assert [port.name for port in graph.output] == [*PLANES, "sketch"]
    assert all(port.type.tensor_type.shape.dim[0].dim_param for port in graph.input)


def test_the_proof_is_painted_all_over_the_loop(package: Path) -> None:
    golden = load_file(str(package / "graphs" / "golden.safetensors"))
    assert golden["index"].tolist() == golden_frames(FRAMES, 4) == [0, 2, 5, 7]
    assert np.isfinite(golden["luma"]).all()
    assert len(golden["luma"]) == len(golden["points"]) == 4
