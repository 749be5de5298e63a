"""Causal attention over (B, T, H, D): grouped queries, a sliding window and packed documents as one mask.

    out[t] = sum_s softmax_s(scale * q[t] . k[s]) v[s]   over the keys  first[t] <= s <= t
    first[t] = max(0, t - window, lo[t])

B rows, T positions, H query heads, K key/value heads (query head h reads h // (H / K)), D head dimension;
t is a query's position, s a key's. The backward pass reads the log-sum-exp of each query's scores, (B, H, T):

    p = exp(scale * q k - lse)   dv = p^T do   ds = p * (do v^T - sum(do * out))   dq = scale * ds k
    dk = scale * ds^T q

Inputs have one dtype and results have it too; softmax and sums are float32 (float64 for float64 inputs).
On CUDA the Triton kernels of `attention_kernels` run, on a CPU torch's own flash attention: whole for plain
causal attention, by blocks of queries with the keys they see for windows and documents. Both give the same
bytes each time. Not here: dropout, biases, queries behind a cache of keys. Source: arXiv:2307.08691.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# Queries a call on a CPU. Windows of T/16 to T/2 at (B, T, H, D) = (1, 2048, 6, 128) and T/4 at (16, 256, 4, 32)
# on one core, forward and backward: 64 is at most 8 % behind the quickest of 32 to 512, and 512 up to 180 %.
_CPU_BLOCK = 64


def document_starts(documents: Tensor) -> Tensor:
    """Return for each position where its document begins, (B, T) int32: the `lo` of `attention`.

    `documents` (B, T): boolean, True at a document's first token; or integers, each token's document.
    A row begins a document whether marked or not.
    """
    begins = documents
    if documents.dtype is not torch.bool:
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    positions = torch.arange(begins.size(1), dtype=torch.int32, device=begins.device)
    return torch.where(begins, positions, 0).cummax(1).values.int()


def visible_pairs(length: int, window: int | None) -> int:
    """Return how many (query, key) pairs of one row are visible, documents aside."""
    left = length - 1 if window is None else min(window, length - 1)
    return length * (left + 1) - left * (left + 1) // 2


def first_keys(length: int, window: int | None, lo: Tensor | None, device: torch.device) -> Tensor:
    """Return the first key that each query sees, (B or 1, T) int32; never a later one than its own."""
    positions = torch.arange(length, dtype=torch.int32, device=device)[None]
    first = torch.zeros_like(positions) if window is None else (positions - window).clamp_(min=0)
    return first if lo is None else torch.minimum(torch.maximum(first, lo), positions)


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    lo: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Compute `attention` from its definition, in the inputs' dtype, with all T * T scores in memory."""
    length, group = q.size(1), q.size(2) // k.size(2)
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    positions = torch.arange(length, device=q.device)
    first = first_keys(length, window, lo, q.device)[:, None, :, None]  # (B or 1, 1, T, 1)
    visible = (positions >= first) & (positions <= positions[:, None])
    scores = torch.einsum("bthd,bshd->bhts", q, k) * (q.size(3) ** -0.5 if scale is None else scale)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", weights, v)


def _query_blocks(first: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield blocks of queries, the keys that one of them sees, and the bias (B or 1, 1, queries, keys)."""
    length = first.size(1)
    for t0, s0 in zip(
        range(0, length, _CPU_BLOCK), first[:, ::_CPU_BLOCK].amin(0).tolist(), strict=True
    ):  # `first` never falls: a block's first query sees the earliest key
        t1 = min(t0 + _CPU_BLOCK, length)
        s, t = torch.arange(s0, t1), torch.arange(t0, t1)
        hidden = (s < first[:, t0:t1, None]) | (s > t[:, None])
        bias = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, float("-inf"))
        yield slice(t0, t1), slice(s0, t1), bias[:, None]


def _heads_first(*tensors: Tensor) -> list[Tensor]:
    return [tensor.transpose(1, 2) for tensor in tensors]  # views (B, H, T, D)


@torch.library.custom_op("nanochat::attention_forward", mutates_args=(), device_types="cpu")
def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, T, H, D) and the log-sum-exp of each query's scores, (B, H, T)."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    rows, length, heads, _ = q.shape
    qh, kh, vh = _heads_first(q, k, v)
    if lo is None and window is None:
        out, lse = flash(qh, kh, vh, 0.0, True, scale=scale)
        return out.transpose(1, 2).contiguous(), lse.contiguous()
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    lse = torch.empty(rows, heads, length, dtype=_sum_dtype(q))
    for t, s, bias in _query_blocks(first_keys(length, window, lo, q.device), q.dtype):
        block, lse[:, :, t] = flash(
            qh[:, :, t], kh[:, :, s], vh[:, :, s], 0.0, False, attn_mask=bias, scale=scale
        )
        out[:, t] = block.transpose(1, 2)
    return out, lse


@torch.library.custom_op("nanochat::attention_backward", mutates_args=(), device_types="cpu")
def attention_backward(
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
    if lo is None and window is None:
        grads = flash(gh, qh, kh, vh, oh, lse, 0.0, True, scale=scale)
        dq, dk, dv = (g.transpose(1, 2).contiguous() for g in grads)
        return dq, dk, dv
    dq = torch.empty_like(q, memory_format=torch.contiguous_format)
    dk, dv = (torch.zeros(x.shape, dtype=_sum_dtype(x)) for x in (k, v))
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


@attention_forward.register_kernel("cuda")
def _(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    from kernels.attention_kernels import launch_forward

    return launch_forward(q, k, v, lo, window, scale)


@attention_backward.register_kernel("cuda")
def _(
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
    from kernels.attention_kernels import launch_backward

    return launch_backward(grad, q, k, v, out, lse, lo, window, scale)


@attention_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    rows, length, heads, _ = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(rows, heads, length, dtype=_sum_dtype(q))


@attention_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    return dq, dk, dv


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lo, window, scale = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, lo)
    ctx.window, ctx.scale = window, scale
    ctx.mark_non_differentiable(lse)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, lo = ctx.saved_tensors
    dq, dk, dv = attention_backward(grad.contiguous(), q, k, v, out, lse, lo, ctx.window, ctx.scale)
    return dq, dk, dv, None, None, None


attention_forward.register_autograd(_differentiate, setup_context=_save)


_Shape = tuple[int, ...]


def _flops(products: int, q: _Shape, window: int | None) -> int:
    rows, length, heads, dim = q
    return products * 2 * rows * heads * dim * visible_pairs(length, window)


@register_flop_formula(torch.ops.nanochat.attention_forward)
def _(q: _Shape, k: _Shape, v: _Shape, lo: _Shape, window: int | None, *_: object, **__: object) -> int:
    """Count q k and p v of the pairs that the window shows: what documents hide is not in the shapes."""
    return _flops(2, q, window)


@register_flop_formula(torch.ops.nanochat.attention_backward)
def _(grad: _Shape, q: _Shape, *rest: Any, **_: object) -> int:
    window = rest[5]
    return _flops(5, q, window)


def _sum_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    lo: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attend from q (B, T, H, D) to k and v (B, T, K, D), each position to itself and those before it.

    Args:
        window: How many positions to the left are visible besides the own one; None for all.
        lo: (B, T) int32, the first visible position of each query, as `document_starts` makes it. It must
            not fall along a row; a value past the query counts as the query's own position.
        scale: What scores are multiplied by, more than 0; D ** -0.5 unless given.

    Returns:
        (B, T, H, D), contiguous.

    Raises:
        TypeError, ValueError: An argument has the wrong dtype, shape, stride, device or value.
    """
    _check(q, k, v, window, lo, scale)
    if window is not None and window >= q.size(1) - 1:
        window = None
    out: Tensor
    out, _ = attention_forward(q, k, v, lo, window, q.size(3) ** -0.5 if scale is None else scale)
    return out


def _check(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, lo: Tensor | None, scale: float | None
) -> None:
    if not q.dtype.is_floating_point:
        raise TypeError(f"q is {q.dtype}; attention takes floating-point numbers")
    if q.dim() != 4 or 0 in q.shape:
        raise ValueError(f"q has shape {tuple(q.shape)}; it must be (B, T, H, D), none of them 0")
    rows, length, heads, dim = q.shape
    for name, x in (("k", k), ("v", v)):
        if x.dim() != 4 or (x.size(0), x.size(1), x.size(3)) != (rows, length, dim) or heads % x.size(2):
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}; for q of shape {tuple(q.shape)} it must be"
                f" ({rows}, {length}, K, {dim}) with K a divisor of {heads}"
            )
    if k.size(2) != v.size(2):
        raise ValueError(f"v has {v.size(2)} heads and k {k.size(2)}; they must have the same number")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.dtype != q.dtype:
            raise TypeError(f"{name} is {x.dtype} and q {q.dtype}; they must be the same")
        if x.device != q.device:
            raise ValueError(f"{name} is on {x.device} and q on {q.device}; they must be on one device")
        if x.stride(3) != 1:
            raise ValueError(f"{name} has strides {x.stride()}; the last must be 1 (use .contiguous())")
    if window is not None and window < 0:
        raise ValueError(f"window is {window}; it must be 0 or more, or None for no window")
    if scale is not None and not scale > 0:
        raise ValueError(f"scale is {scale}; it must be more than 0")
    if lo is not None:
        _check_lo(lo, q)


def _check_lo(lo: Tensor, q: Tensor) -> None:
    if lo.dtype != torch.int32:
        raise TypeError(f"lo is {lo.dtype}; it must be torch.int32")
    if lo.shape != q.shape[:2]:
        raise ValueError(f"lo has shape {tuple(lo.shape)}; it must be {tuple(q.shape[:2])}, as q has (B, T)")
    if lo.device != q.device:
        raise ValueError(f"lo is on {lo.device} and q on {q.device}; they must be on one device")
