"""The Triton kernels of `attention` and their launches: forward, dq, dk with dv. The formulas are in `op`.

Tiles of (B, T, H, D) go through tensor descriptors of four dimensions (TMA on H100 and newer, pointers on
older devices), which read zeros past T and store nothing there: no tensor is transposed or padded. A program
owns a block of queries, for dk and dv one of keys, and walks through what it sees in up to three loops, since
masks double the work outside the products: the diagonal, masked; the middle, unmasked; the far edge, masked.

Each result is summed by one program in a fixed order, without atomics: the same bytes each time. For dk and
dv that program takes all query heads of its key head. Scores are scaled by log2(e), for exp2.
"""

# The arguments of a kernel have no Python types, and a compile-time condition needs an `if` of its own.
# ruff: noqa: ANN001, ANN202, SIM102
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import configs
from kernels.attention.hopper import launch_specialized
from kernels.attention.mask import end_queries, first_keys
from kernels.language import TensorDescriptor, jit, tl, triton


@jit
def _first_key(t, LO, row, T, window):
    """Return the first key that query t sees."""
    if LO is not None:
        return tl.load(LO + tl.cast(row, tl.int64) * T + t, t < T, other=0)
    if window is not None:
        return tl.maximum(t - window, 0)
    return t * 0


@jit
def _end_query(s, HI, row, T, window):
    """Return the first query after s that no longer sees key s."""
    if HI is not None:
        return tl.load(HI + tl.cast(row, tl.int64) * T + s, s < T, other=0)
    if window is not None:
        return tl.minimum(s + window + 1, T)
    return s * 0 + T


@jit
def _load(desc, row, t, head, ROWS: tl.constexpr, D: tl.constexpr):
    return desc.load([row, head, t, 0]).reshape([ROWS, D])


@jit
def _store(desc, row, t, head, tile, ROWS: tl.constexpr, D: tl.constexpr):
    desc.store([row, head, t, 0], tile.to(desc.dtype).reshape([1, 1, ROWS, D]))


@jit
def _visible(n0, t, first, LEFT: tl.constexpr, DIAGONAL: tl.constexpr, N: tl.constexpr):
    """Return (M, N) which of the keys from n0 the queries t see, as far as the block needs to ask."""
    s = n0 + tl.arange(0, N)[None, :]
    visible = s >= first[:, None] if LEFT else s <= t[:, None]
    if LEFT and DIAGONAL:
        visible = visible & (s <= t[:, None])
    return visible


@jit
def _key_blocks(m0, LO, row, T, window, M: tl.constexpr, N: tl.constexpr):
    """Return where the keys begin that some query of the block sees, and those that all see."""
    if LO is None and window is None:
        return 0, 0
    last = _first_key(tl.minimum(m0 + M, T) - 1, LO, row, T, window)
    return _first_key(m0, LO, row, T, window) // N * N, tl.minimum(tl.cdiv(last, N) * N, m0)


@jit
def _forward_loop(
    q, acc, high, total, k_desc, v_desc, row, kv_head, begin, end, t, first, factor,
    LEFT: tl.constexpr, DIAGONAL: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    for n0 in tl.range(begin, end, N):
        scores = tl.dot(q, _load(k_desc, row, n0, kv_head, N, D).T, input_precision="ieee")  # (M, N)
        if LEFT or DIAGONAL:
            # Finite, so that a row without a visible key gives no NaN. What such a row adds, before the block
            # with its own key, is wiped out by that block's maximum.
            scores = tl.where(_visible(n0, t, first, LEFT, DIAGONAL, N), scores, -1e38)
        new_high = tl.maximum(high, tl.max(scores, 1) * factor)
        p = tl.exp2(scores * factor - new_high[:, None])
        shrink = tl.exp2(high - new_high)
        total = total * shrink + tl.sum(p, 1)
        v = _load(v_desc, row, n0, kv_head, N, D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        high = new_high
    return acc, high, total


@jit
def _attention_forward_kernel(
    q_desc, k_desc, v_desc, out_desc, LSE, LO, T, window, scale,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    m0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M  # the longest rows first
    head, row = tl.program_id(1), tl.program_id(2)
    kv_head = head // GROUP
    BOUNDED: tl.constexpr = LO is not None or window is not None
    LOG2E: tl.constexpr = 1.4426950408889634
    t = m0 + tl.arange(0, BLOCK_M)
    first = _first_key(t, LO, row, T, window)
    factor = scale * LOG2E
    q = _load(q_desc, row, m0, head, BLOCK_M, D)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    high = tl.full((BLOCK_M,), -1e38, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc, high, total = _forward_loop(
        q, acc, high, total, k_desc, v_desc, row, kv_head, m0, m0 + BLOCK_M, t, first, factor,
        BOUNDED, True, BLOCK_N, D,
    )  # fmt: skip
    # The diagonal comes first because it is never empty: ptxas serializes the tensor cores where a loop may
    # be skipped and leave zeros as its result. For the same reason the other loops are behind conditions.
    left, middle = _key_blocks(m0, LO, row, T, window, BLOCK_M, BLOCK_N)
    if middle < m0:
        acc, high, total = _forward_loop(
            q, acc, high, total, k_desc, v_desc, row, kv_head, middle, m0, t, first, factor,
            False, False, BLOCK_N, D,
        )  # fmt: skip
    if BOUNDED:
        if left < middle:
            acc, high, total = _forward_loop(
                q, acc, high, total, k_desc, v_desc, row, kv_head, left, middle, t, first, factor,
                True, False, BLOCK_N, D,
            )  # fmt: skip
    _store(out_desc, row, m0, head, acc / total[:, None], BLOCK_M, D)
    lse = (high + tl.log2(total)) / LOG2E
    tl.store(LSE + tl.cast(row * H + head, tl.int64) * T + t, lse, t < T)


@jit
def _dq_loop(
    q, grad, dq, lse, delta, k_desc, v_desc, row, kv_head, begin, end, t, first, factor,
    LEFT: tl.constexpr, DIAGONAL: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    for n0 in tl.range(begin, end, N):
        k = _load(k_desc, row, n0, kv_head, N, D)
        scores = tl.dot(q, k.T, input_precision="ieee")  # (M, N)
        if LEFT or DIAGONAL:
            scores = tl.where(_visible(n0, t, first, LEFT, DIAGONAL, N), scores, -1e38)
        p = tl.exp2(scores * factor - lse[:, None])
        dp = tl.dot(grad, _load(v_desc, row, n0, kv_head, N, D).T, input_precision="ieee")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq


@jit
def _attention_dq_kernel(
    q_desc, k_desc, v_desc, out_desc, grad_desc, dq_desc, LSE, DELTA, LO, T, window, scale,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Compute dq; on the way `delta`, the sum over D of grad * out, which the dk and dv kernel reads."""
    m0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    head, row = tl.program_id(1), tl.program_id(2)
    kv_head = head // GROUP
    BOUNDED: tl.constexpr = LO is not None or window is not None
    LOG2E: tl.constexpr = 1.4426950408889634
    t = m0 + tl.arange(0, BLOCK_M)
    first = _first_key(t, LO, row, T, window)
    factor = scale * LOG2E
    offsets = tl.cast(row * H + head, tl.int64) * T + t
    grad = _load(grad_desc, row, m0, head, BLOCK_M, D)
    out = _load(out_desc, row, m0, head, BLOCK_M, D)
    delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(DELTA + offsets, delta, t < T)
    lse = tl.load(LSE + offsets, t < T, other=0.0) * LOG2E
    q = _load(q_desc, row, m0, head, BLOCK_M, D)
    dq = tl.zeros((BLOCK_M, D), tl.float32)
    dq = _dq_loop(
        q, grad, dq, lse, delta, k_desc, v_desc, row, kv_head, m0, m0 + BLOCK_M, t, first, factor,
        BOUNDED, True, BLOCK_N, D,
    )  # fmt: skip
    left, middle = _key_blocks(m0, LO, row, T, window, BLOCK_M, BLOCK_N)
    if middle < m0:
        dq = _dq_loop(
            q, grad, dq, lse, delta, k_desc, v_desc, row, kv_head, middle, m0, t, first, factor,
            False, False, BLOCK_N, D,
        )  # fmt: skip
    if BOUNDED:
        if left < middle:
            dq = _dq_loop(
                q, grad, dq, lse, delta, k_desc, v_desc, row, kv_head, left, middle, t, first, factor,
                True, False, BLOCK_N, D,
            )  # fmt: skip
    _store(dq_desc, row, m0, head, dq * scale, BLOCK_M, D)


@jit
def _dkv_loop(
    k, v, dk, dv, q_desc, grad_desc, LSE, DELTA, row, kv_head, begin, blocks, s, end, T, factor,
    RIGHT: tl.constexpr, DIAGONAL: tl.constexpr,
    H: tl.constexpr, GROUP: tl.constexpr, M: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Add what `blocks` blocks of queries contribute, for each head in the group.

    One loop over heads and blocks: two nested ones spill. Queries past T are zeros and add nothing.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    for i in tl.range(0, GROUP * blocks):
        head, m0 = kv_head, begin + i * M
        if GROUP > 1:
            head, m0 = kv_head * GROUP + i // blocks, begin + i % blocks * M
        t = m0 + tl.arange(0, M)
        base = tl.cast(row * H + head, tl.int64) * T
        q = _load(q_desc, row, m0, head, M, D)
        lse = tl.load(LSE + base + t, t < T, other=0.0) * LOG2E
        scores = tl.dot(k, q.T, input_precision="ieee")  # (N, M)
        if RIGHT or DIAGONAL:
            visible = t[None, :] < end[:, None] if RIGHT else t[None, :] >= s[:, None]
            if RIGHT and DIAGONAL:
                visible = visible & (t[None, :] >= s[:, None])
            scores = tl.where(visible, scores, -1e38)
        p = tl.exp2(scores * factor - lse[None, :])
        grad = _load(grad_desc, row, m0, head, M, D)
        dv = tl.dot(p.to(grad.dtype), grad, dv, input_precision="ieee")
        delta = tl.load(DELTA + base + t, t < T, other=0.0)
        ds = p * (tl.dot(v, grad.T, input_precision="ieee") - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@jit
def _attention_dkv_kernel(
    q_desc, k_desc, v_desc, grad_desc, dk_desc, dv_desc, LSE, DELTA, HI, T, window, scale,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    n0 = tl.program_id(0) * BLOCK_N  # the first keys are seen by most queries
    kv_head, row = tl.program_id(1), tl.program_id(2)
    BOUNDED: tl.constexpr = HI is not None or window is not None
    LOG2E: tl.constexpr = 1.4426950408889634
    s = n0 + tl.arange(0, BLOCK_N)
    end = _end_query(s, HI, row, T, window)
    factor = scale * LOG2E
    k = _load(k_desc, row, n0, kv_head, BLOCK_N, D)
    v = _load(v_desc, row, n0, kv_head, BLOCK_N, D)
    dk = tl.zeros((BLOCK_N, D), tl.float32)
    dv = tl.zeros((BLOCK_N, D), tl.float32)
    dk, dv = _dkv_loop(
        k, v, dk, dv, q_desc, grad_desc, LSE, DELTA, row, kv_head, n0, BLOCK_N // BLOCK_M, s, end, T, factor,
        BOUNDED, True, H, GROUP, BLOCK_M, D,
    )  # fmt: skip
    middle = n0 + BLOCK_N
    if BOUNDED:  # whole blocks of queries that all see the first key
        whole = tl.maximum(_end_query(n0, HI, row, T, window) - middle, 0) // BLOCK_M
    else:
        whole = tl.cdiv(tl.maximum(T - middle, 0), BLOCK_M)
    if whole > 0:
        dk, dv = _dkv_loop(
            k, v, dk, dv, q_desc, grad_desc, LSE, DELTA, row, kv_head, middle, whole, s, end, T, factor,
            False, False, H, GROUP, BLOCK_M, D,
        )  # fmt: skip
    if BOUNDED:
        right = middle + whole * BLOCK_M
        last = _end_query(tl.minimum(middle, T) - 1, HI, row, T, window)
        if right < last:
            dk, dv = _dkv_loop(
                k, v, dk, dv, q_desc, grad_desc, LSE, DELTA, row, kv_head, right,
                tl.cdiv(last - right, BLOCK_M), s, end, T, factor, True, False, H, GROUP, BLOCK_M, D,
            )  # fmt: skip
    _store(dk_desc, row, n0, kv_head, dk * scale, BLOCK_N, D)
    _store(dv_desc, row, n0, kv_head, dv, BLOCK_N, D)


def launch_forward(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, T, H, D) and the log-sum-exp of each query's scores, (B, H, T) float32."""
    rows, length, heads, dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((rows, heads, length), dtype=torch.float32, device=q.device)
    first = None if lo is None else first_keys(length, window, lo, q.device)
    config = _config("attention_forward", q, k, lo, window)
    m, n = config.tiles["BLOCK_M"], config.tiles["BLOCK_N"]
    tiles = _tiles("q", q, m), _tiles("k", k, n), _tiles("v", v, n), _tiles("out", out, m)
    if config.gluon:
        launch_specialized(*tiles, lse, scale, config)
        return out, lse
    _attention_forward_kernel[(triton.cdiv(length, m), heads, rows)](
        *tiles,
        lse, first, length, window if lo is None else None, scale,
        H=heads, GROUP=heads // k.size(2), D=dim, **config.launch,
    )  # fmt: skip
    return out, lse


def launch_backward(
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
    rows, length, heads, dim = q.shape
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    delta = torch.empty(lse.shape, dtype=torch.float32, device=q.device)
    first = end = None
    if lo is not None:
        first = first_keys(length, window, lo, q.device)  # holds the window too
        end = end_queries(first)
    shape = {"H": heads, "GROUP": heads // k.size(2), "D": dim}
    config = _config("attention_dq", q, k, lo, window)
    m, n = config.tiles["BLOCK_M"], config.tiles["BLOCK_N"]
    _attention_dq_kernel[(triton.cdiv(length, m), heads, rows)](
        _tiles("q", q, m), _tiles("k", k, n), _tiles("v", v, n),
        _tiles("out", out, m), _tiles("grad", grad, m), _tiles("dq", dq, m),
        lse, delta, first, length, window if lo is None else None, scale, **shape, **config.launch,
    )  # fmt: skip
    config = _config("attention_dkv", q, k, lo, window)
    m, n = config.tiles["BLOCK_M"], config.tiles["BLOCK_N"]
    _attention_dkv_kernel[(triton.cdiv(length, n), k.size(2), rows)](
        _tiles("q", q, m), _tiles("k", k, n), _tiles("v", v, n),
        _tiles("grad", grad, m), _tiles("dk", dk, n), _tiles("dv", dv, n),
        lse, delta, end, length, window if lo is None else None, scale, **shape, **config.launch,
    )  # fmt: skip
    return dq, dk, dv


def _tiles(name: str, x: Tensor, block: int) -> Any:
    """Describe x (B, T, H, D) as tiles of `block` positions of one head."""
    size = x.element_size()
    if x.data_ptr() % 16 or any(stride * size % 16 for stride in x.stride()[:3]):
        raise ValueError(
            f"attention: {name} has strides {x.stride()} of {size} bytes; on a GPU the address and all"
            " strides but the last must be multiples of 16 bytes (.contiguous())"
        )
    # Heads before positions: only a tile whose leading dimensions are 1 goes to shared memory without passing
    # through registers.
    return TensorDescriptor.from_tensor(x.transpose(1, 2), [1, 1, block, x.size(3)])


def _config(kernel: str, q: Tensor, k: Tensor, lo: Tensor | None, window: int | None) -> configs.KernelConfig:
    plain = lo is None and window is None and q.size(2) == k.size(2)
    try:
        return configs.find(kernel, q.dtype, f"head_dim={q.size(3)}{'' if plain else ' masked'}")
    except KeyError:
        raise ValueError(
            f"attention: q is {q.dtype} with head dimension {q.size(3)};"
            " on a GPU it must be bfloat16 or float16 with 64 or 128"
        ) from None
