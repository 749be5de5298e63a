"""Muon: momentum, then the nearest orthogonal matrix as the update.

Matrices of one shape are stacked and handled in one batch. Not distributed.
Source: https://kellerjordan.github.io/posts/muon/ with upstream nanochat's constants.

Newton-Schulz runs in bfloat16 on a GPU, as upstream does, and in float32 on a CPU: without bfloat16
instructions (AVX2), sixteen 256 x 256 matrices took 5165 ms in bfloat16, 597 ms when rounding to bfloat16
between float32 products, and 68 ms in float32 (2 threads, AMD EPYC, torch 2.13). All three are approximations
of the same map: they differ from each other by about 0.01 per entry, rounding as much as plain float32 does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_EPS = 1e-7


def orthogonalize(matrices: Tensor) -> Tensor:
    """Map (N, m, n) to matrices with the same singular vectors and singular values near 1."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + _EPS)
    for _ in range(_ITERATIONS):
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, poly, x, beta=_A)
    return x.mT if tall else x


class Muon:
    """The optimizer of all matrices inside the blocks."""

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], lr: float) -> None:
        self.lr = lr
        by_shape: dict[torch.Size, dict[str, torch.nn.Parameter]] = defaultdict(dict)
        for name, parameter in parameters.items():
            by_shape[parameter.shape][name] = parameter
        self._groups = list(by_shape.values())
        self._momenta = [torch.stack([torch.zeros_like(p) for p in g.values()]) for g in self._groups]

    @torch.no_grad()
    def step(self, lr_multiplier: float, momentum: float) -> None:
        """Update all matrices from their gradients."""
        for group, buffer in zip(self._groups, self._momenta, strict=True):
            gradients = torch.stack([_gradient(name, p) for name, p in group.items()])
            buffer.lerp_(gradients, 1.0 - momentum)
            updates = orthogonalize(gradients.lerp_(buffer, momentum))
            rows, columns = buffer.shape[-2:]
            scale = self.lr * lr_multiplier * max(1.0, rows / columns) ** 0.5
            for parameter, update in zip(group.values(), updates, strict=True):
                parameter.add_(update, alpha=-scale)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the momentum of each matrix by its parameter's name."""
        return {
            name: matrix
            for group, buffer in zip(self._groups, self._momenta, strict=True)
            for name, matrix in zip(group, buffer, strict=True)
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Set the momentum of each matrix."""
        for name, matrix in self.state_dict().items():
            matrix.copy_(state[name])


def _gradient(name: str, parameter: torch.nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise ValueError(f"{name} has no gradient")
    return parameter.grad
