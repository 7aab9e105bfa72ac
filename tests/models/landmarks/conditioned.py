"""Conditions of a made head, and a landmark network seen as a layer of one input, for the theorems and the graphs."""

import numpy as np
import torch
from torch import Tensor

from models import face, metrics, train
from models.landmarks import Conditions, LandmarkNetwork
from models.streaming import Layer, State

from ..faces import rest_mesh, speaking, turned

EXTRA = 9 + 1 + 9 + 3 + 16 + 74 * 3
"""Numbers of a frame's conditions, flat."""
FRAME = 300.0
"""Pixels: where points lie. fp32 knows them to 3e-5, so that 1e-5 is asked of shares of the frame."""


def reference() -> Tensor:
    """[131, 3]: the made face at rest, pose-normal."""
    rest = speaking(np.zeros(1))
    return torch.tensor(metrics.pose_normal(rest, rest_mesh())(rest)[0, face.HOUSE], dtype=torch.float32)


def conditions_of(mesh: np.ndarray) -> Conditions:
    """Of one clip [T, 478, 3] in pixels, as a batch of 1."""
    return train.conditions_of(mesh, rest_mesh(), reference().numpy())


def a_head_that_speaks(frames: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Openings [T] and the mesh [T, 478, 3] of a head that turns as it speaks."""
    rng = np.random.default_rng(seed)
    openings = 8 + 8 * np.convolve(rng.normal(size=frames + 8), np.hanning(9) / 2, "valid")[:frames].clip(-1, 1)
    swing = 10 * np.sin(np.arange(frames) / 11 + seed)
    return openings, turned(speaking(openings), swing, 1.3, (20, -10))


class AsLayer(Layer):
    """x [B, T, code + EXTRA]: the code, and small disturbances of a head's conditions. Points as shares of FRAME."""

    def __init__(self, network: LandmarkNetwork, code: int) -> None:
        super().__init__()
        self.network, self.code = network, code
        still = conditions_of(a_head_that_speaks(1)[1])
        for name, tensor in zip(still._fields[:-1], still[:-1], strict=True):
            self.register_buffer(name, tensor)

    def silence(self, batch: int) -> State:
        return self.network.silence(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        code, nose, scale, rotation, shift, cheeks, upper = x.split([self.code, 9, 1, 9, 3, 16, 222], dim=-1)
        batch, steps = x.shape[:2]
        conditions = Conditions(
            self.nose + nose.reshape(batch, steps, 3, 3),
            self.scale + 0.01 * scale,
            self.rotation + 0.01 * rotation.reshape(batch, steps, 3, 3),
            self.shift + shift,
            self.cheeks + cheeks.reshape(batch, steps, 8, 2),
            self.upper + upper.reshape(batch, steps, 74, 3),
            self.network.reference.reshape(1, -1).expand(batch, -1),
        )
        points, state = self.network(code, conditions, state)
        return points.flatten(2) / FRAME, state


def prepared(network: LandmarkNetwork, seed: int = 0) -> LandmarkNetwork:
    """With a person's reference and a lift that does something."""
    torch.manual_seed(seed)
    network.reference.copy_(reference())
    network.lift.add_(0.01 * torch.randn_like(network.lift))
    return network.eval()
