"""Launch wrappers on a machine with no GPU: `dry_run` compiles and records each launch, and runs none.

Each launch is compiled for the target with the specialisation a real one would have (alignment, ones,
multiples of 16, tensor descriptors). Works on `device="meta"` tensors, so that full model sizes cost no
memory. Shared memory over the device's limit raises OutOfResources, as on the device. Products with an
`out_dtype` are checked as CUDA checks them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor
from torch.overrides import TorchFunctionMode
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.compiler.compiler import CompiledKernel

# Shared memory that one block may have, bytes, by compute capability.
SHARED_LIMIT = {80: 166_912, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
TARGETS = {arch: GPUTarget("cuda", arch, 32) for arch in SHARED_LIMIT}


@dataclass(frozen=True)
class Launch:
    """One recorded launch."""

    name: str
    grid: tuple[int, int, int]
    kernel: CompiledKernel


class _Utils:
    def __init__(self, arch: int) -> None:
        self._arch = arch

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": SHARED_LIMIT[self._arch],
            "multiprocessor_count": 132,
            "max_num_regs": 65_536,
            "warpSize": 32,
        }


class _FakeDriver(DriverBase):
    def __init__(self, target: GPUTarget) -> None:
        self.target = target
        self.utils = _Utils(target.arch)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_current_device(self) -> int:
        return self.target.arch  # a kernel keeps what it compiled for each device number

    def set_current_device(self, device: int) -> None:
        """There is only the one."""

    def get_current_stream(self, device: int) -> int:
        return 0

    def map_python_to_cpp_type(self, ty: str) -> str:
        return "void*"

    def get_benchmarker(self) -> Callable[..., list[float]]:
        def benchmark(fn: Callable[[], None], quantiles: Any = None, **_: Any) -> list[float]:
            fn()
            return [1.0, 1.0, 1.0]

        return benchmark

    @staticmethod
    def is_active() -> bool:
        return True


class _Accumulation(TorchFunctionMode):
    """Checks `addmm` with an `out_dtype` on tensors without memory, of which PyTorch 2.11 knows no shapes."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.addmm and "out_dtype" in kwargs and args[0].is_meta:
            return _accumulated(*args, **kwargs)
        return func(*args, **kwargs)


def _accumulated(
    total: Tensor, left: Tensor, right: Tensor, *, out_dtype: torch.dtype, out: Tensor
) -> Tensor:
    """Refuse what CUDA's `addmm.dtype_out` refuses, from 2.10 on."""
    if left.dtype != right.dtype or out_dtype not in (left.dtype, torch.float32):
        raise RuntimeError(f"no {out_dtype} product of {left.dtype} and {right.dtype}")
    if out.dtype != out_dtype or total.dtype not in (out_dtype, left.dtype):
        raise RuntimeError(f"a {out_dtype} product is not added to {total.dtype} into {out.dtype}")
    if total.shape != out.shape or torch.mm(left, right).shape != out.shape:
        raise RuntimeError(f"{tuple(left.shape)} @ {tuple(right.shape)} is not {tuple(out.shape)}")
    return out


@contextlib.contextmanager
def dry_run(arch: int = 90) -> Iterator[list[Launch]]:
    """Record launches for compute capability `arch` (90 is H100) while the block runs."""
    launches: list[Launch] = []
    limit = SHARED_LIMIT[arch]

    def run(self: CompiledKernel) -> Callable[..., None]:
        def record(x: int, y: int, z: int, *_: Any) -> None:
            if self.metadata.shared > limit:
                raise triton.runtime.errors.OutOfResources(self.metadata.shared, limit, "shared memory")
            launches.append(Launch(self.name, (x, y, z), self))

        return record

    driver = triton.runtime.driver
    stock_driver, stock_run, stock_metadata = (
        driver._active,
        CompiledKernel.run,
        CompiledKernel.launch_metadata,
    )
    driver.set_active(_FakeDriver(TARGETS[arch]))
    CompiledKernel.run = property(run)
    CompiledKernel.launch_metadata = lambda self, *_: None
    try:
        with _Accumulation():
            yield launches
    finally:
        driver._active = stock_driver
        CompiledKernel.run, CompiledKernel.launch_metadata = stock_run, stock_metadata
