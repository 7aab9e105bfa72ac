"""The voice encoder is taught: all look-aheads at once, an average of the weights kept, and a checkpoint that a killed
run goes on from. The rate follows the clock, so that a run ends annealed when its minutes end, however slow it was."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models import voice
from models.halves import halves
from models.mel import running_mean
from models.studio.lessons import BATCH, Batch, Lesson, crops

RATE = 2e-3
EMA = 0.998
"""Of the weights that are kept."""

CHECKPOINT_SECONDS = 120.0


def loss_of(encoder: voice.VoiceEncoder, code: Tensor, truth: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """All look-aheads at once. Closures have a push of their own, hardest where the tongue closes instead (t d n l)."""
    total = torch.zeros(())
    for lookahead in voice.LOOKAHEADS:
        steps = code.shape[1] - lookahead
        heard = encoder.hear(code[:, lookahead:], lookahead)
        visemes, closure, mouth, counts = (part[:, :steps] for part in truth)
        classes = F.cross_entropy(heard.visemes.transpose(1, 2), visemes, reduction="none", label_smoothing=0.03)
        confusable = 1.0 + (visemes == voice.VISEME_OF["t"]).float() + 0.5 * (visemes == voice.VISEME_OF["k"]).float()
        closing = F.binary_cross_entropy_with_logits(heard.closure, closure, reduction="none") * confusable
        weights = torch.tensor([4.0, 2, 2, 1, 1, 1.5, 1, 1.5, 1, 1])
        curves = ((heard.mouth - mouth) ** 2 * weights).sum(-1)
        total = total + ((classes + 3 * closing + 6 * curves) * counts).sum() / counts.sum()
    return total / len(voice.LOOKAHEADS)


class Course:
    """One run of teaching. Owes nothing to the machine: minutes count whether it had the processor or not."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        seed: int = 0,
        batch: int = BATCH,
        start: voice.VoiceEncoder | None = None,
        checkpoint: Path | None = None,
        rate: float = RATE,
    ) -> None:
        torch.manual_seed(seed)
        self.encoder = voice.VoiceEncoder(dropout=0.1).train()
        if start is not None:
            self.encoder.load_state_dict(start.state_dict())
        self.rate = rate
        self.optimiser = torch.optim.AdamW(self.encoder.parameters(), lr=rate, weight_decay=1e-2)
        self.average = [parameter.detach().clone() for parameter in self.encoder.parameters()]
        self.at, self.seconds, self.loss = 0, 0.0, math.nan
        self.checkpoint = checkpoint
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)
        self._batches = crops(lessons, np.random.default_rng([seed, self.at]), batch)
        self._normal = running_mean()
        self._normal.BLOCK = 64  # the same mean, and less to sum at once

    def teach(
        self,
        minutes: float = math.inf,
        steps: float = math.inf,
        every_minutes: float = math.inf,
        look: Callable[[int, voice.VoiceEncoder], object] | None = None,
    ) -> voice.VoiceEncoder:
        """Until so many minutes or steps of this course are over, whichever ends first; `look` sees what has been
        learnt now and then."""
        before, begun, kept = self.seconds, time.monotonic(), time.monotonic()
        looked = self.seconds
        with Progress() as progress:
            task = progress.add_task("listening", total=100)
            while (done := max(self.at / steps if steps else 1.0, self.seconds / (60 * minutes))) < 1:
                self._step(next(self._batches), done)
                self.seconds = before + time.monotonic() - begun
                progress.update(
                    task, completed=100 * done, description=f"listening, step {self.at}, loss {self.loss:.3f}"
                )
                if time.monotonic() - kept > CHECKPOINT_SECONDS:
                    kept = time.monotonic()
                    self._keep()
                if look is not None and self.seconds - looked > 60 * every_minutes:
                    looked = self.seconds
                    look(self.at, self.taught())
        self._keep()
        return self.taught()

    def taught(self) -> voice.VoiceEncoder:
        """What has been learnt so far: the average of the weights."""
        taught = voice.VoiceEncoder()
        for parameter, mean in zip(taught.parameters(), self.average, strict=True):
            parameter.data.copy_(mean)
        return taught.eval()

    def _step(self, batch: Batch, done: float) -> None:
        columns, *truth = batch
        for group in self.optimiser.param_groups:
            group["lr"] = (
                self.rate * min(1, done / 0.04 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * max(0, done - 0.04) / 0.96))
            )
        columns, _ = self._normal(columns, self._normal.silence(len(columns)))
        with halves("cpu"):
            code, _ = self.encoder(columns, self.encoder.silence(len(columns)))
        loss = loss_of(self.encoder, code.float(), (truth[0], truth[1], truth[2], truth[3]))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimiser.step()
        forgets = max(1 - EMA, 9 / (10 + self.at))  # its beginning first
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.encoder.parameters(), strict=True):
                mean.lerp_(parameter, forgets)
        self.loss = loss.item() if not self.at else 0.98 * self.loss + 0.02 * loss.item()
        self.at += 1

    # --- Checkpoints

    def _keep(self) -> None:
        if self.checkpoint is None:
            return
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        tensors |= {f"average.{index}": tensor for index, tensor in enumerate(self.average)}
        for index, slots in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".part")
        facts = {"at": self.at, "seconds": self.seconds, "loss": self.loss}
        save_file({name: t.contiguous() for name, t in tensors.items()}, partial, {"facts": json.dumps(facts)})
        partial.replace(self.checkpoint)

    def _resume(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        self.at, self.seconds, self.loss = facts["at"], facts["seconds"], facts["loss"]
        state = self.optimiser.state_dict()
        encoder: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            what, _, rest = name.partition(".")
            if what == "encoder":
                encoder[rest] = tensor
            elif what == "average":
                self.average[int(rest)].copy_(tensor)
            else:
                index, slot = rest.split(".")
                state["state"].setdefault(int(index), {})[slot] = tensor
        self.encoder.load_state_dict(encoder)
        self.optimiser.load_state_dict(state)
