"""How long a call takes on its device: events on a GPU, the clock elsewhere; cold caches, medians, spread.

On a GPU a call is queued while the device is still busy, so that a short kernel's time has no launch in it.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from kernels.language import triton

_FLUSH_BYTES = 256 * 2**20  # more than any L2 cache
_FLUSHES = 6  # of a tenth of a millisecond each: a call of several launches is queued in less


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
        _keep_busy(flush)
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() - before
    return _times([begin.elapsed_time(end) for begin, end in pairs], peak)


def measure_kernel(call: Callable[[], object], name: str, *, repeats: int = 20) -> Times | None:
    """Time the Triton kernels with `name` in theirs that a call launches; None where there are none."""
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    with _launches(name) as pairs:
        for _ in range(repeats):
            _keep_busy(flush)
            call()
        torch.cuda.synchronize()
    if not pairs or len(pairs) % repeats:
        return None
    each = len(pairs) // repeats
    times = [begin.elapsed_time(end) for begin, end in pairs]
    return _times([sum(times[at : at + each]) for at in range(0, len(times), each)], 0)


@contextlib.contextmanager
def _launches(name: str) -> Iterator[list[tuple[Any, Any]]]:
    """Keep the events before and after each launch of such a kernel while the block runs."""
    pairs: list[tuple[Any, Any]] = []

    def enter(launch: Any) -> None:
        if name in launch.get()["name"]:
            pairs.append((_event(), _event()))
            pairs[-1][0].record()

    def leave(launch: Any) -> None:
        if name in launch.get()["name"]:
            pairs[-1][1].record()

    hooks = triton.knobs.runtime
    hooks.launch_enter_hook.add(enter)
    hooks.launch_exit_hook.add(leave)
    try:
        yield pairs
    finally:
        hooks.launch_enter_hook.remove(enter)
        hooks.launch_exit_hook.remove(leave)


def _keep_busy(flush: torch.Tensor) -> None:
    """Replace what caches hold, for long enough that the next call is queued meanwhile."""
    for _ in range(_FLUSHES):
        flush.zero_()


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
