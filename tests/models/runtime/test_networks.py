"""Learned avatars, end to end from a package of tiny graphs: proven, batched, kept apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from models.avatar import PackageError, read_avatar, seal
from models.rates import DENSE_POINTS, POINTS
from models.runtime import Row, Runtime, Wants, openvino
from models.runtime.compiled import Compiled
from models.runtime.networks import Learned, Networks
from models.runtime.stages import Stage, on_host
from tests.models.runtime.drawn import draw_package
from tests.models.runtime.taught import loudness, teach_package
from tests.models.runtime.voices import babble, vowel

ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE
SLOTS = 5


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach_package(tmp_path_factory.mktemp("package") / "net")


@pytest.fixture(scope="module")
def runtime(package: Path) -> Runtime:
    return openvino.open([package], SLOTS)


def row(slot: int, sound: np.ndarray, n: int, wants: Wants = ALL) -> Row:
    return Row(slot, 1, n == 0, "net", sound[n], n, wants)


def test_what_the_graphs_compute_arrives_as_points_face_and_picture(runtime: Runtime, package: Path) -> None:
    sound = 0.5 * vowel("a", 12, 1.0)
    frames = load_file(str(package / "graphs" / "frames.safetensors"))
    for n, loud in enumerate(loudness(sound)):
        out = runtime.step([row(1, sound, n)])[0]
        assert out.points is not None
        np.testing.assert_allclose(out.points, frames["points"][n % 8] + loud, atol=1e-4)
        assert out.face is not None
        np.testing.assert_allclose(out.face, loud, atol=1e-4)
        assert out.roi is not None
        assert [out.roi.x, out.roi.y] == frames["corner"][n % 8].tolist()
        assert np.abs(out.roi.luma - np.clip(frames["luma"][n % 8] - 100 * loud, 0, 255)).max() <= 2
        assert (out.roi.u == frames["u"][n % 8]).all()
        assert out.stage_seconds is not None
        assert set(out.stage_seconds) == {"landmarks", "render"}


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(SLOTS)), sessions=st.integers(1, SLOTS), blind=st.sets(st.integers(0, SLOTS - 1)))
def test_neighbours_slots_numbers_and_wishes_change_nothing(
    runtime: Runtime, order: list[int], sessions: int, blind: set[int]
) -> None:
    sounds = [babble(6, seed) for seed in range(sessions)]
    for n in range(6):
        wants = [Wants.FACE if s in blind else ALL for s in range(sessions)]
        outs = runtime.step([row(order[s], sounds[s], n, wants[s]) for s in range(sessions)])
        for s, out in enumerate(outs):
            assert out.face is not None
            np.testing.assert_allclose(out.face, loudness(sounds[s])[n], atol=1e-4)
            assert (out.roi is None) == (s in blind)
            assert (out.points is None) == (s in blind)


def test_a_reset_forgets(runtime: Runtime) -> None:
    loud, silent = vowel("a", 3), np.zeros((1, 640), np.float32)
    for n in range(3):
        runtime.step([row(2, loud, n)])
    out = runtime.step([row(2, silent, 0)])[0]
    assert out.face is not None
    assert not out.face.any()


def test_who_is_seen_late_finds_nothing_of_the_one_before(tmp_path: Path) -> None:
    """The painter's state of a slot whose new session wants no picture at first."""
    kept: list[tuple[list[int], list[bool]]] = []

    class Watched:
        def __init__(self, stage: Stage, name: str) -> None:
            self.stage, self.name, self.fetch = stage, name, stage.fetch

        def run(self, slots: list[int], reset: list[bool], index: list[int], given: object) -> object:
            if self.name == "paint":
                kept.append((slots, reset))
            return self.stage.run(slots, reset, index, given)

    host = on_host(Compiled)
    avatar = read_avatar(teach_package(tmp_path / "net"))
    learned = Learned(avatar, SLOTS, lambda part, slots: Watched(host(part, slots), part.name))
    kept.clear()
    sound = babble(4, 1)
    learned.answer([row(3, sound, 0)])
    learned.answer([row(3, sound, 0, Wants.FACE), row(2, sound, 0)])  # somebody else, who is not seen yet
    learned.answer([row(3, sound, 1), row(2, sound, 1)])
    learned.answer([row(3, sound, 2)])
    assert kept == [([3], [True]), ([2], [True]), ([3, 2], [True, False]), ([3], [False])]


def test_painted_and_learned_avatars_serve_together_in_the_order_asked(
    package: Path, voice: Path, tmp_path: Path
) -> None:
    painted = draw_package(tmp_path / "ellipse")
    runtime = openvino.open([package, painted], 2, lips=voice / "lips.onnx")
    assert list(runtime.cards) == ["net", "ellipse"]
    sound = babble(1, 0)[0]
    outs = runtime.step([Row(0, 7, True, "ellipse", sound, 0, ALL), Row(1, 8, True, "net", sound, 0, ALL)])
    assert [(out.slot, out.generation) for out in outs] == [(0, 7), (1, 8)]
    assert all(out.roi is not None for out in outs)
    runtime.close()


def change(package: Path, file: str, how: Callable[[dict[str, np.ndarray]], None]) -> None:
    arrays = {name: array.copy() for name, array in load_file(str(package / file)).items()}
    how(arrays)
    save_file(arrays, str(package / file))
    seal(package)


@pytest.mark.parametrize(
    ("file", "how", "complaint"),
    [
        ("golden.safetensors", lambda a: a["luma"].__iadd__(3), "its luma differ from the reference"),
        ("golden.safetensors", lambda a: a["points"].__setitem__((49, 0, 0), 0), "its points differ"),
        ("graphs/silence.safetensors", lambda a: a["step.state_0"].__iadd__(1), "its (luma|points|face) differ"),
        ("graphs/silence.safetensors", lambda a: a.pop("step.state_0"), "does not hold the states of step"),
        ("graphs/frames.safetensors", lambda a: a["corner"].__iadd__(1), "a corner is odd"),
        ("graphs/frames.safetensors", lambda a: a["corner"].__imul__(4), "in shapes that no picture has"),
        ("graphs/frames.safetensors", lambda a: a.update(luma=a["luma"][:5]), "one row for each of 8 frames"),
        ("graphs/frames.safetensors", lambda a: a["u"].__setitem__((0, 0, 0), np.nan), "u is not of finite float32"),
    ],
)
def test_a_package_whose_graphs_do_not_answer_as_the_reference_did_is_refused(
    tmp_path: Path, file: str, how: Callable[[dict[str, np.ndarray]], None], complaint: str
) -> None:
    package = teach_package(tmp_path / "net")
    change(package, file, how)
    with pytest.raises(PackageError, match=complaint):
        Learned(read_avatar(package), 1, on_host(Compiled))


def test_a_mesh_follows_the_points_that_speech_moves(tmp_path: Path) -> None:
    package = teach_package(tmp_path / "net")
    rest = load_file(str(package / "loop.safetensors"))["points"]
    follows = np.zeros((DENSE_POINTS, POINTS), np.float32)
    follows[7, 3], follows[8, 3] = 1.0, 0.5
    loop = np.zeros((len(rest), DENSE_POINTS, 3), np.float32)
    save_file({"loop": loop, "follows": follows}, str(package / "mesh.safetensors"))
    seal(package)
    learned = Learned(read_avatar(package), 1, on_host(Compiled))
    sound = babble(2, 1)
    assert learned.answer([row(0, sound, 0)])[0].mesh is None
    out = learned.answer([row(0, sound, 1, Wants.MESH | Wants.POINTS)])[0]
    assert out.points is not None
    assert out.mesh is not None
    moved = out.points[3] - rest[1, 3]
    np.testing.assert_allclose(out.mesh[7:9], [moved, moved / 2], atol=1e-4)
    assert not out.mesh[9:].any()
    save_file({"loop": loop[1:].copy(), "follows": follows}, str(package / "mesh.safetensors"))
    seal(package)
    with pytest.raises(PackageError, match="of another loop"):
        Learned(read_avatar(package), 1, on_host(Compiled))


def test_a_graph_that_does_not_answer_with_what_is_needed_is_refused_by_name(tmp_path: Path) -> None:
    package = teach_package(tmp_path / "net")
    graph = onnx.load(str(package / "graphs" / "paint.onnx"))
    del graph.graph.output[1]
    onnx.save(graph, str(package / "graphs" / "paint.onnx"))
    seal(package)
    with pytest.raises(PackageError, match="net: its graphs do not answer with 'u'"):
        Learned(read_avatar(package), 1, on_host(Compiled))


def test_a_painter_that_loses_too_much_in_bf16_is_computed_in_f32(tmp_path: Path) -> None:
    package = teach_package(tmp_path / "net")
    asked: list[str] = []

    class Coarse(Compiled):
        """bf16 that is worse than real."""

        def __init__(self, graph: bytes, sizes: list[int], precision: str) -> None:
            super().__init__(graph, sizes, "f32")
            self._error = 20 if precision == "bf16" else 0
            asked.append(precision)

        def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            out = super().__call__(inputs)
            return {name: array + self._error if name == "luma" else array for name, array in out.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "Compiled", Coarse)
        patch.setattr(openvino, "best_precision", lambda: "bf16")
        runtime = openvino.open([package], 1)
    assert list(runtime.cards) == ["net"]
    assert "bf16" in asked
    assert asked[-1] == "f32"


def test_a_painter_without_a_state_and_another_look_ahead(tmp_path: Path) -> None:
    avatar = read_avatar(teach_package(tmp_path / "net", state_of_paint=False))
    networks = Networks([Learned(avatar, 1, on_host(Compiled), lookahead=2)])
    assert networks.cards["net"].lookahead == 2
    with pytest.raises(ValueError, match="was taught with a look-ahead of 2 frames, not 1"):
        Learned(avatar, 1, on_host(Compiled), lookahead=1)
    networks.close()
