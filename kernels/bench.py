"""Times each op on a GPU against plain, compiled and other people's versions: `python -m kernels.bench`.

Prints a table per op and the goals that are met, and writes `kernels/results/<device>.csv`. Without a GPU it
reports that and exits. Each time is the median of calls after a warm-up, each with a cold L2 cache; the loss
and the MLP are timed forward and backward. FlashAttention, Liger and Cut Cross Entropy take part where they
are installed.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.linear_cross_entropy import linear_cross_entropy, linear_cross_entropy_reference
from kernels.qk_norm_rotary import qk_norm_rotary, qk_norm_rotary_reference
from kernels.relu_squared import relu_squared_mlp, relu_squared_mlp_reference

RESULTS = Path(__file__).parent / "results"
_FLUSH_BYTES = 256 * 2**20  # more than any L2 cache


@dataclass(frozen=True)
class Sizes:
    """What is timed: d20 on one of eight GPUs."""

    rows: int = 32
    length: int = 2048
    width: int = 1280
    head_dim: int = 128
    vocab: int = 65_536
    device: str = "cuda"
    dtype: torch.dtype = torch.bfloat16

    def random(self, *shape: int) -> Tensor:
        """Return a leaf whose rows have about unit length."""
        tensor = torch.randn(*shape, device=self.device, dtype=self.dtype).mul_(shape[-1] ** -0.5)
        return tensor.requires_grad_()


@dataclass(frozen=True)
class Goal:
    """What our own version must reach."""

    text: str
    met: Callable[[dict[str, Result]], bool]


@dataclass(frozen=True)
class Result:
    """One method's median call."""

    op: str
    method: str
    milliseconds: float
    tflops: float
    peak_gib: float  # beyond the inputs


Method = Callable[[], Tensor]
Compile = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]


def methods(sizes: Sizes, compiler: Compile) -> dict[str, tuple[float, dict[str, Method]]]:
    """Return for each op its operations and the calls to time, ours first."""
    ops = {
        "linear_cross_entropy": _loss(sizes, compiler),
        "relu_squared_mlp": _mlp(sizes, compiler),
        "qk_norm_rotary": _rotary(sizes, compiler),
    }
    if importlib.util.find_spec("kernels.attention.op") is not None:
        ops["attention"] = _attention(sizes, compiler)
    return ops


def _loss(sizes: Sizes, compiler: Compile) -> tuple[float, dict[str, Method]]:
    n_rows = sizes.rows * sizes.length
    hidden, weight = sizes.random(n_rows, sizes.width), sizes.random(sizes.vocab, sizes.width)
    targets = torch.randint(0, sizes.vocab, (n_rows,), device=sizes.device)
    found: dict[str, Method] = {
        "ours": lambda: linear_cross_entropy(hidden, weight, targets),
        "torch.compile": lambda: compiler(linear_cross_entropy_reference)(hidden, weight, targets),
        "eager": lambda: linear_cross_entropy_reference(hidden, weight, targets),
    }
    if sizes.device == "cuda" and _installed("liger_kernel"):
        liger_module = importlib.import_module("liger_kernel.ops.fused_linear_cross_entropy")
        liger = liger_module.LigerFusedLinearCrossEntropyFunction.apply
        found["Liger"] = lambda: liger(hidden, weight, targets, None, None, -1, 0.0, 0.0, "mean", 15.0)[0]
    if sizes.device == "cuda" and _installed("cut_cross_entropy"):
        cut = importlib.import_module("cut_cross_entropy").linear_cross_entropy
        found["Cut Cross Entropy"] = lambda: cut(
            hidden, weight, targets, ignore_index=-1, softcap=15.0, filter_eps=None
        )
    return 6.0 * n_rows * sizes.width * sizes.vocab, found


def _mlp(sizes: Sizes, compiler: Compile) -> tuple[float, dict[str, Method]]:
    x = sizes.random(sizes.rows * sizes.length, sizes.width)
    w_fc = sizes.random(4 * sizes.width, sizes.width)
    w_proj = sizes.random(sizes.width, 4 * sizes.width)
    found: dict[str, Method] = {
        "ours": lambda: relu_squared_mlp(x, w_fc, w_proj),
        "torch.compile": lambda: compiler(relu_squared_mlp_reference)(x, w_fc, w_proj),
        "eager": lambda: relu_squared_mlp_reference(x, w_fc, w_proj),
    }
    return 48.0 * x.size(0) * sizes.width**2, found


def _rotary(sizes: Sizes, compiler: Compile) -> tuple[float, dict[str, Method]]:
    x = sizes.random(sizes.rows, sizes.length, sizes.width // sizes.head_dim, sizes.head_dim)
    angles = torch.rand(1, sizes.length, 1, sizes.head_dim // 2, device=sizes.device)
    cos, sin = angles.cos(), angles.sin()
    found: dict[str, Method] = {
        "ours": lambda: qk_norm_rotary(x, cos, sin),
        "torch.compile": lambda: compiler(qk_norm_rotary_reference)(x, cos, sin),
        "eager": lambda: qk_norm_rotary_reference(x, cos, sin),
    }
    return 0.0, found  # no products: bound by memory


def _attention(sizes: Sizes, compiler: Compile) -> tuple[float, dict[str, Method]]:
    attention = importlib.import_module("kernels.attention.op").attention
    heads = sizes.width // sizes.head_dim
    q, k, v = (sizes.random(sizes.rows, sizes.length, heads, sizes.head_dim) for _ in range(3))

    def sdpa() -> Tensor:
        heads_first = [tensor.transpose(1, 2) for tensor in (q, k, v)]
        return F.scaled_dot_product_attention(heads_first[0], heads_first[1], heads_first[2], is_causal=True)

    found: dict[str, Method] = {"ours": lambda: attention(q, k, v), "SDPA": sdpa}
    if sizes.device == "cuda" and _installed("flash_attn"):
        flash = importlib.import_module("flash_attn").flash_attn_func
        found["FlashAttention"] = lambda: flash(q, k, v, causal=True)
    return 3.5 * 4 * sizes.rows * sizes.width * sizes.length * (sizes.length + 1) / 2, found


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


GOALS = {
    "linear_cross_entropy": [
        Goal("at most 60 ms", lambda r: r["ours"].milliseconds <= 60),
        Goal("at most 1.6 GiB", lambda r: r["ours"].peak_gib <= 1.6),
        Goal("no slower than torch.compile", lambda r: _no_slower(r, "torch.compile")),
    ],
    "relu_squared_mlp": [Goal("no slower than torch.compile", lambda r: _no_slower(r, "torch.compile"))],
    "qk_norm_rotary": [
        # Five passes over x at 85 % of a device copy's 3.0 TB/s.
        Goal("at most 0.33 ms", lambda r: r["ours"].milliseconds <= 0.33),
        Goal("no slower than torch.compile", lambda r: _no_slower(r, "torch.compile")),
    ],
    "attention": [
        Goal("at least 350 TFLOP/s", lambda r: r["ours"].tflops >= 350),
        Goal("no slower than SDPA", lambda r: _no_slower(r, "SDPA")),
    ],
}


def _no_slower(results: dict[str, Result], other: str) -> bool:
    """A method that ran out of memory has no result and is slower than any."""
    return other not in results or results["ours"].milliseconds <= results[other].milliseconds


def time_op(op: str, flops: float, calls: dict[str, Method], repeats: int) -> dict[str, Result]:
    """Time each method forward and backward; one that does not fit in memory is left out."""
    found: dict[str, Result] = {}
    for method, call in calls.items():
        try:
            seconds, peak = _median_seconds(call, repeats)
        except torch.cuda.OutOfMemoryError:
            print(f"{op}: {method} does not fit in memory")
            continue
        found[method] = Result(op, method, 1e3 * seconds, flops / seconds / 1e12, peak / 2**30)
    return found


def _median_seconds(call: Method, repeats: int) -> tuple[float, int]:
    """Return the median time of a step and the most memory that it takes beyond its inputs."""
    out = call()
    upstream = torch.randn_like(out)
    torch.autograd.backward(out, upstream)
    cuda = out.is_cuda
    flush = torch.empty(_FLUSH_BYTES if cuda else 0, dtype=torch.uint8, device=out.device)
    del out
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before, times = torch.cuda.memory_allocated() if cuda else 0, []
    for _ in range(repeats):
        flush.zero_()
        if cuda:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        torch.autograd.backward(call(), upstream)
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    peak = torch.cuda.max_memory_allocated() - before if cuda else 0
    return statistics.median(times), peak


def write(path: Path, device: str, results: Sequence[Result]) -> None:
    """Write results with the device, versions and commit that they apply to."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False, cwd=RESULTS).stdout.strip()
    versions = [torch.__version__, str(torch.version.cuda), _triton_version()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ("op", "method", "ms", "tflops", "peak_gib", "device", "torch", "cuda", "triton", "commit")
        )
        for r in results:
            numbers = (f"{r.milliseconds:.3f}", f"{r.tflops:.1f}", f"{r.peak_gib:.2f}")
            writer.writerow((r.op, r.method, *numbers, device, *versions, commit))


def _triton_version() -> str:
    from kernels.language import triton

    return str(triton.__version__)


def run(sizes: Sizes, compiler: Compile, repeats: int) -> list[Result]:
    """Time every op, print tables and goals, and return all results."""
    results: list[Result] = []
    for op, (flops, calls) in methods(sizes, compiler).items():
        found = time_op(op, flops, calls, repeats)
        results += found.values()
        for r in found.values():
            numbers = f"{r.milliseconds:9.3f} ms {r.tflops:7.1f} TFLOP/s {r.peak_gib:6.2f} GiB"
            print(f"{op:22} {r.method:18} {numbers}")
        for goal in GOALS[op]:
            print(f"{op:22} goal: {goal.text}: {'met' if goal.met(found) else 'NOT met'}")
    return results


def main() -> None:
    """Time on the first GPU, if there is one."""
    if not torch.cuda.is_available():
        print("kernels.bench: no CUDA device here, so nothing is timed (counts: python -m kernels.roofline)")
        return
    device = torch.cuda.get_device_name()

    results = run(Sizes(), functools.cache(torch.compile), repeats=20)
    path = RESULTS / f"{device.lower().replace(' ', '_')}.csv"
    write(path, device, results)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
