"""The loss of the head on a CPU: numbers against float64, registration, refusals."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from kernels.linear_cross_entropy import cpu as cross_entropy_on_cpu
from kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from kernels.linear_cross_entropy.op import losses, total_with_gradients
from kernels.registration import FLOPS

OPS = torch.ops.nanochat


def _arguments(rows=250, vocab=1000, width=72, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = (2 * torch.randn(rows, width, generator=generator)).to(dtype).requires_grad_()
    weight = (0.5 * torch.randn(vocab, width, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    targets[::7] = -1
    return hidden, weight, targets


def _loss_and_gradients(loss_function, hidden, weight, targets, **options):
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    loss = loss_function(hidden, weight, targets, **options)
    # A different factor for each token shows that its own gradient is scaled, not the sum's.
    (loss * torch.linspace(1, 2, loss.numel()).reshape(loss.shape)).sum().backward()
    return loss.detach(), hidden.grad, weight.grad


def _error(result, truth):
    return float((result.double() - truth).norm() / truth.norm().clamp(min=1e-30))


@pytest.fixture
def small_chunks(monkeypatch):
    """Several chunks and blocks, the last ones ragged, at sizes that take no time."""
    monkeypatch.setattr(cross_entropy_on_cpu, "_BLOCK_ELEMENTS", 7000)
    monkeypatch.setattr("kernels.linear_cross_entropy.op.chunk_rows_on_cpu", lambda n_columns: 48)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("softcap", [15.0, None])
@pytest.mark.parametrize("rows", [1, 63, 250])
def test_float32_agrees_with_float64(rows, softcap, reduction):
    arguments = _arguments(rows)
    options = {"softcap": softcap, "reduction": reduction, "valid_vocab": 999}
    arguments[2].clamp_(max=998)
    doubles = (arguments[0].double(), arguments[1].double(), arguments[2])
    truth = _loss_and_gradients(linear_cross_entropy_reference, *doubles, **options)
    found = _loss_and_gradients(linear_cross_entropy, *arguments, **options)
    # Float32 products of 72 terms and a sum of 1,000 exponentials, whose exponents are rounded at 1e-7 * |z|.
    for value, exact in zip(found, truth, strict=True):
        assert _error(value, exact) < 2e-6
    assert found[2][999].abs().max() == 0


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_half_precision_is_no_worse_than_twice_plain_pytorch_in_the_same_dtype(dtype, reduction):
    arguments = _arguments(dtype=dtype)
    doubles = (arguments[0].double(), arguments[1].double(), arguments[2])
    truth = _loss_and_gradients(linear_cross_entropy_reference, *doubles, reduction=reduction)
    plain = _loss_and_gradients(linear_cross_entropy_reference, *arguments, reduction=reduction)
    found = _loss_and_gradients(linear_cross_entropy, *arguments, reduction=reduction)
    for value, reference, exact in zip(found, plain, truth, strict=True):
        assert _error(value, exact) <= 2 * _error(reference, exact)
    assert found[1].dtype == found[2].dtype == dtype


def test_a_float32_weight_beside_bfloat16_activations_gets_a_float32_gradient():
    hidden, weight, targets = _arguments()
    found = _loss_and_gradients(linear_cross_entropy, hidden.bfloat16(), weight, targets)
    truth = _loss_and_gradients(linear_cross_entropy_reference, hidden.double(), weight.double(), targets)
    assert found[1].dtype == torch.bfloat16 and found[2].dtype == torch.float32
    assert _error(found[2], truth[2]) < 1e-2  # two bfloat16 factors, 4e-3 each


def test_all_targets_ignored_is_zero_with_zero_gradients():
    hidden, weight, targets = _arguments()
    for reduction in ("mean", "sum", "none"):
        loss, d_hidden, d_weight = _loss_and_gradients(
            linear_cross_entropy, hidden, weight, torch.full_like(targets, -1), reduction=reduction
        )
        assert loss.abs().sum() == d_hidden.abs().sum() == d_weight.abs().sum() == 0


def test_no_tokens_at_all_is_zero():
    hidden, weight, targets = _arguments()
    loss, _, d_weight = _loss_and_gradients(linear_cross_entropy, hidden[:0], weight, targets[:0])
    assert loss == 0 and d_weight.abs().sum() == 0


@pytest.mark.skipif(not hasattr(F, "linear_cross_entropy"), reason="this PyTorch has none")
def test_losses_agree_with_torchs_own_fused_loss_in_float64():
    hidden, weight, targets = _arguments()
    with torch.no_grad():
        truth = F.linear_cross_entropy(hidden.double(), weight.double(), targets, ignore_index=-1)
        loss = linear_cross_entropy(hidden, weight, targets, softcap=None)
    assert _error(loss, truth) < 1e-6


def test_evaluation_and_training_give_the_same_loss():
    hidden, weight, targets = _arguments()
    with torch.no_grad():
        evaluated = linear_cross_entropy(hidden, weight, targets)
    assert evaluated == linear_cross_entropy(hidden, weight, targets).detach()


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)), 0)
        return out


def test_only_one_chunk_of_logits_is_ever_held(monkeypatch):
    monkeypatch.setattr("kernels.linear_cross_entropy.op.chunk_rows_on_cpu", lambda n_columns: 64)
    monkeypatch.setattr(cross_entropy_on_cpu, "chunk_rows_on_cpu", lambda n_columns: 64)
    arguments = [tensor.detach() for tensor in _arguments(rows=1000, width=32)]
    for run in (total_with_gradients, losses):
        with torch.no_grad(), _Largest() as seen:
            run(*arguments, 15.0, -1, 1000)
        assert seen.numel == 64 * 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration_holds_what_pytorch_expects_of_an_op(dtype):
    hidden, weight, targets = _arguments(rows=9, vocab=33, width=8, dtype=dtype)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    for softcap in (15.0, None):
        arguments = (hidden, weight, targets, softcap, -1, 33)
        torch.library.opcheck(OPS.linear_cross_entropy.default, arguments, test_utils=checks)
        torch.library.opcheck(OPS.linear_cross_entropy_total.default, arguments, test_utils=checks)
        upstream = torch.ones(9)
        torch.library.opcheck(
            OPS.linear_cross_entropy_backward.default,
            (upstream, hidden.detach(), weight.detach(), targets, softcap, -1, 33),
        )


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiling_breaks_no_graph_and_changes_no_bit(reduction):
    arguments = _arguments(rows=63)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    eager = _loss_and_gradients(linear_cross_entropy, *arguments, reduction=reduction)
    traced = _loss_and_gradients(compiled, *arguments, reduction=reduction)
    assert all(torch.equal(a, b) for a, b in zip(eager, traced, strict=True))


def test_operations_are_counted():
    hidden, weight, targets = _arguments()
    product = 2 * 250 * 1000 * 72
    for reduction, forward in (("mean", 3), ("none", 1)):
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            loss = linear_cross_entropy(hidden, weight, targets, reduction=reduction)
        assert counter.get_total_flops() == forward * product
        with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
            loss.sum().backward()
        assert counter.get_total_flops() == (0 if reduction == "mean" else 3) * product


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"hidden": torch.zeros(2, 3, 8)}, ValueError, r"hidden has shape \(2, 3, 8\); expected \(N, C\)"),
        (
            {"weight": torch.zeros(33, 9)},
            ValueError,
            r"weight has shape .* expected \(rows, C\) = \(any, 8\)",
        ),
        ({"targets": torch.zeros(4, dtype=torch.int64)}, ValueError, r"targets has shape \(4,\)"),
        (
            {"hidden": torch.zeros(5, 8, dtype=torch.float64)},
            TypeError,
            "hidden is float64; expected float32 or",
        ),
        (
            {"weight": torch.zeros(33, 8, dtype=torch.float16)},
            TypeError,
            "weight is float16; expected float32",
        ),
        ({"targets": torch.zeros(5)}, TypeError, "targets is float32; expected int64 or int32"),
        (
            {"weight": torch.zeros(8, 33).t()},
            ValueError,
            "weight has strides .* expected a contiguous tensor",
        ),
        ({"targets": torch.full((5,), 33)}, ValueError, "targets hold ids .* expected 0 to 32 or -1"),
        ({"targets": torch.full((5,), -2)}, ValueError, "targets hold ids"),
        ({"valid_vocab": 34}, ValueError, "valid_vocab is 34; expected 1 to 33"),
        ({"softcap": 0.0}, ValueError, "softcap is 0.0; expected None or"),
        ({"reduction": "max"}, ValueError, "reduction is 'max'; expected 'none', 'mean' or 'sum'"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(change, error, message):
    arguments = {"hidden": torch.zeros(5, 8), "weight": torch.zeros(33, 8), "targets": torch.zeros(5).long()}
    with pytest.raises(error, match=message):
        linear_cross_entropy(**{**arguments, **change})


def test_a_weight_on_another_device_is_named():
    weight = torch.zeros(33, 8, device="meta")
    with pytest.raises(ValueError, match="weight is on meta; expected cpu"):
        losses(torch.zeros(5, 8), weight, torch.zeros(5).long(), 15.0, -1, 33)
