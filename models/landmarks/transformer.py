"""IP-LAP's landmark generator (Zhong et al. 2023): tokens of reference faces, sound and pose through a transformer to
41 lip and 16 jaw points in the picture's plane.

As published: 15 reference tokens, and for each of 5 frames a sound token and a pose token, d = 512; a code of its
kind on every token, sinusoidal positions on those of frames; blocks MSA(LN) and MLP(LN); lips from the sound tokens,
jaw from the pose tokens; L1 and continuity. The sound of a frame is a picture of 16 columns by 80 bands, encoded as
in Wav2Lip, which the paper follows; points are encoded by 1-D convolutions. The paper does not number blocks and
heads: 4 and 4 here. Its columns are 12.5 ms apart, ours 10.

The faithful form takes 5 frames at a time, all tokens seeing all, sound centred on its frame. In the streaming form a
frame's tokens see those of the last `window` frames, held in a ring of keys and values, and the reference tokens,
which see only each other and so are encoded once, when the session begins; a learned bias on distance takes the place
of positions, which a ring has not. Both say how the points differ from the person at rest in the frame's pose.
"""

import itertools
import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import face, losses
from ..mel import HEARINGS
from ..rates import LOOKAHEAD_DEFAULT
from ..streaming import State
from . import EYES_APART, SPOKEN, UPPER, Conditions, LandmarkNetwork, faces_of, plane_of, rest_in_plane
from .forms import STREAMING, Form
from .pose_tcn import raised

WIDTH, BLOCKS, HEADS, MLP = 512, 4, 4, 1024
REFERENCES, FRAMES, WINDOW = 15, 5, 10
BANDS, COLUMNS = 80, 16
CHANNELS = (32, 64, 128, 256)
LIPS = len(face.HOUSE[face.HOUSE_LIPS])
JAW = SPOKEN - LIPS

_IN_MESH = face.HOUSE[face.HOUSE_SPOKEN].tolist()


class Block(nn.Module):
    """z + MSA(LN(z)), then z + MLP(LN(z)); the keys and values may be others' than the queries'."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, MLP), nn.ReLU(), nn.Linear(MLP, width))
        self.slope = nn.Parameter(torch.linspace(-4, 0, heads))

    def ask(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] → queries, keys and values, each [B, N, D]."""
        q, k, v = self.qkv(self.before(z)).chunk(3, dim=-1)
        return q, k, v

    def answer(self, z: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        z = z + self.out(torch.cat(y.unbind(1), dim=-1))
        return z + cast(Tensor, self.mlp(self.between(z)))


class SoundEncoder(nn.Module):
    """A picture of 80 bands by 16 columns to a token: Wav2Lip's, by its channels and strides."""

    def __init__(self, width: int, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        a, b, c, d = channels
        self.layers = nn.Sequential(
            *(_Picture(1, a), _Picture(a, a, residual=True), _Picture(a, a, residual=True)),
            *(_Picture(a, b, (3, 1)), _Picture(b, b, residual=True), _Picture(b, b, residual=True)),
            *(_Picture(b, c, (3, 3)), _Picture(c, c, residual=True), _Picture(c, c, residual=True)),
            *(_Picture(c, d, (3, 2)), _Picture(d, d, residual=True)),
            nn.Conv2d(d, width, 3),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        self.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a CPU learns in 2/3 of the time

    def forward(self, sound: Tensor) -> Tensor:
        """[N, 16, 80] → [N, D]"""
        return cast(Tensor, self.layers(sound.mT[:, None])).flatten(1)


class _Picture(nn.Module):
    def __init__(self, into: int, out: int, stride: tuple[int, int] = (1, 1), residual: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, stride, 1)
        self.norm = nn.BatchNorm2d(out)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return F.relu(y + x if self.residual else y)


class PointEncoder(nn.Module):
    """Points [N, P, 2] to a token, by convolutions along the list of points."""

    def __init__(self, points: int, width: int) -> None:
        super().__init__()
        steps = [2, width // 8, width // 4, width // 2, width]
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(steps):
            layers += [nn.Conv1d(into, out, 3, stride=2, padding=1), nn.ReLU()]
            points = (points + 1) // 2
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(points * width, width)

    def forward(self, points: Tensor) -> Tensor:
        return cast(Tensor, self.out(self.layers(points.mT).flatten(1)))


class Transformer(LandmarkNetwork):
    """`code`: four mel columns of 80 bands a frame."""

    def __init__(
        self,
        code: int = HEARINGS["mel"][0],
        form: Form = STREAMING,
        lookahead: int = LOOKAHEAD_DEFAULT,
        width: int = WIDTH,
        blocks: int = BLOCKS,
        channels: tuple[int, int, int, int] = CHANNELS,
        window: int = WINDOW,
    ) -> None:
        super().__init__(own=SPOKEN, lookahead=lookahead if form.causal else 0)
        if code != 4 * BANDS:
            raise ValueError(f"a frame of sound is 4 columns of {BANDS} bands, not {code} numbers")
        self.causal, self.width, self.window = form.causal, width, window
        self.sound, self.pose = SoundEncoder(width, channels), PointEncoder(UPPER, width)
        self.refer = PointEncoder(SPOKEN + UPPER, width)
        self.kinds = nn.Parameter(0.02 * torch.randn(3, width))  # reference, sound, pose
        self.blocks = nn.ModuleList(Block(width, HEADS) for _ in range(blocks))
        self.lips = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * LIPS))
        self.jaw = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * JAW))
        self.mean: Tensor
        self.scale: Tensor
        self.positions: Tensor
        self.register_buffer("mean", torch.zeros(SPOKEN, 2))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("positions", _sinusoids(FRAMES, width), persistent=False)

    def begin(self, identity: Tensor) -> State:
        """The reference tokens as they come in, each block's keys and values of them, empty rings, an empty past."""
        faces = faces_of(identity)[..., :2] / EYES_APART
        batch, count = faces.shape[:2]
        z = self.refer(faces.flatten(0, 1)).reshape(batch, count, self.width) + self.kinds[0]
        past = z.new_zeros(batch, COLUMNS // 4 - 1, 4 * BANDS)
        if not self.causal:
            return (z, past)
        references, rings = [], []
        for block in self._blocks():
            q, k, v = block.ask(z)
            z = block.answer(z, q, k, v)
            references.append((k, v))
            empty = z.new_zeros(batch, self.window, 2 * self.width)
            rings.append((empty, empty.clone()))
        born = torch.zeros(batch, dtype=torch.int64, device=z.device)
        return (tuple(references), tuple(rings), born, past)

    def speak(self, code: Tensor, conditions: Conditions, state: State) -> tuple[Tensor, State]:
        steps = code.shape[1]
        past = state[-1]
        heard = torch.cat([past, code], dim=1)
        sound = self._pictures(heard, steps)
        pose = plane_of(conditions).into(conditions.upper[..., :2])
        z = torch.stack([self._tokens(self.sound, sound, 1), self._tokens(self.pose, pose, 2)], dim=2)  # [B, T, 2, D]
        if self.causal:
            z, rest = self._stream(z, *state[:3])
        else:
            z, rest = self._windows(z, state[0]), state[:1]
        flat = torch.cat([self.lips(z[:, :, 0]), self.jaw(z[:, :, 1])], dim=-1)
        points = flat.reshape(*flat.shape[:2], SPOKEN, 2) * self.scale + self.mean + self._rest(conditions)
        return points, (*rest, heard[:, steps:])

    def truth(self, points: Tensor, conditions: Conditions) -> Tensor:
        return plane_of(conditions).into(points[:, :, _IN_MESH, :2])

    def cost(self, code: Tensor, conditions: Conditions, points: Tensor, state: State) -> Tensor:
        said = self.speak(code, conditions, state)[0][:, self.lookahead :] / self.scale
        true = self.truth(points, conditions)[:, self.lookahead :] / self.scale
        return losses.transformer(said, true, slice(0, LIPS))

    @torch.no_grad()
    def fit(self, points: Tensor, conditions: Conditions) -> None:
        super().fit(points, conditions)
        moved = (self.truth(points, conditions) - self._rest(conditions))[0]
        self.mean.copy_(moved.mean(0))
        self.scale.copy_(moved.std(0).mean())

    def normal(self, own: Tensor, conditions: Conditions) -> Tensor:
        return raised(plane_of(conditions).back(own), conditions, self.reference, list(range(SPOKEN)))

    def _rest(self, conditions: Conditions) -> Tensor:
        return rest_in_plane(conditions, self.reference, list(range(SPOKEN)))[..., :2]

    def _blocks(self) -> list[Block]:
        return [cast(Block, block) for block in self.blocks]

    def _pictures(self, heard: Tensor, steps: int) -> Tensor:
        """[B, 3 + T, 320] → [B, T, 16, 80]: four frames of columns for each frame, the last its own; in the faithful
        form one before and two after."""
        if not self.causal:
            heard = F.pad(heard[:, 2:], (0, 0, 0, 2))
        windows = torch.stack([heard[:, i : i + steps] for i in range(COLUMNS // 4)], dim=2)
        return windows.reshape(*windows.shape[:2], COLUMNS, BANDS)

    def _tokens(self, encoder: nn.Module, x: Tensor, kind: int) -> Tensor:
        return cast(Tensor, encoder(x.flatten(0, 1))).reshape(*x.shape[:2], self.width) + self.kinds[kind]

    def _stream(self, z: Tensor, references: State, rings: State, born: Tensor) -> tuple[Tensor, State]:
        batch, steps = z.shape[:2]
        place = torch.arange(self.window + steps, device=z.device)
        distance = place[self.window :, None] - place  # [T, W + T]: frames back
        unborn = place < (self.window - born)[:, None]
        hidden = ((distance < 0) | (distance >= self.window)) | unborn[:, None]  # [B, T, W + T]
        left = []
        for block, (known_k, known_v), (ring_k, ring_v) in zip(self._blocks(), references, rings, strict=True):
            tokens = z.flatten(1, 2)
            q, k, v = block.ask(tokens)
            k, v = (torch.cat([r, x.reshape(batch, steps, -1)], dim=1) for r, x in ((ring_k, k), (ring_v, v)))
            left.append((k[:, steps:], v[:, steps:]))
            bias = (-F.softplus(block.slope)[:, None, None] * distance).masked_fill(hidden[:, None], float("-inf"))
            bias = bias.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # both tokens of a frame alike
            bias = F.pad(bias, (known_k.shape[1], 0))
            k = torch.cat([known_k, k.reshape(batch, -1, self.width)], dim=1)
            v = torch.cat([known_v, v.reshape(batch, -1, self.width)], dim=1)
            z = block.answer(tokens, q, k, v, bias).reshape(batch, steps, 2, self.width)
        return z, (references, tuple(left), (born + steps).clamp(max=self.window))

    def _windows(self, z: Tensor, references: Tensor) -> Tensor:
        """Five frames at a time; the last group is filled up with its last frame."""
        batch, steps = z.shape[:2]
        missing = -steps % FRAMES
        z = torch.cat([z, z[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        groups = z.reshape(-1, FRAMES, 2, self.width) + self.positions[:, None]
        count = groups.shape[0] // batch
        known = references.repeat_interleave(count, dim=0)
        tokens = torch.cat([known, groups[:, :, 0], groups[:, :, 1]], dim=1)
        for block in self._blocks():
            tokens = block.answer(tokens, *block.ask(tokens))
        tokens = tokens[:, known.shape[1] :]
        both = torch.stack([tokens[:, :FRAMES], tokens[:, FRAMES:]], dim=2)
        return both.reshape(batch, -1, 2, self.width)[:, :steps]


def _sinusoids(count: int, width: int) -> Tensor:
    place = torch.arange(count)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1).flatten(1)
