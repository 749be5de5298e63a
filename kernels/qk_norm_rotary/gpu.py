"""The Triton kernels of `qk_norm_rotary` and their launches. The formulas are in `op`."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import configs
from kernels.language import jit, tl, triton

_OP = "qk_norm_rotary"


@jit
def _load_rotated(
    X: tl.tensor,
    COS: tl.tensor,
    SIN: tl.tensor,
    n_rows: tl.tensor,
    heads: tl.tensor,
    length: tl.tensor,
    table_stride: tl.tensor,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
) -> tl.tensor:
    """Return offsets and mask of the first halves, cos, sin, both rotated halves; each (ROWS, HALF)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, HALF)[None, :]
    mask = (rows < n_rows) & (columns < HALF)
    at = rows.to(tl.int64) * (2 * HALF) + columns
    token = rows // heads  # of 32 bits: a division of 64 is a subroutine
    table = token // length * table_stride + token % length * HALF + columns
    cos, sin = tl.load(COS + table, mask, 0.0), tl.load(SIN + table, mask, 0.0)
    x1 = tl.load(X + at, mask, 0.0).to(tl.float32)
    x2 = tl.load(X + at + HALF, mask, 0.0).to(tl.float32)
    return at, mask, cos, sin, x1 * cos + x2 * sin, x2 * cos - x1 * sin


@jit
def _qk_norm_rotary_forward_kernel(
    X: tl.tensor,
    COS: tl.tensor,
    SIN: tl.tensor,
    Y: tl.tensor,
    n_rows: tl.tensor,
    heads: tl.tensor,
    length: tl.tensor,
    table_stride: tl.tensor,
    eps: tl.tensor,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """Rotate and normalise ROWS heads."""
    at, mask, _cos, _sin, r1, r2 = _load_rotated(X, COS, SIN, n_rows, heads, length, table_stride, ROWS, HALF)
    scale = tl.rsqrt(tl.sum(r1 * r1 + r2 * r2, axis=1) / (2 * HALF) + eps)[:, None]
    tl.store(Y + at, (r1 * scale).to(Y.dtype.element_ty), mask)
    tl.store(Y + at + HALF, (r2 * scale).to(Y.dtype.element_ty), mask)


@jit
def _qk_norm_rotary_backward_kernel(
    DY: tl.tensor,
    X: tl.tensor,
    COS: tl.tensor,
    SIN: tl.tensor,
    DX: tl.tensor,
    n_rows: tl.tensor,
    heads: tl.tensor,
    length: tl.tensor,
    table_stride: tl.tensor,
    eps: tl.tensor,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    """Return the gradient of ROWS heads through norm and rotation, both recomputed."""
    at, mask, cos, sin, r1, r2 = _load_rotated(X, COS, SIN, n_rows, heads, length, table_stride, ROWS, HALF)
    scale = tl.rsqrt(tl.sum(r1 * r1 + r2 * r2, axis=1) / (2 * HALF) + eps)[:, None]
    n1, n2 = r1 * scale, r2 * scale
    d1 = tl.load(DY + at, mask, 0.0).to(tl.float32)
    d2 = tl.load(DY + at + HALF, mask, 0.0).to(tl.float32)
    along = (tl.sum(d1 * n1 + d2 * n2, axis=1) / (2 * HALF))[:, None]
    d1, d2 = (d1 - n1 * along) * scale, (d2 - n2 * along) * scale
    tl.store(DX + at, (d1 * cos - d2 * sin).to(DX.dtype.element_ty), mask)
    tl.store(DX + at + HALF, (d1 * sin + d2 * cos).to(DX.dtype.element_ty), mask)


def launch_forward(x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return y on a GPU."""
    y = torch.empty_like(x)
    grid, shape, launch = _plan("qk_norm_rotary_forward", x, cos)
    _qk_norm_rotary_forward_kernel[grid](x, cos, sin, y, *shape, eps, **launch)
    return y


def launch_backward(dy: Tensor, x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Return dx on a GPU."""
    dx = torch.empty_like(x)
    grid, shape, launch = _plan("qk_norm_rotary_backward", x, cos)
    _qk_norm_rotary_backward_kernel[grid](dy, x, cos, sin, dx, *shape, eps, **launch)
    return dx


def _plan(kernel: str, x: Tensor, cos: Tensor) -> tuple[tuple[int], tuple[int, ...], dict[str, int]]:
    """Return the grid, the sizes that a kernel takes, and the configuration."""
    rows, length, heads, head_dim = x.shape
    if head_dim & (head_dim - 1):
        raise ValueError(f"{_OP}: x's head dimension D is {head_dim}; on a GPU it must be a power of two")
    launch = configs.find(kernel, x.dtype).launch
    n_rows, table_stride = rows * length * heads, cos.stride(0) if cos.size(0) > 1 else 0
    grid = (triton.cdiv(n_rows, launch["ROWS"]),)
    return grid, (n_rows, heads, length, table_stride), {**launch, "HALF": head_dim // 2}
