"""Gradients of float32 weights from products of 16-bit numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.products import linear, product


class Made(TorchDispatchMode):
    """Notes each operation that makes a float32 matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float32:
            self.names.append(str(func))
        return made


def leaves(*shapes: tuple[int, ...], device: str = "cpu") -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw).to(device).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shape", [(3, 7, 24), (5, 24)])
def test_on_a_cpu_it_has_the_bits_of_autocast(shape: tuple[int, ...]) -> None:
    x, weight = leaves(shape, (17, 24))
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.linear(x, weight)
    upstream = torch.randn_like(expected)
    expected.backward(upstream)
    expected_grads, x.grad, weight.grad = (x.grad, weight.grad), None, None
    out = linear(x.bfloat16(), weight)
    out.backward(upstream)
    assert torch.equal(out, expected)
    assert torch.equal(x.grad, expected_grads[0]) and torch.equal(weight.grad, expected_grads[1])
    assert weight.grad.dtype == torch.float32


def test_on_a_gpu_the_product_itself_writes_the_weights_gradient() -> None:
    weight = torch.empty(16, 24, device="meta").requires_grad_()
    out = linear(torch.empty(4, 8, 24, dtype=torch.bfloat16, device="meta"), weight)
    with Made() as made:
        out.backward(torch.empty_like(out))
    assert made.names[0] == "aten.mm.dtype" and weight.grad.shape == (16, 24)
    assert not any("copy" in name for name in made.names)


def test_a_weight_that_is_not_trained_gets_no_gradient() -> None:
    x, weight = leaves((5, 24), (17, 24))
    linear(x.bfloat16(), weight.detach()).sum().backward()
    assert x.grad is not None and weight.grad is None


def test_a_product_has_the_dtype_that_is_asked_for() -> None:
    left, right = (x.detach().bfloat16() for x in leaves((5, 24), (24, 6)))
    assert torch.equal(product(left, right, torch.float32), (left @ right).float())
    assert product(left, right, torch.bfloat16).dtype == torch.bfloat16
