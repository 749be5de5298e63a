"""The forward kernel of `attention`: a program walks from the diagonal to the first key its queries see.

With LATE the product with the values is a block late: it runs on the tensor cores while the exponentials of
the next block are computed. Triton waits for a product at once, except for one that only the next iteration
reads, after a wait of its own. So the loop waits for its scores, then adds what the block before left, and
that product stays in flight behind the softmax. The first adds zeros: less time than a loop of its own.
"""

# The arguments of a kernel have no Python types.
# ruff: noqa: ANN001, ANN202
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

from kernels.attention.tiles import first_key, key_range, load_tile, mask_edges, store_tile
from kernels.language import jit, tl


@jit
def _softmax(scores, high, total, factor):
    """Return exponentials, and the new maximum and sum of each row with what shrinks its old sums."""
    new_high = tl.maximum(high, tl.max(scores, 1) * factor)
    p = tl.exp2(scores * factor - new_high[:, None])
    shrink = tl.exp2(high - new_high)
    return p, new_high, total * shrink + tl.sum(p, 1), shrink


@jit
def _attention_forward_kernel(
    q_desc, k_desc, v_desc, out_desc, LSE, LO, T, window, scale,
    H: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LATE: tl.constexpr,
):  # fmt: skip
    m0 = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M  # the longest rows first
    head, row = tl.program_id(1), tl.program_id(2)
    kv_head = head // GROUP
    BOUNDED: tl.constexpr = LO is not None or window is not None
    LOG2E: tl.constexpr = 1.4426950408889634
    t = m0 + tl.arange(0, BLOCK_M)
    first = first_key(t, LO, row, T, window)
    begin, whole = key_range(m0, LO, row, T, window, BLOCK_M, BLOCK_N)
    factor = scale * LOG2E
    q = load_tile(q_desc, row, m0, head, BLOCK_M, D)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    high = tl.full((BLOCK_M,), -1e38, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    if LATE:
        p, shrink = tl.zeros((BLOCK_M, BLOCK_N), tl.float32), total
    last = m0 + BLOCK_M - BLOCK_N
    blocks = (last - begin) // BLOCK_N + 1
    tl.assume(blocks > 0)  # or ptxas serializes the tensor cores, lest the sums stay the zeros they begin as
    for i in tl.range(0, blocks):
        n0 = last - i * BLOCK_N
        scores = tl.dot(
            q, load_tile(k_desc, row, n0, kv_head, BLOCK_N, D).T, input_precision="ieee"
        )  # (M, N)
        # What a row adds before the block with its own key is wiped out by that block's maximum.
        scores = mask_edges(scores, n0, m0, t, first, whole, BOUNDED, BLOCK_M, BLOCK_N)
        if LATE:
            v = load_tile(v_desc, row, tl.minimum(n0 + BLOCK_N, last), kv_head, BLOCK_N, D)
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
            p, high, total, shrink = _softmax(scores, high, total, factor)
        else:
            p, high, total, shrink = _softmax(scores, high, total, factor)
            v = load_tile(v_desc, row, n0, kv_head, BLOCK_N, D)
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    if LATE:
        v = load_tile(v_desc, row, begin, kv_head, BLOCK_N, D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
    store_tile(out_desc, row, m0, head, acc / total[:, None], BLOCK_M, D)
    lse = (high + tl.log2(total)) / LOG2E
    tl.store(LSE + tl.cast(row * H + head, tl.int64) * T + t, lse, t < T)
