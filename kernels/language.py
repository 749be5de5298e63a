"""Triton where it is installed: `triton`, `tl`, `jit` and `TensorDescriptor`, for every file with a kernel.

The same for Gluon, Triton's dialect in which a kernel itself places data, warps and barriers: `gl`,
`gluon_jit`, `GluonDescriptor` and H100's instructions (`tma`, `mbarrier`, `warpgroup_mma` and their kin).

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
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.hopper import (
        fence_async_shared,
        mbarrier,
        tma,
        warpgroup_mma,
        warpgroup_mma_wait,
    )
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
    from triton.tools.tensor_descriptor import TensorDescriptor

    def jit(kernel: Callable[..., Any]) -> Any:
        """Make a function a kernel, compiled when it is first launched."""
        return triton.jit(kernel)

    def gluon_jit(kernel: Callable[..., Any]) -> Any:
        """Make a function in Gluon a kernel."""
        return gluon.jit(kernel)
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

    gluon_jit = jit
    triton = tl = TensorDescriptor = _Missing()
    gl = GluonDescriptor = fence_async_shared = mbarrier = tma = warpgroup_mma = warpgroup_mma_wait = triton

__all__ = [
    "AVAILABLE",
    "GluonDescriptor",
    "TensorDescriptor",
    "fence_async_shared",
    "gl",
    "gluon_jit",
    "jit",
    "mbarrier",
    "tl",
    "tma",
    "triton",
    "warpgroup_mma",
    "warpgroup_mma_wait",
]
