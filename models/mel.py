"""Speech as the ear hears it: causal log-mel columns, as one layer for training and for the stream.

Pcm [B, samples] in -1…1 at 16 kHz comes in, a column of 80 bands for every hop goes out: [B, T, 80]. A column looks at
the window that ends with its hop, so it waits for nothing. The Fourier transform is a matrix product, which every
exporter and every runtime takes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .rates import CHUNK, MEL_HOP, MEL_WINDOW, MELS, SAMPLE_RATE
from .streaming import Chain, Layer, Pointwise, RunningMean, Stack, State

FLOOR = 1e-8
"""Power that is as good as silence; a full-scale sine has 1. Columns are log(1 + power / FLOOR): digital silence is 0,
as is the state of a layer that has heard nothing. (Adding a small floor instead is lost on the way to ONNX, whose
optimiser takes + 1e-8 for + 0.)"""

LOWEST, HIGHEST = 50.0, 7_600.0
"""Hertz. Below is the room, above is what telephones and codecs cut off."""

FULL_SCALE = math.log1p(1 / FLOOR)
"""The loudest band of a full-scale sine."""

USUAL = 6.4
"""Mean over bands and time of recorded speech: where running means begin."""

SPREAD = 3.5
"""Standard deviation of the same."""

SILENT_BELOW = 3.4
"""Loudness under which a column is rather not speech. A quiet room measures 1, words 4.5 and more."""


class Mel(Layer):
    """Log-mel columns. State: the last `window - hop` samples."""

    def __init__(self, window: int = MEL_WINDOW, hop: int = MEL_HOP, bands: int = MELS) -> None:
        super().__init__()
        if hop > window or window % 2:
            raise ValueError("a hop longer than the window would skip sound, and an odd window has no middle")
        self.window, self.hop, self.past = window, hop, window - hop
        self.cosines: Tensor
        self.sines: Tensor
        self.filters: Tensor
        for name, matrix in _matrices(window, bands).items():
            self.register_buffer(name, matrix, persistent=False)

    def silence(self, batch: int) -> State:
        return (self.zeros(batch, self.past),)

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        if pcm.shape[1] % self.hop:
            raise ValueError(f"a chunk of {pcm.shape[1]} samples does not hold whole hops of {self.hop}")
        pcm = torch.cat([state[0], pcm], dim=1)
        frames = pcm.unfold(1, self.window, self.hop)
        # Seen from the middle of the window, cosines are even and sines odd: half the products do.
        before, after = frames[..., : self.window // 2].flip(-1), frames[..., self.window // 2 :]
        power = ((after + before) @ self.cosines).square() + ((after - before) @ self.sines).square()
        return torch.log1p(power @ self.filters), (pcm[:, pcm.shape[1] - self.past :],)


class Spectrum(Layer):
    """LipSync3D's input: complex columns of 30 ms every 10 ms, 256 real parts and then 256 imaginary, [B, T, 512].

    State: the last 320 samples. A full-scale sine has a length of 1, times `GAIN`, as speech is some thirty times less.
    """

    WINDOW, BINS, GAIN = 3 * MEL_HOP, 256, 30.0

    def __init__(self) -> None:
        super().__init__()
        self.past = self.WINDOW - MEL_HOP
        sample = torch.arange(self.WINDOW, dtype=torch.float64)
        taper = 0.5 - 0.5 * torch.cos(2 * math.pi * (sample + 0.5) / self.WINDOW)
        taper *= 2 * self.GAIN / taper.sum()
        angle = math.pi / self.BINS * sample[:, None] * torch.arange(1, self.BINS + 1, dtype=torch.float64)
        self.waves: Tensor
        waves = torch.cat([torch.cos(angle), -torch.sin(angle)], dim=1) * taper[:, None]
        self.register_buffer("waves", waves.float(), persistent=False)

    def silence(self, batch: int) -> State:
        return (self.zeros(batch, self.past),)

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        pcm = torch.cat([state[0], pcm], dim=1)
        return pcm.unfold(1, self.WINDOW, MEL_HOP) @ self.waves, (pcm[:, pcm.shape[1] - self.past :],)


def mel_40ms() -> Mel:
    """The first paper's features: 40 ms frames without overlap, one column of 80 a picture."""
    return Mel(window=CHUNK, hop=CHUNK)


def running_mean(columns_per_second: float = SAMPLE_RATE / MEL_HOP, seconds: float = 4.0) -> RunningMean:
    """Mel columns less each band's mean over the last seconds of speech."""
    return RunningMean(
        MELS,
        steps=seconds * columns_per_second,
        prior_steps=0.5 * columns_per_second,
        prior=USUAL,
        silent_below=SILENT_BELOW,
    )


class _Usual(nn.Module):
    """Mel of a usual voice at a usual level, in units that networks like."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - USUAL) / SPREAD


class Pressed(nn.Module):
    """Complex columns whose every bin has its length to the power of `PRESS`, and keeps its phase: as they come, a few
    loud bins drown all others."""

    PRESS, LEAST = 0.4, 1e-4

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = x.chunk(2, dim=-1)
        power = (real.square() + imaginary.square()) / self.LEAST  # not + LEAST: see FLOOR
        gain = (self.LEAST * (1 + power)) ** (0.5 * (self.PRESS - 1))
        return torch.cat([real * gain, imaginary * gain], dim=-1)


class _Spread(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / SPREAD


def _fine(bands: int) -> Chain:
    return Chain(Mel(bands=bands), Pointwise(_Usual()), Stack(CHUNK // MEL_HOP))


HEARINGS: dict[str, tuple[int, Callable[[], Layer]]] = {
    "mel40": (MELS, lambda: Chain(mel_40ms(), Pointwise(_Usual()))),
    "mel": (MELS * CHUNK // MEL_HOP, lambda: _fine(MELS)),
    "mel-mean": (
        MELS * CHUNK // MEL_HOP,
        lambda: Chain(Mel(), running_mean(), Pointwise(_Spread()), Stack(CHUNK // MEL_HOP)),
    ),
    "spectrum": (2 * Spectrum.BINS * CHUNK // MEL_HOP, lambda: Chain(Spectrum(), Stack(CHUNK // MEL_HOP))),
    "spectrum-pressed": (
        2 * Spectrum.BINS * CHUNK // MEL_HOP,
        lambda: Chain(Spectrum(), Pointwise(Pressed()), Stack(CHUNK // MEL_HOP)),
    ),
    "fbank26": (26 * CHUNK // MEL_HOP, lambda: _fine(26)),
}
"""What a landmark network may hear: its width per 40 ms frame, and the layer from pcm to it. `mel40` is the first
paper's, `mel` four 10 ms columns, `mel-mean` the same less its running mean, `fbank26` Zheng et al.'s filter banks,
`spectrum` LipSync3D's complex columns, `spectrum-pressed` the same with faint bins lifted."""


def _matrices(window: int, bands: int) -> dict[str, Tensor]:
    """`cosines` and `sines` [window / 2, bins], tapered by Hann, such that a full-scale sine has power 1; `filters`
    [bins, bands]: triangles of equal height on the mel scale, by O'Shaughnessy's formula, in units of FLOOR. Bins that
    no band hears are left out."""
    size = 1 << (window - 1).bit_length()
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * (SAMPLE_RATE / size)
    hertz = hertz[(hertz > LOWEST) & (hertz < HIGHEST)]

    edges = torch.linspace(_mel(LOWEST), _mel(HIGHEST), bands + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    rising = (hertz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz[:, None]) / (edges[2:] - edges[1:-1])

    sample = torch.arange(window // 2, dtype=torch.float64) + 0.5  # from the middle
    taper = 0.5 + 0.5 * torch.cos(2 * math.pi * sample / window)
    taper /= taper.sum()  # over half the window: a full-scale sine correlates to half its sum, twice
    angle = 2 * math.pi / SAMPLE_RATE * sample[:, None] * hertz
    return {
        "cosines": (torch.cos(angle) * taper[:, None]).float(),
        "sines": (torch.sin(angle) * taper[:, None]).float(),
        "filters": (torch.minimum(rising, falling).clamp(min=0) / FLOOR).float(),
    }


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)
