"""What the interpreter does not see: stores out of range, outputs left unwritten, the order of programs.

`guarded` puts a tensor between margins of a known value; `intact` returns whether the margins still hold it.
`poisoned` is an output full of NaN. `shuffled` runs a launch's programs in a random order.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_FILL, _INT_FILL = 12345.0, -7
_MARGIN = 4096  # elements on either side


def guarded(tensor: Tensor) -> Tensor:
    """Copy a tensor into the middle of a larger buffer; a read out of range sees the fill."""
    size, fill = tensor.numel() + 2 * _MARGIN, _fill(tensor.dtype)
    buffer = torch.full((size,), fill, dtype=tensor.dtype, device=tensor.device)
    inner = buffer[_MARGIN : _MARGIN + tensor.numel()].view(tensor.shape)
    inner.copy_(tensor)
    return inner


def poisoned(*shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> Tensor:
    """Return a guarded tensor of NaN (integers: -7), for a kernel to write all of."""
    value = float("nan") if dtype.is_floating_point else _INT_FILL
    return guarded(torch.full(shape, value, dtype=dtype, device=device))


def intact(tensor: Tensor) -> bool:
    """Return whether nothing was stored beside a guarded tensor."""
    buffer = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
    margins = torch.cat((buffer[:_MARGIN], buffer[-_MARGIN:]))
    return bool((margins == torch.tensor(_fill(tensor.dtype), dtype=tensor.dtype)).all())


@contextlib.contextmanager
def poisoned_allocations() -> Iterator[list[Tensor]]:
    """Make every `torch.empty` and its kin return guarded NaN; yields the list of what was handed out."""
    made: list[Tensor] = []
    stock = {name: getattr(torch, name) for name in ("empty", "empty_like")}

    def empty(*shape: Any, dtype: torch.dtype | None = None, device: Any = None) -> Tensor:
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        made.append(poisoned(*sizes, dtype=dtype or torch.get_default_dtype(), device=device))
        return made[-1]

    def empty_like(tensor: Tensor, *, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
        return empty(*tensor.shape, dtype=dtype or tensor.dtype, device=tensor.device)

    torch.empty, torch.empty_like = empty, empty_like
    try:
        yield made
    finally:
        for name, function in stock.items():
            setattr(torch, name, function)


@contextlib.contextmanager
def shuffled(seed: int) -> Iterator[None]:
    """Run the programs of each launch in a random order: a result that changes depends on the order."""
    from triton.runtime.interpreter import InterpreterBuilder

    stock = InterpreterBuilder.set_grid_idx
    orders: dict[int, list[int]] = {}

    def set_grid_idx(self: Any, x: int, y: int, z: int) -> None:
        columns, depth = self.grid_dim[1], self.grid_dim[2]
        count = self.grid_dim[0] * columns * depth
        if count not in orders:
            orders[count] = random.Random(seed).sample(range(count), count)
        place = orders[count][(x * columns + y) * depth + z]
        stock(self, place // (columns * depth), place // depth % columns, place % depth)

    InterpreterBuilder.set_grid_idx = set_grid_idx
    try:
        yield
    finally:
        InterpreterBuilder.set_grid_idx = stock


def _fill(dtype: torch.dtype) -> float | int:
    return _FILL if dtype.is_floating_point else _INT_FILL
