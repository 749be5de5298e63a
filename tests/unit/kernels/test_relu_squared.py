"""The fused MLP on a CPU: numbers against float64, registration, refusals."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kernels.relu_squared.op import mlp, relu_squared_mlp, relu_squared_mlp_reference
from tests.support.kernels.errors import assert_close_to_truth

OPS = torch.ops.nanochat


def _arguments(dtype=torch.float32, shape=(3, 21), width=24, inner=96):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, width, generator=generator)
    w_fc = width**-0.5 * torch.randn(inner, width, generator=generator)
    w_proj = inner**-0.5 * torch.randn(width, inner, generator=generator)
    return [tensor.to(dtype).requires_grad_() for tensor in (x, w_fc, w_proj)]


def _run(mlp, arguments):
    leaves = [tensor.detach().requires_grad_() for tensor in arguments]
    out = mlp(*leaves)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape).to(out.dtype))
    return out.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_output_and_all_gradients_are_those_of_float64(dtype):
    arguments = _arguments(dtype)
    truth = _run(relu_squared_mlp_reference, [tensor.double() for tensor in arguments])
    plain, results = _run(relu_squared_mlp_reference, arguments), _run(relu_squared_mlp, arguments)
    for result, reference, exact in zip(results, plain, truth, strict=True):
        assert result.shape == exact.shape
        assert_close_to_truth(result, reference, exact, dtype)


def test_backward_keeps_one_inner_activation_where_plain_pytorch_keeps_two():
    def kept(mlp):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            mlp(*_arguments())
        return sizes.count(3 * 21 * 96)

    assert (kept(relu_squared_mlp), kept(relu_squared_mlp_reference)) == (1, 3)


def test_registration_holds_what_pytorch_expects_of_an_op():
    x, w_fc, w_proj = _arguments(shape=(5,))
    torch.library.opcheck(OPS.relu_squared_mlp.default, (x, w_fc, w_proj))
    a = OPS.relu_squared_mlp(x, w_fc, w_proj)[1]
    arguments = [tensor.detach() for tensor in (x, x, w_fc, w_proj, a)]
    torch.library.opcheck(OPS.relu_squared_mlp_backward.default, arguments)


def test_compiling_breaks_no_graph_and_changes_no_bit():
    compiled = torch.compile(relu_squared_mlp, fullgraph=True, backend="aot_eager")
    eager, traced = _run(relu_squared_mlp, _arguments()), _run(compiled, _arguments())
    assert all(torch.equal(a, b) for a, b in zip(eager, traced, strict=True))


def test_operations_are_counted_as_those_of_plain_pytorch():
    counts = []
    for op in (relu_squared_mlp, relu_squared_mlp_reference):
        with FlopCounterMode(display=False) as counter:
            _run(op, _arguments())
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] == 6 * 2 * 63 * 24 * 96


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"w_fc": torch.zeros(96, 25)}, ValueError, r"w_fc has shape .* expected \(F, C\) = \(any, 24\)"),
        (
            {"w_proj": torch.zeros(24, 95)},
            ValueError,
            r"w_proj has shape .* expected \(C, F\) = \(24, 96\)",
        ),
        ({"x": torch.zeros(5, 24, dtype=torch.int64)}, TypeError, "x is int64; expected float32 or"),
        ({"w_fc": torch.zeros(96, 24).double()}, TypeError, "w_fc is float64; expected float32"),
        ({"w_proj": torch.zeros(96, 24).t()}, ValueError, "w_proj has strides .* expected a contiguous"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(change, error, message):
    arguments = {"x": torch.zeros(5, 24), "w_fc": torch.zeros(96, 24), "w_proj": torch.zeros(24, 96)}
    with pytest.raises(error, match=message):
        relu_squared_mlp(**{**arguments, **change})


def test_a_weight_on_another_device_is_named():
    x, w_fc, w_proj = torch.zeros(5, 24), torch.zeros(96, 24), torch.zeros(24, 96, device="meta")
    with pytest.raises(ValueError, match="w_proj is on meta; expected cpu"):
        mlp(x, w_fc, w_proj)
