"""Matrix products of 16-bit numbers whose results stay float32: gradients of float32 weights.

A product adds up in float32 anyhow. On a GPU it can write that; else it is rounded to 16 bits and then
converted in one more pass over memory. PyTorch has no such product for CPUs, and its compiler (2.11, 2.13)
makes none from a product and a conversion.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """Return left @ right of two matrices in a dtype: theirs, or float32."""
    if left.dtype == dtype or left.is_cpu:
        return (left @ right).to(dtype)
    return torch.mm(left, right, out_dtype=dtype)


class _Linear(torch.autograd.Function):
    """y = x @ w.T in the dtype of x, dw in that of the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        cast = weight.to(x.dtype)
        ctx.save_for_backward(x, cast)
        ctx.weight_dtype = weight.dtype
        return F.linear(x, cast)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (dout,) = upstream
        x, cast = ctx.saved_tensors
        dx = dout @ cast if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return dx, None
        return dx, product(dout.flatten(0, -2).t(), x.flatten(0, -2), ctx.weight_dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Map x (..., n) by a weight (m, n) to (..., m) in the dtype of x; the weight may be float32.

    Compilers see through it; the weight is converted once, for forward and backward."""
    if x.dtype == weight.dtype:
        return F.linear(x, weight)
    out: Tensor = _Linear.apply(x, weight)  # type: ignore[no-untyped-call]
    return out
