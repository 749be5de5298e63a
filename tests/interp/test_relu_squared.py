"""The MLP's two fused products against float64."""

from __future__ import annotations

import pytest
import torch

from kernels import configs
from kernels.relu_squared import op as relu_squared
from kernels.relu_squared import relu_squared_mlp_reference
from tests.support.kernels.errors import assert_close_to_truth
from tests.support.kernels.guards import guarded, intact, poisoned_allocations, shuffled

CASES = [(1, 8, 8), (63, 72, 64), (127, 64, 256), (250, 120, 200), (1000, 64, 40)]  # tokens, C, F
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles in each direction and for each program, the last ones ragged; several bands of rows."""
    _use_small_tiles(monkeypatch, parts=2, persistent=1)


def _use_small_tiles(monkeypatch, parts, persistent):
    tiles = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}
    of_up = {"PARTS": parts, "PERSISTENT": persistent}
    for row in list(configs.TABLE):
        if row.kernel.startswith("relu_squared"):
            own = {**tiles, **of_up} if row.kernel == "relu_squared_up" else tiles
            monkeypatch.setitem(configs.TABLE, row, configs.KernelConfig(4, 1, own))


@pytest.fixture(autouse=True)
def kernels_on_a_cpu(monkeypatch):
    """Let the op take its launch wrappers, which the interpreter runs."""
    monkeypatch.setattr(relu_squared, "up_on_cpu", relu_squared.launch_up)
    monkeypatch.setattr(relu_squared, "down_on_cpu", relu_squared.launch_down)


def _case(shape, dtype):
    n_rows, width, inner = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(n_rows, width, generator=generator)
    w_fc = width**-0.5 * torch.randn(inner, width, generator=generator)
    w_proj = inner**-0.5 * torch.randn(width, inner, generator=generator)
    dout = torch.randn(n_rows, width, generator=generator)
    return [guarded(tensor.to(dtype)) for tensor in (x, w_fc, w_proj, dout)]


def _run(x, w_fc, w_proj, dout):
    out, a = relu_squared.mlp(x, w_fc, w_proj)
    return out, *relu_squared.mlp_backward(dout, x, w_fc, w_proj, a)


def _reference(x, w_fc, w_proj, dout):
    leaves = [tensor.detach().requires_grad_() for tensor in (x, w_fc, w_proj)]
    out = relu_squared_mlp_reference(*leaves)
    out.backward(dout)
    return out.detach(), *(leaf.grad for leaf in leaves)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_output_and_all_gradients_are_those_of_float64(shape, dtype):
    case = _case(shape, dtype)
    with poisoned_allocations() as made:
        results = _run(*case)
    assert len(made) == 2 and all(intact(tensor) for tensor in (*made, *case))
    truth, plain = _reference(*(tensor.double() for tensor in case)), _reference(*case)
    for result, reference, exact in zip(results, plain, truth, strict=True):
        assert_close_to_truth(result, reference, exact, dtype)


def test_no_result_depends_on_the_order_of_programs():
    case = _case((1000, 64, 200), torch.bfloat16)
    ordered = _run(*case)
    with shuffled(2):
        again = _run(*case)
    assert all(torch.equal(a, b) for a, b in zip(ordered, again, strict=True))


@pytest.mark.parametrize(("parts", "persistent"), [(1, 0), (2, 2)])
def test_sharing_the_tiles_out_in_another_way_changes_no_bit(parts, persistent, monkeypatch):
    case = _case((127, 64, 256), torch.bfloat16)
    before = _run(*case)
    _use_small_tiles(monkeypatch, parts, persistent)
    assert all(torch.equal(a, b) for a, b in zip(before, _run(*case), strict=True))


def test_float32_weights_beside_bfloat16_activations_get_float32_gradients():
    x, w_fc, w_proj, dout = _case((63, 72, 64), torch.float32)
    results = _run(x.bfloat16(), w_fc, w_proj, dout.bfloat16())
    assert [result.dtype for result in results] == [torch.bfloat16] * 2 + [torch.float32] * 2


@pytest.mark.parametrize(
    ("width", "inner", "name"), [(20, 64, "x's width C is 20"), (64, 20, "w_fc's rows F is 20")]
)
def test_a_size_that_tma_cannot_load_is_named(width, inner, name):
    x, w_fc, w_proj, _ = _case((63, width, inner), torch.bfloat16)
    with pytest.raises(ValueError, match=name):
        relu_squared.mlp(x, w_fc, w_proj)
