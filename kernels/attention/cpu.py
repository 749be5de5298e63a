"""Attention on a CPU with torch's flash attention: whole, or in blocks of queries with the keys they see.

Plain causal attention is one call. A window or documents need a mask, and with one torch computes all T * T
scores; so each block of queries gets only the keys from the first one that any of them sees, and a bias for
the rest. The op reads (B, T, H, D) through transposed views and shares key heads among query heads itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.attention.mask import first_keys

# Queries per call. Windows of T/16 to T/2 at (B, T, H, D) = (1, 2048, 6, 128), and of T/4 at
# (16, 256, 4, 32), on one core, both passes: 64 is at most 8 % behind the quickest of 32, 64, 128, 256, 512;
# 512 up to 180 %.
_BLOCK = 64


def forward_on_cpu(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, T, H, D) and the log-sum-exp of each query's scores, (B, H, T)."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    rows, length, heads, _ = q.shape
    qh, kh, vh = _heads_first(q, k, v)
    if window is None and _is_causal_only(lo):
        out, lse = flash(qh, kh, vh, 0.0, True, scale=scale)
        return out.transpose(1, 2).contiguous(), lse.contiguous()
    out = torch.empty(q.shape, dtype=q.dtype)
    lse = torch.empty(rows, heads, length, dtype=sum_dtype(q))
    for t, s, bias in _query_blocks(first_keys(length, window, lo, q.device), q.dtype):
        block, lse[:, :, t] = flash(
            qh[:, :, t], kh[:, :, s], vh[:, :, s], 0.0, False, attn_mask=bias, scale=scale
        )
        out[:, t] = block.transpose(1, 2)
    return out, lse


def backward_on_cpu(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    lo: Tensor | None,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v from that of the outputs, (B, T, H, D)."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    gh, qh, kh, vh, oh = _heads_first(grad, q, k, v, out)
    if window is None and _is_causal_only(lo):
        grads = flash(gh, qh, kh, vh, oh, lse, 0.0, True, scale=scale)
        dq, dk, dv = (x.transpose(1, 2).contiguous() for x in grads)
        return dq, dk, dv
    dq = torch.empty(q.shape, dtype=q.dtype)
    dk, dv = (torch.zeros(x.shape, dtype=sum_dtype(x)) for x in (k, v))
    for t, s, bias in _query_blocks(first_keys(q.size(1), window, lo, q.device), q.dtype):
        dq_block, dk_block, dv_block = flash(
            *(gh[:, :, t], qh[:, :, t], kh[:, :, s], vh[:, :, s], oh[:, :, t], lse[:, :, t]),
            *(0.0, False),
            attn_mask=bias,
            scale=scale,
        )
        dq[:, t] = dq_block.transpose(1, 2)
        dk[:, s] += dk_block.transpose(1, 2)
        dv[:, s] += dv_block.transpose(1, 2)
    return dq, dk.to(k.dtype), dv.to(v.dtype)


def sum_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which sums over elements of x are kept."""
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def _is_causal_only(lo: Tensor | None) -> bool:
    """Return whether every document begins with its row, so that only later keys are hidden."""
    return lo is None or not bool(lo.any())


def _heads_first(*tensors: Tensor) -> list[Tensor]:
    return [tensor.transpose(1, 2) for tensor in tensors]  # views (B, H, T, D)


def _query_blocks(first: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield blocks of queries, the keys that some of them see, and the bias (B or 1, 1, queries, keys)."""
    length = first.size(1)
    starts = first[:, ::_BLOCK].amin(0).tolist()  # a block's first query sees the earliest key
    for t0, s0 in zip(range(0, length, _BLOCK), starts, strict=True):
        t1 = min(t0 + _BLOCK, length)
        s, t = torch.arange(s0, t1), torch.arange(t0, t1)
        hidden = (s < first[:, t0:t1, None]) | (s > t[:, None])
        bias = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
        yield slice(t0, t1), slice(s0, t1), bias[:, None]
