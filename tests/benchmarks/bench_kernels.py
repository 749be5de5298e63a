"""Ops of `kernels` on a CPU against plain PyTorch: seconds and memory, each method in a process of its own.

`uv run python tests/benchmarks/bench_kernels.py`; with `--quick`, small shapes that only show that it runs.
Memory is the peak beyond what the inputs take, gradients included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.linear_cross_entropy import linear_cross_entropy
from tests.benchmarks.measuring import Timing, hardware, print_table, seconds_text

Work = Callable[[], Tensor]


def _full_logits(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = 15.0 * torch.tanh((hidden @ weight.t()).float() / 15.0)
    return F.cross_entropy(logits, targets, ignore_index=-1)


def _loss(method: Callable[..., Tensor], rows: int, vocab: int, width: int, dtype: torch.dtype) -> Work:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator).to(dtype).requires_grad_()
    weight = (torch.randn(vocab, width, generator=generator) * width**-0.5).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (rows,), generator=generator)
    targets[::17] = -1

    def step() -> Tensor:
        hidden.grad = weight.grad = None
        loss = method(hidden, weight, targets)
        loss.backward()
        return loss

    return step


_METHODS = {"full logits": _full_logits, "linear_cross_entropy": linear_cross_entropy}
_SHAPES = {  # tokens, vocabulary, width, dtype, timed steps
    "laptop head": (4096, 4096, 256, torch.float32, 9),
    "toy head": (4096, 768, 128, torch.float32, 25),
    "large head": (4096, 65_536, 768, torch.float32, 3),
    "large head, bfloat16": (4096, 65_536, 768, torch.bfloat16, 3),
}
_QUICK = {"tiny head": (250, 1000, 64, torch.float32, 3)}


def _measure_here(method: str, shape: str) -> None:
    rows, vocab, width, dtype, steps = {**_SHAPES, **_QUICK}[shape]
    work = _loss(_METHODS[method], rows, vocab, width, dtype)
    before = _resident_mib()
    loss, wall, cpu = float(work().detach()), [], []
    for _ in range(steps):
        begin, cpu_begin = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    print(json.dumps({"loss": loss, "wall": sorted(wall), "cpu": sorted(cpu)[steps // 2], "mib": peak}))


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _measure(method: str, shape: str) -> dict[str, object]:
    command = [sys.executable, __file__, "--method", method, "--shape", shape]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--method")
    parser.add_argument("--shape")
    options = parser.parse_args()
    if options.method:
        _measure_here(options.method, options.shape)
        return
    print(hardware() + f", torch {torch.__version__}, {torch.get_num_threads()} threads")
    rows = []
    for shape in _QUICK if options.quick else _SHAPES:
        base, ours = (_measure(method, shape) for method in _METHODS)
        for method, result in zip(_METHODS, (base, ours), strict=True):
            wall = result["wall"]
            rows.append(
                [
                    shape,
                    method,
                    str(Timing(wall[len(wall) // 2], wall[0], wall[-1], result["cpu"])),
                    seconds_text(result["cpu"]),
                    f"{result['cpu'] / base['cpu']:.2f}",
                    f"{result['mib']:.0f}",
                    f"{base['mib'] / result['mib']:.1f}",
                    f"{result['loss']:.6f}",
                ]
            )
    columns = [
        "head",
        "method",
        "median step (range)",
        "CPU",
        "CPU ratio",
        "MiB",
        "memory: full / this",
        "loss",
    ]
    print_table("Loss of the head, forward and backward", columns, rows)


if __name__ == "__main__":
    main()
