"""The plain runtime: a face that speaks, and sessions that never touch one another (G9, G10)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import face
from models.avatar import PackageError, seal
from models.runtime import Floats, Out, Row, Wants, plain
from tests.models.runtime.drawn import add_mesh, draw_package
from tests.models.runtime.voices import babble, silence, vowel

ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE
JAW_OPEN = face.ARKIT_52.index("jawOpen")
SLOTS = 6


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("packages")
    return [draw_package(folder / name, name) for name in ("ellipse", "egg")]


def fresh(packages: list[Path], lookahead: int | None = None) -> plain.Plain:
    return plain.open(packages, SLOTS, lookahead)


def run(runtime: plain.Plain, sound: Floats, slot: int = 0, avatar: str = "ellipse", wants: Wants = ALL) -> list[Out]:
    rows = [Row(slot, 1, n == 0, avatar, chunk, n % 8, wants) for n, chunk in enumerate(sound)]
    return [runtime.step([row])[0] for row in rows]


def same(one: Out, other: Out) -> bool:
    if one.roi is None or other.roi is None:
        return one.roi is other.roi
    planes = zip((one.roi.luma, one.roi.u, one.roi.v), (other.roi.luma, other.roi.u, other.roi.v), strict=True)
    return (
        all((ours == theirs).all() for ours, theirs in planes)
        and np.array_equal(one.face, other.face)
        and np.array_equal(one.points, other.points)
    )


def test_the_mouth_visibly_opens_with_a_vowel_and_shuts_in_silence(packages: list[Path]) -> None:
    runtime = fresh(packages)
    outs = run(runtime, np.concatenate([silence(8), vowel("a", 8), silence(12)]))[2:]
    card = runtime.cards["ellipse"]

    def darkest(out: Out) -> int:
        assert out.roi is not None
        rows, columns = out.roi.luma.shape
        return int(out.roi.luma[rows // 2 - 3 : rows // 2 + 3, columns // 2 - 3 : columns // 2 + 3].min())

    def opened(out: Out) -> float:
        assert out.face is not None
        return float(out.face[JAW_OPEN])

    assert (card.width, card.height, card.frames) == (128, 128, 8)
    assert darkest(outs[4]) > 80
    assert darkest(outs[13]) < 45  # the inside of the mouth
    assert darkest(outs[23]) > 80
    assert opened(outs[13]) > 0.3
    assert opened(outs[23]) == 0


def test_the_picture_outside_the_mask_is_the_loop_untouched(packages: list[Path]) -> None:
    runtime = fresh(packages)
    card = runtime.cards["ellipse"]
    for index, out in enumerate(run(runtime, vowel("a", 8))):
        roi = out.roi
        assert roi is not None
        assert roi.x % 2 == roi.y % 2 == roi.luma.shape[0] % 2 == roi.luma.shape[1] % 2 == 0
        under = card.loop[index, roi.y : roi.y + roi.luma.shape[0], roi.x : roi.x + roi.luma.shape[1]]
        assert (roi.luma[0] == under[0]).all()
        assert (roi.luma[:, -1] == under[:, -1]).all()


def test_the_roi_keeps_its_size_while_the_head_moves(packages: list[Path]) -> None:
    rois = [out.roi for out in run(fresh(packages), silence(8))]
    assert len({roi.luma.shape for roi in rois if roi is not None}) == 1
    assert len({roi.x for roi in rois if roi is not None}) > 1


def test_points_and_face_agree_with_the_picture(packages: list[Path]) -> None:
    outs = run(fresh(packages), np.concatenate([vowel("a", 8), silence(10)]))
    opened, shut = outs[9], outs[17]  # the same frame of the loop
    assert opened.points is not None
    assert shut.points is not None
    gap = opened.points[35, 1] - opened.points[25, 1] - (shut.points[35, 1] - shut.points[25, 1])
    assert gap > 4
    assert (opened.points[57:] == shut.points[57:]).all()
    assert opened.face is not None
    assert opened.face[face.ARKIT_52.index("eyeBlinkLeft")] == np.float32(1 / 7)  # the loop's
    assert opened.face[52:56].tolist() == [0, 0, 0, 1]
    assert opened.face[60] == pytest.approx(0.1 * plain.GAZE_DEGREES)


def test_the_first_answers_after_a_reset_are_at_rest(packages: list[Path]) -> None:
    for lookahead in range(4):
        runtime = fresh(packages, lookahead)
        assert runtime.cards["egg"].lookahead == lookahead
        outs = run(runtime, vowel("a", 6))
        opened = [float(out.face[JAW_OPEN]) > 0 for out in outs if out.face is not None]
        assert opened == [False] * lookahead + [True] * (6 - lookahead)


def test_what_nobody_wants_is_not_computed(packages: list[Path]) -> None:
    runtime = fresh(packages)
    for wants in (Wants.NOTHING, Wants.POINTS, Wants.FACE, Wants.PICTURE, Wants.MESH):
        out = runtime.step([Row(0, 1, True, "egg", vowel("a", 1)[0], 0, wants)])[0]
        assert (out.points is not None) == (wants == Wants.POINTS)
        assert (out.face is not None) == (wants == Wants.FACE)
        assert (out.roi is not None) == (wants == Wants.PICTURE)
        assert out.mesh is None


def test_a_reused_slot_answers_as_a_fresh_runtime_does(packages: list[Path]) -> None:
    used = fresh(packages)
    run(used, babble(30, seed=1), slot=2)
    again = run(used, babble(20, seed=2), slot=2)
    alone = run(fresh(packages), babble(20, seed=2), slot=5)
    assert all(same(one, other) for one, other in zip(again, alone, strict=True))


@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(range(SLOTS)),
    sessions=st.integers(1, SLOTS),
    starts=st.lists(st.integers(0, 4), min_size=SLOTS, max_size=SLOTS),
    gaps=st.sets(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 12)), max_size=12),
)
def test_neighbours_slots_numbers_and_pauses_change_nothing(
    packages: list[Path], order: list[int], sessions: int, starts: list[int], gaps: set[tuple[int, int]]
) -> None:
    """Sessions in any slots, begun at any time, missing any steps, answer as each would alone."""
    runtime = fresh(packages)
    sounds = [babble(8, seed) for seed in range(sessions)]
    at = [0] * sessions
    got: list[list[Out]] = [[] for _ in range(sessions)]
    for now in range(14):
        due = [s for s in range(sessions) if now >= starts[s] and at[s] < 8 and (s, now) not in gaps]
        avatars = [("ellipse", "egg")[s % 2] for s in due]
        rows = [
            Row(order[s], 1, at[s] == 0, avatar, sounds[s][at[s]], at[s], ALL)
            for s, avatar in zip(due, avatars, strict=True)
        ]
        for s, out in zip(due, runtime.step(rows), strict=True):
            got[s].append(out)
            at[s] += 1
    for s in range(sessions):
        alone = run(fresh(packages), sounds[s][: at[s]], avatar=("ellipse", "egg")[s % 2])
        assert all(same(one, other) for one, other in zip(got[s], alone, strict=True))


def test_packages_that_cannot_serve_are_named(packages: list[Path], tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="two packages have one name"):
        plain.open([packages[0], packages[0]], 1)
    with pytest.raises(PackageError, match="of kind 'learned'"):
        plain.open([draw_package(tmp_path / "net", "net", kind="learned")], 1)
    with pytest.raises(ValueError, match="look-ahead is 0 to 5"):
        plain.open(packages, 1, lookahead=9)
    short = draw_package(tmp_path / "short", "short")
    longer = draw_package(tmp_path / "longer", "short", frames=9)
    (short / "loop.mp4").write_bytes((longer / "loop.mp4").read_bytes())
    with pytest.raises(PackageError, match=r"short: loop\.mp4 does not match the manifest"):
        plain.open([short], 1)
    seal(short)
    with pytest.raises(PackageError, match=r"loop\.mp4 has 9 frames, its arrays 8"):
        plain.open([short], 1)


def test_the_dense_mesh_moves_as_the_landmarks_do(tmp_path: Path) -> None:
    package = draw_package(tmp_path / "ellipse")
    add_mesh(package)
    wants = Wants.POINTS | Wants.MESH
    outs = run(fresh([package]), np.concatenate([silence(4), vowel("a", 8)]), wants=wants)
    spoken = face.HOUSE[face.HOUSE_SPOKEN]
    opened = []
    for out in outs:
        assert out.mesh is not None
        assert out.points is not None
        np.testing.assert_allclose(out.mesh[spoken, :2], out.points[face.HOUSE_SPOKEN, :2], atol=1e-3)
        opened.append(out.mesh[face.INNER_LOWER, 1] - out.mesh[face.INNER_UPPER, 1])
    assert opened[-1] > opened[0] + 3


def test_a_mesh_is_computed_for_those_who_want_it_and_have_it(packages: list[Path], tmp_path: Path) -> None:
    package = draw_package(tmp_path / "ellipse")
    add_mesh(package)
    assert run(fresh([package]), silence(1), wants=ALL)[0].mesh is None
    assert run(fresh(packages), silence(1), wants=ALL | Wants.MESH)[0].mesh is None


def test_a_mesh_of_another_loop_is_refused(tmp_path: Path) -> None:
    package = draw_package(tmp_path / "ellipse")
    add_mesh(package, frames=3)
    with pytest.raises(PackageError, match=r"mesh\.safetensors is of another loop"):
        fresh([package])
