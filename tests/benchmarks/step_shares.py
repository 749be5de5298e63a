"""What the profiler says of some training steps: the time of each part, idle gaps, waits of the host.

Kernels are put into parts by their names, and what starts inside a range called `OPTIMIZER` is the
optimizer's whatever its name. On a CPU operations without children stand for kernels: a dry run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType

from tests.benchmarks.plain_rank import OPTIMIZER

# The first pattern that a name contains decides.
PARTS = {
    "attention backward": r"attention_(d[qkv]|backward|bwd|delta)|flash.*(bwd|bprop|backward)|sdpa.*bprop"
    r"|fmha.*B\b",
    "attention forward": r"attention_(forward|fwd)|flash|fmha|sdpa",
    "loss rows": r"cross_entropy|log_softmax|nll_loss|tanh",
    "products": r"nvjet|gemm|cutlass|cublas|relu_squared|splitk|matmul|linear|(^|\W)(add|b)?mm(\W|$)",
    "copies": r"memcpy|memset|cat_?array|copy|fill|::cat|clone",
}
REST = "norms and elementwise"
NAMES = (*PARTS, REST, "optimizer", "idle")
# Of the host for the device. Not cudaDeviceSynchronize, which the profiler itself calls.
_WAITS = {
    "cuda": re.compile(r"^cuda((Stream|Event)Synchronize|Memcpy)$"),
    "cpu": re.compile(r"_local_scalar_dense"),
}


@dataclass(frozen=True)
class Span:
    """One kernel: its name and when it ran, in microseconds."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True)
class Shares:
    """Milliseconds of a step by part, the longest kernels, and how often a step waits for the device."""

    milliseconds: dict[str, float]
    longest: list[tuple[str, float, float]]  # name, milliseconds and calls of a step
    waits: dict[str, float]


def part_of(name: str) -> str:
    """Return the part of the step that a kernel of this name belongs to."""
    found = (part for part, pattern in PARTS.items() if re.search(pattern, name, re.IGNORECASE))
    return next(found, REST)


def profile(step: Callable[[], object], steps: int, device: str) -> Shares:
    """Profile some steps, which should have been warmed up."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    events = list(profiler.events())
    waits = Counter(event.name for event in events if _WAITS[device].search(event.name))
    return shares(*_spans(events, kind), waits, steps)


def shares(kernels: Sequence[Span], optimizer: Sequence[Span], waits: Counter[str], steps: int) -> Shares:
    """Add up kernels by part; idle is what no kernel covers between the first and the last."""
    total: Counter[str] = Counter(dict.fromkeys(NAMES, 0.0))
    times, calls = Counter[str](), Counter[str]()
    for span in kernels:
        ours = any(part.begin <= span.begin <= part.end for part in optimizer)
        total["optimizer" if ours else part_of(span.name)] += span.end - span.begin
        times[span.name] += span.end - span.begin
        calls[span.name] += 1
    total["idle"] = _idle(kernels)
    return Shares(
        {name: microseconds / 1e3 / steps for name, microseconds in total.items()},
        [(name, t / 1e3 / steps, calls[name] / steps) for name, t in times.most_common(25)],
        {name: count / steps for name, count in waits.items()},
    )


def _spans(events: Sequence[Any], kind: DeviceType) -> tuple[list[Span], list[Span]]:
    """Return kernels and the optimizer's ranges."""
    mine = [event for event in events if event.device_type == kind]
    ranges = [event for event in mine if event.name == OPTIMIZER]
    kernels = [e for e in mine if not (e.cpu_children or getattr(e, "is_user_annotation", False))]
    return [_span(e) for e in kernels if e.name != OPTIMIZER], [_span(e) for e in ranges]


def _span(event: Any) -> Span:
    return Span(event.name, event.time_range.start, event.time_range.end)


def _idle(kernels: Sequence[Span]) -> float:
    ordered = sorted(kernels, key=lambda span: span.begin)
    idle, until = 0.0, ordered[0].begin if ordered else 0.0
    for span in ordered:
        idle += max(0.0, span.begin - until)
        until = max(until, span.end)
    return idle
