"""Who computes each op: ours, plain, compiled and other people's versions, and the bare products in it.

A contender imports what it needs when it is made: one that is not installed, or does not run on the device,
raises there. Each takes the op's inputs and gives its output, differentiable unless it is bare products.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from kernels.attention import attention, attention_reference
from kernels.bench.ledger import Compile
from kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from kernels.qk_norm_rotary import qk_norm_rotary, qk_norm_rotary_reference
from kernels.relu_squared import relu_squared_mlp, relu_squared_mlp_reference

Inputs = tuple[Tensor, ...]
Forward = Callable[[], Tensor]
OURS, EAGER, COMPILED, PRODUCTS = "ours", "eager", "torch.compile", "bare products"

COMPILING_S = 20.0  # about what torch.compile takes


@dataclass(frozen=True)
class Contender:
    """One way to compute an op."""

    name: str
    make: Callable[[Inputs], Forward]
    set_up_s: float = 3.0  # about what it takes until it runs
    late: bool = False  # slow to run or to set up, and no goal needs it
    both: Callable[[Inputs], Callable[[], object]] | None = None  # both directions, without gradients


class UnavailableError(Exception):
    """Raised where a contender cannot take part."""


def _on_a_gpu(inputs: Inputs) -> None:
    if not inputs[0].is_cuda:
        raise UnavailableError("needs a GPU")


def _with(function: Callable[..., Tensor]) -> Callable[[Inputs], Forward]:
    return lambda inputs: lambda: function(*inputs)


def _compiled(function: Callable[..., Tensor], compiler: Compile | None, *, late: bool = False) -> Contender:
    def make(inputs: Inputs) -> Forward:
        return _with(_needed(compiler)(function))(inputs)

    return Contender(COMPILED, make, COMPILING_S, late)


def _needed(compiler: Compile | None) -> Compile:
    if compiler is None:
        raise UnavailableError("a dry run compiles one op alone")
    return compiler


def attention_contenders(compiler: Compile | None) -> tuple[Contender, ...]:
    """Return those for causal attention over q, k and v (B, T, H, D)."""
    return (
        Contender(OURS, _with(attention)),
        Contender("SDPA, cuDNN", _sdpa(SDPBackend.CUDNN_ATTENTION)),
        Contender("SDPA, flash", _sdpa(SDPBackend.FLASH_ATTENTION)),
        Contender("FlashAttention 3", _flash_attention_3),
        Contender("FlashAttention 2", _flash_attention_2),
        Contender("SDPA, efficient", _sdpa(SDPBackend.EFFICIENT_ATTENTION)),
        Contender("FlexAttention", _flex(compiler), COMPILING_S, late=True),
        Contender(EAGER, _with(attention_reference), late=True),
        _compiled(attention_reference, compiler, late=True),
    )


def _heads_first(inputs: Inputs) -> list[Tensor]:
    return [tensor.transpose(1, 2) for tensor in inputs]  # (B, H, T, D)


def _sdpa(backend: SDPBackend) -> Callable[[Inputs], Forward]:
    def make(inputs: Inputs) -> Forward:
        def call() -> Tensor:
            q, k, v = _heads_first(inputs)
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

        return call

    return make


def _flex(compiler: Compile | None) -> Callable[[Inputs], Forward]:
    def make(inputs: Inputs) -> Forward:
        flex = importlib.import_module("torch.nn.attention.flex_attention")
        length = inputs[0].size(1)
        mask = flex.create_block_mask(_causal, None, None, length, length, device=inputs[0].device)
        compiled = _needed(compiler)(flex.flex_attention)

        def call() -> Tensor:
            q, k, v = _heads_first(inputs)
            out: Tensor = compiled(q, k, v, block_mask=mask)
            return out.transpose(1, 2)

        return call

    return make


def _causal(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return query >= key


def _flash_attention_3(inputs: Inputs) -> Forward:
    """Take it from its own package, from where the kernels hub puts it, or a build of its forward alone."""
    return _flash("flash_attn_interface", "flash_attn_3", "flash_attn3", "fa3_fwd_interface")(inputs)


def _flash_attention_2(inputs: Inputs) -> Forward:
    return _flash("flash_attn")(inputs)


def _flash(*packages: str) -> Callable[[Inputs], Forward]:
    def make(inputs: Inputs) -> Forward:
        function = _first(packages).flash_attn_func
        q, k, v = inputs

        def call() -> Tensor:
            out: Any = function(q, k, v, causal=True)
            found: Tensor = out[0] if isinstance(out, tuple) else out
            return found

        return call

    return make


def _first(packages: tuple[str, ...]) -> Any:
    for package in packages:
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError:
            continue
        if hasattr(module, "flash_attn_func"):
            return module
    raise ModuleNotFoundError(packages[0], name=packages[0])


def loss_contenders(compiler: Compile | None) -> tuple[Contender, ...]:
    """Return those for the loss of hidden (N, C), weight (V, C) and targets (N,)."""
    return (
        Contender(OURS, _with(linear_cross_entropy)),
        Contender(PRODUCTS, _logits, both=_loss_products),
        Contender("Liger", _liger, 10.0, late=True),
        Contender("Cut Cross Entropy", _cut_cross_entropy, 10.0, late=True),
        _compiled(linear_cross_entropy_reference, compiler, late=True),
        Contender(EAGER, _with(linear_cross_entropy_reference), 10.0, late=True),
    )


def _logits(inputs: Inputs) -> Forward:
    hidden, weight, _ = (tensor.detach() for tensor in inputs)
    return lambda: hidden @ weight.t()


def _loss_products(inputs: Inputs) -> Callable[[], object]:
    hidden, weight, _ = (tensor.detach() for tensor in inputs)

    def call() -> tuple[Tensor, Tensor]:
        logits = hidden @ weight.t()
        return logits @ weight, logits.t() @ hidden

    return call


def _liger(inputs: Inputs) -> Forward:
    _on_a_gpu(inputs)
    module = importlib.import_module("liger_kernel.ops.fused_linear_cross_entropy")
    function = module.LigerFusedLinearCrossEntropyFunction.apply

    def call() -> Tensor:
        loss: Tensor = function(*inputs, None, None, -1, 0.0, 0.0, "mean", 15.0)[0]
        return loss

    return call


def _cut_cross_entropy(inputs: Inputs) -> Forward:
    _on_a_gpu(inputs)
    function = importlib.import_module("cut_cross_entropy").linear_cross_entropy

    def call() -> Tensor:  # `filter_eps` None: no gradient is left out
        loss: Tensor = function(*inputs, ignore_index=-1, softcap=15.0, filter_eps=None)
        return loss

    return call


def mlp_contenders(compiler: Compile | None) -> tuple[Contender, ...]:
    """Return those for the MLP of x (N, C), w_fc (4 C, C) and w_proj (C, 4 C)."""
    return (
        Contender(OURS, _with(relu_squared_mlp)),
        Contender(PRODUCTS, _mlp_forward_products, both=_mlp_products),
        _compiled(relu_squared_mlp_reference, compiler),
        Contender(EAGER, _with(relu_squared_mlp_reference)),
    )


def _mlp_forward_products(inputs: Inputs) -> Forward:
    x, w_fc, w_proj = (tensor.detach() for tensor in inputs)
    return lambda: (x @ w_fc.t()) @ w_proj.t()


def _mlp_products(inputs: Inputs) -> Callable[[], object]:
    x, w_fc, w_proj = (tensor.detach() for tensor in inputs)

    def call() -> tuple[Tensor, ...]:
        a = x @ w_fc.t()
        out = a @ w_proj.t()
        da = out @ w_proj
        return da @ w_fc, da.t() @ x, out.t() @ a

    return call


def rotary_contenders(compiler: Compile | None) -> tuple[Contender, ...]:
    """Return those for the rotation and norm of x (B, T, H, D) with tables cos and sin."""
    return (
        Contender(OURS, _with(qk_norm_rotary)),
        _compiled(qk_norm_rotary_reference, compiler),
        Contender(EAGER, _with(qk_norm_rotary_reference)),
    )
