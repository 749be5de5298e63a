"""The Triton kernels of `linear_cross_entropy` and their launches. The formulas are in `op`.

One kernel turns a chunk of logits into losses and its own gradient, in place; the other reduces each tile of
logits in registers and writes no logits at all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import checks, configs
from kernels.language import TensorDescriptor, jit, tl, triton
from kernels.linear_cross_entropy.cpu import Head

_OP = "linear_cross_entropy"


@jit
def _capped(u: tl.tensor, softcap: tl.tensor, CAPPED: tl.constexpr) -> tl.tensor:
    """Return softcap * tanh(u / softcap), correct at infinity too."""
    if CAPPED:
        return softcap * (1.0 - 2.0 / (tl.exp2(u * (2.885390081777927 / softcap)) + 1.0))
    return u


@jit
def _reciprocal(x: tl.tensor) -> tl.tensor:
    """Return 1 / x to the last bit but one, without a division's care for numbers above 2^126."""
    return tl.inline_asm_elementwise(
        "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )


@jit
def _packed(low: tl.tensor, high: tl.tensor) -> tl.tensor:
    """Round two float32 numbers to the bfloat16 halves of a word."""
    return tl.inline_asm_elementwise(
        "cvt.rn.bf16x2.f32 $0, $1, $2;", "=r,f,f", [high, low], dtype=tl.int32, is_pure=True, pack=1
    )


@jit
def _low(words: tl.tensor) -> tl.tensor:
    return (words << 16).to(tl.float32, bitcast=True)


@jit
def _high(words: tl.tensor) -> tl.tensor:
    return (words & -65536).to(tl.float32, bitcast=True)


@jit
def _capped_term(u: tl.tensor, softcap: tl.tensor) -> tl.tensor:
    """Return s = 1 / (1 + exp(2 u / softcap)), with which z = softcap (1 - 2 s); and exp(z - softcap)."""
    LOG2E: tl.constexpr = 1.4426950408889634
    s = _reciprocal(tl.exp2(u * (2.0 * LOG2E / softcap)) + 1.0)
    return s, tl.exp2(s * (-2.0 * LOG2E * softcap))


@jit
def _cross_entropy_rows_kernel(
    LOGITS: tl.tensor,  # (rows, n_columns), row stride `stride`; becomes its own gradient
    TARGETS: tl.tensor,
    UPSTREAM: tl.tensor,  # gradient of each row's loss
    LOSSES: tl.tensor,
    stride: tl.tensor,
    n_columns: tl.tensor,
    valid: tl.tensor,
    softcap: tl.tensor,
    ignore_index: tl.tensor,
    CAPPED: tl.constexpr,
    BLOCK: tl.constexpr,
    HELD: tl.constexpr,  # the row is BLOCK bfloat16 logits, all valid and capped
) -> None:
    """Compute the loss of one row of logits and overwrite the row with its gradient.

    A row that is HELD is read once: while its exponentials are summed, its gradient is kept in registers but
    for the factor that needs the sum. That rounds it to bfloat16 twice, and a logit was rounded before.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    row = tl.program_id(0).to(tl.int64)
    logits = LOGITS + row * stride
    target = tl.load(TARGETS + row)
    upstream = tl.load(UPSTREAM + row)
    inside = (target >= 0) & (target < valid)
    # Read before the reduction, whose barrier keeps it ahead of the stores.
    z_target = _capped(tl.load(logits + target, inside, 0.0).to(tl.float32), softcap, CAPPED)

    highest = softcap  # of capped logits, which need no running maximum
    if HELD:
        words = logits.to(tl.pointer_type(tl.int32), bitcast=True) + tl.arange(0, BLOCK // 2)
        pairs = tl.load(words)
        s_low, low = _capped_term(_low(pairs), softcap)
        s_high, high = _capped_term(_high(pairs), softcap)
        # A quarter of the slope of the cap is s (1 - s).
        held = _packed(low * (s_low - s_low * s_low), high * (s_high - s_high * s_high))
        total = low + high
    else:  # a sum per lane, one reduction at the end
        top = tl.full((BLOCK,), -1e38, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, valid, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            z = _capped(tl.load(logits + columns, columns < valid, 0.0).to(tl.float32), softcap, CAPPED)
            z = tl.where(columns < valid, z, -1e38)
            if CAPPED:
                total += tl.exp2((z - softcap) * LOG2E)
            else:
                higher = tl.maximum(top, z)
                total = total * tl.exp2((top - higher) * LOG2E) + tl.exp2((z - higher) * LOG2E)
                top = higher
        if not CAPPED:
            highest = tl.max(top, axis=0)
            total *= tl.exp2((top - highest) * LOG2E)
    total = tl.sum(total, axis=0)
    lse = highest + tl.log2(total) / LOG2E

    ignored = target == ignore_index
    factor = tl.where(ignored, 0.0, upstream)
    if HELD:
        scale = 4.0 * factor / total
        tl.store(words, _packed(_low(held) * scale, _high(held) * scale))
        # The target's gradient is a difference: from numbers that were not rounded.
        slope = 1.0 - (z_target / softcap) * (z_target / softcap)
        at_target = (tl.exp2((z_target - lse) * LOG2E) - 1.0) * slope * factor
        tl.debug_barrier()  # the same place was stored to by another thread
        tl.store(logits + target, at_target.to(LOGITS.dtype.element_ty), inside)
    else:
        for start in range(0, n_columns, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            z = _capped(tl.load(logits + columns, columns < valid, 0.0).to(tl.float32), softcap, CAPPED)
            gradient = tl.exp2((z - lse) * LOG2E) - tl.where(columns == target, 1.0, 0.0)
            if CAPPED:
                gradient *= 1.0 - (z / softcap) * (z / softcap)
            gradient = tl.where(columns < valid, gradient * factor, 0.0)
            tl.store(logits + columns, gradient.to(LOGITS.dtype.element_ty), columns < n_columns)
    loss = tl.where(inside, lse - z_target, float("nan"))  # a bad target must not go unnoticed
    tl.store(LOSSES + row, tl.where(ignored, 0.0, loss))


@jit
def _cross_entropy_losses_kernel(
    hidden_desc: tl.tensor_descriptor,
    weight_desc: tl.tensor_descriptor,
    TARGETS: tl.tensor,
    LSE: tl.tensor,  # (splits, n_rows)
    Z_TARGET: tl.tensor,  # (n_rows,)
    n_rows: tl.tensor,
    width: tl.tensor,
    valid: tl.tensor,
    split_columns: tl.tensor,
    softcap: tl.tensor,
    CAPPED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FLAT: tl.constexpr,
) -> None:
    """Reduce the logits of a block of rows and one share of the columns to log-sum-exp, tile by tile."""
    LOG2E: tl.constexpr = 1.4426950408889634
    row = tl.program_id(0) * BLOCK_M
    rows = row + tl.arange(0, BLOCK_M)
    first = tl.program_id(1) * split_columns
    end = tl.minimum(first + split_columns, valid)
    target = tl.load(TARGETS + rows, rows < n_rows, -1)
    # One comparison of 32 bits a logit; what is no word here is none of the columns.
    column_of_target = tl.where((target >= first) & (target < end), target, -1).to(tl.int32)[:, None]
    top = tl.full((BLOCK_M,), -1e38, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    at_target = tl.zeros((BLOCK_M,), tl.float32)  # s or z
    tl.assume(width > 0)  # a loop that may not run makes older compilers serialize wgmma
    # Flattened, the loops over columns and over k are one pipeline: a tile is loaded while one is reduced.
    for column in tl.range(first, end, BLOCK_N, flatten=FLAT):
        acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for k in range(0, width, BLOCK_K):
            tile = weight_desc.load([column, k]).T
            acc = tl.dot(hidden_desc.load([row, k]), tile, acc, input_precision="ieee")
        columns = column + tl.arange(0, BLOCK_N)[None, :]
        if CAPPED:
            s, terms = _capped_term(acc, softcap)
            at_target += tl.sum(tl.where(columns == column_of_target, s, 0.0), axis=1)
            total += tl.sum(tl.where(columns < end, terms, 0.0), axis=1)
        else:
            z = tl.where(columns < end, acc, -1e38)
            at_target += tl.sum(tl.where(columns == column_of_target, z, 0.0), axis=1)
            higher = tl.maximum(top, tl.max(z, axis=1))
            terms = tl.exp2((z - higher[:, None]) * LOG2E)
            total = total * tl.exp2((top - higher) * LOG2E) + tl.sum(terms, axis=1)
            top = higher
    lse = (softcap if CAPPED else top) + tl.log2(total) / LOG2E
    z_target = softcap * (1.0 - 2.0 * at_target) if CAPPED else at_target
    tl.store(LSE + tl.program_id(1).to(tl.int64) * n_rows + rows, lse, rows < n_rows)
    tl.store(Z_TARGET + rows, z_target, (rows < n_rows) & (target >= first) & (target < end))


def launch_rows(chunk: Tensor, targets: Tensor, upstream: Tensor, losses: Tensor, head: Head) -> None:
    """Fill `losses` from a chunk of logits on a GPU and overwrite the chunk with its gradient."""
    _cross_entropy_rows_kernel[(chunk.size(0),)](
        chunk,
        targets,
        upstream,
        losses,
        chunk.stride(0),
        chunk.size(1),
        head.valid,
        head.softcap or 0.0,
        head.ignore_index,
        CAPPED=head.softcap is not None,
        **configs.find("cross_entropy_rows", chunk.dtype, _shape(chunk, head)).launch,
    )


def _shape(chunk: Tensor, head: Head) -> str:
    """Return the class of a chunk's rows: those of some sizes fit the registers of a core."""
    n_columns = chunk.size(1)
    fits = chunk.dtype == torch.bfloat16 and f"columns={n_columns}" in configs.HELD_ROWS
    return f"columns={n_columns}" if fits and head.softcap and head.valid == n_columns else "any"


def launch_losses(hidden: Tensor, weight: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Return the losses (N,) on a GPU without writing logits."""
    checks.check_multiple(_OP, "hidden's width C", hidden.size(1), 16 // hidden.element_size())
    config = configs.find("cross_entropy_losses", hidden.dtype)
    block_m, block_n, block_k = (config.tiles[f"BLOCK_{axis}"] for axis in "MNK")
    n_rows = hidden.size(0)
    row_blocks = triton.cdiv(n_rows, block_m)
    # Few rows leave most of the GPU idle: share their columns among programs.
    splits = min(triton.cdiv(256, row_blocks), 8, triton.cdiv(head.valid, block_n))
    split_columns = triton.cdiv(triton.cdiv(head.valid, splits), block_n) * block_n
    splits = triton.cdiv(head.valid, split_columns)
    lse = torch.empty(splits, n_rows, dtype=torch.float32, device=hidden.device)
    z_target = torch.full(
        (n_rows,), float("nan"), device=hidden.device
    )  # stays so where the target is not a word
    _cross_entropy_losses_kernel[(row_blocks, splits)](
        TensorDescriptor.from_tensor(hidden, [block_m, block_k]),
        TensorDescriptor.from_tensor(weight, [block_n, block_k]),
        targets,
        lse,
        z_target,
        n_rows,
        hidden.size(1),
        head.valid,
        split_columns,
        head.softcap or 0.0,
        CAPPED=head.softcap is not None,
        **config.launch,
    )
    return torch.where(targets == head.ignore_index, 0.0, torch.logsumexp(lse, dim=0) - z_target)
