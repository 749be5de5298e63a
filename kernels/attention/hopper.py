"""Attention's forward kernel for H100 alone: warp-specialized, in Triton's Gluon dialect; causal, unmasked.

Plain Triton gives all warps of a program the same work, so that the tensor cores wait while scores become
weights. Here a program has four partitions, the structure of FlashAttention 3 (arXiv:2407.08608):

- two consumers of four warps, each with the queries of half a tile (BLOCK_M) in 240 registers a thread. A
  consumer issues the product of its queries with the next keys and that of its weights with the present
  values, and makes weights of the scores while the second of them runs. The two take turns at issuing, if the
  configuration says so, and one is at its softmax while the other has the tensor cores;
- two producers of one warp, one for queries and keys, one for values, which load tiles through TMA.

A channel is a ring of tiles in shared memory with two barriers (mbarriers) for each slot: `full` when a load
has arrived, `empty` when all readers are done. How often a slot was used gives the parity to wait for.

A tile has as many queries as a block has keys (BLOCK_N = 2 * BLOCK_M), so that only its first block, the
diagonal, needs a mask. Programs are as many as the device has multiprocessors; each walks through pairs of a
long and a short tile, which are all the same work. The tensor cores do not wait between two tiles: the last
values of one are multiplied beside the diagonal of the next, and its outputs are written in the softmax's
place. So a program's last tile needs a diagonal to follow it, and computes its own a second time.

Not here: windows, documents, shared key heads, other devices (`gpu`). `kernels.configs` has it as a variant,
which runs nowhere before a GPU has shown it to be right and faster. The tests run this source on a simulator
of the asynchronous machine, for Triton has no interpreter for Gluon.
"""

# The arguments of a kernel have no Python types, and Gluon has no starred expressions.
# ruff: noqa: ANN001, ANN202, RUF005
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor

from kernels import configs
from kernels.language import (
    GluonDescriptor,
    fence_async_shared,
    gl,
    gluon_jit,
    mbarrier,
    tma,
    triton,
    warpgroup_mma,
    warpgroup_mma_wait,
)


@gluon_jit
def _channel(desc, SLOTS: gl.constexpr, READERS: gl.constexpr):
    """Return an empty ring of tiles and the barriers of its slots."""
    tiles = gl.allocate_shared_memory(desc.dtype, [SLOTS] + desc.block_type.shape, desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [SLOTS, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(SLOTS):
        mbarrier.init(full.index(slot), count=1)
        mbarrier.init(empty.index(slot), count=READERS)
    return tiles, full, empty


@gluon_jit
def _send(desc, place, channel, count, SLOTS: gl.constexpr):
    """Start to load a tile into the slot of its number, once its last readers are done."""
    tiles, full, empty = channel
    slot = count % SLOTS
    mbarrier.wait(empty.index(slot), (count // SLOTS & 1) ^ 1)  # of a fresh barrier, parity 1 is over
    mbarrier.expect(full.index(slot), desc.block_type.nbytes)
    tma.async_copy_global_to_shared(desc, place, full.index(slot), tiles.index(slot))


@gluon_jit
def _receive(channel, count, SLOTS: gl.constexpr, ROWS: gl.constexpr, D: gl.constexpr):
    """Return the tile of a number once it has arrived."""
    tiles, full, _empty = channel
    mbarrier.wait(full.index(count % SLOTS), count // SLOTS & 1)
    return tiles.index(count % SLOTS).reshape([ROWS, D])


@gluon_jit
def _release(channel, count, SLOTS: gl.constexpr):
    """Say that one reader is done with a tile."""
    _tiles, _full, empty = channel
    mbarrier.arrive(empty.index(count % SLOTS), count=1)


@gluon_jit
def _tiles_of(T, planes, N: gl.constexpr):
    """Return how many tiles this program has: pairs, but for the last one of an odd number."""
    total = planes * gl.cdiv(T, N)
    pairs = gl.cdiv(gl.cdiv(total, 2) - gl.program_id(0), gl.num_programs(0))
    last = 2 * (gl.program_id(0) + (pairs - 1) * gl.num_programs(0)) + 1
    return 2 * pairs - gl.maximum(last - total + 1, 0)


@gluon_jit
def _place_of(i, T, H: gl.constexpr, N: gl.constexpr):
    """Return row, head and tile of this program's tile i: of a head the last, the first, the last but one."""
    number = 2 * (gl.program_id(0) + i // 2 * gl.num_programs(0)) + i % 2
    blocks = gl.cdiv(T, N)
    tile = number % blocks // 2
    if number % blocks % 2 == 0:
        tile = blocks - 1 - tile
    return number // blocks // H, number // blocks % H, tile


@gluon_jit
def _send_diagonal(
    q_desc, k_desc, queries, keys, row, head, tile, i, blocks,
    M: gl.constexpr, N: gl.constexpr, SLOTS: gl.constexpr,
):  # fmt: skip
    for half in gl.static_range(2):
        _send(q_desc, [row, head, tile * N + half * M, 0], queries, 2 * i + half, 4)
    _send(k_desc, [row, head, tile * N, 0], keys, blocks, SLOTS)


@gluon_jit
def _load_queries_and_keys(
    q_desc, k_desc, queries, keys, T, planes,
    H: gl.constexpr, M: gl.constexpr, N: gl.constexpr, SLOTS: gl.constexpr,
):  # fmt: skip
    tiles = _tiles_of(T, planes, N)
    row, head, tile = _place_of(0, T, H, N)
    _send_diagonal(q_desc, k_desc, queries, keys, row, head, tile, 0, 0, M, N, SLOTS)
    blocks = 1
    for i in range(tiles):
        for j in range(tile):
            _send(k_desc, [row, head, (tile - 1 - j) * N, 0], keys, blocks, SLOTS)
            blocks += 1
        row, head, tile = _place_of(gl.minimum(i + 1, tiles - 1), T, H, N)
        _send_diagonal(q_desc, k_desc, queries, keys, row, head, tile, i + 1, blocks, M, N, SLOTS)
        blocks += 1


@gluon_jit
def _load_values(v_desc, values, T, planes, H: gl.constexpr, N: gl.constexpr, SLOTS: gl.constexpr):
    blocks = 0
    for i in range(_tiles_of(T, planes, N)):
        row, head, tile = _place_of(i, T, H, N)
        for j in range(tile + 1):
            _send(v_desc, [row, head, (tile - j) * N, 0], values, blocks, SLOTS)
            blocks += 1


@gluon_jit
def _diagonal_weights(scores, factor, HALF: gl.constexpr, M: gl.constexpr, N: gl.constexpr):
    """Return the weights of a tile's first block of keys, of which each query sees one, maxima and sums."""
    by_key: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    t = HALF * M + gl.arange(0, M, gl.SliceLayout(1, by_key))
    s = gl.arange(0, N, gl.SliceLayout(0, by_key))
    scores = gl.where(s[None, :] <= t[:, None], scores, -1e38)
    high = gl.max(scores, 1) * factor
    p = gl.exp2(scores * factor - high[:, None])
    return p, high, gl.sum(p, 1)


@gluon_jit
def _write(
    out_desc, LSE, outs, acc, high, total, row, head, tile, T,
    HALF: gl.constexpr, H: gl.constexpr, D: gl.constexpr, M: gl.constexpr, N: gl.constexpr,
):  # fmt: skip
    by_column: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    rows: gl.constexpr = gl.SliceLayout(1, by_column)
    acc = acc * gl.convert_layout(1 / total, rows)[:, None]
    tma.store_wait(0)  # the tile before has left its place
    outs.index(HALF).reshape([M, D]).store(acc.to(out_desc.dtype))
    fence_async_shared()
    tma.async_copy_shared_to_global(out_desc, [row, head, tile * N + HALF * M, 0], outs.index(HALF))
    t = tile * N + HALF * M + gl.arange(0, M, rows)
    lse = gl.convert_layout((high + gl.log2(total)) * 0.6931471805599453, rows)
    gl.store(LSE + gl.cast(row * H + head, gl.int64) * T + t, lse, t < T)


@gluon_jit
def _multiply(
    q, weights, acc, keys, values, turns, blocks,
    HALF: gl.constexpr, D: gl.constexpr, M: gl.constexpr, N: gl.constexpr, SLOTS: gl.constexpr,
    TURNS: gl.constexpr,
):  # fmt: skip
    """Issue both products in this half's turn; return the scores of the next block, and outputs in flight."""
    by_key: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    k = _receive(keys, blocks + 1, SLOTS, N, D).permute((1, 0))
    if TURNS:
        mbarrier.wait(turns.index(HALF), (blocks & 1) ^ (1 - HALF))  # the first half begins
    no_scores = gl.zeros([M, N], gl.float32, by_key)
    scores = warpgroup_mma(q, k, no_scores, use_acc=False, is_async=True)
    v = _receive(values, blocks, SLOTS, N, D)
    acc = warpgroup_mma(weights, v, acc, is_async=True)
    if TURNS:
        mbarrier.arrive(turns.index(1 - HALF), count=1)
    scores = warpgroup_mma_wait(1, [scores])
    _release(keys, blocks + 1, SLOTS)
    return scores, acc


@gluon_jit
def _finish(acc, values, blocks, D: gl.constexpr, N: gl.constexpr, SLOTS: gl.constexpr):
    """Return the outputs when their product is done."""
    # The values are there, and waiting for them again is a branch: without one here, ptxas moves the
    # exponentials behind the wait for the product beside which they are to run.
    _receive(values, blocks, SLOTS, N, D)
    acc = warpgroup_mma_wait(0, [acc])
    _release(values, blocks, SLOTS)
    return acc


@gluon_jit
def _attend(
    shared, HALF: gl.constexpr, H: gl.constexpr, D: gl.constexpr,
    M: gl.constexpr, N: gl.constexpr, SLOTS: gl.constexpr, TURNS: gl.constexpr,
):  # fmt: skip
    """Compute the outputs of the first or the second half of each tile's queries."""
    out_desc, LSE, queries, keys, values, outs, turns, T, planes, factor = shared
    dtype: gl.constexpr = out_desc.dtype
    by_key: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])  # of scores
    by_column: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])  # of outputs
    out_rows: gl.constexpr = gl.SliceLayout(1, by_column)
    weights_layout: gl.constexpr = gl.DotOperandLayout(0, by_column, 2)
    tiles = _tiles_of(T, planes, N)
    row, head, tile = _place_of(0, T, H, N)
    q = _receive(queries, HALF, 4, M, D)
    k = _receive(keys, 0, SLOTS, N, D).permute((1, 0))
    no_scores = gl.zeros([M, N], gl.float32, by_key)
    scores = warpgroup_mma(q, k, no_scores, use_acc=False, is_async=True)
    scores = warpgroup_mma_wait(0, [scores])
    _release(keys, 0, SLOTS)
    p, high, total = _diagonal_weights(scores, factor, HALF, M, N)
    weights = gl.convert_layout(p.to(dtype), weights_layout)
    blocks = 0
    for i in range(tiles):
        q = _receive(queries, 2 * i + HALF, 4, M, D)
        acc = gl.zeros([M, D], gl.float32, by_column)
        for _ in range(tile):
            scores, acc = _multiply(
                q, weights, acc, keys, values, turns, blocks, HALF, D, M, N, SLOTS, TURNS
            )  # fmt: skip
            new_high = gl.maximum(high, gl.max(scores, 1) * factor)
            p = gl.exp2(scores * factor - new_high[:, None])
            shrink = gl.exp2(high - new_high)
            total = total * shrink + gl.sum(p, 1)
            high = new_high
            acc = _finish(acc, values, blocks, D, N, SLOTS)
            acc = acc * gl.convert_layout(shrink, out_rows)[:, None]
            weights = gl.convert_layout(p.to(dtype), weights_layout)
            blocks += 1
        _release(queries, 2 * i + HALF, 4)
        # The values of the last block, beside the diagonal of the next tile; the last tile has its own again.
        q = _receive(queries, 2 * i + 2 + HALF, 4, M, D)
        scores, acc = _multiply(q, weights, acc, keys, values, turns, blocks, HALF, D, M, N, SLOTS, TURNS)
        p, next_high, next_total = _diagonal_weights(scores, factor, HALF, M, N)
        acc = _finish(acc, values, blocks, D, N, SLOTS)
        weights = gl.convert_layout(p.to(dtype), weights_layout)
        _write(out_desc, LSE, outs, acc, high, total, row, head, tile, T, HALF, H, D, M, N)
        row, head, tile = _place_of(gl.minimum(i + 1, tiles - 1), T, H, N)
        high, total = next_high, next_total
        blocks += 1
    tma.store_wait(0)


@gluon_jit
def _attention_forward_kernel(
    q_desc, k_desc, v_desc, out_desc, LSE, T, planes, scale,
    H: gl.constexpr, D: gl.constexpr, BLOCK_M: gl.constexpr, BLOCK_N: gl.constexpr, SLOTS: gl.constexpr,
    TURNS: gl.constexpr,
):  # fmt: skip
    queries = _channel(q_desc, 4, 1)
    keys = _channel(k_desc, SLOTS, 2)
    values = _channel(v_desc, SLOTS, 2)
    outs = gl.allocate_shared_memory(out_desc.dtype, [2] + out_desc.block_type.shape, out_desc.layout)
    turns = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for half in gl.static_range(2):
        mbarrier.init(turns.index(half), count=1)
    fence_async_shared()
    factor = scale * 1.4426950408889634  # for exp2
    shared = (out_desc, LSE, queries, keys, values, outs, turns, T, planes, factor)
    gl.warp_specialize(
        [
            (_attend, (shared, 0, H, D, BLOCK_M, BLOCK_N, SLOTS, TURNS)),
            (_attend, (shared, 1, H, D, BLOCK_M, BLOCK_N, SLOTS, TURNS)),
            (_load_queries_and_keys, (q_desc, k_desc, queries, keys, T, planes, H, BLOCK_M, BLOCK_N, SLOTS)),
            (_load_values, (v_desc, values, T, planes, H, BLOCK_N, SLOTS)),
        ],
        [4, 1, 1],
        [240, 24, 24],  # registers; the first partition gets what is left of 168 * 12 warps: 240
    )


def launch_specialized(
    q: Any, k: Any, v: Any, out: Any, lse: Tensor, scale: float, config: configs.KernelConfig
) -> None:
    """Write `out` and `lse`; q, k, v and out are descriptors of tiles with shape (B, H, T, D)."""
    rows, heads, length, dim = q.shape
    tiles = rows * heads * triton.cdiv(length, config.tiles["BLOCK_N"])
    device = triton.runtime.driver.active.get_current_device()
    programs = min(triton.cdiv(tiles, 2), _multiprocessors(device))
    _attention_forward_kernel[(programs,)](
        *(_gluon(x) for x in (q, k, v, out)), lse, length, rows * heads, scale,
        H=heads, D=dim, SLOTS=config.num_stages, **config.tiles, num_warps=config.num_warps,
    )  # fmt: skip


def _gluon(desc: Any) -> Any:
    """Return a descriptor with the layout of its tiles in shared memory, which Gluon wants to know."""
    dtype = getattr(gl, str(desc.base.dtype).removeprefix("torch."))
    layout = gl.NVMMASharedLayout.get_default_for(desc.block_shape, dtype)
    return GluonDescriptor(desc.base, desc.shape, desc.strides, desc.block_shape, layout)


@functools.cache
def _multiprocessors(device: int) -> int:
    count: int = triton.runtime.driver.active.utils.get_device_properties(device)["multiprocessor_count"]
    return count
