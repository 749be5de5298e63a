"""The norm that is differentiated from its rounded result."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kernels.rms_norm import RoundedNorm, rms_norm

EPS = 1e-7


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(3, 7, 123, generator=draw) for _ in range(2))
    return (3 * x).to(dtype).requires_grad_(), upstream


@pytest.mark.parametrize("stream", [torch.float32, torch.bfloat16])
def test_result_and_gradient_are_exact_but_for_the_rounding_to_16_bits(stream: torch.dtype) -> None:
    x, upstream = inputs(stream)
    exact = x.detach().double().requires_grad_()
    F.rms_norm(exact, (123,), eps=EPS).backward(upstream.bfloat16().double())
    out = RoundedNorm.apply(x, torch.bfloat16, EPS)
    out.backward(upstream.bfloat16())
    expected = F.rms_norm(exact, (123,), eps=EPS).float()
    # Half a unit in the last of 8 bits; and in the gradient that of n, of which there is about 1 in 123.
    torch.testing.assert_close(out.float(), expected, rtol=2**-8, atol=1e-6)
    rounding = 2**-8 if stream == torch.bfloat16 else 0.0
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=rounding, atol=1e-3)
    assert (out.dtype, x.grad.dtype) == (torch.bfloat16, stream)


def test_a_compiler_sees_through_it_and_gives_the_same_bits() -> None:
    x, upstream = inputs()
    out = RoundedNorm.apply(x, torch.bfloat16, EPS)
    out.backward(upstream.bfloat16())
    expected, x.grad = x.grad, None
    compiled = torch.compile(
        lambda x: RoundedNorm.apply(x, torch.bfloat16, EPS), backend="aot_eager", fullgraph=True
    )
    same = compiled(x)
    same.backward(upstream.bfloat16())
    assert torch.equal(same, out) and torch.equal(x.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_a_gpu_runs_compiled_code_the_result_is_in_the_products_dtype(dtype: torch.dtype) -> None:
    x = torch.empty(3, 8, 24, device="meta")
    compiled = torch.compile(lambda x: rms_norm(x, dtype, EPS), backend="aot_eager", fullgraph=True)
    assert compiled(x).dtype == dtype
    assert rms_norm(x, dtype, EPS).dtype == torch.float32


def test_on_a_cpu_it_is_pytorchs() -> None:
    x, _ = inputs()
    assert torch.equal(rms_norm(x, torch.bfloat16, EPS), F.rms_norm(x, (123,), eps=EPS))
