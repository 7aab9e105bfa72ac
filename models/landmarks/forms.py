"""The two forms of every published system, as a choice of layers: the network itself is written once.

`STREAMING` layers are those of `models.streaming`: causal, with a state. `FAITHFUL` layers hear the whole utterance at
once, as published; they have the same signature, and what they take as a state is only the steps that came before the
utterance, such as an identity row. A faithful layer must not be fed in pieces.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..streaming import Conv, Layer, State, lstm


class WholeLstm(Layer):
    """A bidirectional LSTM over the rows before the utterance, whose answers are dropped, and the utterance."""

    def __init__(self, into: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.into = into
        self.cell = nn.LSTM(into, hidden, layers, batch_first=True, dropout=dropout, bidirectional=True)

    def silence(self, batch: int) -> State:
        return (self.zeros(batch, 0, self.into),)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before = state[0]
        y, _ = self.cell(torch.cat([before, x], dim=1))
        return y[:, before.shape[1] :], (torch.cat([before, x], dim=1),)


class WholeConv(Layer):
    """A convolution centred on its step, with zeros around the utterance."""

    def __init__(self, into: int, out: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(into, out, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)

    def silence(self, batch: int) -> State:
        return ()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.conv(x.mT).mT, ()


class OverTime(nn.Module):
    """Batch norm of each channel over sessions and steps: [B, T, C]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.flatten(0, 1))
        return y.reshape(x.shape)


@dataclass(frozen=True)
class Form:
    """How a system's parts are made."""

    name: str
    causal: bool
    directions: int
    """Of a recurrent layer: its output is this many times as wide as its hidden state."""
    recurrent: Callable[[int, int, int, float], Layer]
    """(into, hidden, layers, dropout)"""
    conv: Callable[[int, int, int, int], Layer]
    """(into, out, kernel, dilation)"""
    norm: Callable[[int], nn.Module]
    """Of a width, at every step."""


STREAMING = Form(
    name="streaming",
    causal=True,
    directions=1,
    recurrent=lstm,
    conv=lambda into, out, kernel, dilation: Conv(into, out, kernel, dilation=dilation),
    norm=nn.LayerNorm,  # statistics over time would look ahead, and differ between training and the stream
)
FAITHFUL = Form(
    name="faithful",
    causal=False,
    directions=2,
    recurrent=WholeLstm,
    conv=WholeConv,
    norm=OverTime,
)
FORMS = {form.name: form for form in (STREAMING, FAITHFUL)}
