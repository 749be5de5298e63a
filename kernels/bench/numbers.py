"""Random numbers to compute with, what a definition makes of them, and how far a result is from that."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Draw:
    """Draws bfloat16 numbers around 0 on a device, the same for each run."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        """Return numbers with this standard deviation."""
        numbers = torch.randn(*shape, device=self.device, dtype=torch.bfloat16, generator=self._generator)
        return numbers.mul_(scale)

    def integers(self, below: int, count: int) -> Tensor:
        """Return whole numbers from 0."""
        return torch.randint(0, below, (count,), device=self.device, generator=self._generator)

    def table(self, *shape: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of angles."""
        angles = 6.28 * torch.rand(*shape, device=self.device, generator=self._generator)
        return angles.cos(), angles.sin()


def defined(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    upstream: Tensor,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, ...]:
    """Return a function's output and the gradients of all inputs of type bfloat16, computed in `dtype`."""
    copies = [x.detach().to(dtype) if x.is_floating_point() else x for x in inputs]
    leaves = [y.requires_grad_() for x, y in zip(inputs, copies, strict=True) if x.dtype is torch.bfloat16]
    out = function(*copies)
    return (out.detach(), *torch.autograd.grad(out, leaves, upstream.to(dtype)))


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Return the norm of the difference over that of the truth; NaN where a number is NaN."""
    difference = found.detach().to(truth.dtype) - truth
    return float(difference.norm() / truth.norm())


def largest_error(found: Sequence[Tensor], truth: Sequence[Tensor]) -> float:
    """Return the largest relative error of several results; NaN where one is NaN."""
    errors = [relative_error(x, y) for x, y in zip(found, truth, strict=True)]
    return next((error for error in errors if error != error), max(errors))
