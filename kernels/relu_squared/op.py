"""The MLP of a block: two products around a squared relu, which is fused into the products beside it.

    a   = relu(x @ w_fc.T)^2              forward, one kernel; only `a` is kept
    out = a @ w_proj.T
    dh  = (dout @ w_proj) * 2 sqrt(a)     backward, one kernel: the slope of relu^2 is 2 relu = 2 sqrt(a)
    dw_proj = dout.T @ a,  dx = dh @ w_fc,  dw_fc = dh.T @ x

Shapes: x (..., C), w_fc (F, C), w_proj (C, F). Dtypes: x float32, bfloat16 or float16; weights the same or
float32, in which their gradients are returned. Products without a fused part are cuBLAS's.

Why it stays: a compiler fuses the elementwise part into one kernel of its own but not into a product (counted
by inductor's own metrics, torch 2.13): per layer it writes h, reads h and writes a (forward), writes da,
reads da and h and writes dh (backward). Here forward writes a, backward reads a and writes dh: three of those
seven passes over (N, F) numbers. At d20's shapes (N = 65,536, F = 5,120, bfloat16) a pass is 671 MB, 0.20 ms
at 3.35 TB/s: 16 ms less in the 20 layers of a step, and half the memory kept for backward (0.67 GB less a
layer). The gain is lost if the two fused products run at less than 73 % of cuBLAS's speed. `python -m
kernels.roofline` has the counts.

Keeping only `a` is from the modded-nanogpt speed runs. In float16 `a` underflows where h < 2.4e-4: its slope,
below 5e-4, is then taken as 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import checks
from kernels.products import product
from kernels.registration import register

_OP = "relu_squared_mlp"


def relu_squared_mlp_reference(x: Tensor, w_fc: Tensor, w_proj: Tensor) -> Tensor:
    """Compute the MLP with plain operations: the truth that the fast paths are tested against."""
    return F.linear(F.relu(F.linear(x, w_fc.to(x.dtype))).square(), w_proj.to(x.dtype))


def launch_up(x: Tensor, w_fc: Tensor) -> Tensor:
    """Return relu(x @ w_fc.T)^2, (N, F), on a GPU."""
    from kernels.relu_squared import gpu  # brings Triton

    return gpu.launch_up(x, w_fc)


def launch_down(dout: Tensor, w_proj: Tensor, a: Tensor) -> Tensor:
    """Return (dout @ w_proj) * 2 sqrt(a), (N, F), on a GPU."""
    from kernels.relu_squared import gpu  # brings Triton

    return gpu.launch_down(dout, w_proj, a)


def up_on_cpu(x: Tensor, w_fc: Tensor) -> Tensor:
    """Return relu(x @ w_fc.T)^2, (N, F)."""
    return (x @ w_fc.t()).relu_().square_()


def down_on_cpu(dout: Tensor, w_proj: Tensor, a: Tensor) -> Tensor:
    """Return (dout @ w_proj) * 2 sqrt(a), (N, F)."""
    return (dout @ w_proj).mul_(a.sqrt().mul_(2.0))


def _checked(x: Tensor, w_fc: Tensor, w_proj: Tensor) -> None:
    checks.check_shape(_OP, "x", x, (None, None), "(N, C)")
    checks.check_shape(_OP, "w_fc", w_fc, (None, x.size(1)), "(F, C)")
    checks.check_shape(_OP, "w_proj", w_proj, (x.size(1), w_fc.size(0)), "(C, F)")
    checks.check_dtype(_OP, "x", x, checks.FLOATS)
    for name, weight in (("w_fc", w_fc), ("w_proj", w_proj)):
        checks.check_dtype(_OP, name, weight, (x.dtype, torch.float32))
    checks.check_contiguous(_OP, x=x, w_fc=w_fc, w_proj=w_proj)
    checks.check_device(_OP, x.device, w_fc=w_fc, w_proj=w_proj)


def mlp(x: Tensor, w_fc: Tensor, w_proj: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output (N, C) and the inner activations a (N, F)."""
    _checked(x, w_fc, w_proj)
    a = (up_on_cpu if x.is_cpu else launch_up)(x, w_fc.to(x.dtype))
    return a @ w_proj.to(x.dtype).t(), a


def mlp_backward(
    dout: Tensor, x: Tensor, w_fc: Tensor, w_proj: Tensor, a: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, w_fc and w_proj."""
    dout = dout.contiguous()
    dh = (down_on_cpu if x.is_cpu else launch_down)(dout, w_proj.to(x.dtype), a)
    dx = dh @ w_fc.to(x.dtype)
    return dx, product(dh.t(), x, w_fc.dtype), product(dout.t(), a, w_proj.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for what has no gradient
    ctx.save_for_backward(*inputs, output[1])


def _differentiate(ctx: Any, dout: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = _mlp_backward(dout, *ctx.saved_tensors)
    return gradients


def _forward_flops(x: Any, w_fc: Any, *_: Any, **__: Any) -> int:
    flops: int = 4 * x[0] * x[1] * w_fc[0]
    return flops


_mlp = register(
    _OP,
    mlp,
    fake=lambda x, w_fc, w_proj: (torch.empty_like(x), x.new_empty(x.size(0), w_fc.size(0))),
    flops=_forward_flops,
    backward=_differentiate,
    setup_context=_save,
)
_mlp_backward = register(
    f"{_OP}_backward",
    mlp_backward,
    fake=lambda dout, *rest: tuple(torch.empty_like(tensor) for tensor in rest[:3]),
    flops=lambda dout, x, w_fc, *_, **__: 2 * _forward_flops(x, w_fc),
)


def relu_squared_mlp(x: Tensor, w_fc: Tensor, w_proj: Tensor) -> Tensor:
    """Map x (..., C) through relu(x @ w_fc.T)^2 @ w_proj.T; differentiable once, in all three."""
    out: Tensor = _mlp(x.reshape(-1, x.size(-1)), w_fc, w_proj)[0]
    return out.view(x.shape)
