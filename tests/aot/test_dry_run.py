"""The fake driver and the reading of machine code, on a plain matrix product."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import triton

from kernels.language import TensorDescriptor, jit, tl
from tests.support.kernels.fake_driver import dry_run
from tests.support.kernels.launches import meta
from tests.support.kernels.machine_code import faults, inspect


@jit
def _matmul_kernel(
    a_desc, b_desc, OUT, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr
):
    m, n = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, K, BLOCK_K):
        acc += tl.dot(a_desc.load([m, k]), b_desc.load([n, k]).T)
    rows, columns = m + tl.arange(0, BLOCK_M), n + tl.arange(0, BLOCK_N)
    tl.store(OUT + rows[:, None].to(tl.int64) * N + columns[None, :], acc.to(tl.bfloat16))


def _launch(block_m=128, block_n=128, num_warps=8, num_stages=3):
    a, b, out = (torch.empty(4096, 4096, dtype=torch.bfloat16, device="meta") for _ in range(3))
    a_desc = TensorDescriptor.from_tensor(a, [block_m, 64])
    b_desc = TensorDescriptor.from_tensor(b, [block_n, 64])
    grid = (4096 // block_m, 4096 // block_n)
    blocks = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": 64}
    _matmul_kernel[grid](
        a_desc, b_desc, out, 4096, 4096, **blocks, num_warps=num_warps, num_stages=num_stages
    )


def test_a_launch_is_compiled_for_h100_recorded_and_not_run():
    with dry_run() as launches:
        _launch()
    (launch,) = launches
    assert (launch.name, launch.grid) == ("_matmul_kernel", (32, 32, 1))
    code = inspect(launch.kernel)
    assert faults(code, tensor_core=True, tma=True) == []
    assert code.warps == 8
    assert (
        code.shared == 3 * 2 * 128 * 64 * 2 + code.shared % 1024
    )  # three stages of two bfloat16 tiles, barriers


def test_shared_memory_over_the_limit_fails_as_on_the_device():
    with dry_run(), pytest.raises(triton.runtime.errors.OutOfResources, match="shared memory"):
        _launch(num_stages=8)


def _accumulate(total, left, right):
    torch.addmm(total, left, right, out_dtype=torch.float32, out=total)


def test_a_product_that_cuda_does_not_add_up_is_refused():
    total, left, right = meta(8, 4), meta(8, 16, dtype=torch.bfloat16), meta(16, 4, dtype=torch.bfloat16)
    with dry_run():
        _accumulate(total, left, right)
        with pytest.raises(RuntimeError, match="product of"):
            _accumulate(total, left, right.float())
        with pytest.raises(RuntimeError, match="is not added"):
            _accumulate(total.bfloat16(), left, right)
        with pytest.raises(RuntimeError, match="is not"):
            _accumulate(total, left, right[:, :3])


def test_a_tile_that_does_not_fit_the_registers_is_a_fault():
    with dry_run() as launches:
        _launch(block_n=256, num_warps=4, num_stages=2)
    found = faults(inspect(launches[0].kernel), tensor_core=True, tma=True)
    assert any("spill" in text for text in found)


def test_each_kind_of_fault_has_its_words():
    with dry_run() as launches:
        _launch()
    code = inspect(launches[0].kernel)
    bad = dataclasses.replace(
        code, shared=300_000, spills=2, wgmma=0, mma_sync=9, serialized=True, tma_loads=0
    )
    assert len(faults(bad, tensor_core=True, tma=True)) == 6
    assert len(faults(bad, tensor_core=False, tma=False)) == 4
