"""Inputs of attention, and its outputs and gradients from any function that computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.attention import attention_reference, document_starts


@dataclass(frozen=True)
class Case:
    """Queries, keys, values, the gradient of the outputs, and where documents begin."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad: Tensor
    lo: Tensor | None


def inputs(
    rows: int,
    length: int,
    heads: int,
    kv_heads: int,
    dim: int,
    dtype: torch.dtype,
    *,
    documents: int | None = None,
    seed: int = 0,
) -> Case:
    """Draw a case; `documents` is the mean length of a document, None for a row that is one document."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(rows, length, n, dim) for n in (heads, kv_heads, kv_heads, heads)]
    q, k, v, grad = (torch.randn(shape, generator=draw).to(dtype) for shape in shapes)
    lo = None
    if documents is not None:
        lo = document_starts(torch.rand(rows, length, generator=draw) < 1 / documents)
    return Case(q, k, v, grad, lo)


def run(function: Callable[..., Tensor], case: Case, **options: Any) -> dict[str, Tensor]:
    """Return the outputs of `function` and its gradients, by name."""
    q, k, v = (x.detach().requires_grad_() for x in (case.q, case.k, case.v))
    out = function(q, k, v, lo=case.lo, **options)
    return {"out": out.detach(), **_named(torch.autograd.grad(out, (q, k, v), case.grad))}


def run_in_float64(case: Case, **options: Any) -> dict[str, Tensor]:
    """Return what the definition gives in float64 for the same inputs."""
    wide = Case(*(x.double() for x in (case.q, case.k, case.v, case.grad)), lo=case.lo)
    return run(attention_reference, wide, **options)


def relative_errors(found: dict[str, Tensor], truth: dict[str, Tensor], case: Case) -> dict[str, float]:
    """Return the norm of each difference over that of the truth.

    Where a query sees one key, dq and dk cancel to nothing and only rounding is left: a truth below a
    hundredth of the gradient that came in counts as that gradient.
    """
    incoming = float(case.grad.double().norm())
    errors = {}
    for name, true in truth.items():
        size = float(true.double().norm())
        difference = float((found[name].double() - true.double()).norm())
        errors[name] = difference / (size if size > incoming / 100 else incoming)
    return errors


def _named(gradients: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip(("dq", "dk", "dv"), gradients, strict=True))
