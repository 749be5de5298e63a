"""Rows of a table, whose gradient adds up in the same order every time, compiled too.

PyTorch sorts the ids and adds the rows of each in order. Its compiler for a GPU takes that apart into atomic
additions, which come in any order. So compiled code calls PyTorch's, as an op that the compiler leaves whole.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.registration import register


def gradient(upstream: Tensor, ids: Tensor, rows: int) -> Tensor:
    """Return the gradient (rows, C) of the table from that of the result (..., C)."""
    found: Tensor = torch.ops.aten.embedding_dense_backward(upstream, ids, rows, -1, False)
    return found


_gradient = register(
    "embedding_gradient",
    gradient,
    fake=lambda upstream, ids, rows: upstream.new_empty(rows, upstream.size(-1)),
    flops=lambda *_, **__: 0,
)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = table.size(0)
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        return None, _gradient(upstream[0], ids, ctx.rows)


def embedding(ids: Tensor, table: Tensor) -> Tensor:
    """Return the rows (..., C) of a table (rows, C) that ids (...) name."""
    if not torch.compiler.is_compiling():
        return F.embedding(ids, table)
    out: Tensor = _Rows.apply(ids, table)  # type: ignore[no-untyped-call]
    return out
