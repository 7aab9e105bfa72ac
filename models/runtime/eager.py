"""The reference: the voice encoder in torch, as `models.streaming` writes it, stepped eagerly. Needs torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from models.runtime import Floats, Runtime
from models.runtime.assembled import assemble
from models.runtime.devices import Unrecorded
from models.runtime.ear import LIPS
from models.runtime.interpreted import Interpreted
from models.runtime.resident import stages_on
from models.runtime.slots import Slots, batches, bucket
from models.streaming import leaves, rebuild
from models.voice import Lips, load

VOICE: Final = LIPS.with_name("voice.safetensors")


class EagerEar:
    """`models.runtime.ear.Ear`, in torch, on any device. Batches have a bucket's size here too."""

    def __init__(self, slots: int, lips: Lips, device: str = "cpu") -> None:
        self._lips = lips.eval().to(device)
        self._device = device
        self._pattern = lips.silence(1)
        self._slots = Slots(
            {f"state_{n}": leaf for n, leaf in enumerate(leaves(self._pattern))},
            slots,
            repeat=lambda row, count: row.repeat(count, *[1] * (row.dim() - 1)),
            index=lambda places: torch.tensor(places, device=device),
        )

    @torch.inference_mode()
    def hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Floats) -> Floats:
        parts = [self._hear(slots[part], resets[part], torch.from_numpy(pcm[part])) for part in batches(len(slots))]
        return torch.cat(parts).cpu().numpy()

    def _hear(self, slots: Sequence[int], resets: Sequence[bool], pcm: Tensor) -> Tensor:
        heard = torch.zeros(bucket(len(slots)), pcm.shape[1], device=self._device)
        heard[: len(slots)] = pcm.to(self._device)
        states = self._slots.gather(slots, resets)
        weights, after = self._lips(heard, rebuild(self._pattern, list(states.values())))
        self._slots.scatter(slots, dict(zip(states, leaves(after), strict=True)))
        answers: Tensor = weights[: len(slots), 0]
        return answers


def open(packages: Sequence[Path], slots: int, lookahead: int | None = None, voice: Path = VOICE) -> Runtime:  # noqa: A001 - the seam's name
    """The voice encoder as it was written; the graphs of learned avatars, node by node. On the GPU if there is one."""
    if not voice.is_file():
        raise RuntimeError(f"{voice.name} is missing: no voice encoder has been trained and shipped here")
    torch.set_num_threads(1)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def new_ear(count: int, lips: Path) -> EagerEar:
        return EagerEar(count, Lips(load(voice)), str(where))

    def make(graph: bytes, precision: str, sizes: Sequence[int]) -> Interpreted:
        return Interpreted(graph, where)

    stages = stages_on(Unrecorded(where), make)
    return assemble(packages, slots, lookahead, new_ear, stages, ["f32"], voice.with_name("lips.onnx"))
