"""Compiles, compares, times and profiles one implementation of a training step; writes rows of the results.

The peak is that of an H100 and of an H200. Whose step it is, and what it trains, is `bench_gpu_step`'s.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from kernels.measurement import Measurement
from tests.benchmarks.step_shares import profile

PEAK = 989e12  # bfloat16 operations per second
_COMPARED, _PROFILED, _WARM_UP, _LEAST = 6, 3, 2, 3  # steps


class Rank(Protocol):
    """One rank's training step in some implementation."""

    rows: int  # of a pass

    def fit(self) -> None:
        """Compile, and find how many rows a pass can have."""

    def compared(self, steps: int) -> list[float]:
        """Take the first steps, in which only this rank's weights change; return their losses."""

    def step(self) -> float:
        """Take a step; return its loss."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Milliseconds of steps back to back, on the device and by the clock, and the most memory."""

    device_ms: list[float]
    wall_ms: list[float]
    allocated_gib: float
    reserved_gib: float
    last_loss: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a section of the benchmark found."""

    losses: list[float]
    median_ms: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How steps are timed, and where rows go."""

    kept: Measurement
    device: str
    steps: int
    has_time: Callable[[], bool]

    def measure(self, section: str, rank: Rank, tokens: int, flops_per_token: int) -> Outcome:
        """Run one side through all phases; `tokens` are the rank's in a step."""
        began = time.perf_counter()
        rank.fit()
        self._wait()
        compile_s = time.perf_counter() - began
        losses = rank.compared(_COMPARED)
        self.kept.add_row(section=section, losses=losses)
        timed = self._time(rank.step)
        median = statistics.median(timed.device_ms)
        self.kept.add_row(
            section=section,
            median_ms=median,
            low_ms=min(timed.device_ms),
            high_ms=max(timed.device_ms),
            wall_ms=statistics.median(timed.wall_ms),
            steps=len(timed.device_ms),
            tokens_per_s=1e3 * tokens / median,
            mfu=1e3 * flops_per_token * tokens / median / PEAK,
            peak_gib=timed.allocated_gib,
            reserved_gib=timed.reserved_gib,
            rows_per_pass=rank.rows,
            compile_s=compile_s,
        )
        finite = math.isfinite(timed.last_loss) and all(map(math.isfinite, losses))
        self.kept.add_check(f"{section}: losses are finite", finite, f"{losses}, last {timed.last_loss}")
        self._profile(section, rank.step)
        return Outcome(losses=losses, median_ms=median)

    def _profile(self, section: str, step: Callable[[], float]) -> None:
        found = profile(step, _PROFILED, self.device)
        whole = sum(found.milliseconds.values())
        if not whole:
            self.kept.add_row(section=section, left_out="the profiler saw nothing of the device")
            return
        for part, ms in found.milliseconds.items():
            self.kept.add_row(section=section, part=part, ms=ms, share=ms / whole)
        self.kept.add_row(section=section, host_waits=sum(found.waits.values()), by_name=found.waits)
        for name, ms, calls in found.longest:
            self.kept.add_row(section=section, kernel=name, ms=ms, calls=calls)

    def _time(self, step: Callable[[], float]) -> Timed:
        if self.device == "cuda":
            torch.cuda.empty_cache()  # of what only the steps before needed
        for _ in range(_WARM_UP):
            step()
        self._wait()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        loss, stamps, events = math.nan, [time.perf_counter()], [self._event()]
        while len(stamps) <= self.steps and (len(stamps) <= _LEAST or self.has_time()):
            loss = step()
            stamps.append(time.perf_counter())
            events.append(self._event())
        self._wait()
        wall = [1e3 * (end - begin) for begin, end in itertools.pairwise(stamps)]
        cuda = self.device == "cuda"
        pairs = itertools.pairwise(events)
        return Timed(
            device_ms=[begin.elapsed_time(end) for begin, end in pairs] if cuda else wall,
            wall_ms=wall,
            allocated_gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
            reserved_gib=torch.cuda.max_memory_reserved() / 2**30 if cuda else 0.0,
            last_loss=loss,
        )

    def _event(self) -> Any:
        if self.device != "cuda":
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
