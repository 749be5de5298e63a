"""Other people's fused losses, Liger's and Apple's, in the same interpreter: three kernels, one number.

They show that the interpreter computes what kernels tested on GPUs mean, and that ours means the same.
"""

from __future__ import annotations

import pytest
import torch

from kernels.linear_cross_entropy import gpu, linear_cross_entropy_reference
from kernels.linear_cross_entropy import op as module
from kernels.linear_cross_entropy.cpu import Head
from tests.support.kernels.errors import relative_error
from tests.support.kernels.fake_driver import dry_run  # both ask for a driver, and none of it

N, V, C, CAP = 96, 320, 64, 15.0


def _case(dtype):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, C, generator=generator).to(dtype).requires_grad_()
    weight = (0.3 * torch.randn(V, C, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(0, V, (N,), generator=generator)
    targets[::5] = -1
    return hidden, weight, targets


def _ours(hidden, weight, targets):
    upstream = (targets != -1) / (targets != -1).sum()
    arguments = (hidden.detach(), weight.detach(), targets, upstream, Head(CAP, -1, V), gpu.launch_rows)
    losses, d_hidden, d_weight = module._gradients(*arguments)
    return (losses * upstream).sum(), d_hidden, d_weight


def _truth(hidden, weight, targets):
    hidden, weight = (tensor.detach().double().requires_grad_() for tensor in (hidden, weight))
    loss = linear_cross_entropy_reference(hidden, weight, targets, softcap=CAP)
    loss.backward()
    return loss.detach(), hidden.grad, weight.grad


def _compare(theirs, case, tolerance):
    for other, own, exact in zip(theirs, _ours(*case), _truth(*case), strict=True):
        assert relative_error(other, exact) <= tolerance
        assert relative_error(own, exact) <= tolerance


def test_ligers_fused_loss_gives_the_same_loss_and_gradients():
    liger = pytest.importorskip("liger_kernel.ops.fused_linear_cross_entropy")
    hidden, weight, targets = case = _case(torch.float32)
    with dry_run():
        apply = liger.LigerFusedLinearCrossEntropyFunction.apply
        loss = apply(hidden, weight, targets, None, None, -1, 0.0, 0.0, "mean", CAP)[0]
        loss.backward()
    _compare((loss.detach(), hidden.grad, weight.grad), case, 2e-6)  # float32 sums of some hundred terms


def test_apples_cut_cross_entropy_gives_the_same_loss_and_gradients():
    cce = pytest.importorskip("cut_cross_entropy")
    hidden, weight, targets = case = _case(torch.bfloat16)  # float32 it takes forward only
    with dry_run(), torch.compiler.set_stance("force_eager"):  # small parts are compiled for a device
        options = {"ignore_index": -1, "softcap": CAP, "filter_eps": None}  # None: no gradient left out
        loss = cce.linear_cross_entropy(hidden, weight, targets, **options)
        loss.backward()
    _compare((loss.detach(), hidden.grad, weight.grad), case, 1e-2)  # bfloat16 gradients, 4e-3 a rounding
