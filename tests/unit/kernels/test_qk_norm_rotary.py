"""Rotation and norm on a CPU: numbers against float64, registration, refusals."""

from __future__ import annotations

import pytest
import torch

from kernels.qk_norm_rotary.op import RMS_EPS, forward, qk_norm_rotary, qk_norm_rotary_reference
from tests.support.kernels.errors import assert_close_to_truth

OPS = torch.ops.nanochat


def _arguments(dtype=torch.float32, rows=3, table_rows=1):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 21, 5, 24, generator=generator).to(dtype)
    angles = 6.28 * torch.rand(table_rows, 21, 1, 12, generator=generator)
    return x, angles.cos(), angles.sin()


def _run(op, x, cos, sin):
    x = x.detach().requires_grad_()
    y = op(x, cos, sin)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype))
    return y.detach(), x.grad


@pytest.mark.parametrize("table_rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_and_gradient_are_those_of_float64(dtype, table_rows):
    x, cos, sin = _arguments(dtype, table_rows=table_rows)
    truth = _run(qk_norm_rotary_reference, x.double(), cos.double(), sin.double())
    plain, results = _run(qk_norm_rotary_reference, x, cos, sin), _run(qk_norm_rotary, x, cos, sin)
    for result, reference, exact in zip(results, plain, truth, strict=True):
        assert_close_to_truth(result, reference, exact, dtype)


def test_float32_forward_has_the_bits_of_plain_pytorch():
    arguments = _arguments()
    assert torch.equal(qk_norm_rotary(*arguments), qk_norm_rotary_reference(*arguments))


def test_registration_holds_what_pytorch_expects_of_an_op():
    x, cos, sin = _arguments()
    torch.library.opcheck(OPS.qk_norm_rotary.default, (x.requires_grad_(), cos, sin, RMS_EPS))
    x = x.detach()
    torch.library.opcheck(OPS.qk_norm_rotary_backward.default, (x, x, cos, sin, RMS_EPS))


def test_compiling_breaks_no_graph_and_changes_no_bit():
    compiled = torch.compile(qk_norm_rotary, fullgraph=True, backend="aot_eager")
    eager, traced = _run(qk_norm_rotary, *_arguments()), _run(compiled, *_arguments())
    assert all(torch.equal(a, b) for a, b in zip(eager, traced, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.zeros(3, 21, 120)}, ValueError, r"x has shape .* expected \(B, T, H, D\)"),
        (
            {"x": torch.zeros(3, 5, 21, 24).transpose(1, 2)},
            ValueError,
            "x has strides .* expected a contig",
        ),
        ({"x": torch.zeros(3, 21, 5, 24).double()}, TypeError, "x is float64; expected float32 or"),
        (
            {"cos": torch.zeros(2, 21, 1, 12)},
            ValueError,
            r"cos has shape .* expected \(1 or B, T, 1, D / 2\)",
        ),
        ({"sin": torch.zeros(3, 21, 1, 12)}, ValueError, "sin has shape .* expected the shape of cos"),
        ({"sin": torch.zeros(1, 21, 1, 12).bfloat16()}, TypeError, "sin is bfloat16; expected float32"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(change, error, message):
    arguments = dict(zip(("x", "cos", "sin"), _arguments(), strict=True))
    with pytest.raises(error, match=message):
        qk_norm_rotary(**{**arguments, **change})


def test_a_table_on_another_device_is_named():
    x, cos, sin = _arguments()
    with pytest.raises(ValueError, match="sin is on meta; expected cpu"):
        forward(x, cos, sin.to("meta"), RMS_EPS)
