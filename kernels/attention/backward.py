"""The backward kernels of `attention`: dq by blocks of queries, then dk with dv by blocks of keys.

Seven products, not the five of one fused kernel: there programs would add up dq in an order that differs
each time, or as parts in memory, by count 2.9 GB written and read per layer of d20. With LATE one product, of
dq or of dv, is a block late, as in `forward`.
"""

# The arguments of a kernel have no Python types.
# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from kernels.attention.tiles import end_query, first_key, key_range, load_tile, mask_edges, store_tile
from kernels.language import jit, tl


@jit
def _attention_dq_kernel(
    q_desc, k_desc, v_desc, out_desc, grad_desc, dq_desc, LSE, STATS, LO, T, window, scale,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LATE: tl.constexpr,
):  # fmt: skip
    """Compute dq; on the way the two numbers of each query that dk and dv need.

    They are the log-sum-exp in powers of 2, and `delta`, the sum over D of grad * out; (B, H, 2, T), where T
    is rounded up to whole blocks, so that readers need no mask.
    """
    m0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    head, row = tl.program_id(1), tl.program_id(2)
    kv_head = head // GROUP
    BOUNDED: tl.constexpr = LO is not None or window is not None
    LOG2E: tl.constexpr = 1.4426950408889634
    t = m0 + tl.arange(0, BLOCK_M)
    first = first_key(t, LO, row, T, window)
    begin, whole = key_range(m0, LO, row, T, window, BLOCK_M, BLOCK_N)
    factor = scale * LOG2E
    line = tl.cast(row * H + head, tl.int64)
    grad = load_tile(grad_desc, row, m0, head, BLOCK_M, D)
    out = load_tile(out_desc, row, m0, head, BLOCK_M, D)
    delta = tl.sum(grad.to(tl.float32) * out.to(tl.float32), 1)
    lse = tl.load(LSE + line * T + t, t < T, other=0.0) * LOG2E
    padded = tl.num_programs(0) * BLOCK_M
    tl.store(STATS + line * 2 * padded + t, lse)
    tl.store(STATS + (line * 2 + 1) * padded + t, delta)
    q = load_tile(q_desc, row, m0, head, BLOCK_M, D)
    dq = tl.zeros((BLOCK_M, D), tl.float32)
    if LATE:
        ds = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    last = m0 + BLOCK_M - BLOCK_N
    blocks = (last - begin) // BLOCK_N + 1
    tl.assume(blocks > 0)
    for i in tl.range(0, blocks):
        n0 = last - i * BLOCK_N
        k = load_tile(k_desc, row, n0, kv_head, BLOCK_N, D)
        scores = tl.dot(q, k.T, input_precision="ieee")  # (M, N)
        if LATE:
            dp = tl.dot(grad, load_tile(v_desc, row, n0, kv_head, BLOCK_N, D).T, input_precision="ieee")
            k = load_tile(k_desc, row, tl.minimum(n0 + BLOCK_N, last), kv_head, BLOCK_N, D)
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
            scores = mask_edges(scores, n0, m0, t, first, whole, BOUNDED, BLOCK_M, BLOCK_N)
            ds = tl.exp2(scores * factor - lse[:, None]) * (dp - delta[:, None])
        else:
            scores = mask_edges(scores, n0, m0, t, first, whole, BOUNDED, BLOCK_M, BLOCK_N)
            p = tl.exp2(scores * factor - lse[:, None])
            dp = tl.dot(grad, load_tile(v_desc, row, n0, kv_head, BLOCK_N, D).T, input_precision="ieee")
            ds = p * (dp - delta[:, None])
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    if LATE:
        k = load_tile(k_desc, row, begin, kv_head, BLOCK_N, D)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    store_tile(dq_desc, row, m0, head, dq * scale, BLOCK_M, D)


@jit
def _query_block(i, blocks, kv_head, n0, GROUP: tl.constexpr, M: tl.constexpr):
    """Return head and first query of the i-th of the blocks that a block of keys walks through."""
    if GROUP == 1:
        return kv_head, n0 + i * M
    return kv_head * GROUP + i // blocks, n0 + i % blocks * M


@jit
def _attention_dkv_kernel(
    q_desc, k_desc, v_desc, grad_desc, dk_desc, dv_desc, STATS, HI, T, padded, window, scale,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LATE: tl.constexpr,
):  # fmt: skip
    """Compute dk and dv: one loop over all queries of all heads of the group. Queries past T are zeros."""
    n0 = tl.program_id(0) * BLOCK_N  # the first keys are seen by most queries
    kv_head, row = tl.program_id(1), tl.program_id(2)
    BOUNDED: tl.constexpr = HI is not None or window is not None
    LOG2E: tl.constexpr = 1.4426950408889634
    end = end_query(n0 + tl.arange(0, BLOCK_N), HI, row, T, window)
    whole, last = T, T
    if BOUNDED:  # queries that all keys are seen by end where those of the first key do
        whole = end_query(n0, HI, row, T, window)
        last = end_query(tl.minimum(n0 + BLOCK_N, T) - 1, HI, row, T, window)
    factor = scale * LOG2E
    k = load_tile(k_desc, row, n0, kv_head, BLOCK_N, D)
    v = load_tile(v_desc, row, n0, kv_head, BLOCK_N, D)
    dk = tl.zeros((BLOCK_N, D), tl.float32)
    dv = tl.zeros((BLOCK_N, D), tl.float32)
    if LATE:
        p = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    blocks = tl.cdiv(last - n0, BLOCK_M)
    tl.assume(blocks > 0)
    for i in tl.range(0, GROUP * blocks):
        head, m0 = _query_block(i, blocks, kv_head, n0, GROUP, BLOCK_M)
        stats = STATS + tl.cast(row * H + head, tl.int64) * 2 * padded
        q = load_tile(q_desc, row, m0, head, BLOCK_M, D)
        scores = tl.dot(k, q.T, input_precision="ieee")  # (N, M)
        if LATE:
            old_head, old_m0 = _query_block(tl.maximum(i - 1, 0), blocks, kv_head, n0, GROUP, BLOCK_M)
            grad = load_tile(grad_desc, row, old_m0, old_head, BLOCK_M, D)
            dv = tl.dot(p.to(grad.dtype), grad, dv, input_precision="ieee")
        masked = m0 < n0 + BLOCK_N
        if BOUNDED:
            masked = masked | (m0 + BLOCK_M > whole)
        if masked:
            # From n0 on: numbers that need no register while the loop runs.
            t = m0 - n0 + tl.arange(0, BLOCK_M)[None, :]
            visible = t >= tl.arange(0, BLOCK_N)[:, None]
            if BOUNDED:
                visible = visible & (t + n0 < end[:, None])
            scores = tl.where(visible, scores, -1e38)
        lse = tl.load(stats + m0 + tl.arange(0, BLOCK_M))
        p = tl.exp2(scores * factor - lse[None, :])
        grad = load_tile(grad_desc, row, m0, head, BLOCK_M, D)
        if not LATE:
            dv = tl.dot(p.to(grad.dtype), grad, dv, input_precision="ieee")
        dp = tl.dot(v, grad.T, input_precision="ieee")
        # Read here, and lse after the scores: earlier they would hold registers of which none is left.
        delta = tl.load(stats + padded + m0 + tl.arange(0, BLOCK_M))
        ds = p * (dp - delta[None, :])
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    if LATE:
        head, m0 = _query_block(GROUP * blocks - 1, blocks, kv_head, n0, GROUP, BLOCK_M)
        grad = load_tile(grad_desc, row, m0, head, BLOCK_M, D)
        dv = tl.dot(p.to(grad.dtype), grad, dv, input_precision="ieee")
    store_tile(dk_desc, row, n0, kv_head, dk * scale, BLOCK_N, D)
    store_tile(dv_desc, row, n0, kv_head, dv, BLOCK_N, D)
