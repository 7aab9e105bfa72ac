"""A graph with its states: padding, states by slot, and what may lie in a file of arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models.avatar import PackageError, read_avatar, seal
from models.runtime.stages import HostStage, Part, arrays, in_bytes, padded
from tests.models.runtime.drawn import draw_package


class Sum:
    """after = state + x + the frame's row, as a graph would say it."""

    asks: Sequence[str] = ("x", "frame_row", "state_0")

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        self.sizes.append(len(inputs["x"]))
        total = inputs["state_0"] + inputs["x"] + inputs["frame_row"]
        return {"y": total, "after_0": total}


ROWS = np.array([[10.0], [20.0]], np.float32)


def part(large: bool = False) -> Part:
    return Part("sum", b"", "f32", {"state_0": np.zeros((1, 1), np.float32)}, {"row": ROWS}, large=large)


def test_padding_is_made_of_numbers_that_a_network_knows() -> None:
    assert padded(np.array([[3.0], [4.0], [5.0]], np.float32), 4)[:, 0].tolist() == [3, 4, 5, 3]


@pytest.mark.parametrize(("large", "sizes"), [(False, [4, 1]), (True, [1, 1, 1, 1])], ids=["in a bucket", "one by one"])
def test_states_stay_with_their_slots(large: bool, sizes: list[int]) -> None:
    graph = Sum()
    stage = HostStage(part(large), graph, 4)
    x = np.array([[1.0], [2.0], [3.0]], np.float32)
    first = stage.run([2, 0, 3], [True] * 3, [0, 1, 0], {"x": x})
    assert first["y"][:, 0].tolist() == [11, 22, 13]
    assert stage.run([0], [False], [0], {"x": x[:1]})["y"].item() == 33
    assert graph.sizes == sizes


def test_a_graph_whose_states_are_not_all_there_is_refused() -> None:
    with pytest.raises(PackageError, match="does not hold the states of sum"):
        HostStage(Part("sum", b"", "f32", {}, {"row": ROWS}), Sum(), 1)


def test_bytes_are_rounded_and_never_wrap() -> None:
    assert in_bytes(np.array([-3.0, 1.5, 300.0], np.float32)).tolist() == [0, 2, 255]
    kept = np.array([7], np.uint8)
    assert in_bytes(kept) is kept


def test_arrays_are_floats_bytes_or_nothing(tmp_path: Path) -> None:
    package = draw_package(tmp_path / "net", "net")
    save_file({"a": np.array([255], np.uint8), "b": ROWS}, str(package / "some.safetensors"))
    save_file({"a": np.array([1], np.int64)}, str(package / "odd.safetensors"))
    (package / "torn.safetensors").write_bytes(b"nothing")
    seal(package)
    avatar = read_avatar(package)
    assert arrays(avatar, "some.safetensors")["a"].dtype == np.float32
    for odd, says in (("odd", "is not of finite float32"), ("torn", "cannot be read")):
        with pytest.raises(PackageError, match=says):
            arrays(avatar, f"{odd}.safetensors")
