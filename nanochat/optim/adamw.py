"""AdamW over groups of parameters, by PyTorch's fused kernel.

The numbers are those of `torch.optim.AdamW(fused=True)`, which a test holds them to. That class is not used
because making one imports PyTorch's compiler: 220 MB and two seconds in every process that trains.
Source: arXiv:1711.05101.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_EPS = 1e-10


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that are trained alike, by name."""

    weights: Mapping[str, Tensor]
    lr: float
    betas: tuple[float, float]
    weight_decay: float


class AdamW:
    """The optimizer of all parameters but the matrices in the blocks."""

    def __init__(self, groups: Sequence[ParameterGroup]) -> None:
        self.groups = [group for group in groups if group.weights]
        weights = {name: weight for group in self.groups for name, weight in group.weights.items()}
        self._averages = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self._steps = {name: torch.zeros((), device=weight.device) for name, weight in weights.items()}

    @torch.no_grad()
    def step(self, lr_multiplier: float) -> None:
        """Update all weights from their gradients."""
        for group in self.groups:
            steps = [self._steps[name] for name in group.weights]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                list(group.weights.values()),
                [_gradient(name, weight) for name, weight in group.weights.items()],
                [self._averages[name] for name in group.weights],
                [self._squares[name] for name in group.weights],
                [],
                steps,
                amsgrad=False,
                maximize=False,
                lr=group.lr * lr_multiplier,
                beta1=group.betas[0],
                beta2=group.betas[1],
                weight_decay=group.weight_decay,
                eps=_EPS,
            )

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return the moving averages of each weight's gradient and of its square."""
        return {
            name: {"exp_avg": average, "exp_avg_sq": self._squares[name]}
            for name, average in self._averages.items()
        }

    def set_steps(self, count: int) -> None:
        """Set how many steps the state has seen."""
        for step in self._steps.values():
            step.fill_(count)


def _gradient(name: str, weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise ValueError(f"{name} has no gradient")
    return weight.grad
