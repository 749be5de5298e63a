"""Cross entropy of a linear head, without ever holding the logits.

    u = hidden @ weight[:V].T                     (N, V); later rows of the weight are padding
    z = softcap * tanh(u / softcap)               or u itself, without a softcap
    loss_i = log(sum_j exp(z_ij)) - z_i,target_i  0 where target_i == ignore_index

Shapes: hidden (N, C), weight (rows, C), targets (N,). Dtypes: hidden float32, bfloat16 or float16; the weight
the same or float32, in which its gradient is returned; losses and the sum for the weight's gradient are
float32.

With gradients and a summed loss, forward takes the tokens in chunks: one chunk of logits, its loss, its
gradient in place, then its part of both gradients; backward only scales them. Five passes over the logits in
memory, since a row of 32,768 or 65,536 stays on chip between its loss and its gradient. Without gradients, or
with one loss per token, forward keeps no logits at all (each tile is reduced in registers) and backward,
which then knows each token's factor, computes them once more.

Memory at d20's shapes on a GPU (65,536 tokens and rows, C = 1,280): 0.81 GiB of logits and 0.3 GiB for the
weight's gradient, against 58 GiB for float32 logits in eager mode.

The chunk-and-gradient-in-forward scheme is Liger's (arXiv:2410.10989), reduction in registers that of Cut
Cross Entropy (arXiv:2411.09009); unlike them, nothing is filtered and a chunk is as large as memory allows,
since small chunks make slow products. A mean over no tokens is 0 with zero gradients, where `F.cross_entropy`
gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import checks
from kernels.linear_cross_entropy.cpu import Head, chunk_rows_on_cpu, chunks, losses_on_cpu, rows_on_cpu
from kernels.registration import register
from kernels.sizes import logit_chunk

_OP = "linear_cross_entropy"
_CPU_SLICE_ROWS = 4096  # of the weight, whose gradient is computed slice by slice


def linear_cross_entropy_reference(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    softcap: float | None = 15.0,
    ignore_index: int = -1,
    reduction: Literal["none", "mean", "sum"] = "mean",
    valid_vocab: int | None = None,
) -> Tensor:
    """Compute the loss from all logits at once: the truth that the fast paths are tested against."""
    u = hidden @ weight[:valid_vocab].to(hidden.dtype).t()
    z = u.to(torch.promote_types(u.dtype, torch.float32))
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    losses = F.cross_entropy(z, targets.long(), ignore_index=ignore_index, reduction="none")
    return _reduced(losses.sum() if reduction != "none" else losses, targets, ignore_index, reduction)


def _reduced(loss: Tensor, targets: Tensor, ignore_index: int, reduction: str) -> Tensor:
    """Turn the sum into the mean over counted tokens, 0 if there are none; leave the others alone."""
    if reduction == "mean":
        return loss / (targets != ignore_index).sum().clamp(min=1)
    return loss


_RowsInPlace = Callable[[Tensor, Tensor, Tensor, Tensor, Head], None]


def _rows_for(hidden: Tensor) -> _RowsInPlace:
    if hidden.is_cpu:
        return rows_on_cpu
    from kernels.linear_cross_entropy import gpu  # brings Triton

    return gpu.launch_rows


def _gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    upstream: Tensor,
    head: Head,
    rows_in_place: _RowsInPlace,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses (N,) and the gradients of their sum weighted by `upstream`, the weight's in float32."""
    n_rows, n_columns = hidden.size(0), weight.size(0)
    losses = torch.empty(n_rows, dtype=torch.float32, device=hidden.device)
    d_hidden = torch.empty_like(hidden)
    d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
    size = _chunk_rows(hidden, n_columns)
    logits = torch.empty(min(size, n_rows), n_columns, dtype=hidden.dtype, device=hidden.device)
    for rows in chunks(hidden, size):
        chunk = logits[: rows.stop - rows.start]
        torch.mm(hidden[rows], weight.t(), out=chunk)
        rows_in_place(chunk, targets[rows], upstream[rows], losses[rows], head)
        torch.mm(chunk, weight, out=d_hidden[rows])
        _accumulate(d_weight, chunk.t(), hidden[rows])
    return losses, d_hidden, d_weight


def _chunk_rows(hidden: Tensor, n_columns: int) -> int:
    if hidden.is_cpu:
        return chunk_rows_on_cpu(n_columns)
    return logit_chunk(hidden.size(0), hidden.size(1), n_columns, hidden.element_size())


def _accumulate(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left @ right to a float32 tensor."""
    if not total.is_cpu:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    elif left.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        for rows in chunks(total, _CPU_SLICE_ROWS):  # so that no second copy of the whole is held
            total[rows].add_(left[rows] @ right)


def _checked(
    hidden: Tensor, weight: Tensor, targets: Tensor, softcap: float | None, ignore_index: int, valid: int
) -> tuple[Tensor, Head]:
    """Refuse arguments that do not fit together; return the weight in the hidden dtype, and the head."""
    checks.check_shape(_OP, "hidden", hidden, (None, None), "(N, C)")
    checks.check_shape(_OP, "weight", weight, (None, hidden.size(1)), "(rows, C)")
    checks.check_shape(_OP, "targets", targets, (hidden.size(0),), "(N,)")
    checks.check_dtype(_OP, "hidden", hidden, checks.FLOATS)
    checks.check_dtype(_OP, "weight", weight, (hidden.dtype, torch.float32))
    checks.check_dtype(_OP, "targets", targets, checks.INTEGERS)
    checks.check_contiguous(_OP, hidden=hidden, weight=weight, targets=targets)
    checks.check_device(_OP, hidden.device, weight=weight, targets=targets)
    if hidden.is_cpu and bool(
        ((targets >= valid) | (targets < 0)).logical_and(targets != ignore_index).any()
    ):
        raise ValueError(
            f"{_OP}: targets hold ids that are not words; expected 0 to {valid - 1} or {ignore_index}"
        )
    if not 1 <= valid <= weight.size(0):
        raise ValueError(f"{_OP}: valid_vocab is {valid}; expected 1 to {weight.size(0)}, the weight's rows")
    if softcap is not None and not 0 < softcap <= 40:
        raise ValueError(f"{_OP}: softcap is {softcap}; expected None or a number above 0 and at most 40")
    return weight.to(hidden.dtype), Head(softcap, ignore_index, valid)


def losses(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float | None,
    ignore_index: int,
    valid_vocab: int,
) -> Tensor:
    """Return one loss per token, (N,)."""
    weight, head = _checked(hidden, weight, targets, softcap, ignore_index, valid_vocab)
    if hidden.is_cpu:
        return losses_on_cpu(hidden, weight, targets, head)
    from kernels.linear_cross_entropy import gpu  # brings Triton

    return gpu.launch_losses(hidden, weight, targets, head)


def losses_backward(
    upstream: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float | None,
    ignore_index: int,
    valid_vocab: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of hidden and weight from those of the losses (N,)."""
    cast, head = _checked(hidden, weight, targets, softcap, ignore_index, valid_vocab)
    _, d_hidden, d_weight = _gradients(hidden, cast, targets, upstream.contiguous(), head, _rows_for(hidden))
    return d_hidden, d_weight.to(weight.dtype)


def total_with_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    softcap: float | None,
    ignore_index: int,
    valid_vocab: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of the losses and its gradients, the weight's in float32."""
    weight, head = _checked(hidden, weight, targets, softcap, ignore_index, valid_vocab)
    upstream = torch.ones(hidden.size(0), device=hidden.device)
    row_losses, d_hidden, d_weight = _gradients(hidden, weight, targets, upstream, head, _rows_for(hidden))
    return row_losses.sum(), d_hidden, d_weight


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    hidden, weight, targets, *ctx.options = inputs
    ctx.save_for_backward(hidden, weight, targets)


def _differentiate_losses(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    return (*_losses_backward(upstream, *ctx.saved_tensors, *ctx.options), None, None, None, None)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, d_hidden, d_weight = output
    ctx.weight_dtype = inputs[1].dtype
    ctx.mark_non_differentiable(d_hidden, d_weight)
    ctx.set_materialize_grads(False)  # no zeros for what has no gradient
    ctx.save_for_backward(d_hidden, d_weight)


def _scale_gradients(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    d_hidden, d_weight = ctx.saved_tensors
    return d_hidden * upstream, (d_weight * upstream).to(ctx.weight_dtype), None, None, None, None


def _one_product(hidden: Any, weight: Any, *_: Any, **__: Any) -> int:
    flops: int = 2 * hidden[0] * hidden[1] * weight[0]
    return flops


_losses = register(
    _OP,
    losses,
    fake=lambda hidden, *_: hidden.new_empty(hidden.size(0), dtype=torch.float32),
    flops=_one_product,
    backward=_differentiate_losses,
    setup_context=_save_inputs,
)
_losses_backward = register(
    f"{_OP}_backward",
    losses_backward,
    fake=lambda upstream, hidden, weight, *_: (torch.empty_like(hidden), torch.empty_like(weight)),
    flops=lambda upstream, hidden, weight, *_, **__: 3 * _one_product(hidden, weight),
)
_total = register(
    f"{_OP}_total",
    total_with_gradients,
    fake=lambda hidden, weight, *_: (
        hidden.new_empty((), dtype=torch.float32),
        torch.empty_like(hidden),
        torch.empty_like(weight, dtype=torch.float32),
    ),
    flops=lambda hidden, weight, *_, **__: 3 * _one_product(hidden, weight),
    backward=_scale_gradients,
    setup_context=_save_gradients,
)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    softcap: float | None = 15.0,
    ignore_index: int = -1,
    reduction: Literal["none", "mean", "sum"] = "mean",
    valid_vocab: int | None = None,
) -> Tensor:
    """Return the cross entropy of hidden (N, C) against targets (N,) in nats, float32.

    Rows of the weight from `valid_vocab` on are padding: no probability and zero gradient. `mean` is over
    targets other than `ignore_index`; `none` gives (N,). A target that is not a word raises on a CPU and
    gives NaN on a GPU. Differentiable once, in hidden and weight."""
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{_OP}: reduction is {reduction!r}; expected 'none', 'mean' or 'sum'")
    options = (softcap, ignore_index, weight.size(0) if valid_vocab is None else valid_vocab)
    trains = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    loss: Tensor
    if trains and reduction != "none":
        loss = _total(hidden, weight, targets, *options)[0]
    else:
        loss = _losses(hidden, weight, targets, *options)
        loss = loss if reduction == "none" else loss.sum()
    return _reduced(loss, targets, ignore_index, reduction)
