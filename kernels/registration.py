"""How an op enters PyTorch: one call with its kernel, shapes, gradient and cost.

Ops live in the namespace `nanochat` and are opaque to the compiler (`torch.library.custom_op`), which the
launch of a Triton kernel needs in order to be traced on a machine without a GPU.

PyTorch makes a tensor's GPU the current one before it runs an op of its own, but not for ops made in Python;
and Triton launches on the current GPU, on its current stream, wherever the tensors are. So here it is done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "nanochat"
FLOPS: dict[Any, Callable[..., int]] = {}
"""What each op costs, for `FlopCounterMode(custom_mapping=FLOPS)`: its own table would import Triton."""


def register(
    name: str,
    kernel: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    flops: Callable[..., int],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Any:
    """Register an op for CUDA and CPU tensors and return it.

    `kernel` has full annotations, from which the schema follows, and returns tensors that share no memory
    with its arguments. `flops` takes shapes, as `torch.utils.flop_counter` hands them over."""
    qualified = f"{NAMESPACE}::{name}"
    schema = torch.library.infer_schema(kernel, mutates_args=())
    torch.library.custom_op(
        qualified, on_its_device(kernel), mutates_args=(), device_types="cuda", schema=schema
    )
    # Kernels that `custom_op` holds itself import the compiler at their first call, which takes seconds: not
    # on a CPU, where a chat or a test should start without delay.
    torch.library.impl(qualified, "cpu", kernel)
    torch.library.register_fake(qualified, fake)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=setup_context)
    op = getattr(getattr(torch.ops, NAMESPACE), name)
    FLOPS[op] = flops
    return op


def on_its_device(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Return a kernel that runs with the GPU of its first argument as the current one."""

    @functools.wraps(kernel)
    def run(first: Tensor, *others: Any) -> Any:
        with torch.cuda.device(first.device):
            return kernel(first, *others)

    return run
