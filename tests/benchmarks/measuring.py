"""What every benchmark prints: the machine and commit, medians with their spread, one table."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs of the same work: by the clock, and the median of this process's CPU time."""

    median: float
    low: float
    high: float
    cpu: float

    def __str__(self) -> str:
        return f"{seconds_text(self.median)} ({seconds_text(self.low)} – {seconds_text(self.high)})"

    def over(self, count: int) -> Timing:
        """Return the time of one of `count` equal parts."""
        return Timing(self.median / count, self.low / count, self.high / count, self.cpu / count)


def hardware() -> str:
    """Return processor, cores, load and the commit that is measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=_ROOT, check=False
    ).stdout.strip()
    return (
        f"{name or platform.machine()}, {len(os.sched_getaffinity(0))} cores (load {os.getloadavg()[0]:.1f}),"
        f" Python {platform.python_version()}, commit {commit or 'unknown'}"
    )


def measure(work: Callable[[int], object], repeats: int = 5) -> Timing:
    """Time `work(n)` for n = 0, 1, …; garbage collections do not visit what was in memory before."""
    times, cpu = [], []
    for n in range(repeats):
        gc.collect()
        gc.freeze()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        work(n)
        times.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
    gc.unfreeze()
    return Timing(statistics.median(times), min(times), max(times), statistics.median(cpu))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown, as `docs/benchmarks.md` holds it."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}\n")
    for n, row in enumerate(cells):
        print("| " + " | ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) + " |")
        if n == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


def seconds_text(value: float) -> str:
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"
