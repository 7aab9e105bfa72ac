"""What was fitted is a package that verifies, proves itself, and carries nothing but what it needs."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.avatar import LOOP, PackageError, seal
from models.create.package import rgb_of, save_arrays
from models.rates import FACE, POINTS
from models.runtime import Row, Wants, graphed
from models.runtime.choose import open_runtime
from models.runtime.ear import LIPS
from tests.models.runtime.recording import RecordingDevice
from tests.models.runtime.test_builder import build_for_real


def test_the_package_is_whole_and_says_how_it_was_made(small):
    avatar = small.avatar
    avatar.verify()
    assert avatar.kind == "learned"
    assert avatar.title == "Small"
    assert avatar.synthetic
    assert avatar.lookahead == 2
    card = (avatar.folder / "avatar.toml").read_text()
    assert 'quality = "draft"' in card
    assert "head_steps=4" in card
    assert {"graphs/step.onnx", "graphs/paint.onnx", "golden.safetensors", "portrait.jpg"} <= set(avatar.files)


def test_the_loop_is_laid_out_as_every_package_has_it(small):
    arrays = small.avatar.tensors("loop.safetensors", LOOP)
    assert np.allclose(np.linalg.norm(arrays["head_quaternion"], axis=1), 1, atol=1e-3)
    assert np.abs(arrays["head_position"]).max() < 0.2


@pytest.mark.parametrize("backend", ["openvino", "graphed"])
def test_the_runtime_serves_it(small, backend):
    """By what compiles graphs, and as CUDA graphs record them, node by node; each proves itself first."""
    folders = [small.avatar.folder]
    if backend == "graphed":
        runtime = graphed.open_on(RecordingDevice(), folders, 2, None, LIPS)
    else:
        runtime = open_runtime(backend, folders, 2)[0]
    everything = Wants.POINTS | Wants.FACE | Wants.PICTURE
    rows = [Row(slot, 0, True, "small", np.zeros(640, np.float32), 7, everything) for slot in (0, 1)]
    one, other = runtime.step(rows)
    assert one.points.shape == (POINTS, 3)
    assert one.face.shape == (FACE,)
    assert np.array_equal(one.roi.luma, other.roi.luma)
    runtime.close()


def test_a_package_whose_proof_is_another_is_refused(small, tmp_path):
    forged = tmp_path / "small"
    shutil.copytree(small.avatar.folder, forged)
    golden = load_file(forged / "golden.safetensors")
    save_file({**golden, "points": golden["points"] + 1}, forged / "golden.safetensors")
    seal(forged)
    with pytest.raises((PackageError, RuntimeError, ValueError), match="differ"):
        open_runtime("openvino", [forged], 1)


def test_no_pickle_and_no_code_is_in_it(small):
    kinds = {
        path.rpartition(".")[2] for path in json.loads((small.avatar.folder / "manifest.json").read_text())["files"]
    }
    assert kinds == {"toml", "mp4", "safetensors", "onnx", "jpg"}


def test_black_is_black_and_white_is_white():
    for luma, grey in ((16, 0), (235, 255)):
        frame = np.full((24, 16), 128, np.uint8)
        frame[:16] = luma
        assert np.abs(rgb_of(frame).astype(int) - grey).max() <= 1


def test_arrays_are_saved_as_they_are_seen_whatever_their_memory_looks_like(tmp_path):
    lying = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)
    save_arrays({"lying": lying}, str(tmp_path / "a.safetensors"))
    assert np.array_equal(load_file(tmp_path / "a.safetensors")["lying"], lying)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_real_builder_of_tensorrt_rtx_takes_what_the_command_exported(small, tmp_path):
    """What hears, what looks at the loop and what paints, as they come out of torch's exporter."""
    graphs = {path.name: path.read_bytes() for path in (small.avatar.folder / "graphs").glob("*.onnx")}
    assert set(graphs) == {"step.onnx", "prepare.onnx", "paint.onnx"}
    build_for_real(graphs, tmp_path, ("f16",))  # it has no transposed convolution in bf16, and is never asked for one
