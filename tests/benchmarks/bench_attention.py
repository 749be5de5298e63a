"""Attention on a CPU, forward and backward, against torch's scaled_dot_product_attention.

`uv run python tests/benchmarks/bench_attention.py`. The baseline is what a model would write without the op:
`is_causal` for the full context, an explicit mask for windows and documents, key heads repeated for groups.
Methods take turns, so that a change of the machine's load meets all of them.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.attention import attention, document_starts
from tests.benchmarks.measuring import hardware, measure, print_table, seconds_text

# rows, length, heads, key heads, head dimension, window, mean length of a document
CASES = [
    (16, 256, 4, 4, 32, None, None),
    (16, 256, 4, 2, 32, None, None),
    (16, 256, 4, 4, 32, 64, None),
    (16, 256, 4, 4, 32, None, 60),
    (1, 2048, 6, 6, 128, None, None),
    (1, 2048, 6, 2, 128, None, None),
    (1, 2048, 6, 6, 128, 1024, None),
    (1, 2048, 6, 6, 128, 512, None),
    (1, 2048, 6, 6, 128, 128, None),
    (1, 2048, 6, 6, 128, None, 300),
]


def sdpa(q: Tensor, k: Tensor, v: Tensor, *, window: int | None, lo: Tensor | None) -> Tensor:
    """Attend by torch alone."""
    length, group = q.size(1), q.size(2) // k.size(2)
    mask = None
    if window is not None or lo is not None:
        t = torch.arange(length)
        mask = ((t <= t[:, None]) & (t >= t[:, None] - (length if window is None else window)))[None, None]
        mask = mask if lo is None else mask & (t >= lo[:, None, :, None])
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    return out.transpose(1, 2).contiguous()


def row(case: tuple[Any, ...], repeats: int) -> list[object]:
    """Measure one case."""
    rows, length, heads, kv_heads, dim, window, mean = case
    draw = torch.Generator().manual_seed(0)
    shapes = [(rows, length, n, dim) for n in (heads, kv_heads, kv_heads, heads)]
    *qkv, grad = (torch.randn(shape, generator=draw) for shape in shapes)
    leaves = [x.requires_grad_() for x in qkv]
    lo = None if mean is None else document_starts(torch.rand(rows, length, generator=draw) < 1 / mean)

    def step(method: Any) -> None:
        torch.autograd.grad(method(*leaves, window=window, lo=lo), leaves, grad)

    for method in (attention, sdpa):
        step(method)
    times: dict[str, list[float]] = {"attention": [], "sdpa": []}
    for _ in range(repeats):
        for method in (attention, sdpa):
            times[method.__name__].append(measure(lambda _, method=method: step(method), 1).cpu)
    ours, theirs = (statistics.median(times[name]) for name in ("attention", "sdpa"))
    spread = f"{seconds_text(min(times['attention']))} – {seconds_text(max(times['attention']))}"
    shape = f"({rows}, {length}, {heads}/{kv_heads}, {dim})"
    masks = f"window {window}" if window is not None else f"documents of {mean}" if mean else "causal"
    return [shape, masks, seconds_text(ours), spread, seconds_text(theirs), f"{theirs / ours:.2f}x"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(hardware(), f", torch {torch.__version__}, {arguments.threads} thread(s), float32", sep="")
    print_table(
        "Attention, forward and backward: median CPU seconds",
        ("B, T, H/K, D", "mask", "attention", "from – to", "SDPA", "SDPA / attention"),
        [row(case, arguments.repeats) for case in CASES],
    )


if __name__ == "__main__":
    main()
