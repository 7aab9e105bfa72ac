"""A learned mouth for a shipped avatar: filmed, fitted, packed beside the shelf."""

from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from models.avatar import decode_loop, read_avatar
from models.renderers.fit import Settings
from models.renderers.placing import apply
from models.runtime.compiled import Compiled
from models.runtime.packing import pack_painter
from models.runtime.painting import GraphPainter
from models.runtime.stages import on_host
from models.studio import painter
from models.studio.record import labels_beside
from tests.models.renderers.people import patch, pictures, speaks
from tests.models.runtime.drawn import draw_package


def film(path: Path, frames: int = 24) -> Path:
    """The drawn person's, with the labels of a recording."""
    clip = speaks(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 176, 160, "yuv420p"
        stream.options = {"crf": "12", "preset": "ultrafast", "threads": "1"}
        for picture in pictures(clip.points):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    np.savez(labels_beside(path), points=np.pad(clip.points, ((0, 0), (0, 0), (0, 1))))
    return path


@pytest.fixture(autouse=True)
def _by_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a second; that both exporters write the same sums is tested where they are."""
    monkeypatch.setattr(painter, "pack_painter", partial(pack_painter, by="tracing"))


def test_the_end_of_a_film_is_held_out(tmp_path: Path) -> None:
    shown, held = painter.clips(film(tmp_path / "mira-1s.mp4"))
    assert [len(clip.points) for clip in (*shown, *held)] == [22, 2]


def test_a_film_becomes_a_painter_beside_the_shelf(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    folder = draw_package(tmp_path / "ellipse")
    film(tmp_path / "mira-1s.mp4")
    few = Settings(steps=4, batch=2, checkpoint_every=4)
    renderer = painter.teach(folder, "mira", tmp_path, 1.0, few)
    avatar = read_avatar(folder)
    avatar.verify()
    assert {"graphs/paint.onnx", "mouths.safetensors"} < {*avatar.files}
    assert avatar.kind == "plain"
    proved = GraphPainter(avatar, decode_loop(avatar), on_host(Compiled), ("f32",))
    points = load_file(str(folder / "graphs" / "golden.safetensors"))["points"]
    assert np.ptp(proved.paint([0], points[2:3], [3])[0].luma) > 0
    assert renderer.size == 128


def test_a_patch_lies_on_the_loop_where_the_shelfs_mouths_do(tmp_path: Path) -> None:
    """Through the shelf: its points are the only ones that a package keeps of a face at rest."""
    folder = draw_package(tmp_path / "ellipse")
    renderer = patch(128)
    mouths = load_file(str(folder / "mouths.safetensors"))
    renderer.face[list(painter._HELD)] = torch.from_numpy(2 * mouths["points"][0][list(painter._HELD.values()), :2] + 5)
    painter.add(folder, renderer)
    there = load_file(str(folder / "graphs" / "frames.safetensors"))["similarity"]
    motion = load_file(str(folder / "loop.safetensors"))["mouth_similarity"]
    held = renderer.face.numpy()[list(painter._HELD)]
    straight = apply(motion, np.broadcast_to((held - 5) / 2, (len(motion), *held.shape)))
    np.testing.assert_allclose(apply(there, np.broadcast_to(held, straight.shape)), straight, atol=1e-2)


def test_two_similarities_in_a_row_are_one() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=4).astype(np.float32), draw.normal(size=(3, 4)).astype(np.float32)
    points = draw.normal(size=(3, 5, 2)).astype(np.float32)
    one_by_one = apply(second, apply(np.broadcast_to(first, (3, 4)), points))
    np.testing.assert_allclose(apply(painter.chained(second, first), points), one_by_one, atol=1e-4)
    assert painter.chained(second, first).dtype == np.float32


def test_the_film_is_made_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = draw_package(tmp_path / "ellipse")
    asked: list[tuple[str, float]] = []

    def recorded(name: str, seconds: float, out: Path, *, cache: Path) -> Path:
        asked.append((name, seconds))
        return film(out)

    monkeypatch.setattr(painter, "record", recorded)
    monkeypatch.setattr(painter, "add", lambda folder, renderer: None)
    few = Settings(steps=1, batch=1, checkpoint_every=1)
    for _ in range(2):
        painter.teach(folder, "mira", tmp_path, 1.0, few)
    assert asked == [("mira", 1.0)]
