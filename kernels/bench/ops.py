"""The ops that are timed: inputs at a shape, what is right, what it costs and who computes it.

What is right is computed once in float32 by the op's definition, gradients too, for as much as memory allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.attention import attention_reference
from kernels.bench import contenders, shapes
from kernels.bench.contenders import Contender
from kernels.bench.ledger import Compile
from kernels.bench.numbers import Draw, defined
from kernels.bench.shapes import Cost, LoadShape
from kernels.linear_cross_entropy import linear_cross_entropy_reference
from kernels.qk_norm_rotary import qk_norm_rotary_reference
from kernels.relu_squared import relu_squared_mlp_reference

_LOSS_CHUNK = 2048  # tokens whose logits are held in float32


def _whole(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Op:
    """One op at one shape."""

    name: str
    kernels: tuple[str, ...]  # rows of `configs.TABLE` that ours uses
    inputs: tuple[Tensor, ...]
    costs: dict[str, Cost]  # by direction
    upstream: Tensor  # gradient of the output
    truth: tuple[Tensor, ...]  # output and gradients
    contenders: tuple[Contender, ...]
    part: Callable[[Tensor], Tensor] = _whole  # of a result, which the truth covers
    trains: bool = True  # forward alone is timed as in training, keeping what backward needs

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """Return the inputs whose gradients are computed."""
        return tuple(tensor for tensor in self.inputs if tensor.requires_grad)


def attention_op(shape: LoadShape, device: str, compiler: Compile | None) -> Op:
    """Return causal attention; the truth is that of the last row."""
    draw = Draw(device)
    size = (shape.rows, shape.length, shape.heads, shape.head_dim)
    inputs, upstream = _leaves(*(draw(*size) for _ in range(3))), draw(*size)
    last = tuple(x[-1:] for x in inputs)
    return Op(
        "attention",
        ("attention_forward", "attention_dq", "attention_dkv"),
        inputs,
        shapes.attention_costs(shape),
        upstream,
        defined(attention_reference, last, upstream[-1:]),
        contenders.attention_contenders(compiler),
        part=lambda tensor: tensor[-1:],
    )


def loss_op(shape: LoadShape, device: str, compiler: Compile | None) -> Op:
    """Return the loss; forward alone it computes no gradients, which is another way through the op."""
    draw = Draw(device)
    leaves = _leaves(draw(shape.tokens, shape.width), draw(shape.vocab, shape.width, scale=shape.width**-0.5))
    targets = draw.integers(shape.vocab, shape.tokens)
    return Op(
        "linear_cross_entropy",
        ("cross_entropy_rows", "cross_entropy_losses"),
        (*leaves, targets),
        shapes.loss_costs(shape),
        torch.ones((), device=device),
        _true_loss((*leaves, targets)),
        contenders.loss_contenders(compiler),
        trains=False,
    )


def _true_loss(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the mean loss and its gradients, some tokens at a time."""
    hidden, weight, targets = inputs
    count = hidden.size(0)
    share = torch.full((), 1 / count, device=hidden.device)
    loss, d_weight = torch.zeros_like(share), torch.zeros_like(weight, dtype=torch.float32)
    d_hidden = torch.empty_like(hidden, dtype=torch.float32)
    for start in range(0, count, _LOSS_CHUNK):
        rows = slice(start, start + _LOSS_CHUNK)
        chunk, d_hidden[rows], d_share = defined(_summed_loss, (hidden[rows], weight, targets[rows]), share)
        loss += chunk / count
        d_weight += d_share
    return loss, d_hidden.detach(), d_weight.detach()


def _summed_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return linear_cross_entropy_reference(hidden, weight, targets, reduction="sum")


def mlp_op(shape: LoadShape, device: str, compiler: Compile | None) -> Op:
    """Return the MLP."""
    draw, inner = Draw(device), 4 * shape.width
    inputs = _leaves(
        draw(shape.tokens, shape.width),
        draw(inner, shape.width, scale=shape.width**-0.5),
        draw(shape.width, inner, scale=inner**-0.5),
    )
    upstream = draw(shape.tokens, shape.width)
    return Op(
        "relu_squared_mlp",
        ("relu_squared_up", "relu_squared_down"),
        inputs,
        shapes.mlp_costs(shape),
        upstream,
        defined(relu_squared_mlp_reference, inputs, upstream),
        contenders.mlp_contenders(compiler),
    )


def rotary_op(shape: LoadShape, device: str, compiler: Compile | None) -> Op:
    """Return the rotation with its norm, of queries or of keys."""
    draw = Draw(device)
    size = (shape.rows, shape.length, shape.heads, shape.head_dim)
    (x,), upstream = _leaves(draw(*size)), draw(*size)
    inputs = (x, *draw.table(1, shape.length, 1, shape.head_dim // 2))
    return Op(
        "qk_norm_rotary",
        ("qk_norm_rotary_forward", "qk_norm_rotary_backward"),
        inputs,
        shapes.rotary_costs(shape),
        upstream,
        defined(qk_norm_rotary_reference, inputs, upstream),
        contenders.rotary_contenders(compiler),
    )


def _leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.requires_grad_() for tensor in tensors)


OPS: dict[str, Callable[[LoadShape, str, Compile | None], Op]] = {  # the most important first
    "attention": attention_op,
    "linear_cross_entropy": loss_op,
    "relu_squared_mlp": mlp_op,
    "qk_norm_rotary": rotary_op,
}
