"""Causal attention over (B, T, H, D): grouped queries, a sliding window and packed documents as one mask.

    out[t] = sum_s softmax_s(scale * q[t] . k[s]) v[s]   over the keys  first[t] <= s <= t
    first[t] = max(0, t - window, lo[t])

B rows, T positions, H query heads, K key/value heads (query head h reads h // (H / K)), D head dimension;
t is a query's position, s a key's. The backward pass reads the log-sum-exp of each query's scores, (B, H, T):

    p = exp(scale * q k - lse)   dv = p^T do   ds = p * (do v^T - sum(do * out))   dq = scale * ds k
    dk = scale * ds^T q

Inputs share one dtype, and results have it too; softmax and sums are float32 (float64 for float64 inputs).
The Triton kernels are in `gpu`, the CPU's way in `cpu`, the interval in `mask`. Each gives the same bytes
every time. Not here: dropout, biases, queries that follow a cache of keys. Source of the algorithm:
arXiv:2307.08691.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import checks
from kernels.attention.cpu import backward_on_cpu, forward_on_cpu, sum_dtype
from kernels.attention.mask import document_starts, first_keys, visible_pairs
from kernels.registration import register

__all__ = ["attention", "attention_reference", "document_starts"]

_OP = "attention"


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


def forward(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, T, H, D) and the log-sum-exp of each query's scores, (B, H, T)."""
    if q.is_cpu:
        return forward_on_cpu(q, k, v, lo, window, scale)
    from kernels.attention import gpu  # brings Triton

    return gpu.launch_forward(q, k, v, lo, window, scale)


def backward(
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
    if q.is_cpu:
        return backward_on_cpu(grad, q, k, v, out, lse, lo, window, scale)
    from kernels.attention import gpu  # brings Triton

    return gpu.launch_backward(grad, q, k, v, out, lse, lo, window, scale)


def _fake_forward(q: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    rows, length, heads, _dim = q.shape
    return _like(q), q.new_empty(rows, heads, length, dtype=sum_dtype(q))


def _like(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, lo, ctx.window, ctx.scale = inputs
    out, lse = output
    ctx.save_for_backward(q, k, v, out, lse, lo)
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)  # no zeros for what has no gradient


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv = _backward(grad.contiguous(), *ctx.saved_tensors, ctx.window, ctx.scale)
    return dq, dk, dv, None, None, None


def _flops(products: int, q: Any, window: int | None) -> int:
    """Count the pairs that the window shows; how many of them documents hide cannot be seen from shapes."""
    rows, length, heads, dim = q
    flops: int = products * 2 * rows * heads * dim * visible_pairs(length, window)
    return flops


_forward = register(
    f"{_OP}_forward",
    forward,
    fake=_fake_forward,
    flops=lambda q, k, v, lo, window, *_, **__: _flops(2, q, window),
    backward=_differentiate,
    setup_context=_save,
)
_backward = register(
    f"{_OP}_backward",
    backward,
    fake=lambda grad, q, k, v, *_: (_like(q), _like(k), _like(v)),
    flops=lambda grad, q, k, v, out, lse, lo, window, *_, **__: _flops(5, q, window),
)


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
        window: How many positions to the left are visible besides the query's own; None for all.
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
    if q.is_cuda and not has_kernels(q):
        return attention_reference(q, k, v, window=window, lo=lo, scale=scale)
    out: Tensor
    out, _ = _forward(q, k, v, lo, window, q.size(3) ** -0.5 if scale is None else scale)
    return out


def has_kernels(q: Tensor) -> bool:
    """Return whether the Triton kernels support such queries; on a GPU others go through the reference."""
    return q.dtype in (torch.bfloat16, torch.float16) and q.size(3) in (64, 128)


def _check(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, lo: Tensor | None, scale: float | None
) -> None:
    checks.check_shape(_OP, "q", q, (None, None, None, None), "(B, T, H, D)")
    rows, length, heads, dim = q.shape
    checks.check_shape(_OP, "k", k, (rows, length, None, dim), "(B, T, K, D)")
    checks.check_shape(_OP, "v", v, tuple(k.shape), "(B, T, K, D)")
    if 0 in q.shape or not k.size(2) or heads % k.size(2):
        raise ValueError(
            f"{_OP}: q has shape {tuple(q.shape)} and k {k.size(2)} heads;"
            " expected at least 1 of each dimension, and a K that divides H"
        )
    checks.check_dtype(_OP, "q", q, (*checks.FLOATS, torch.float64))
    for name, x in (("q", q), ("k", k), ("v", v)):
        checks.check_dtype(_OP, name, x, (q.dtype,))
        if x.stride(3) != 1:
            raise ValueError(
                f"{_OP}: {name} has strides {x.stride()}; expected 1 for the last (.contiguous())"
            )
    checks.check_device(_OP, q.device, k=k, v=v)
    if lo is not None:
        checks.check_shape(_OP, "lo", lo, (rows, length), "(B, T)")
        checks.check_dtype(_OP, "lo", lo, (torch.int32,))
        checks.check_device(_OP, q.device, lo=lo)
    if window is not None and window < 0:
        raise ValueError(f"{_OP}: window is {window}; expected 0 or more, or None for all to the left")
    if scale is not None and not scale > 0:
        raise ValueError(f"{_OP}: scale is {scale}; expected more than 0")
