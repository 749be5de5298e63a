"""The warp-specialized forward kernel on a simulated device: under any schedule, and broken on purpose.

Tiles are small, so that few positions make many; float32 shows errors that 16 bits would hide.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernels import configs
from kernels.attention import hopper
from tests.support.kernels.gluon_simulator import Fault, launching, load

SOURCE = Path(hopper.__file__)
M, N, D = 4, 8, 8
SCALE = 0.3


def _descriptor(x, block):
    heads = x.transpose(1, 2)
    return SimpleNamespace(
        base=heads, shape=heads.shape, strides=heads.stride(), block_shape=[1, 1, block, x.size(3)]
    )


def _inputs(length, dim, dtype, rows):
    draw = torch.Generator().manual_seed(length)
    return [torch.randn(rows, length, 3, dim, generator=draw).to(dtype) for _ in range(3)]


def _forward(names, q, k, v, *, m=M, n=N, slots=2, turns=1, programs=2, seed=0):
    """Return the outputs and the log-sum-exps that a launch writes."""
    out = torch.full_like(q, float("nan"))
    lse = torch.full((q.size(0), q.size(2), q.size(1)), float("nan"))
    config = configs.KernelConfig(4, slots, {"BLOCK_M": m, "BLOCK_N": n, "TURNS": turns}, gluon=True)
    tiles = [_descriptor(x, block) for x, block in ((q, m), (k, n), (v, n), (out, m))]
    with launching(names, "_attention_forward_kernel", programs=programs, seed=seed):
        names["launch_specialized"](*tiles, lse, SCALE, config)
    return out, lse


def _errors(q, k, v, out, lse):
    """Return how far outputs, relatively, and log-sum-exps are from float64."""
    t = torch.arange(q.size(1))
    scores = SCALE * torch.einsum("bthd,bshd->bhts", q.double(), k.double())
    scores = scores.masked_fill(t > t[:, None], float("-inf"))
    truth = torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v.double())
    far = float((out.double() - truth).norm() / truth.norm())
    return far, float((lse.double() - scores.logsumexp(-1)).abs().max())


def _check(length, *, dim=D, dtype=torch.float32, rows=1, tolerance=1e-6, **options):
    q, k, v = _inputs(length, dim, dtype, rows)
    far, lse_far = _errors(q, k, v, *_forward(load(SOURCE), q, k, v, **options))
    assert far <= tolerance
    assert lse_far <= 5e-6  # float32: a maximum of about 20, and a sum of up to `length` terms


@pytest.mark.parametrize("length", [1, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 23, 24, 25, 40, 61])
def test_any_length_gives_the_definitions_result(length):
    _check(length, seed=length)


@pytest.mark.parametrize("programs", [1, 2, 3, 7, 100])
def test_any_number_of_multiprocessors_shares_the_work(programs):
    _check(33, rows=2, programs=programs, seed=programs)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_any_number_of_slots_works(slots):
    _check(33, slots=slots, seed=slots)


@pytest.mark.parametrize("seed", range(5))
def test_without_turns_the_result_is_the_same(seed):
    _check(33, turns=0, seed=seed)


@pytest.mark.parametrize(("dim", "slots"), [(128, 2), (64, 4)])
def test_the_tiles_of_an_h100(dim, slots):
    # Weights and outputs are rounded to 2^-9 on average.
    _check(300, dim=dim, dtype=torch.bfloat16, m=64, n=128, slots=slots, tolerance=3e-3)


def test_large_scores_do_not_overflow():
    q, k, v = _inputs(33, D, torch.float32, 1)
    q = q * 100  # scores of several hundred, known to 3e-5 in float32, and so are their exponentials
    far, lse_far = _errors(q, k, v, *_forward(load(SOURCE), q, k, v))
    assert max(far, lse_far) <= 1e-4


def test_no_schedule_changes_a_byte():
    inputs = _inputs(33, D, torch.float32, 1)
    names = load(SOURCE)
    first = _forward(names, *inputs)
    for seed in range(1, 16):
        again = _forward(names, *inputs, seed=seed)
        assert all(map(torch.equal, first, again)), seed


def test_consumers_issue_their_products_in_turns():
    arrive = "mbarrier.arrive(turns.index(1 - HALF), count=1)"
    names = load(SOURCE, (arrive, f"{arrive}; ISSUED.append(HALF)"))
    for seed in range(5):
        names["ISSUED"] = []
        _forward(names, *_inputs(33, D, torch.float32, 1), seed=seed, programs=1)
        assert names["ISSUED"] == [0, 1] * 3 * (1 + 2 + 3 + 4 + 5), seed  # blocks of the tiles of three heads


_BROKEN = {
    "a producer that does not wait for readers": (
        "mbarrier.wait(empty.index(slot), (count // SLOTS & 1) ^ 1)",
        "None",
    ),
    "a producer in the wrong phase": ("(count // SLOTS & 1) ^ 1)", "count // SLOTS & 1)"),
    "half of the bytes": ("desc.block_type.nbytes)", "desc.block_type.nbytes // 2)"),
    "too many bytes": ("desc.block_type.nbytes)", "desc.block_type.nbytes * 2)"),
    "no bytes": ("mbarrier.expect(full.index(slot), desc.block_type.nbytes)", "None"),
    "another slot's barrier": (
        "place, full.index(slot), tiles",
        "place, full.index((slot + 1) % SLOTS), tiles",
    ),
    "a consumer that does not wait": (
        "mbarrier.wait(full.index(count % SLOTS), count // SLOTS & 1)",
        "None",
    ),
    "a consumer in the wrong phase": ("SLOTS), count // SLOTS & 1)", "SLOTS), (count // SLOTS & 1) ^ 1)"),
    "a slot that is never released": ("mbarrier.arrive(empty.index(count % SLOTS), count=1)", "None"),
    "a slot that is released twice": (
        "empty.index(count % SLOTS), count=1)",
        "empty.index(count % SLOTS), count=2)",
    ),
    "keys that one reader releases": ("_channel(k_desc, SLOTS, 2)", "_channel(k_desc, SLOTS, 1)"),
    "values that one reader releases": ("_channel(v_desc, SLOTS, 2)", "_channel(v_desc, SLOTS, 1)"),
    "values that three readers release": ("_channel(v_desc, SLOTS, 2)", "_channel(v_desc, SLOTS, 3)"),
    "queries that two readers release": ("_channel(q_desc, 4, 1)", "_channel(q_desc, 4, 2)"),
    "queries of the next tile that are released": (
        "_release(queries, 2 * i + HALF, 4)",
        "_release(queries, 2 * i + 2 + HALF, 4)",
    ),
    "keys released before their product": (
        "scores = warpgroup_mma_wait(1, [scores])\n    _release(keys, blocks + 1, SLOTS)",
        "_release(keys, blocks + 1, SLOTS)\n    scores = warpgroup_mma_wait(1, [scores])",
    ),
    "first keys released before their product": (
        "scores = warpgroup_mma_wait(0, [scores])\n    _release(keys, 0, SLOTS)",
        "_release(keys, 0, SLOTS)\n    scores = warpgroup_mma_wait(0, [scores])",
    ),
    "values released before their product": (
        "acc = warpgroup_mma_wait(0, [acc])\n    _release(values, blocks, SLOTS)",
        "_release(values, blocks, SLOTS)\n    acc = warpgroup_mma_wait(0, [acc])",
    ),
    "scores that are used in flight": ("warpgroup_mma_wait(1, [scores])", "warpgroup_mma_wait(2, [scores])"),
    "outputs that are used in flight": ("warpgroup_mma_wait(0, [acc])", "warpgroup_mma_wait(1, [acc])"),
    "the values before": ("v = _receive(values, blocks,", "v = _receive(values, blocks - 1,"),
    "the present keys again": ("_receive(keys, blocks + 1,", "_receive(keys, blocks,"),
    "a turn that is never passed on": ("mbarrier.arrive(turns.index(1 - HALF), count=1)", "None"),
    "a turn that is kept": ("turns.index(1 - HALF)", "turns.index(HALF)"),
    "no one's turn at first": ("(blocks & 1) ^ (1 - HALF)", "blocks & 1"),
    "an output tile that is overwritten": ("tma.store_wait(0)  # the tile before", "# the tile before"),
    "an end before the last store": ("        blocks += 1\n    tma.store_wait(0)", "        blocks += 1"),
    "no fence before a store": ("    fence_async_shared()\n    tma", "    tma"),
    "no fence after initialisation": ("    fence_async_shared()\n    factor", "    factor"),
    "a mask of one too many": ("s[None, :] <= t[:, None]", "s[None, :] < t[:, None]"),
    "a mask of one too few": ("s[None, :] <= t[:, None]", "s[None, :] <= t[:, None] + 1"),
    "values from the beginning": ("(tile - j) * N, 0], values", "j * N, 0], values"),
    "a tile after the last": (" - gl.maximum(last - total + 1, 0)", ""),
    "only the long tiles": (" + i % 2\n", "\n"),
    "the next tile's maximum": (
        "outs, acc, high, total, row, head, tile, T, HALF",
        "outs, acc, next_high, total, row, head, tile, T, HALF",
    ),
    "outputs that keep their old scale": (
        " * gl.convert_layout(shrink, out_rows)[:, None]",
        "",
    ),
}


@pytest.mark.parametrize("what", _BROKEN)
def test_what_is_broken_on_purpose_is_found(what):
    names = load(SOURCE, _BROKEN[what])
    inputs = _inputs(33, D, torch.float32, 1)
    for seed in range(20):
        try:
            found = _errors(*inputs, *_forward(names, *inputs, seed=seed))
        except Fault:
            return
        if not max(found) <= 1e-5:
            return
    pytest.fail("20 schedules, and nothing was seen")


def test_a_deadlock_names_who_waits_where():
    names = load(SOURCE, ("mbarrier.arrive(empty.index(count % SLOTS), count=1)", "None"))
    words = (
        r"deadlock: _attend \(0\) at _receive:\d+ in _multiply:\d+ in _attend.*_load_values \(3\) at _send"
    )
    with pytest.raises(Fault, match=words):
        _forward(names, *_inputs(33, D, torch.float32, 1))
