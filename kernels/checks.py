"""Checks of an op's arguments; every message names the op, the argument and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32)


def check_shape(op: str, name: str, tensor: Tensor, allowed: Sequence[int | None], letters: str) -> None:
    """Refuse dimensions other than `allowed`, where None means any size; `letters` names them."""
    if tensor.dim() != len(allowed) or any(
        want not in (None, size) for size, want in zip(tensor.shape, allowed, strict=True)
    ):
        sizes = ", ".join("any" if size is None else str(size) for size in allowed)
        raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}; expected {letters} = ({sizes})")


def check_dtype(op: str, name: str, tensor: Tensor, allowed: Sequence[torch.dtype]) -> None:
    """Refuse dtypes other than `allowed`."""
    if tensor.dtype not in allowed:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dict.fromkeys(allowed))
        raise TypeError(f"{op}: {name} is {str(tensor.dtype).removeprefix('torch.')}; expected {names}")


def check_contiguous(op: str, **tensors: Tensor) -> None:
    """Refuse tensors whose elements do not lie one after another."""
    for name, tensor in tensors.items():
        if not tensor.is_contiguous():
            raise ValueError(
                f"{op}: {name} has strides {tensor.stride()}; expected a contiguous tensor (.contiguous())"
            )


def check_device(op: str, device: torch.device, **tensors: Tensor) -> None:
    """Refuse tensors on another device."""
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise ValueError(f"{op}: {name} is on {tensor.device}; expected {device}, as the first argument")


def check_multiple(op: str, name: str, size: int, of: int) -> None:
    """Refuse a dimension that TMA cannot load: rows must begin at a multiple of 16 bytes."""
    if size % of:
        raise ValueError(f"{op}: {name} is {size}; on a GPU it must be a multiple of {of}")
