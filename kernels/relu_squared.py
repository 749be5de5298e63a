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

from kernels import checks, configs
from kernels.language import TensorDescriptor, jit, tl, triton
from kernels.products import product
from kernels.registration import register

_OP = "relu_squared_mlp"


def relu_squared_mlp_reference(x: Tensor, w_fc: Tensor, w_proj: Tensor) -> Tensor:
    """Compute the MLP with plain operations: the truth that the fast paths are tested against."""
    return F.linear(F.relu(F.linear(x, w_fc.to(x.dtype))).square(), w_proj.to(x.dtype))


@jit
def _tile(
    tile: tl.tensor, n_rows: tl.tensor, n_columns: tl.tensor, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
) -> tl.tensor:
    """Return a tile's first row and column; neighbours share rows of a band, which stay in L2."""
    BAND: tl.constexpr = 8
    row_tiles = tl.cdiv(n_rows, BLOCK_M)
    in_band = BAND * tl.cdiv(n_columns, BLOCK_N)
    first = tile // in_band * BAND
    rows = tl.minimum(row_tiles - first, BAND)
    place = tile % in_band
    return (first + place % rows) * BLOCK_M, place // rows * BLOCK_N


@jit
def _store_squared(out_desc: tl.tensor_descriptor, row: tl.tensor, column: tl.tensor, h: tl.tensor) -> None:
    positive = tl.maximum(h, 0.0)
    out_desc.store([row, column], (positive * positive).to(out_desc.dtype))


@jit
def _up_tile(
    x_desc: tl.tensor_descriptor,
    w_desc: tl.tensor_descriptor,
    out_desc: tl.tensor_descriptor,
    row: tl.tensor,
    column: tl.tensor,
    width: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """Write a tile of relu(x @ w.T)^2."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, width, BLOCK_K):
        acc = tl.dot(x_desc.load([row, k]), w_desc.load([column, k]).T, acc, input_precision="ieee")
    if PARTS == 2:
        left, right = tl.split(tl.permute(tl.reshape(acc, (BLOCK_M, 2, BLOCK_N // 2)), (0, 2, 1)))
        _store_squared(out_desc, row, column, left)
        _store_squared(out_desc, row, column + BLOCK_N // 2, right)
    else:
        _store_squared(out_desc, row, column, acc)


@jit
def _relu_squared_up_kernel(
    x_desc: tl.tensor_descriptor,  # (N, C)
    w_desc: tl.tensor_descriptor,  # (F, C)
    out_desc: tl.tensor_descriptor,  # (N, F)
    n_rows: tl.tensor,
    n_columns: tl.tensor,
    width: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,  # 1 or 2, in which a tile is stored
    PERSISTENT: tl.constexpr,  # programs that a core is given; 0: one program a tile
) -> None:
    """Write relu(x @ w.T)^2: one tile, or every tile whose turn it is."""
    first = tl.program_id(0)
    tl.assume(width > 0)  # a loop that may not run makes older compilers serialize wgmma
    if PERSISTENT:
        tiles = tl.cdiv(n_rows, BLOCK_M) * tl.cdiv(n_columns, BLOCK_N)
        # Flattened, the loops over tiles and over k are one pipeline: while a tile is squared and stored, the
        # next one is loaded.
        for tile in tl.range(first, tiles, tl.num_programs(0), flatten=True):
            row, column = _tile(tile, n_rows, n_columns, BLOCK_M, BLOCK_N)
            _up_tile(x_desc, w_desc, out_desc, row, column, width, BLOCK_M, BLOCK_N, BLOCK_K, PARTS)
    else:
        row, column = _tile(first, n_rows, n_columns, BLOCK_M, BLOCK_N)
        _up_tile(x_desc, w_desc, out_desc, row, column, width, BLOCK_M, BLOCK_N, BLOCK_K, PARTS)


@jit
def _relu_squared_down_kernel(
    dout_desc: tl.tensor_descriptor,  # (N, C)
    w_desc: tl.tensor_descriptor,  # (C, F)
    dh_desc: tl.tensor_descriptor,  # (N, F)
    A: tl.tensor,  # (N, F)
    n_rows: tl.tensor,
    n_columns: tl.tensor,
    width: tl.tensor,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Write a tile of (dout @ w) * 2 sqrt(a)."""
    row, column = _tile(tl.program_id(0), n_rows, n_columns, BLOCK_M, BLOCK_N)
    rows, columns = row + tl.arange(0, BLOCK_M)[:, None], column + tl.arange(0, BLOCK_N)[None, :]
    # Loaded to registers, which nobody waits for before the products are done; TMA would be waited for here.
    a = tl.load(A + rows.to(tl.int64) * n_columns + columns, (rows < n_rows) & (columns < n_columns), 0.0)
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    tl.assume(width > 0)
    for k in range(0, width, BLOCK_K):
        acc = tl.dot(dout_desc.load([row, k]), w_desc.load([k, column]), acc, input_precision="ieee")
    dh_desc.store([row, column], (acc * (2.0 * tl.sqrt(a.to(tl.float32)))).to(dh_desc.dtype))


def launch_up(x: Tensor, w_fc: Tensor) -> Tensor:
    """Return relu(x @ w_fc.T)^2, (N, F), on a GPU."""
    config, n_tiles = _plan("relu_squared_up", x, w_fc.size(0))
    block_m, block_n, block_k = (config.tiles[f"BLOCK_{axis}"] for axis in "MNK")
    programs = config.tiles["PERSISTENT"] * configs.n_cores() or n_tiles
    out = torch.empty(x.size(0), w_fc.size(0), dtype=x.dtype, device=x.device)
    _relu_squared_up_kernel[(min(programs, n_tiles),)](
        TensorDescriptor.from_tensor(x, [block_m, block_k]),
        TensorDescriptor.from_tensor(w_fc, [block_n, block_k]),
        TensorDescriptor.from_tensor(out, [block_m, block_n // config.tiles["PARTS"]]),
        x.size(0),
        w_fc.size(0),
        x.size(1),
        **config.launch,
    )
    return out


def launch_down(dout: Tensor, w_proj: Tensor, a: Tensor) -> Tensor:
    """Return (dout @ w_proj) * 2 sqrt(a), (N, F), on a GPU."""
    config, n_tiles = _plan("relu_squared_down", dout, w_proj.size(1))
    block_m, block_n, block_k = (config.tiles[f"BLOCK_{axis}"] for axis in "MNK")
    dh = torch.empty_like(a)
    _relu_squared_down_kernel[(n_tiles,)](
        TensorDescriptor.from_tensor(dout, [block_m, block_k]),
        TensorDescriptor.from_tensor(w_proj, [block_k, block_n]),
        TensorDescriptor.from_tensor(dh, [block_m, block_n]),
        a,
        a.size(0),
        a.size(1),
        dout.size(1),
        **config.launch,
    )
    return dh


def _plan(kernel: str, left: Tensor, n_columns: int) -> tuple[configs.KernelConfig, int]:
    """Return the configuration and the number of tiles; refuse widths that TMA cannot load."""
    checks.check_multiple(_OP, "x's width C", left.size(1), 16 // left.element_size())
    checks.check_multiple(_OP, "w_fc's rows F", n_columns, 16 // left.element_size())
    config = configs.find(kernel, left.dtype)
    row_tiles = triton.cdiv(left.size(0), config.tiles["BLOCK_M"])
    return config, row_tiles * triton.cdiv(n_columns, config.tiles["BLOCK_N"])


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
