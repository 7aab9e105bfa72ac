"""States and loop frames that stay on the device, and the steps over them, one recorded for each size of a batch.

A recorded step gathers the rows of its slots, computes the network, scatters what comes after, and leaves its answers
in memory that never moves; those that the caller sees lie together, so that they come home in one copy. Which slots,
which of them begin anew, and which frames: three rows of numbers that are sent before each step.

Frames of a loop beyond `FRAMES_BYTES` stay on the host. The device then holds one frame for each slot, sent ahead
while the step before is still being fetched, since a loop's next frame can be told from its last two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file
from torch import Tensor

from models.avatar import PackageError
from models.runtime import Floats
from models.runtime.devices import Device, Step, moved, sizes_of
from models.runtime.slots import batches, bucket, buckets
from models.runtime.stages import PLANES, MakeStage, Part

FRAMES_BYTES: Final = 1 << 30
"""What the frames of one stage may take of the device."""

_ALIGNED: Final = 256

AT, FRESH, FRAME = range(3)


class Net(Protocol):
    """A network on a device: named tensors [B, …] in, named tensors out."""

    @property
    def asks(self) -> Sequence[str]: ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of its inputs, without the batch."""
        ...

    def __call__(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]: ...


MakeNet = Callable[[bytes, str, Sequence[int]], Net]
"""(ONNX in f32, precision, batch sizes) → a network."""


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """The step for one size of a batch."""

    inputs: Mapping[str, Tensor]
    sending: Mapping[str, Tensor]  # the same on the host
    control: Tensor
    control_sending: Tensor
    answers: Mapping[str, Tensor]
    shown: Tensor  # the bytes of those answers that the caller sees
    landing: Tensor
    repeat: Step


class Frames:
    """A loop's arrays, by frame, where a step can gather them."""

    def __init__(self, arrays: Mapping[str, Floats], slots: int, device: Device, most: int) -> None:
        self._device = device
        arrays = {name: array[np.arange(len(array))] for name, array in arrays.items()}  # they may be made as asked
        self.ahead = sizes_of(arrays) > most
        """Whether the device holds a frame for each slot, rather than all of them."""
        if self.ahead:
            self._host = {name: _pinned(device, array) for name, array in arrays.items()}
            self.rows = {
                name: torch.zeros(slots + 1, *row.shape[1:], dtype=row.dtype, device=device.where)
                for name, row in self._host.items()
            }
        else:
            self.rows = {name: moved(device, array) for name, array in arrays.items()}
        self._count = len(next(iter(arrays.values()), ()))
        self._there: dict[int, int] = {}  # slot → its frame on the device
        self._last: dict[int, int] = {}
        self.missed = 0
        """Frames that had not been sent ahead."""

    def require(self, slots: Sequence[int], index: Sequence[int]) -> None:
        """Before a step: send what is not there yet."""
        if not self.ahead:
            return
        self._device.join()
        for slot, frame in zip(slots, index, strict=True):
            if self._there.get(slot) != frame:
                self.missed += 1
                self._send(slot, frame)

    def foresee(self, slots: Sequence[int], index: Sequence[int]) -> None:
        """After a step: send what comes next, there or back again."""
        if not self.ahead:
            return
        with self._device.aside():
            for slot, frame in zip(slots, index, strict=True):
                way = -1 if frame < self._last.get(slot, -1) else 1
                self._last[slot] = frame
                following = frame + way if 0 <= frame + way < self._count else frame - way
                self._send(slot, max(0, following))

    def _send(self, slot: int, frame: int) -> None:
        for name, rows in self.rows.items():
            rows[slot].copy_(self._host[name][frame], non_blocking=True)
        self._there[slot] = frame


class ResidentStage:
    """Implements `models.runtime.stages.Stage`."""

    def __init__(self, part: Part, slots: int, device: Device, make: MakeNet, frames_bytes: int = FRAMES_BYTES) -> None:
        self._device = device
        self._scratch = slots
        self._shown = part.shown  # of those that are named nowhere, all
        sizes = buckets(slots)
        self._net = make(part.graph, part.precision, sizes)
        if set(part.silence) != {name for name in self._net.asks if name.startswith("state_")}:
            raise PackageError(f"silence.safetensors does not hold the states of {part.name}.onnx")
        with torch.inference_mode(), device.working():
            self._silence = {name: moved(device, row) for name, row in part.silence.items()}
            self._states = {name: row.repeat(slots + 1, *[1] * (row.dim() - 1)) for name, row in self._silence.items()}
            asked = {name[6:]: part.frames[name[6:]] for name in self._net.asks if name.startswith("frame_")}
            self.frames = Frames(asked, slots, device, frames_bytes)
            self._steps = {size: self._record(size) for size in sizes}
        self._last = self._steps[sizes[0]]

    def run(
        self, slots: Sequence[int], reset: Sequence[bool], index: Sequence[int], given: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        count, size = len(slots), bucket(len(slots))
        step = self._last = self._steps[size]
        control = step.control_sending.numpy()
        control[AT], control[FRESH], control[FRAME] = self._scratch, 1, 0
        control[AT, :count], control[FRESH, :count], control[FRAME, :count] = slots, reset, index
        with torch.inference_mode(), self._device.working():
            self.frames.require(slots, index)
            step.control.copy_(step.control_sending, non_blocking=True)
            for name, tensor in step.inputs.items():
                value = given[name]
                if isinstance(value, Tensor):
                    tensor[:count].copy_(value)
                else:
                    step.sending[name].numpy()[:count] = value
                    tensor[:count].copy_(step.sending[name][:count], non_blocking=True)
            step.repeat()
            self.frames.foresee(slots, index)
        return {name: answer[:count] for name, answer in step.answers.items()}

    def fetch(self, answers: Mapping[str, Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Those of the last `run`, which all come at once."""
        step = self._last
        with torch.inference_mode():
            landed = torch.from_numpy(self._device.fetch(step.shown, step.landing).copy())
        home = _laid_out(landed, {name: step.answers[name] for name in self._shown})
        return {name: home[name][: len(value)].numpy() for name, value in answers.items()}

    def _record(self, size: int) -> Recorded:
        where = self._device.where
        wanted = [name for name in self._net.asks if not name.startswith(("state_", "frame_"))]
        inputs = {name: torch.zeros(size, *self._net.shapes[name], device=where) for name in wanted}
        control = torch.zeros(3, size, dtype=torch.int64, device=where)
        control[AT], control[FRESH] = self._scratch, 1
        sample = self._compute(inputs, control)
        self._shown = self._shown or tuple(sample)
        answers = {name: torch.zeros_like(answer) for name, answer in sample.items() if name not in self._shown}
        missing = [name for name in self._shown if name not in sample]
        if missing:
            raise PackageError(f"its graphs do not answer with {missing[0]!r}")
        together = {name: sample[name] for name in self._shown}
        shown = torch.zeros(_laid_out_bytes(together), dtype=torch.uint8, device=where)
        answers |= _laid_out(shown, together)

        def step() -> None:
            for name, answer in self._compute(inputs, control).items():
                answers[name].copy_(answer)

        return Recorded(
            inputs=inputs,
            sending={name: self._device.pinned(tuple(one.shape), one.dtype) for name, one in inputs.items()},
            control=control,
            control_sending=self._device.pinned((3, size), torch.int64),
            answers=answers,
            shown=shown,
            landing=self._device.pinned(tuple(shown.shape), torch.uint8),
            repeat=self._device.record(step),
        )

    def _compute(self, inputs: Mapping[str, Tensor], control: Tensor) -> dict[str, Tensor]:
        """Gather, step, scatter: everything by tensors, so that it can be recorded."""
        at, fresh, frame = control[AT], control[FRESH] > 0, control[FRAME]
        rows = dict(inputs)
        for name, state in self._states.items():
            silence = self._silence[name]
            rows[name] = torch.where(fresh.view(-1, *[1] * (silence.dim() - 1)), silence, state.index_select(0, at))
        for name, array in self.frames.rows.items():
            rows[f"frame_{name}"] = array.index_select(0, at if self.frames.ahead else frame).float()
        out = self._net(rows)
        for name, state in self._states.items():
            state.index_copy_(0, at, out[name.replace("state_", "after_")])
        said = {name: tensor for name, tensor in out.items() if not name.startswith("after_")}
        return {name: _in_bytes(tensor) if name in PLANES else tensor for name, tensor in said.items()}


class ResidentEar:
    """Implements `models.runtime.hearing.VoiceEar`."""

    def __init__(self, slots: int, graph: bytes, silence: Mapping[str, Floats], device: Device, make: MakeNet) -> None:
        part = Part("lips", graph, "f32", silence, {}, ("y",))
        self._stage = ResidentStage(part, slots, device, make)

    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        return np.concatenate([self._hear(slots[part], resets[part], pcm[part]) for part in batches(len(slots))])

    def _hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        out = self._stage.run(slots, resets, [0] * len(slots), {"x": pcm})
        heard: Floats = self._stage.fetch({"y": out["y"]})["y"][:, 0]
        return heard


def stages_on(device: Device, make: MakeNet) -> MakeStage:
    return lambda part, slots: ResidentStage(part, slots, device, make)


def ears_on(device: Device, make: MakeNet) -> Callable[[int, Path], ResidentEar]:
    return lambda slots, lips: ResidentEar(
        slots, lips.read_bytes(), load_file(lips.with_name("silence.safetensors")), device, make
    )


def _in_bytes(plane: Tensor) -> Tensor:
    return plane.clamp(0, 255).round().to(torch.uint8)


def _pinned(device: Device, array: Floats) -> Tensor:
    there = torch.from_numpy(np.ascontiguousarray(array))
    return device.pinned(tuple(there.shape), there.dtype).copy_(there)


def _laid_out_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(-(-tensor.nbytes // _ALIGNED) * _ALIGNED for tensor in tensors.values())


def _laid_out(content: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Views into `content` of the shapes and kinds of `like`, one after another."""
    views: dict[str, Tensor] = {}
    start = 0
    for name, tensor in like.items():
        piece = content[start : start + tensor.nbytes]
        views[name] = piece.view(tensor.dtype).view(tensor.shape)
        start += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    return views
