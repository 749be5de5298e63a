"""How long a call takes on its device: events on a GPU, the clock elsewhere; cold caches, medians, spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_FLUSH_BYTES = 256 * 2**20  # more than any L2 cache


@dataclass(frozen=True)
class Times:
    """Milliseconds of several calls, and the most memory that one took beyond what was held before."""

    median: float
    low: float
    high: float
    peak_gib: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ms ({self.low:.3f} - {self.high:.3f})"


def measure(call: Callable[[], object], device: str, *, repeats: int = 20, warm_up: int = 3) -> Times:
    """Time calls one by one, each with a cold L2 cache on a GPU."""
    for _ in range(warm_up):
        call()
    return _on_gpu(call, repeats) if device == "cuda" else _on_cpu(call, repeats)


def _on_gpu(call: Callable[[], object], repeats: int) -> Times:
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    pairs = []
    for _ in range(repeats):
        begin, end = (_event() for _ in range(2))
        flush.zero_()
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return _times([begin.elapsed_time(end) for begin, end in pairs], peak)


def _event() -> Any:
    make: Any = torch.cuda.Event  # has no annotations
    return make(enable_timing=True)


def _on_cpu(call: Callable[[], object], repeats: int) -> Times:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return _times(times, 0)


def _times(milliseconds: list[float], peak_bytes: int) -> Times:
    return Times(statistics.median(milliseconds), min(milliseconds), max(milliseconds), peak_bytes / 2**30)
