"""Pictures of a presenter that are rendered once: kept on disk, laid over each other, swayed with the head.

A still is a square picture [S, S, 3] of the presenter looking straight ahead; crops are given for a picture of SIZE
pixels and scaled to others. Turning takes each pixel from where the head's turn has brought it from, the head taken for
an egg, fading out over the blurred room and the shoulders: right for the few degrees of somebody who talks to a camera.
"""

import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from models.create.watch import hushed
from models.studio.presenter import Crop, Presenter
from models.studio.presenter.head import CAMERA, PIVOT
from models.studio.presenter.render import FOCUS_Z, HALF
from models.studio.presenter.rig import Pose
from models.studio.presenter.sdf import Tensor, smoothstep

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

SIZE: Final = 512
SOURCES: Final = Path(__file__).parent / "presenter"


def scaled(crop: Crop, size: int) -> Crop:
    """The same part of a picture of another size."""
    return Crop(*(side * size // SIZE for side in crop))


def feathered(crop: Crop, feather: int = 16) -> Floats:
    """[H, W]: 1 within a rounded box, falling to 0 on the border."""
    y, x = np.mgrid[: crop.height, : crop.width].astype(np.float32)
    across = np.abs(x - (crop.width - 1) / 2) / (crop.width / 2)
    down = np.abs(y - (crop.height - 1) / 2) / (crop.height / 2)
    inside = (1 - (across**5 + down**5) ** (1 / 5)) * min(crop.width, crop.height) / 2
    t = np.clip((inside - 1) / feather, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def laid(still: Bytes, patch: Bytes, crop: Crop, feather: int = 10) -> Bytes:
    """The patch over the still picture, without an edge. `crop` is in the picture's own pixels."""
    mask = feathered(crop, feather)[..., None]
    picture = still.copy()
    place = picture[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    place[:] = np.rint(place * (1 - mask) + patch * mask).astype(np.uint8)
    return picture


def turned(pixels: Tensor, turn: Tensor, size: int = SIZE) -> Tensor:
    """[..., 2] of the still picture → where they are once the head, taken for an egg, has turned by [3, 3]."""
    u = ((pixels[..., 0] + 0.5) / size * 2 - 1) * HALF
    v = (1 - (pixels[..., 1] + 0.5) / size * 2) * HALF
    x, y, z = u, v + CAMERA[1], torch.full_like(u, FOCUS_Z)
    for _ in range(4):
        z = torch.sqrt((1 - (x / 1.05) ** 2 - ((y - 0.1) / 1.4) ** 2).clamp(min=1e-4)) - 0.1
        nearer = (CAMERA[2] - z) / (CAMERA[2] - FOCUS_Z)
        x, y = u * nearer, v * nearer + CAMERA[1]
    pivot = torch.tensor(PIVOT)
    x, y, z = ((torch.stack([x, y, z], -1) - pivot) @ turn.T + pivot).unbind(-1)
    near = (CAMERA[2] - FOCUS_Z) / (CAMERA[2] - z) / HALF
    return torch.stack([x * near + 1, 1 - (y - CAMERA[1]) * near], -1) * size / 2 - 0.5


def carried(pixels: Tensor) -> Tensor:
    """[..., 2] of a picture of SIZE → [...]: 1 on the head, which the turn carries whole, 0 on room and shoulders."""
    from_head = torch.sqrt(((pixels[..., 0] - 256) / 150) ** 2 + ((pixels[..., 1] - 210) / 190) ** 2 + 1e-6)
    return smoothstep(1.95, 1.12, from_head)  # 1 is the outline of the hair


def origin(pixels: Tensor, turn: Tensor, breath: float, size: int = SIZE) -> Tensor:
    """[..., 2] of the swayed picture → where in the still picture that pixel comes from."""
    usual = (pixels + 0.5) * (SIZE / size) - 0.5
    source = pixels + carried(usual)[..., None] * (turned(pixels, turn.T, size) - pixels)
    raised = (breath - 0.5) * 0.014 * size / 2 / HALF * smoothstep(380.0, 450.0, usual[..., 1])
    return source + torch.stack([torch.zeros_like(raised), raised], -1)


def swayed(still: Bytes, turn: Tensor, breath: float) -> Bytes:
    """The still picture with its head turned and its shoulders raised by the breath (0.5 is the picture's own)."""
    size = len(still)
    y, x = torch.meshgrid(torch.arange(size).float(), torch.arange(size).float(), indexing="ij")
    source = origin(torch.stack([x, y], -1), turn, breath, size)
    planes = torch.from_numpy(still).permute(2, 0, 1)[None].float()
    grid = ((source + 0.5) / size * 2 - 1)[None]
    moved = F.grid_sample(planes, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return np.asarray(moved[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy())


def swayed_points(pixels: Tensor, turn: Tensor, breath: float, size: int = SIZE) -> Tensor:
    """[P, 2] of the still picture → where `swayed` has taken them: the inverse of `origin`, by fixed point."""
    moved = pixels
    for _ in range(8):
        moved = moved + pixels - origin(moved, turn, breath, size)
    return moved


class Frames:
    """Rendered pictures on disk, found again by what they show."""

    def __init__(self, presenter: Presenter, cache: Path, size: int = SIZE):
        code = b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.py")))
        person = repr(presenter.who).encode()
        self.folder = cache / f"{presenter.who.name}-{hashlib.sha256(code + person).hexdigest()[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.presenter = presenter
        self.size = size

    def get(self, pose: Pose, crop: Crop) -> Bytes:
        """[H, W, 3] of a batch of one; `crop` is in pixels of a picture of `size`."""
        shown = pose.table().numpy().tobytes() + repr((self.size, crop)).encode()
        path = self.folder / f"{hashlib.sha256(shown).hexdigest()[:24]}.npy"
        if not path.exists():
            picture = self.presenter.pictures(pose, self.size, crop).rgb[0].cpu().numpy()
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.save(file, picture)
            partial.rename(path)
        return np.asarray(np.load(path))


def track(picture: Bytes) -> Floats:
    """MediaPipe's 478 points [478, 2] of one picture."""
    try:
        import mediapipe
    except ImportError as missing:
        raise SystemExit("the studio needs mediapipe to name landmarks: pip install 'liveface[create]'") from missing
    with hushed(), mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        found = mesh.process(picture).multi_face_landmarks
    if not found:
        raise SystemExit("no face was found on the presenter's neutral picture: mend the presenter before shipping it")
    size = np.array([picture.shape[1], picture.shape[0]], np.float32)
    return np.array([[p.x, p.y] for p in found[0].landmark], np.float32) * size - 0.5
