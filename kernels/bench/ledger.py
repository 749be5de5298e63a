"""What all parts of a run of the benchmark share: the file, the time that is left, the card's limits."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from kernels.bench.shapes import Cost, LoadShape
from kernels.measurement import Measurement
from kernels.timing import Times

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Ceilings:
    """What the card reaches: a product's TFLOP/s, a copy's GB/s."""

    product: float
    copy: float

    def floor_ms(self, cost: Cost) -> tuple[float, str]:
        """Return the least time that a call can take, and which limit that is."""
        product, copy = cost.flops / self.product / 1e9, cost.bytes / self.copy / 1e6
        return (product, "product") if product >= copy else (copy, "copy")


@dataclass
class Run:
    """One run of the benchmark."""

    part: Measurement
    device: str
    shapes: tuple[LoadShape, ...]
    end: float  # by `time.monotonic`
    compiler_for: Callable[[str], Compile | None]  # of an op's contenders; None: not in this run
    repeats: int = 20
    ceilings: Ceilings | None = None
    broken: set[str] = field(default_factory=set)  # kernels without a configuration that is right

    @property
    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def say(self, text: str) -> None:
        """Report progress."""
        print(f"[{self.left_s:4.0f} s left] {text}", file=sys.stderr, flush=True)

    def add_reason(self, op: str, shape: str, method: str, reason: str) -> None:
        """Keep why something has no time."""
        self.say(f"{op}, {shape}, {method}: {reason}")
        self.part.add_row(op=op, shape=shape, method=method, reason=reason)

    def add_times(
        self, op: str, shape: str, method: str, direction: str, times: Times, cost: Cost, **more: Any
    ) -> None:
        """Keep how long something takes, and what that is of the card's limits."""
        self.say(f"{op}, {shape}, {method}, {direction}: {times}")
        self.part.add_row(
            op=op, shape=shape, method=method, direction=direction, **self._numbers(times, cost), **more
        )

    def _numbers(self, times: Times, cost: Cost) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "median_ms": times.median,
            "low_ms": times.low,
            "high_ms": times.high,
            "tflops": cost.flops / times.median / 1e9,
            "gbps": cost.bytes / times.median / 1e6,
            "peak_gib": times.peak_gib,
        }
        if self.ceilings is not None:
            floor, bound = self.ceilings.floor_ms(cost)
            numbers |= {"bound": bound, "share": floor / times.median}
        return numbers


def reason_of(error: Exception) -> str:
    """Return in one line why something failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "does not fit in memory"
    if isinstance(error, ModuleNotFoundError):
        return f"not installed: {error.name}"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


class DeviceLostError(Exception):
    """Raised where a kernel's fault has ended all work on the device."""


def free(device: str) -> None:
    """Give a GPU's memory back that nothing holds, once it has done its work."""
    if device == "cpu":
        return
    gc.collect()
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise DeviceLostError(reason_of(error)) from error
    torch.cuda.empty_cache()
