"""What the card itself reaches: a large product by cuBLAS, a copy within its memory, its clock."""

from __future__ import annotations

import torch

from kernels.bench.ledger import Ceilings, Run
from kernels.bench.numbers import Draw
from kernels.bench.shapes import FORWARD, Cost
from kernels.measurement import printed
from kernels.timing import Times, measure

_SIZES = {"full": (8192, 2**32), "tiny": (256, 2**20)}  # rows of a square product, bytes of a copy


def measure_ceilings(run: Run, sizes: str) -> Ceilings:
    """Time both and keep them as rows; everything else is compared with them."""
    n, size = _SIZES[sizes]
    draw = Draw(run.device)
    left, right = draw(n, n), draw(n, n)
    product = Cost(2.0 * n**3, 6.0 * n**2)
    source = draw(size // 2)
    target = torch.empty_like(source)
    copy = Cost(0.0, 2.0 * size)
    took = measure(lambda: left @ right, run.device, repeats=run.repeats)
    took_copy = measure(lambda: target.copy_(source), run.device, repeats=run.repeats)
    run.ceilings = Ceilings(_tflops(product, took), _gbps(copy, took_copy))
    run.add_times("ceiling: product", f"{n} x {n} x {n}", "cuBLAS", FORWARD, took, product)
    run.add_times("ceiling: copy", f"{size // 2**20} MiB", "on the device", FORWARD, took_copy, copy)
    return run.ceilings


def note_clock(run: Run, when: str) -> None:
    """Keep the clock that the card runs at; nothing is set."""
    if run.device == "cuda":
        query = "clocks.sm,clocks.max.sm,temperature.gpu,power.draw"
        clock = printed("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
        run.part.add_row(op="clock", shape=when, method=query, reason=clock)


def _tflops(cost: Cost, times: Times) -> float:
    return cost.flops / times.median / 1e9


def _gbps(cost: Cost, times: Times) -> float:
    return cost.bytes / times.median / 1e6
