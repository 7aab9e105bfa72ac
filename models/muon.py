"""Muon (Jordan et al. 2024): a step goes equally far in every direction that a matrix's gradient has.

A gradient of a layer is mostly of a few directions, and what a picture needs besides, its sharp and rare parts, is
learned late. Here the running gradient's singular values are all brought near 1, without computing them, by a
polynomial that is applied a few times. For kernels, which are matrices of outputs by all that they look at; what is no
matrix, and the first and last layers, are better left to Adam.
"""

from collections.abc import Callable, Iterable
from typing import Final

import torch
from torch import Tensor

ROUNDS: Final = 5
POLYNOMIAL: Final = (3.4445, -4.7750, 2.0315)
"""Of the paper: brings singular values between 0.7 and 1.2 in five rounds, fast rather than exactly to 1."""


class Muon(torch.optim.Optimizer):
    """Of parameters with at least two dimensions; all but the first are taken for one."""

    def __init__(self, parameters: Iterable[Tensor], rate: float, momentum: float = 0.9) -> None:
        super().__init__(parameters, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # none is taken
        if closure is not None:
            raise ValueError("Muon takes the gradients that are there")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "running" not in state:
                    state["running"] = torch.zeros_like(parameter)
                running = state["running"].mul_(group["momentum"]).add_(parameter.grad)
                ahead = (parameter.grad + group["momentum"] * running).flatten(1)  # Nesterov's
                rows, columns = ahead.shape
                step = even(ahead) * max(1.0, rows / columns) ** 0.5
                parameter.sub_(group["lr"] * step.reshape(parameter.shape))


def even(matrix: Tensor) -> Tensor:
    """The same directions, all about equally strong."""
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    a, b, c = POLYNOMIAL
    for _ in range(ROUNDS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    made: Tensor = x.mT if tall else x
    return made
