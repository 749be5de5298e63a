"""The repaired interpreter against torch and float64: what every other test in this folder relies on."""

from __future__ import annotations

import pytest
import torch

from kernels.language import jit, tl
from tests.support.kernels.guards import guarded, intact, poisoned, shuffled


@jit
def _dot_kernel(A, B, OUT, N: tl.constexpr):
    offsets = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(OUT + offsets, tl.dot(tl.load(A + offsets), tl.load(B + offsets), input_precision="ieee"))


@jit
def _copy_kernel(X, OUT, n, MASKED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if MASKED:
        tl.store(OUT + at, tl.load(X + at, at < n), at < n)
    else:
        tl.store(OUT + at, tl.load(X + at) + 1)


@jit
def _last_program_kernel(OUT):
    tl.store(OUT, tl.program_id(0))


@jit
def _square_sum_kernel(X, OUT, ATOMIC, BLOCK: tl.constexpr):
    x = tl.load(X + tl.arange(0, BLOCK))
    tl.store(OUT, tl.sum(x * x, axis=0))
    tl.atomic_add(ATOMIC, tl.sum(x, axis=0))


@jit
def _sum_of_numbers_kernel(OUT, n):
    total = 0
    for i in range(n):
        total += i
    tl.store(OUT, total)


def test_an_argument_is_a_loop_bound():
    out = torch.zeros(1, dtype=torch.int32)
    _sum_of_numbers_kernel[(1,)](out, 5)
    assert int(out) == 10


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_dot_of_each_dtype_accumulates_in_float32(dtype):
    a, b = (torch.randn(64, 64, generator=torch.Generator().manual_seed(n)).to(dtype) for n in range(2))
    out = poisoned(64, 64)
    _dot_kernel[(1,)](a, b, out, 64)
    truth = a.double() @ b.double()
    # Sums of 64 products in float32: 1e-7 for each of about sqrt(64) roundings.
    assert (out.double() - truth).norm() <= 1e-6 * truth.norm()


def test_a_cast_to_bfloat16_rounds_as_torch_does():
    x = torch.cat(
        (torch.randn(1000) * 10.0 ** torch.arange(-20, 20).repeat(25), torch.tensor([float("nan")]))
    )
    out = poisoned(1001, dtype=torch.bfloat16)
    _copy_kernel[(1,)](guarded(x), out, 1001, MASKED=True, BLOCK=1024)
    assert torch.equal(out.view(torch.int16)[:-1], x.bfloat16().view(torch.int16)[:-1])
    assert out[-1].isnan()
    assert intact(out)


def test_bfloat16_arithmetic_sums_and_atomics_are_those_of_torch():
    x = torch.randn(128).bfloat16()
    out, atomic = poisoned(1, dtype=torch.bfloat16), guarded(torch.ones(1, dtype=torch.bfloat16))
    _square_sum_kernel[(1,)](x, out, atomic, 128)
    torch.testing.assert_close(out[0], (x * x).float().sum().bfloat16())
    torch.testing.assert_close(atomic[0], 1 + x.float().sum().bfloat16())


def test_a_store_out_of_range_is_seen():
    out = poisoned(250)
    _copy_kernel[(2,)](guarded(torch.zeros(250)), out, 250, MASKED=True, BLOCK=128)
    assert intact(out)
    _copy_kernel[(2,)](guarded(torch.zeros(250)), out, 250, MASKED=False, BLOCK=128)
    assert not intact(out)


def test_a_result_that_depends_on_the_order_of_programs_is_seen():
    out = torch.zeros(1, dtype=torch.int32)
    seen = set()
    for seed in range(4):
        with shuffled(seed):
            _last_program_kernel[(64,)](out)
        seen.add(int(out))
    assert len(seen) > 1
