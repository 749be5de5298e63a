"""The Triton kernels of `relu_squared` and their launches. The formulas are in `op`."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import checks, configs
from kernels.language import TensorDescriptor, jit, tl, triton

_OP = "relu_squared_mlp"


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
