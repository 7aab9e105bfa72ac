"""A painter read from a package: the same in every precision, refused when it is not, the loop kept around it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.avatar import PackageError, decode_loop, read_avatar, seal
from models.runtime import Bytes, Pictures, Roi, Row, Wants, loops, openvino
from models.runtime.compiled import Compiled
from models.runtime.packing import Painter
from models.runtime.painting import Under, frames_of, planes_of
from models.runtime.stages import on_host
from tests.models.runtime.packed import FRAMES, pack, painter, points, renderer, similarity
from tests.models.runtime.voices import vowel

ALL = Wants.POINTS | Wants.FACE | Wants.PICTURE


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack(tmp_path_factory.mktemp("painted") / "ellipse")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_openvino_paints_what_torch_paints(package: Path, precision: str) -> None:
    ours = painter(package, (precision,))
    one = renderer()
    theirs = Painter(one, decode_loop(read_avatar(package)), similarity(), one.mask.numpy())
    for index, where in enumerate(points(3)):
        difference = np.abs(ours.paint([0], where[None], [index])[0].luma - theirs.painted(where, index))
        assert difference.max() < (1.0 if precision == "f32" else 6.0)


def test_outside_the_mask_the_loop_is_bit_for_bit_the_loop(package: Path) -> None:
    avatar = read_avatar(package)
    loop = decode_loop(avatar)
    for precision in ("f32", "bf16"):
        roi = painter(package, (precision,)).paint([0], points(2)[1:], [5])[0]
        luma, u, v = planes_of(loop[5])
        height, width = roi.luma.shape
        under = luma[roi.y : roi.y + height, roi.x : roi.x + width]
        kept = roi.luma == under
        assert 0.1 < kept.mean() < 0.9
        assert kept[0].all()
        assert kept[-1].all()
        assert (roi.u[0] == u[roi.y // 2, roi.x // 2 : (roi.x + width) // 2]).all()
        assert (roi.v[-1] == v[(roi.y + height) // 2 - 1, roi.x // 2 : (roi.x + width) // 2]).all()


@pytest.mark.parametrize("spoil", [np.nan, np.inf, 1e9, -5.0])
def test_landmarks_of_any_kind_are_painted(package: Path, spoil: float) -> None:
    where = points(1)[0].copy()
    where[5:40] = spoil
    roi = painter(package).paint([0], where[None], [0])[0]
    assert roi.luma.dtype == np.uint8
    assert np.ptp(roi.luma) > 0


@pytest.mark.parametrize(
    ("file", "spoil", "complaint"),
    [
        ("golden", lambda a: a["luma"].__iadd__(9), "in f32 it differs from the reference by"),
        ("frames", lambda a: a["corner"].__iadd__(1000), "outside of the frame"),
        ("frames", lambda a: a["extent"].__isub__(1), "odd or outside of the frame"),
        ("frames", lambda a: a.update(similarity=a["similarity"][:5]), "one row for each of 8 frames"),
    ],
)
def test_a_package_that_does_not_paint_as_it_was_proved_is_refused(
    package: Path, tmp_path: Path, file: str, spoil: object, complaint: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    place = copy / "graphs" / f"{file}.safetensors"
    arrays = {name: array.copy() for name, array in load_file(str(place)).items()}
    spoil(arrays)  # type: ignore[operator]
    save_file(arrays, str(place))
    seal(copy)
    with pytest.raises(PackageError, match=complaint):
        painter(copy)


def test_the_rectangle_is_cut_out_of_the_loop_when_asked_for(package: Path) -> None:
    avatar = read_avatar(package)
    loop = decode_loop(avatar)
    corners = np.array([[10, 20]] * FRAMES)
    under = Under(loop, corners, (30, 40), 1)
    assert under.shape == (FRAMES, 15, 20)
    _, u, _ = planes_of(loop[3])
    np.testing.assert_array_equal(under[np.array([3])][0], u[10:25, 5:25])
    assert np.asarray(under).shape == under.shape
    frames = frames_of(avatar, loop, on_host(Compiled))
    assert len(frames["luma"]) == len(frames["look_0"]) == FRAMES
    assert frames["look_0"].dtype == np.float16


def test_what_is_known_of_a_long_loop_lies_on_disk_and_is_the_same(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    avatar = read_avatar(package)
    loop = decode_loop(avatar)
    names = [name for name in frames_of(avatar, loop, on_host(Compiled)) if name.startswith("look_")]
    made: list[Pictures] = []
    keep = loops.kept

    def kept(rows: Iterable[Bytes]) -> Pictures:
        made.append(keep(rows, budget=made[0][0].nbytes * 3 if made else 1 << 30))
        return made[-1]

    monkeypatch.setattr(loops, "kept", kept)
    short, long = (frames_of(avatar, loop, on_host(Compiled)) for _ in range(2))
    assert not isinstance(made[0], loops.Paged)
    assert isinstance(made[1], loops.Paged)
    assert names
    for name in names:
        assert short[name].shape == long[name].shape
        order = np.array([0, FRAMES - 1, 3, 3])
        np.testing.assert_array_equal(short[name][order], long[name][order])
        np.testing.assert_array_equal(np.asarray(short[name]), np.asarray(long[name]))


def test_a_plain_avatar_with_a_painter_is_painted_by_it(
    package: Path, voice: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = 0.5 * vowel("a", 8, 1.0)

    def seen(folder: Path) -> Roi:
        runtime = openvino.open([folder], 1, lips=voice / "lips.onnx")
        outs = [runtime.step([Row(0, 1, n == 0, "ellipse", chunk, n, ALL)])[0] for n, chunk in enumerate(sound)]
        runtime.close()
        assert outs[-1].points is not None
        assert outs[-1].roi is not None
        return outs[-1].roi

    learned = seen(package)
    assert learned.luma.shape == painter(package).paint([0], points(1), [0])[0].luma.shape
    assert not caplog.records


def test_a_painter_that_cannot_be_proved_here_leaves_the_shelf_to_paint(
    package: Path, voice: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`make demo` never breaks for a processor that computes otherwise."""
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    place = copy / "graphs" / "golden.safetensors"
    arrays = load_file(str(place))
    save_file({**arrays, "luma": arrays["luma"] + 20}, str(place))
    seal(copy)
    runtime = openvino.open([copy], 1, lips=voice / "lips.onnx")
    out = runtime.step([Row(0, 1, True, "ellipse", np.zeros(640, np.float32), 0, ALL)])[0]
    assert out.roi is not None
    assert "its mouths are mixed from the shelf instead" in caplog.text
    runtime.close()
