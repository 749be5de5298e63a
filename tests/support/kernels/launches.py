"""Every launch of every kernel at the sizes of d20, on tensors without memory, for the machine-code gate.

A case names the rows of `kernels.configs.TABLE` that it uses; a kernel function is `_<row.kernel>_kernel`.
To add an op, write a function that calls its launch wrappers on meta tensors and list it in `CASES`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.attention import op as attention
from kernels.linear_cross_entropy import op as linear_cross_entropy
from kernels.qk_norm_rotary import op as qk_norm_rotary
from kernels.relu_squared import op as relu_squared

ARCHES = (90, 80, 89, 100, 120)
DTYPES = {16: torch.bfloat16, 32: torch.float32}
TOKENS, WIDTH, VOCAB = 32 * 2048, 1280, 65_536  # of d20, on one of eight GPUs


@dataclass(frozen=True)
class Case:
    """One call of an op's wrappers."""

    name: str
    kernels: tuple[str, ...]
    bits: int
    run: Callable[[torch.dtype], None]
    shape: str = "any"
    arches: tuple[int, ...] = (90,)  # compiled in CI; the written table has all

    def __str__(self) -> str:
        return f"{self.name}, {self.bits} bits"


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor without memory."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def _loss(
    dtype: torch.dtype, softcap: float | None, calls: tuple[Callable[..., Any], ...], vocab: int = VOCAB
) -> None:
    hidden, weight = meta(TOKENS, WIDTH, dtype=dtype), meta(vocab, WIDTH, dtype=dtype)
    for call in calls:
        call(hidden, weight, meta(TOKENS, dtype=torch.int64), softcap, -1, vocab)


def _mlp(dtype: torch.dtype) -> None:
    x, w_fc, w_proj = (meta(*shape, dtype=dtype) for shape in _mlp_shapes(TOKENS, WIDTH))
    out, a = relu_squared.mlp(x, w_fc, w_proj)
    relu_squared.mlp_backward(out, x, w_fc, w_proj, a)


def _mlp_shapes(n_rows: int, width: int) -> tuple[tuple[int, int], ...]:
    return (n_rows, width), (4 * width, width), (width, 4 * width)


def _attention(
    dtype: torch.dtype, dim: int, *, window: int | None = None, documents: bool = False, shared: int = 1
) -> None:
    q = meta(32, 2048, WIDTH // dim, dim, dtype=dtype)
    k = meta(32, 2048, WIDTH // dim // shared, dim, dtype=dtype)
    lo = meta(32, 2048, dtype=torch.int32) if documents else None
    out, lse = attention.forward(q, k, k, lo, window, dim**-0.5)
    attention.backward(out, q, k, k, out, lse, lo, window, dim**-0.5)


def _attention_cases(dim: int) -> list[Case]:
    def case(name: str, **options: Any) -> Case:
        masked = name != "attention"
        return Case(
            name,
            ("attention_forward", "attention_dq", "attention_dkv"),
            16,
            lambda dtype: _attention(dtype, dim, **options),
            shape=f"head_dim={dim}{' masked' if masked else ''}",
            arches=ARCHES if (dim, masked) == (128, False) else (90,),
        )

    return [
        case("attention"),
        case("attention, window", window=512),
        case("attention, documents, shared keys", documents=True, shared=5),
    ]


def _held_rows(vocab: int) -> Case:
    run = functools.partial(_loss, softcap=15.0, calls=_TRAIN, vocab=vocab)
    arches = ARCHES if vocab == VOCAB else (90,)
    return Case("loss with gradients", _ROWS, 16, run, shape=f"columns={vocab}", arches=arches)


def _rotary(dtype: torch.dtype) -> None:
    x, table = meta(32, 2048, 10, 128, dtype=dtype), meta(1, 2048, 1, 64)
    dy = qk_norm_rotary.forward(x, table, table, 1e-7)
    qk_norm_rotary.backward(dy, x, table, table, 1e-7)


_ROWS, _LOSSES = ("cross_entropy_rows",), ("cross_entropy_losses",)
_TRAIN, _EVALUATE = (linear_cross_entropy.total_with_gradients,), (linear_cross_entropy.losses,)
_MLP = ("relu_squared_up", "relu_squared_down")
_ROTARY = ("qk_norm_rotary_forward", "qk_norm_rotary_backward")
CASES = [
    Case("loss", _LOSSES, 16, lambda dtype: _loss(dtype, 15.0, _EVALUATE), arches=ARCHES),
    *(_held_rows(vocab) for vocab in (65_536, 32_768)),
    Case("loss of another vocabulary", _ROWS, 16, lambda dtype: _loss(dtype, 15.0, _TRAIN, 50_304)),
    Case("loss without a cap", _ROWS + _LOSSES, 16, lambda dtype: _loss(dtype, None, _TRAIN + _EVALUATE)),
    Case("loss", _ROWS + _LOSSES, 32, lambda dtype: _loss(dtype, 15.0, _TRAIN + _EVALUATE)),
    Case("mlp", _MLP, 16, _mlp, arches=ARCHES),
    Case("mlp", _MLP, 32, _mlp),
    *_attention_cases(64),
    *_attention_cases(128),
    Case("rotary", _ROTARY, 16, _rotary, arches=ARCHES),
    Case("rotary", _ROTARY, 32, _rotary),
]
