"""The launches of the Triton kernels of `attention`: forward, dq, dk with dv. The formulas are in `op`.

Each result is summed by one program in a fixed order, without atomics: the same bytes each time. For dk and
dv that program takes all query heads of its key head. Scores are scaled by log2(e), for exp2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import configs
from kernels.attention.backward import _attention_dkv_kernel, _attention_dq_kernel
from kernels.attention.forward import _attention_forward_kernel
from kernels.attention.hopper import launch_specialized
from kernels.attention.mask import end_queries, first_keys
from kernels.language import TensorDescriptor, triton


def launch_forward(
    q: Tensor, k: Tensor, v: Tensor, lo: Tensor | None, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, T, H, D) and the log-sum-exp of each query's scores, (B, H, T) float32."""
    rows, length, heads, dim = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((rows, heads, length), dtype=torch.float32, device=q.device)
    first = None if lo is None else first_keys(length, window, lo, q.device)
    config = _config("attention_forward", q, k, lo, window)
    m, n = config.tiles["BLOCK_M"], config.tiles["BLOCK_N"]
    tiles = _tiles("q", q, m), _tiles("k", k, n), _tiles("v", v, n), _tiles("out", out, m)
    if config.gluon:
        launch_specialized(*tiles, lse, scale, config)
        return out, lse
    _attention_forward_kernel[(triton.cdiv(length, m), heads, rows)](
        *tiles,
        lse, first, length, window if lo is None else None, scale,
        H=heads, GROUP=heads // k.size(2), D=dim, **config.launch,
    )  # fmt: skip
    return out, lse


def launch_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    lo: Tensor | None,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v from that of the outputs, (B, T, H, D)."""
    rows, length, heads, dim = q.shape
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    first = end = None
    if lo is not None:
        first = first_keys(length, window, lo, q.device)  # holds the window too
        end = end_queries(first)
    shape = {"H": heads, "GROUP": heads // k.size(2), "D": dim}
    config = _config("attention_dq", q, k, lo, window)
    m, n = config.tiles["BLOCK_M"], config.tiles["BLOCK_N"]
    padded = triton.cdiv(length, m) * m
    stats = torch.empty((rows, heads, 2, padded), dtype=torch.float32, device=q.device)
    _attention_dq_kernel[(triton.cdiv(length, m), heads, rows)](
        _tiles("q", q, m), _tiles("k", k, n), _tiles("v", v, n),
        _tiles("out", out, m), _tiles("grad", grad, m), _tiles("dq", dq, m),
        lse, stats, first, length, window if lo is None else None, scale, **shape, **config.launch,
    )  # fmt: skip
    config = _config("attention_dkv", q, k, lo, window)
    m, n = config.tiles["BLOCK_M"], config.tiles["BLOCK_N"]
    _attention_dkv_kernel[(triton.cdiv(length, n), k.size(2), rows)](
        _tiles("q", q, m), _tiles("k", k, n), _tiles("v", v, n),
        _tiles("grad", grad, m), _tiles("dk", dk, n), _tiles("dv", dv, n),
        stats, end, length, padded, window if lo is None else None, scale, **shape, **config.launch,
    )  # fmt: skip
    return dq, dk, dv


def _tiles(name: str, x: Tensor, block: int) -> Any:
    """Describe x (B, T, H, D) as tiles of `block` positions of one head."""
    size = x.element_size()
    if x.data_ptr() % 16 or any(stride * size % 16 for stride in x.stride()[:3]):
        raise ValueError(
            f"attention: {name} has strides {x.stride()} of {size} bytes; on a GPU the address and all"
            " strides but the last must be multiples of 16 bytes (.contiguous())"
        )
    # Heads before positions: only a tile whose leading dimensions are 1 goes to shared memory without passing
    # through registers.
    return TensorDescriptor.from_tensor(x.transpose(1, 2), [1, 1, block, x.size(3)])


def _config(kernel: str, q: Tensor, k: Tensor, lo: Tensor | None, window: int | None) -> configs.KernelConfig:
    plain = lo is None and window is None and q.size(2) == k.size(2)
    try:
        return configs.find(kernel, q.dtype, f"head_dim={q.size(3)}{'' if plain else ' masked'}")
    except KeyError:
        raise ValueError(
            f"attention: q is {q.dtype} with head dimension {q.size(3)};"
            " on a GPU it must be bfloat16 or float16 with 64 or 128"
        ) from None
