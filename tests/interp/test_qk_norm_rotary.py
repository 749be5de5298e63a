"""Rotation and norm in one kernel each way, against float64."""

from __future__ import annotations

import pytest
import torch

from kernels import configs
from kernels.qk_norm_rotary import RMS_EPS, qk_norm_rotary_reference
from kernels.qk_norm_rotary import op as qk_norm_rotary
from tests.support.kernels.errors import assert_close_to_truth
from tests.support.kernels.guards import guarded, intact, poisoned_allocations, shuffled

CASES = [  # B, T, H, D, rows of the tables
    (1, 1, 1, 16, 1),
    (1, 63, 3, 32, 1),
    (2, 127, 5, 64, 1),
    (3, 25, 2, 128, 3),
]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Several programs, the last one ragged."""
    for row in list(configs.TABLE):
        if row.kernel.startswith("qk_norm_rotary"):
            monkeypatch.setitem(configs.TABLE, row, configs.KernelConfig(4, 1, {"ROWS": 64}))


def _case(shape, dtype):
    rows, length, heads, head_dim, table_rows = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x, dy = (torch.randn(rows, length, heads, head_dim, generator=generator).to(dtype) for _ in range(2))
    angles = 6.28 * torch.rand(table_rows, length, 1, head_dim // 2, generator=generator)
    return [guarded(tensor) for tensor in (dy, x, angles.cos().bfloat16().float(), angles.sin())]


def _run(dy, x, cos, sin):
    y = qk_norm_rotary.launch_forward(x, cos, sin, RMS_EPS)
    return y, qk_norm_rotary.launch_backward(dy, x, cos, sin, RMS_EPS)


def _reference(dy, x, cos, sin):
    x = x.detach().requires_grad_()
    y = qk_norm_rotary_reference(x, cos, sin)
    y.backward(dy)
    return y.detach(), x.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_output_and_gradient_are_those_of_float64(shape, dtype):
    case = _case(shape, dtype)
    with poisoned_allocations() as made:
        results = _run(*case)
    assert len(made) == 2 and all(intact(tensor) for tensor in (*made, *case))
    truth, plain = _reference(*(tensor.double() for tensor in case)), _reference(*case)
    for result, reference, exact in zip(results, plain, truth, strict=True):
        assert_close_to_truth(result, reference, exact, dtype)


def test_no_result_depends_on_the_order_of_programs():
    case = _case((2, 127, 5, 64, 1), torch.bfloat16)
    ordered = _run(*case)
    with shuffled(3):
        again = _run(*case)
    assert all(torch.equal(a, b) for a, b in zip(ordered, again, strict=True))


def test_a_head_of_zeros_stays_finite():
    dy, x, cos, sin = _case((1, 63, 3, 32, 1), torch.float32)
    x.zero_()
    assert all(result.isfinite().all() for result in _run(dy, x, cos, sin))


def test_a_head_dimension_that_is_no_power_of_two_is_named():
    _, x, cos, sin = _case((1, 3, 1, 96, 1), torch.float32)
    with pytest.raises(ValueError, match="head dimension D is 96; on a GPU it must be a power of two"):
        qk_norm_rotary.launch_forward(x, cos, sin, RMS_EPS)
