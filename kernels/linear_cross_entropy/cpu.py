"""Losses and gradients of chunks of logits on a CPU: the fast form of the reference in `op`.

Elementwise passes go over blocks that stay in the cache, in place, so that they cost little beside the
products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 24  # 64 MiB of float32 logits: 512 tokens at a vocabulary of 32,768
_BLOCK_ELEMENTS = 1 << 17  # of each thread: what stays in its cache between passes


class Head(NamedTuple):
    """How logits become losses."""

    softcap: float | None
    ignore_index: int
    valid: int  # rows of the weight that are words


def chunk_rows_on_cpu(n_columns: int) -> int:
    """Return how many tokens' logits to hold at a time."""
    return max(512, _CHUNK_ELEMENTS // n_columns)


def chunks(tensor: Tensor, size: int) -> Iterator[slice]:
    """Cut the rows of a tensor into slices of at most `size`."""
    for start in range(0, tensor.size(0), size):
        yield slice(start, min(start + size, tensor.size(0)))


def rows_on_cpu(chunk: Tensor, targets: Tensor, upstream: Tensor, losses: Tensor, head: Head) -> None:
    """Fill `losses` from a chunk of logits and overwrite it with its gradient, block by block in cache."""
    chunk[:, head.valid :] = 0
    for rows in _blocks(chunk):
        block = chunk[rows, : head.valid]
        scores = block.float()  # float32 is worked on in place
        losses[rows] = _block_losses(scores, targets[rows], upstream[rows], head)
        if scores is not block:
            block.copy_(scores)


def losses_on_cpu(hidden: Tensor, weight: Tensor, targets: Tensor, head: Head) -> Tensor:
    """Return the losses (N,) on a CPU, holding one chunk of logits at a time."""
    losses = hidden.new_empty(hidden.size(0), dtype=torch.float32)
    head_weight = weight[: head.valid].t()
    for rows in chunks(hidden, chunk_rows_on_cpu(head.valid)):
        chunk = hidden[rows] @ head_weight
        for block in _blocks(chunk):
            at = slice(rows.start + block.start, rows.start + block.stop)
            losses[at] = _block_losses(chunk[block].float(), targets[at], None, head)
    return losses


def _block_losses(scores: Tensor, targets: Tensor, upstream: Tensor | None, head: Head) -> Tensor:
    """Return the losses of a block of float32 logits; with `upstream`, overwrite it with the gradient.

    The cap is taken as softcap * tanh(u / softcap) = softcap * (2 s - 1) with s = sigmoid(2 u / softcap), as
    torch's tanh is slower; differences of logits are differences of s times 2 softcap. Powers are torch's
    `exp`: its `exp2` and `sigmoid` round differently at the end of each thread's part of a tensor.
    """
    counted = (targets != head.ignore_index)[:, None]
    target = torch.where(counted, targets.long()[:, None], 0)
    scale = 1.0
    if head.softcap is not None:
        scores.mul_(-2.0 / head.softcap).exp_().add_(1.0).reciprocal_()
        scale = 2.0 * head.softcap
    top = scores.amax(dim=1, keepdim=True)
    terms = torch.sub(scores, top).mul_(scale).exp_()
    total = terms.sum(dim=1, keepdim=True)
    losses = total.log() - scale * (scores.gather(1, target) - top)
    if upstream is not None:
        factor = upstream[:, None] * counted
        if head.softcap is None:
            torch.mul(terms, factor / total, out=scores)
        else:  # the slope of the cap is 4 s (1 - s)
            scores.addcmul_(scores, scores, value=-1.0)
            factor = 4.0 * factor
            at_target = scores.gather(1, target)
            scores.mul_(terms).mul_(factor / total)
            factor = factor * at_target
        scores.scatter_add_(1, target, -factor)
    return torch.where(counted, losses, 0.0)[:, 0]


def _blocks(chunk: Tensor) -> Iterator[slice]:
    return chunks(chunk, max(1, _BLOCK_ELEMENTS * torch.get_num_threads() // chunk.size(1)))
