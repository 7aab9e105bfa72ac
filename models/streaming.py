"""Layers written once. Each is one function of (input, state) to (output, state).

Training feeds a whole utterance and the silent state; the engine feeds 40 ms and the state that the previous 40 ms left
behind. There is no other difference, so there is no second code path to keep in step. Two theorems are tested for every
layer: any chunking equals the whole, final state included; the future never changes the past.

Inputs and outputs are [B, T, C]. A state is a tuple of tensors, or of states: batch first, of fixed shape, a value that
nobody writes to. A session is a row of it. `silence(batch)` makes the state of sessions that have heard nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Any, ...]
"""A tuple of tensors or of states: a pytree, so that torch.export and CUDA graphs take it as it is."""


class Layer(nn.Module):
    """Owes: `silence(batch)`, and `forward(x, state)` that obeys both theorems."""

    def silence(self, batch: int) -> State:
        """The state of `batch` sessions that have heard nothing, on the device of the weights."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError

    def zeros(self, *shape: int) -> Tensor:
        """Zeros beside the weights: of their device and precision."""
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.new_zeros(shape)
        return torch.zeros(shape)


class Stateless(Layer):
    """A layer with nothing to remember."""

    def silence(self, batch: int) -> State:
        return ()


class Pointwise(Stateless):
    """Any module that looks at one step at a time: Linear, LayerNorm, an activation, dropout, a Sequential of them."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.layer(x), ()


class Stack(Stateless):
    """Joins `steps` neighbours into one wide step: four mel columns of 10 ms become one frame of 40 ms."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        _whole(x, self.steps)
        return x.reshape(x.shape[0], x.shape[1] // self.steps, self.steps * x.shape[2]), ()


class Conv(Layer):
    """A convolution that sees the present and the past. Its state is the past.

    Of `stride` steps that come in, one goes out; a chunk must hold whole strides.
    """

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(into, out, kernel, stride=stride, dilation=dilation, groups=groups)
        self.into, self.stride = into, stride
        self.past = dilation * (kernel - 1) + 1 - stride
        if self.past < 0:
            raise ValueError(f"a stride of {stride} is longer than the kernel: it would skip input")

    def silence(self, batch: int) -> State:
        return (self.zeros(batch, self.past, self.into),)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        _whole(x, self.stride)
        x = torch.cat([state[0], x], dim=1)
        return self.conv(x.mT).mT, (x[:, x.shape[1] - self.past :],)


class Recurrent(Layer):
    """LSTM or GRU, one direction, any number of layers. Its state is h and, for the LSTM, c: [B, layers, hidden]."""

    def __init__(self, cell: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        if cell.bidirectional or not cell.batch_first:
            raise ValueError("a stream runs one way, batch first")
        self.cell = cell
        self.states = 2 if isinstance(cell, nn.LSTM) else 1

    def silence(self, batch: int) -> State:
        return tuple(self.zeros(batch, self.cell.num_layers, self.cell.hidden_size) for _ in range(self.states))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        before = tuple(s.transpose(0, 1).contiguous() for s in state)  # torch keeps layers first
        y, after = self.cell(x, before if self.states == 2 else before[0])
        after = after if self.states == 2 else (after,)
        return y, tuple(s.transpose(0, 1) for s in after)


def lstm(into: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> Recurrent:
    return Recurrent(nn.LSTM(into, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0))


def gru(into: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> Recurrent:
    return Recurrent(nn.GRU(into, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0))


class Attention(Layer):
    """Self-attention over the last `window` steps, the present one among them.

    Its state is the ring of their keys and values, oldest first, and how many of them are born: [B] int64.
    Positions are told by a bias on distance, learned per head, so a step means the same at any age of the session.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.width, self.heads, self.window = width, heads, window
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.slope = nn.Parameter(torch.linspace(-4, 0, heads))

    def silence(self, batch: int) -> State:
        empty = self.zeros(batch, self.window, self.width)
        return (empty, empty.clone(), torch.zeros(batch, dtype=torch.int64, device=empty.device))

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        keys, values, born = state
        steps = x.shape[1]
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        k, v = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)

        # Query i stands at place window + i among the keys, and sees itself and window - 1 steps back.
        place = torch.arange(self.window + steps, device=x.device)
        distance = place[self.window :, None] - place  # [T, W + T]
        unborn = place < (self.window - born)[:, None]  # [B, W + T]
        hidden = ((distance < 0) | (distance >= self.window)) | unborn[:, None]  # [B, T, W + T]
        bias = -F.softplus(self.slope)[:, None, None] * distance
        bias = bias.masked_fill(hidden[:, None], float("-inf"))  # [B, H, T, W + T]

        y = F.scaled_dot_product_attention(self._split(q), self._split(k), self._split(v), attn_mask=bias)
        y = self.out(y.transpose(1, 2).flatten(2))
        born = (born + steps).clamp(max=self.window)
        return y, (k[:, steps:], v[:, steps:], born)

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.width // self.heads).transpose(1, 2)


class Delay(Layer):
    """Says at step t what it heard at t - `frames`; before that, zeros.

    Look-ahead of K frames is a delay of what a network is asked to say: the network stays causal, training delays the
    targets by K, the engine delays the sound by as much. Inside a network, this layer lets a side that must not wait
    (a skip, a gate) meet a side that did.
    """

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.frames, self.width = frames, width
        self.register_buffer("here", torch.zeros(1), persistent=False)  # so that silence is made on the right device

    def silence(self, batch: int) -> State:
        return (self.zeros(batch, self.frames, self.width),)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x = torch.cat([state[0], x], dim=1)
        kept = x.shape[1] - self.frames
        return x[:, :kept], (x[:, kept:],)


class RunningMean(Layer):
    """Takes away each channel's mean over the last seconds of speech: microphones, voices and gains come in alike.

    The mean is exponential over `steps`, and begins at `prior` with the weight of `prior_steps`. Silence says nothing
    of a voice: time passes here by how far a step's loudness, its mean over channels, is above `silent_below`, softly,
    so that a pause of any length forgets nothing.
    """

    BLOCK = 256
    """Steps that training sums at once; a live chunk is one block."""

    def __init__(self, width: int, steps: float, prior_steps: float, prior: float, silent_below: float) -> None:
        super().__init__()
        self.forget = 1.0 / steps  # by e in `steps`
        self.prior_steps, self.silent_below = prior_steps, silent_below
        self.prior: Tensor
        self.spread: Tensor
        self.register_buffer("prior", torch.full((width,), prior))
        self.register_buffer("spread", torch.ones(width))

    def silence(self, batch: int) -> State:
        weight = self.zeros(batch, 1) + self.prior_steps
        return (self.prior * weight, weight)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        total, weight = state
        means = []
        for block in torch.split(x, self.BLOCK, dim=1):
            speech = torch.sigmoid(2.0 * (block.mean(-1, keepdim=True) - self.silent_below))  # [B, T, 1]
            age = speech.cumsum(1)
            since = torch.exp(self.forget * (age.mT - age).clamp(max=0)).tril()  # [B, T, T]
            remains = torch.exp(-self.forget * age)
            totals = since @ (speech * block) + remains * total[:, None]
            weights = since @ speech + remains * weight[:, None]
            means.append(totals / weights)
            total, weight = totals[:, -1], weights[:, -1]
        return (x - torch.cat(means, dim=1)) / self.spread, (total, weight)


class Residual(Layer):
    """x plus what the layer makes of it."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def silence(self, batch: int) -> State:
        return self.layer.silence(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.layer(x, state)
        return x + y, state


class Chain(Layer):
    """Layers one after another; the state of the chain is the tuple of theirs."""

    def __init__(self, *layers: Layer) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def __iter__(self) -> Iterator[Layer]:
        return (cast(Layer, layer) for layer in self.layers)

    def silence(self, batch: int) -> State:
        return tuple(layer.silence(batch) for layer in self)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        left = []
        for layer, before in zip(self, state, strict=True):
            x, after = layer(x, before)
            left.append(after)
        return x, tuple(left)


def _whole(x: Tensor, steps: int) -> None:
    if x.shape[1] % steps:
        raise ValueError(f"a chunk of {x.shape[1]} steps does not hold whole groups of {steps}")


# --- States as values: what a runtime does to rows. None of these writes to its arguments. ---------------------------


def leaves(state: State) -> list[Tensor]:
    """The tensors of a state, in a fixed order: the state inputs and outputs of an exported graph."""
    found: list[Tensor] = []
    for part in state:
        if isinstance(part, Tensor):
            found.append(part)
        else:
            found.extend(leaves(part))
    return found


def rebuild(pattern: State, tensors: Sequence[Tensor]) -> State:
    """A state nested as `pattern`, of the tensors that `leaves` gave."""
    remaining = iter(tensors)

    def build(part: State) -> State:
        return tuple(next(remaining) if isinstance(item, Tensor) else build(item) for item in part)

    state = build(pattern)
    if next(remaining, None) is not None:
        raise ValueError("more tensors than the state has places")
    return state


def map_state(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """`function` of the tensors that stand at the same place in each state."""
    together = zip(leaves(state), *(leaves(other) for other in others), strict=True)
    return rebuild(state, [function(*tensors) for tensors in together])


def reset_rows(state: State, silence: State, fresh: Tensor) -> State:
    """Rows where `fresh` [B] is true start from silence; the others go on. `silence` may be of batch 1."""

    def choose(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(fresh.reshape(-1, *[1] * (old.dim() - 1)), new, old)

    return map_state(choose, state, silence)


def gather_rows(state: State, rows: Tensor) -> State:
    """The rows [n] of a bank of states, as a batch of n."""
    return map_state(lambda bank: bank.index_select(0, rows), state)


def scatter_rows(state: State, rows: Tensor, batch: State) -> State:
    """The bank with `batch` in the places `rows` [n], each named once."""
    return map_state(lambda bank, part: bank.index_copy(0, rows, part), state, batch)


def join_rows(states: Sequence[State]) -> State:
    """Sessions of any age, one batch."""
    return map_state(lambda *parts: torch.cat(parts), *states)
