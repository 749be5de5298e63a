"""Triton where it is installed: `triton`, `tl`, `jit` and `TensorDescriptor`, for every file with a kernel.

Where the package is missing (macOS), kernels stay plain functions that nobody calls: the ops then run on
their CPU kernels alone. Importing this starts no device and compiles nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

AVAILABLE = importlib.util.find_spec("triton") is not None

if AVAILABLE:
    import triton
    import triton.language as tl
    from triton.tools.tensor_descriptor import TensorDescriptor

    def jit(kernel: Callable[..., Any]) -> Any:
        """Make a function a kernel, compiled when it is first launched."""
        return triton.jit(kernel)
else:

    class _Missing:
        """Takes any attribute; fails when it is called."""

        def __getattr__(self, name: str) -> _Missing:
            return self

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise ModuleNotFoundError(
                "Triton is not installed: kernels need it, on a CUDA device", name="triton"
            )

    def jit(kernel: Callable[..., Any]) -> Any:
        """Leave a kernel as it is."""
        return kernel

    triton = tl = TensorDescriptor = _Missing()

__all__ = ["AVAILABLE", "TensorDescriptor", "jit", "tl", "triton"]
