"""A tiny avatar package, drawn: an ellipse for a face, its mouths ellipses too. Small enough for every test run."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from safetensors.numpy import load_file, save_file

from models import face
from models.avatar import seal
from models.rates import DENSE_POINTS, FRAME_RATE, POINTS

SIZE = 128
CENTRE = (64.0, 88.0)  # of the mouth at rest, in frame pixels
PATCH = (40, 56)  # height, width
SKIN, LIP, INSIDE = (205, 160, 140), (170, 70, 75), (50, 10, 15)

SHAPES = {
    "plain": ({}, 1.0),
    "rounded": ({"mouthPucker": 0.6, "mouthFunnel": 0.3}, 0.6),
    "wide": ({"mouthStretchLeft": 0.4, "mouthStretchRight": 0.4}, 1.25),
}
OPENINGS = (0.0, 0.15, 0.35, 0.7)
SINGLES = {
    "press": ({"mouthPressLeft": 0.7, "mouthPressRight": 0.7}, 0.95, 0.0),
    "teeth": ({"mouthStretchLeft": 0.2, "mouthLowerDownLeft": 0.4, "jawOpen": 0.07}, 1.1, 2.0),
    "funnel": ({"mouthFunnel": 0.65, "jawOpen": 0.1}, 0.7, 2.0),
}


def draw_package(
    folder: Path, name: str = "ellipse", frames: int = 8, kind: str = "plain", synthetic: bool = True
) -> Path:
    """Write and seal the package of a face that sways."""
    folder.mkdir(parents=True)
    phase = np.arange(frames) / frames * 2 * np.pi
    turn, shift = 0.06 * np.sin(phase), 3 * np.cos(phase)
    similarity = np.array([_placed(angle, dx) for angle, dx in zip(turn, shift, strict=True)], np.float32)
    _encode([_frame(dx) for dx in shift], folder / "loop.mp4")
    weights = np.zeros((frames, 52), np.float32)
    weights[:, face.ARKIT_52.index("eyeBlinkLeft")] = np.linspace(0, 1, frames)
    weights[:, face.ARKIT_52.index("eyeLookUpLeft")] = 0.2
    save_file(
        {
            "mouth_similarity": similarity,
            "points": np.tile(_points(0.0)[None] + np.array([36, 68, 0], np.float32), (frames, 1, 1)),
            "head_quaternion": np.tile(np.array([0, 0, 0, 1], np.float32), (frames, 1)),
            "head_position": np.zeros((frames, 3), np.float32),
            "blink": weights[:, [0, 7]].copy(),
            "weights": weights,
        },
        str(folder / "loop.safetensors"),
    )
    mouths = [
        ({**shape, "jawOpen": opening}, width, 24 * opening) for shape, width in SHAPES.values() for opening in OPENINGS
    ] + list(SINGLES.values())
    save_file(
        {
            "patches": np.stack([_mouth(width, gap) for _, width, gap in mouths]),
            "weights": np.array([[named.get(n, 0.0) for n in face.ARKIT_52] for named, _, _ in mouths], np.float32),
            "points": np.stack([_points(gap, width) for _, width, gap in mouths]),
            "lip_gap": np.array([gap for _, _, gap in mouths], np.float32),
            "mask": _mask(),
        },
        str(folder / "mouths.safetensors"),
    )
    (folder / "portrait.jpg").write_bytes(b"\xff\xd8\xff\xd9")
    (folder / "avatar.toml").write_text(
        f'schema = 1\nname = "{name}"\ntitle = "An ellipse"\nkind = "{kind}"\nsynthetic = {str(synthetic).lower()}\n'
        'label = "AI"\nlookahead = 2\n[licences]\npictures = "Apache-2.0"\n'
    )
    seal(folder)
    return folder


def add_mesh(folder: Path, frames: int | None = None) -> None:
    """Give a drawn package a dense mesh: its landmarks where they are, all else at the origin."""
    loop, mouths = load_file(folder / "loop.safetensors"), load_file(folder / "mouths.safetensors")
    count = frames or len(loop["points"])
    mesh = {
        "loop": np.zeros((count, DENSE_POINTS, 3), np.float32),
        "mouths": np.zeros((len(mouths["points"]), DENSE_POINTS, 3), np.float32),
    }
    mesh["mouths"][:, face.HOUSE] = mouths["points"]
    rest = mouths["points"][0]
    for frame, (a, b, tx, ty) in enumerate(loop["mouth_similarity"][:count]):
        mesh["loop"][frame, face.HOUSE, 0] = a * rest[:, 0] - b * rest[:, 1] + tx
        mesh["loop"][frame, face.HOUSE, 1] = b * rest[:, 0] + a * rest[:, 1] + ty
    save_file(mesh, str(folder / "mesh.safetensors"))
    seal(folder)


def _placed(angle: float, dx: float) -> list[float]:
    a, b = np.cos(angle), np.sin(angle)
    y, x = (PATCH[0] - 1) / 2, (PATCH[1] - 1) / 2
    return [a, b, CENTRE[0] + dx - (a * x - b * y), CENTRE[1] - (b * x + a * y)]


def _ellipse(shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / max(radii[1], 0.3))
    return np.clip((1.05 - distance) / 0.1, 0, 1)[..., None]


def _over(picture: np.ndarray, colour: tuple[int, int, int], cover: np.ndarray) -> np.ndarray:
    return picture * (1 - cover) + np.array(colour) * cover


def _frame(dx: float) -> np.ndarray:
    picture = np.full((SIZE, SIZE, 3), 60.0)
    picture = _over(picture, SKIN, _ellipse((SIZE, SIZE), (64 + dx, 64), (44, 58)))
    for x in (48, 80):
        picture = _over(picture, (30, 30, 40), _ellipse((SIZE, SIZE), (x + dx, 50), (6, 4)))
    picture = _over(picture, LIP, _ellipse((SIZE, SIZE), (64 + dx, 88), (15, 4)))
    return np.rint(picture).astype(np.uint8)


def _mouth(width: float, gap: float) -> np.ndarray:
    centre = ((PATCH[1] - 1) / 2, (PATCH[0] - 1) / 2)
    picture = np.full((*PATCH, 3), 1.0) * np.array(SKIN)
    picture = _over(picture, LIP, _ellipse(PATCH, centre, (15 * width, 4 + gap / 2)))
    if gap:
        picture = _over(picture, INSIDE, _ellipse(PATCH, centre, (12 * width, gap / 2)))
    return np.rint(picture).astype(np.uint8)


def _mask() -> np.ndarray:
    y, x = np.mgrid[: PATCH[0], : PATCH[1]]
    edge = np.minimum.reduce([x, y, PATCH[1] - 1 - x, PATCH[0] - 1 - y])
    return np.clip((edge - 1) / 5, 0, 1).astype(np.float32)


def _points(gap: float, width: float = 1.0) -> np.ndarray:
    """In patch pixels: both lip rings where `_mouth` draws them, chin and jaw below, the rest above."""
    points = np.zeros((POINTS, 3), np.float32)
    middle = np.array([(PATCH[1] - 1) / 2, (PATCH[0] - 1) / 2])
    round_trip = np.pi + np.arange(20) / 20 * 2 * np.pi  # from the corner at the left of the picture, over the top
    ring = np.stack([np.cos(round_trip), np.sin(round_trip)], 1)
    points[0:20, :2] = middle + ring * (15 * width, 4 + gap / 2)
    points[20:40, :2] = middle + ring * (12 * width, gap / 2)
    points[40:57, 0] = np.linspace(0, PATCH[1] - 1, 17)
    points[40:57, 1] = PATCH[0] - 2
    points[57:, 0] = np.linspace(0, PATCH[1] - 1, POINTS - 57)
    return points


def _encode(pictures: list[np.ndarray], path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FRAME_RATE)
        stream.options = {"crf": "12", "preset": "ultrafast", "threads": "1"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
