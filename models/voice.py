"""The voice encoder: what a mouth must do, heard from any voice. Speaker-independent, causal, shared by every avatar.

Pcm [B, 640 T] at 16 kHz goes in, a code [B, T, 256] at 25 Hz comes out. Look-ahead is spent here and nowhere else: one
trunk that never sees the future, and a head for each K that says at step t what the mouth does in frame t - K. A head
answers with what `Heard` holds; `mouth` turns that into ARKit weights in which a closure that was heard really closes.

Trained on synthetic voices only (`models.studio.listening`); shipped as `models/shipped/voice.safetensors`.
"""

import json
from pathlib import Path
from typing import Final, NamedTuple

import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.face import ARKIT_52
from models.mel import Mel, running_mean
from models.rates import CHUNK, MEL_HOP, MELS
from models.streaming import Chain, Conv, Layer, Pointwise, State, gru

CODE: Final = 256
LOOKAHEADS: Final = (0, 1, 2, 3)
COLUMNS: Final = CHUNK // MEL_HOP
"""Mel columns of one frame: 4."""

VISEMES: Final[dict[str, tuple[str, ...]]] = {
    "sil": ("pau", "sil"),
    "mbp": ("m", "b", "p", "em"),
    "fv": ("f", "v"),
    "th": ("th", "dh"),
    "td": ("t", "d", "n", "s", "z", "l", "dx", "en", "el"),
    "sh": ("sh", "zh", "ch", "jh"),
    "kg": ("k", "g", "ng", "hh", "y"),
    "wu": ("w", "uw", "uh"),
    "r": ("r", "er", "axr"),
    "ow": ("ow", "ao", "oy"),
    "ih": ("iy", "ih", "ix", "ey", "eh", "ax"),
    "aa": ("aa", "ae", "ah", "ay", "aw"),
}
"""What can be told apart on lips: the classes that accuracy is measured in."""

VISEME_OF: Final = {phone: index for index, phones in enumerate(VISEMES.values()) for phone in phones}

MOUTH: Final[tuple[tuple[str, ...], ...]] = (
    ("jawOpen",),
    ("mouthFunnel",),
    ("mouthPucker",),
    ("mouthSmileLeft", "mouthSmileRight"),
    ("mouthStretchLeft", "mouthStretchRight"),
    ("mouthRollLower",),
    ("mouthRollUpper",),
    ("mouthLowerDownLeft", "mouthLowerDownRight"),
    ("mouthUpperUpLeft", "mouthUpperUpRight"),
    ("tongueOut",),
)
"""The weights that speech moves, both sides as one. Closing and pressing follow from the closure."""

_WIDTH: Final = len(VISEMES) + 1 + len(MOUTH)
CLOSES: Final = 0.15
"""Probability of a closure at which lips begin to meet; at SHUT they have met."""
SHUT: Final = 0.25
"""Calibrated on voices in training: the highest at which 97 % of closures are found."""


class Heard(NamedTuple):
    """What a head says of a frame: logits of VISEMES [B, T, 12] and a closure [B, T], MOUTH in 0…1 [B, T, 10]."""

    visemes: Tensor
    closure: Tensor
    mouth: Tensor

    def sealed(self, closes: float = CLOSES, shut: float = SHUT) -> Tensor:
        """How far lips are drawn together [B, T] in 0…1; at 1 they touch."""
        return ((self.closure.sigmoid() - closes) / (shut - closes)).clamp(0, 1)


class VoiceEncoder(Layer):
    """Mel columns [B, 4 T, 80], already less their running mean → code [B, T, 256]."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.trunk = Chain(
            Conv(MELS, 160, kernel=5),
            Pointwise(nn.ReLU()),
            Conv(160, 224, kernel=2 * COLUMNS, stride=COLUMNS),
            Pointwise(nn.Sequential(nn.ReLU(), nn.Dropout(dropout))),
            gru(224, CODE, layers=2, dropout=dropout),
        )
        self.heads = nn.ModuleList(nn.Linear(CODE, _WIDTH) for _ in LOOKAHEADS)

    def silence(self, batch: int) -> State:
        return self.trunk.silence(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        code, state = self.trunk(x, state)
        return code, state

    def hear(self, code: Tensor, lookahead: int) -> Heard:
        """What head K says. Stateless: step t of the answer is for frame t - K."""
        said = self.heads[LOOKAHEADS.index(lookahead)](code)
        visemes, closure, mouth = said.split((len(VISEMES), 1, len(MOUTH)), dim=-1)
        return Heard(visemes, closure.squeeze(-1), mouth.sigmoid())


class Voice(Layer):
    """Pcm [B, 640 T] → code [B, T, 256]: mel, running mean and encoder in one."""

    def __init__(self, encoder: VoiceEncoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder or VoiceEncoder()
        self.chain = Chain(Mel(), running_mean(), self.encoder)

    def silence(self, batch: int) -> State:
        return self.chain.silence(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        code, state = self.chain(x, state)
        return code, state


class Lips(Layer):
    """Pcm [B, 640 T] → ARKit weights [B, T, len(LOOKAHEADS), 52]: all that a face without a head of its own needs."""

    def __init__(self, encoder: VoiceEncoder) -> None:
        super().__init__()
        self.voice = Voice(encoder)

    def silence(self, batch: int) -> State:
        return self.voice.silence(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        code, state = self.voice(x, state)
        return torch.stack([mouth(self.voice.encoder.hear(code, k)) for k in LOOKAHEADS], dim=2), state


def mouth(heard: Heard) -> Tensor:
    """ARKit weights [B, T, 52] of what was heard: only the mouth moves. A closure parts nothing: lips meet."""
    sealed = heard.sealed()
    ajar = (1 - sealed)[..., None]
    columns = dict(zip((names[0] for names in MOUTH), heard.mouth.unbind(-1), strict=True))
    jaw = columns["jawOpen"] * (1 - 0.8 * sealed)
    press = 0.66 * sealed
    parting = {"mouthFunnel", "mouthStretchLeft", "mouthLowerDownLeft", "mouthUpperUpLeft", "tongueOut"}
    rows: dict[str, Tensor] = {}
    for names in MOUTH:
        value = columns[names[0]]
        for name in names:
            rows[name] = value * ajar[..., 0] if names[0] in parting else value
    rows["jawOpen"] = jaw
    rows["mouthClose"] = jaw * sealed
    rows["mouthPressLeft"] = rows["mouthPressRight"] = press
    nothing = torch.zeros_like(jaw)
    return torch.stack([rows.get(name, nothing) for name in ARKIT_52], dim=-1)


def save(path: Path, voice: VoiceEncoder, **made: str) -> None:
    """Weights as safetensors, with how they were made."""
    partial = path.with_suffix(".part")
    tensors = {name: tensor.contiguous() for name, tensor in voice.state_dict().items()}
    save_file(tensors, partial, {"format": "pt", "arch": "liveface.voice.1", "made": json.dumps(made)})
    partial.replace(path)


def ship(directory: Path, encoder: VoiceEncoder, **made: str) -> None:
    """Everything that serving needs: `voice.safetensors`, `lips.onnx`, its `silence.safetensors` and its proof."""
    from models.runtime.graphs import export  # the exporter is heavy, and nobody else needs it
    from models.runtime.proof import prove

    directory.mkdir(parents=True, exist_ok=True)
    save(directory / "voice.safetensors", encoder, **made)
    graph, silence = export(Lips(encoder), torch.zeros(1, CHUNK))
    (directory / "lips.onnx").write_bytes(graph)
    save_arrays({f"state_{n}": leaf for n, leaf in enumerate(silence)}, directory / "silence.safetensors")
    prove(directory, Lips(encoder))


def load(path: Path) -> VoiceEncoder:
    """A trained encoder, ready to listen. Raises FileNotFoundError, or RuntimeError when the weights are another's."""
    voice = VoiceEncoder()
    voice.load_state_dict(load_file(path), strict=True)
    return voice.eval()
