"""The loss kernels against float64: odd sizes, dtypes, ignored targets, padded rows, poisoned outputs."""

from __future__ import annotations

import pytest
import torch

from kernels import configs
from kernels.linear_cross_entropy import gpu, linear_cross_entropy_reference
from kernels.linear_cross_entropy import op as module
from kernels.linear_cross_entropy.cpu import Head
from tests.support.kernels.errors import assert_close_to_truth, relative_error
from tests.support.kernels.guards import guarded, intact, poisoned_allocations, shuffled

HALF, FLOAT = torch.bfloat16, torch.float32
CASES = [  # tokens, rows of the weight, words among them, width
    (1, 63, 63, 8),
    (63, 3, 2, 64),
    (63, 127, 120, 72),
    (127, 250, 250, 80),
    (250, 40, 33, 24),
    (31, 1000, 993, 128),
    (70, 256, 256, 64),  # in bfloat16 with a cap: rows held in registers
]
HELD = CASES[-1]
KINDS = [(FLOAT, 15.0), (FLOAT, None), (HALF, 15.0), (HALF, None), (torch.float16, 15.0)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles, the last ones ragged, also at these sizes; several chunks of tokens."""
    for bits in (16, 32):
        for arch in (80, 90):
            rows = configs.Row(arch, "cross_entropy_rows", "any", bits)
            losses = configs.Row(arch, "cross_entropy_losses", "any", bits)
            monkeypatch.setitem(configs.TABLE, rows, configs.KernelConfig(4, 1, {"BLOCK": 256, "HELD": 0}))
            tiles = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64, "FLAT": 1}
            monkeypatch.setitem(configs.TABLE, losses, configs.KernelConfig(4, 1, tiles))
    held = configs.Row(90, "cross_entropy_rows", "columns=256", 16)
    monkeypatch.setitem(configs.TABLE, held, configs.KernelConfig(4, 1, {"BLOCK": 256, "HELD": 1}))
    monkeypatch.setattr(configs, "HELD_ROWS", {held.shape})
    monkeypatch.setattr(module, "_chunk_rows", lambda hidden, n_columns: 50)


def _case(shape, dtype, ignored=True):
    n_rows, n_columns, valid, width = shape
    generator = torch.Generator().manual_seed(n_rows + n_columns)
    hidden = torch.randn(n_rows, width, generator=generator).to(dtype)
    weight = (2 * width**-0.5 * torch.randn(n_columns, width, generator=generator)).to(dtype)
    targets = torch.randint(0, valid, (n_rows,), generator=generator)
    if ignored:
        targets[::5] = -1
    return guarded(hidden), guarded(weight), guarded(targets)


def _reference(hidden, weight, targets, upstream, head):
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    losses = linear_cross_entropy_reference(
        hidden, weight, targets, softcap=head.softcap, reduction="none", valid_vocab=head.valid
    )
    (losses * upstream).sum().backward()
    return losses.detach(), hidden.grad, weight.grad


def _compare(results, case, upstream, head):
    hidden, weight, targets = case
    truth = _reference(hidden.double(), weight.double(), targets, upstream.double(), head)
    plain = _reference(hidden, weight, targets, upstream, head)
    for result, reference, exact in zip(results, plain, truth, strict=False):
        assert_close_to_truth(result.to(reference.dtype), reference, exact, hidden.dtype)


@pytest.mark.parametrize(("dtype", "softcap"), KINDS, ids=str)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_losses_and_both_gradients_are_those_of_float64(shape, softcap, dtype):
    hidden, weight, targets = case = _case(shape, dtype)
    head = Head(softcap, -1, shape[2])
    upstream = guarded(torch.linspace(-1, 2, shape[0]))
    with poisoned_allocations() as made:
        results = module._gradients(hidden, weight, targets, upstream, head, gpu.launch_rows)
    assert all(intact(tensor) for tensor in (*made, hidden, weight, targets, upstream))
    assert results[2].dtype == torch.float32
    _compare(results, case, upstream, head)
    assert results[2][head.valid :].abs().sum() == 0


@pytest.mark.parametrize(("dtype", "softcap"), KINDS, ids=str)
@pytest.mark.parametrize("shape", CASES, ids=str)
def test_losses_without_logits_are_those_of_float64(shape, softcap, dtype):
    hidden, weight, targets = _case(shape, dtype)
    head = Head(softcap, -1, shape[2])
    with poisoned_allocations() as made:
        losses = gpu.launch_losses(hidden, weight, targets, head)
    assert all(intact(tensor) for tensor in (*made, hidden, weight, targets))
    truth = linear_cross_entropy_reference(
        hidden.double(), weight.double(), targets, softcap=softcap, reduction="none", valid_vocab=head.valid
    )
    # Logits stay in float32, so that the inputs' dtype does not matter: their rounding is in the truth too.
    assert (
        relative_error(losses, truth) <= 1e-6 or (losses - truth).abs().max() <= 4e-6
    )  # a few ulp of a logit


def test_no_result_depends_on_the_order_of_programs():
    hidden, weight, targets = _case((63, 250, 250, 64), HALF)
    head, upstream = Head(15.0, -1, 250), torch.ones(63)
    ordered = module._gradients(hidden, weight, targets, upstream, head, gpu.launch_rows)
    losses = gpu.launch_losses(hidden, weight, targets, head)
    with shuffled(1):
        again = module._gradients(hidden, weight, targets, upstream, head, gpu.launch_rows)
        assert torch.equal(losses, gpu.launch_losses(hidden, weight, targets, head))
    assert all(torch.equal(a, b) for a, b in zip(ordered, again, strict=True))


@pytest.mark.parametrize(("shape", "softcap"), [(HELD, 15.0), ((63, 127, 127, 64), None)])
def test_all_targets_ignored_is_zero_with_zero_gradients(shape, softcap):
    hidden, weight, targets = _case(shape, HALF)
    targets.fill_(-1)
    head = Head(softcap, -1, shape[2])
    results = module._gradients(hidden, weight, targets, torch.ones(shape[0]), head, gpu.launch_rows)
    assert all(result.abs().sum() == 0 for result in results)
    assert gpu.launch_losses(hidden, weight, targets, head).abs().sum() == 0


def test_a_held_row_has_the_gradient_of_a_target_that_is_nearly_certain():
    """It is 1e-4, a difference from 1 of a number that is held with an error of 2e-3."""
    logits = torch.full((3, 256), -8.0, dtype=HALF)
    targets = torch.tensor([0, 129, 255])
    logits[torch.arange(3), targets] = 8.0
    exact = logits.double().requires_grad_()
    capped = 15.0 * torch.tanh(exact / 15.0)
    torch.nn.functional.cross_entropy(capped, targets, reduction="sum").backward()
    gpu.launch_rows(logits, targets, torch.ones(3), torch.empty(3), Head(15.0, -1, 256))
    # An ulp of a float32 logit of 7 is 4e-3 of it, a rounding to bfloat16 2e-3.
    assert relative_error(logits, exact.grad) <= 1e-2


def test_a_single_word_is_certain():
    hidden, weight, targets = _case((31, 1, 1, 64), FLOAT)
    results = module._gradients(hidden, weight, targets, torch.ones(31), Head(15.0, -1, 1), gpu.launch_rows)
    assert all(
        result.abs().max() < 1e-5 for result in results
    )  # logits of up to 15 cancel: a few of their ulp


@pytest.mark.parametrize(
    ("shape", "dtype", "wrong"),
    [*(((63, 127, 120, 64), FLOAT, wrong) for wrong in (-2, 120, 126, 10**6)), (HELD, HALF, 256)],
)
def test_a_target_that_is_no_word_gives_nan(shape, dtype, wrong):
    hidden, weight, targets = _case(shape, dtype)
    targets[17] = wrong
    head = Head(15.0, -1, shape[2])
    results = module._gradients(hidden, weight, targets, torch.ones(shape[0]), head, gpu.launch_rows)
    for losses in (results[0], gpu.launch_losses(hidden, weight, targets, head)):
        assert losses.isnan().nonzero().tolist() == [[17]]


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2")  # to infinity, of which the cap is right
@pytest.mark.parametrize("softcap", [15.0, None])
def test_logits_far_beyond_the_cap_stay_finite(softcap):
    hidden, weight, targets = _case((63, 127, 127, 64), FLOAT)
    hidden *= 1000
    head = Head(softcap, -1, 127)
    results = module._gradients(hidden, weight, targets, torch.ones(63), head, gpu.launch_rows)
    assert all(result.isfinite().all() for result in results)
    assert torch.allclose(results[0], gpu.launch_losses(hidden, weight, targets, head), rtol=1e-5)


def test_a_width_that_tma_cannot_load_is_named():
    hidden, weight, targets = _case((63, 127, 127, 20), HALF)
    with pytest.raises(ValueError, match="hidden's width C is 20; on a GPU it must be a multiple of 8"):
        gpu.launch_losses(hidden, weight, targets, Head(15.0, -1, 127))
