"""Each kernel by itself: what it is called with at a shape, what is right, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention import attention_reference, document_starts, visible_pairs
from kernels.attention import op as attention
from kernels.bench import shapes
from kernels.bench.numbers import Draw, defined
from kernels.bench.shapes import Cost, LoadShape
from kernels.configs import Row
from kernels.linear_cross_entropy import op as loss
from kernels.linear_cross_entropy.cpu import Head, rows_on_cpu
from kernels.linear_cross_entropy.gpu import launch_rows
from kernels.qk_norm_rotary import op as qk_norm_rotary
from kernels.relu_squared import op as relu_squared
from kernels.sizes import LOGIT_CHUNK_BYTES

_SOFTCAP = 15.0
_ROWS = 64  # of a result that are compared with the definition
_PADDING = 64  # columns of logits that are not words
_OF_BACKWARD = {
    "attention_dq": (3, 6),
    "attention_dkv": (4, 6),
}  # products, and passes over inputs and results

Results = tuple[Tensor, ...]


@dataclass(frozen=True)
class Subject:
    """One kernel at one shape."""

    call: Callable[[], Results]
    part: Callable[[Results], Results]  # of the results, which the truth covers
    truth: Results  # in float64
    cost: Cost  # of the call
    own: Cost | None = None  # of the kernel, where the call launches others too
    timed: Callable[[], object] | None = None  # instead of `call`


def _attention(row: Row, shape: LoadShape, device: str) -> Subject:
    """Try a row of attention; one for masks with a window and with documents, one after the other."""
    masked = row.shape.endswith(" masked")
    shape = shape.with_heads_of(int(row.shape.removesuffix(" masked").partition("=")[2]))
    masks = _masks(shape, device) if masked else [(None, None)]
    cases = [_attention_case(row.kernel, shape, device, lo, window) for lo, window in masks]
    owns = [case.own for case in cases if case.own is not None]
    return Subject(
        lambda: tuple(result for case in cases for result in case.call()),
        lambda results: tuple(result[-1:, :, -1:] for result in results),
        tuple(x for case in cases for x in case.truth),
        sum((case.cost for case in cases), Cost(0, 0)),
        sum(owns, Cost(0, 0)) if owns else None,
    )


def _masks(shape: LoadShape, device: str) -> list[tuple[Tensor | None, int | None]]:
    """Return a window of a quarter of the row, and documents that end anywhere."""
    begins = Draw(device).integers(shape.length // 4, shape.tokens).view(shape.rows, shape.length) == 0
    return [(None, shape.length // 4), (document_starts(begins), None)]


def _attention_case(
    kernel: str, shape: LoadShape, device: str, lo: Tensor | None, window: int | None
) -> Subject:
    draw, scale = Draw(device), shape.head_dim**-0.5
    q, k, v, grad = (draw(shape.rows, shape.length, shape.heads, shape.head_dim) for _ in range(4))
    last = [x[-1:, :, -1:] for x in (q, k, v, grad)]
    last_lo = None if lo is None else lo[-1:]

    def definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_reference(q, k, v, window=window, lo=last_lo)

    truth = defined(definition, last[:3], last[3], torch.float64)
    pairs = _visible(shape, lo, window)
    if kernel == "attention_forward":
        cost = shapes.attention(shape, 2, 4, pairs)
        return Subject(lambda: attention.forward(q, k, v, lo, window, scale)[:1], _all, truth[:1], cost)
    out, lse = attention.forward(q, k, v, lo, window, scale)
    return Subject(
        lambda: attention.backward(grad, q, k, v, out, lse, lo, window, scale),
        _all,
        truth[1:],
        shapes.attention(shape, 5, 8, pairs),
        shapes.attention(shape, *_OF_BACKWARD[kernel], pairs),
    )


def _visible(shape: LoadShape, lo: Tensor | None, window: int | None) -> float:
    """Return the mean of a row's visible pairs."""
    if lo is None:
        return visible_pairs(shape.length, window)
    return visible_pairs(shape.length, None) - float(lo.sum()) / shape.rows


def _all(results: Results) -> Results:
    return results


def _last_rows(results: Results) -> Results:
    return tuple(result[-_ROWS:] for result in results)


def _up(row: Row, shape: LoadShape, device: str) -> Subject:
    draw, inner = Draw(device), 4 * shape.width
    x, weight = draw(shape.tokens, shape.width), draw(inner, shape.width, scale=shape.width**-0.5)
    truth = (x[-_ROWS:].double() @ weight.double().t()).relu().square()
    run = relu_squared.up_on_cpu if x.is_cpu else relu_squared.launch_up
    cost = shapes.products(shape.tokens, shape.width, inner)
    return Subject(lambda: (run(x, weight),), _last_rows, (truth,), cost)


def _down(row: Row, shape: LoadShape, device: str) -> Subject:
    draw, inner = Draw(device), 4 * shape.width
    grad, weight = draw(shape.tokens, shape.width), draw(shape.width, inner, scale=shape.width**-0.5)
    a = draw(shape.tokens, inner).relu_().square_()
    truth = (grad[-_ROWS:].double() @ weight.double()) * 2 * a[-_ROWS:].double().sqrt()
    run = relu_squared.down_on_cpu if a.is_cpu else relu_squared.launch_down
    cost = shapes.products(shape.tokens, shape.width, inner) + Cost(0.0, 2.0 * a.numel())
    return Subject(lambda: (run(grad, weight, a),), _last_rows, (truth,), cost)


def _rows(row: Row, shape: LoadShape, device: str) -> Subject:
    """Try the pass over logits, on as many tokens as the loss takes at a time.

    A class may be one number of columns, all of them words; "any" is tried with padding, as none such has.
    """
    draw, named = Draw(device), row.shape.partition("columns=")[2]
    columns = int(named) if named else shape.vocab
    valid = columns if named else columns - _PADDING
    count = min(shape.tokens, LOGIT_CHUNK_BYTES // (2 * columns) // 128 * 128)
    logits = draw(count, columns, scale=4.0)
    targets, upstream = draw.integers(valid, count), torch.ones(count, device=device)
    losses, chunk = torch.empty(count, device=device), torch.empty_like(logits)
    head, run = Head(_SOFTCAP, -1, valid), rows_on_cpu if logits.is_cpu else launch_rows

    def again() -> None:
        run(chunk, targets, upstream, losses, head)

    def call() -> Results:
        chunk.copy_(logits)
        again()
        return losses, chunk

    def reference(u: Tensor) -> Tensor:
        z = _SOFTCAP * torch.tanh(u[:, :valid] / _SOFTCAP)
        return F.cross_entropy(z, targets[-_ROWS:], reduction="none")

    truth = defined(reference, [logits[-_ROWS:]], upstream[-_ROWS:], torch.float64)
    return Subject(call, _last_rows, truth, Cost(0.0, 4.0 * logits.numel()), timed=again)


def _losses(row: Row, shape: LoadShape, device: str) -> Subject:
    draw = Draw(device)
    hidden = draw(shape.tokens, shape.width)
    weight = draw(shape.vocab, shape.width, scale=4 * shape.width**-0.5)
    targets = draw.integers(shape.vocab, shape.tokens)
    truth = loss.linear_cross_entropy_reference(
        hidden[-_ROWS:].double(), weight.double(), targets[-_ROWS:], softcap=_SOFTCAP, reduction="none"
    )
    cost = shapes.loss_costs(shape)[shapes.FORWARD]
    return Subject(
        lambda: (loss.losses(hidden, weight, targets, _SOFTCAP, -1, shape.vocab),), _last_rows, (truth,), cost
    )


def _rotary(row: Row, shape: LoadShape, device: str) -> Subject:
    draw, backward = Draw(device), row.kernel == "qk_norm_rotary_backward"
    size = (shape.rows, shape.length, shape.heads, shape.head_dim)
    (x, grad), eps = (draw(*size) for _ in range(2)), qk_norm_rotary.RMS_EPS
    cos, sin = draw.table(1, shape.length, 1, shape.head_dim // 2)
    truth = defined(qk_norm_rotary.qk_norm_rotary_reference, [x[-1:], cos, sin], grad[-1:], torch.float64)
    cost = shapes.rotary_costs(shape)[shapes.BACKWARD if backward else shapes.FORWARD]

    def call() -> Results:
        if backward:
            return (qk_norm_rotary.backward(grad, x, cos, sin, eps),)
        return (qk_norm_rotary.forward(x, cos, sin, eps),)

    return Subject(call, lambda results: (results[0][-1:],), (truth[backward],), cost)


SUBJECTS: dict[str, Callable[[Row, LoadShape, str], Subject]] = {  # the most important first
    "attention_forward": _attention,
    "attention_dkv": _attention,
    "attention_dq": _attention,
    "cross_entropy_rows": _rows,
    "relu_squared_up": _up,
    "relu_squared_down": _down,
    "qk_norm_rotary_forward": _rotary,
    "qk_norm_rotary_backward": _rotary,
    "cross_entropy_losses": _losses,
}
