"""Rotary position and RMS norm of queries or keys, in one pass over memory each way.

    r = (x1 cos + x2 sin, x2 cos - x1 sin)        halves x1, x2 of the head; rotation by minus theta
    y = r / sqrt(mean(r^2) + eps)
    dr = (dy - n mean(dy n)) / sqrt(mean(r^2) + eps),  n = y;  dx = dr rotated back

Shapes: x (B, T, H, D), cos and sin (1 or B, T, 1, D / 2). Dtypes: float32, bfloat16 or float16 for x, the
tables float32; computed in float32, the result in the dtype of x. Only x is kept for backward. Numbers are
upstream nanochat's of October 2025, where the norm follows the rotation.

Why it stays: inductor's scheduler for a GPU (torch 2.13, run on fake tensors) makes this one kernel of 3.1
passes over x forward, since it also writes r for backward, and two kernels of 5.1 passes backward. Here they
are 2.1 and 3.1: read x, write y; read dy and x, write dx; the rest is the tables. At d20's shapes a pass is
168 MB, so that 3 passes of q and k in 20 layers are 20 GB or 6 ms a step less, and r is not kept (0.34 GB a
layer).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import checks
from kernels.registration import register

_OP = "qk_norm_rotary"
# What `F.rms_norm` takes on float32 when none is given; pinned so that a torch release cannot change it.
RMS_EPS = 1.1920929e-07


def qk_norm_rotary_reference(x: Tensor, cos: Tensor, sin: Tensor, eps: float = RMS_EPS) -> Tensor:
    """Compute it with plain operations: the truth that the fast paths are tested against."""
    return F.rms_norm(rotate(x, cos.to(x.dtype), sin.to(x.dtype)), (x.size(-1),), eps=eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the halves of x (B, T, H, D) against each other, by minus theta."""
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


def launch_forward(x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return y on a GPU."""
    from kernels.qk_norm_rotary import gpu  # brings Triton

    return gpu.launch_forward(x, cos, sin, eps)


def launch_backward(dy: Tensor, x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return dx on a GPU."""
    from kernels.qk_norm_rotary import gpu  # brings Triton

    return gpu.launch_backward(dy, x, cos, sin, eps)


def forward_on_cpu(x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return y."""
    return qk_norm_rotary_reference(x.float(), cos, sin, eps).to(x.dtype)


def backward_on_cpu(dy: Tensor, x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return dx."""
    r, d = rotate(x.float(), cos, sin), dy.float()
    scale = r.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()
    n = r.mul_(scale)
    dr = torch.sub(d, n * (d * n).mean(dim=-1, keepdim=True)).mul_(scale)
    return rotate(dr, cos, -sin).to(x.dtype)


def _checked(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    checks.check_shape(_OP, "x", x, (None, None, None, None), "(B, T, H, D)")
    rows, length, _, head_dim = x.shape
    for name, table in (("cos", cos), ("sin", sin)):
        allowed = (1 if table.dim() and table.size(0) == 1 else rows, length, 1, head_dim // 2)
        checks.check_shape(_OP, name, table, allowed, "(1 or B, T, 1, D / 2)")
        checks.check_dtype(_OP, name, table, (torch.float32,))
    checks.check_shape(_OP, "sin", sin, tuple(cos.shape), "the shape of cos")
    checks.check_dtype(_OP, "x", x, checks.FLOATS)
    checks.check_contiguous(_OP, x=x)
    checks.check_device(_OP, x.device, cos=cos, sin=sin)


def forward(x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return y (B, T, H, D)."""
    _checked(x, cos, sin)
    run = forward_on_cpu if x.is_cpu else launch_forward
    return run(x, cos.contiguous(), sin.contiguous(), eps)


def backward(dy: Tensor, x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return the gradient of x."""
    run = backward_on_cpu if x.is_cpu else launch_backward
    return run(dy.contiguous(), x, cos.contiguous(), sin.contiguous(), eps)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return _qk_norm_rotary_backward(dy, *ctx.saved_tensors, ctx.eps), None, None, None


_qk_norm_rotary = register(
    _OP,
    forward,
    fake=lambda x, *_: torch.empty_like(x),
    flops=lambda *_, **__: 0,  # as PyTorch counts: products only
    backward=_differentiate,
    setup_context=_save,
)
_qk_norm_rotary_backward = register(
    f"{_OP}_backward",
    backward,
    fake=lambda dy, x, *_: torch.empty_like(x),
    flops=lambda *_, **__: 0,
)


def qk_norm_rotary(x: Tensor, cos: Tensor, sin: Tensor, *, eps: float = RMS_EPS) -> Tensor:
    """Rotate x (B, T, H, D) by the tables, then scale each head to unit root mean square.

    The tables are (1 or B, T, 1, D / 2); on a GPU D is a power of two. Differentiable once, in x.
    """
    if x.is_cpu and not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        return forward(x, cos, sin, eps)  # for a few tokens, passing through an op takes longer than the work
    y: Tensor = _qk_norm_rotary(x, cos, sin, eps)
    return y
