"""A whole training step of d20 on one GPU of eight beside upstream's, and how fast d20 writes tokens.

Run with `python -m tests.benchmarks.bench_gpu_step`; `--device cpu --sizes tiny` is a dry run. It writes
`step.json` (`kernels.measurement`). Both sides of d20 start from the same weights and train on the same rows,
each alone on the device: first some steps whose losses are compared, then steps that are timed, then some
under the profiler. Ours goes through the training loop; upstream's is `plain_rank`. The other seven ranks are
`one_of_eight`'s: what they would send is copied on this GPU, and no time between GPUs is measured. What the
seconds do not suffice for is left out, in the order ours, upstream's, decoding, 2026-d12.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kernels.measurement import Measurement, arguments
from nanochat.config import ModelConfig, PretrainConfig
from nanochat.model.flops import flops_per_token
from nanochat.model.gpt import GPT
from nanochat.optim.schedules import pretrain_schedule
from tests.benchmarks import decode_speed
from tests.benchmarks.gpu_configs import config_of
from tests.benchmarks.one_of_eight import RANKS, owned, world
from tests.benchmarks.plain_rank import RankTrainer
from tests.benchmarks.rank_of_ours import Batch, OurRank
from tests.benchmarks.step_timing import Outcome, Rank, Timing

T = TypeVar("T")

# Of a loss, between the two sides: they round differently (upstream's embedding is bfloat16, and with it the
# residual stream), and Muon amplifies last bits.
LOSS_TOLERANCE = 0.01
# Seconds that a section takes at most, by estimate (most of it compilation): with fewer left it is left out.
NEEDED_S = {"d20 upstream": 120.0, "d20 decode": 30.0, "2026-d12 ours": 90.0}


@dataclass(frozen=True)
class Run:
    """The options, where results go, and when it began."""

    options: argparse.Namespace
    kept: Measurement
    began: float = field(default_factory=time.perf_counter)

    @property
    def tiny(self) -> bool:
        """Return whether this is a dry run."""
        return self.options.sizes == "tiny"

    @property
    def left_s(self) -> float:
        """Return the seconds that are left."""
        return self.options.seconds - (time.perf_counter() - self.began)

    def begins(self, section: str) -> bool:
        """Return whether there is time for a section; if not, keep that it was left out."""
        print(f"{section}: {self.left_s:.0f} s left", file=sys.stderr)
        if self.tiny or self.left_s >= NEEDED_S[section]:
            return True
        self.kept.add_row(section=section, left_out=f"{self.left_s:.0f} s left of {NEEDED_S[section]:.0f}")
        return False

    def config(self, name: str) -> PretrainConfig:
        """Return a recipe's pretraining in the size of the run."""
        return config_of(name, self.options.sizes)

    def compiler(self, function: Callable) -> Callable:
        """Compile as recipes do on a GPU; a dry run only traces: code for a CPU takes minutes."""
        return torch.compile(function, backend="aot_eager" if self.tiny else "inductor")

    def static_compiler(self, function: Callable) -> Callable:
        """Compile as upstream does: anew for each shape."""
        return torch.compile(function, backend="aot_eager" if self.tiny else "inductor", dynamic=False)

    def timed(self, name: str, side: str, rank: Rank) -> Outcome:
        """Measure one side's step of a recipe."""
        timing = Timing(
            kept=self.kept,
            device=self.options.device,
            steps=3 if self.tiny else 20,
            has_time=lambda: self.left_s > 0,
        )
        config = self.config(name)
        tokens = config.batch_tokens // RANKS
        return timing.measure(f"{name} {side}", rank, tokens, flops_per_token(config.model))


class UpstreamRank(RankTrainer):
    """Upstream's rank on some batches, over and over."""

    def __init__(self, run: Run, weights: dict[str, Tensor], owned: dict[str, slice]) -> None:
        config = run.config("d20")
        super().__init__(
            config.model, weights, owned, device=run.options.device, compiler=run.static_compiler
        )
        self._batches, self._done = batches(config), 0
        self._momentum = pretrain_schedule(config).momentum

    def fit(self) -> None:
        self.fit_rows(*self._batch())

    def step(self) -> float:
        loss = self.train(*self._batch(), self._momentum(self._done))
        self._done += 1
        return loss

    def compared(self, steps: int) -> list[float]:
        return [self.step() for _ in range(steps)]

    def _batch(self) -> tuple[Tensor, Tensor]:
        inputs, targets = self._batches[self._done % len(self._batches)]
        return torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)


def initial_weights(config: ModelConfig) -> dict[str, Tensor]:
    """Return weights on the CPU; those that start at zero are drawn too: products of zeros run faster."""
    model, generator = GPT(config), torch.Generator().manual_seed(1)
    model.init_weights(generator)
    for name, weight in model.state_dict().items():
        if name.endswith("c_proj.weight"):
            weight.normal_(std=0.02, generator=generator)
        elif name == "lm_head.weight":
            weight.normal_(std=0.001, generator=generator)
    return model.state_dict()


def batches(config: PretrainConfig, count: int = 8) -> list[Batch]:
    """Return one rank's inputs and targets (B, T): Zipf's distribution, half follow from the one before."""
    rng, length, vocabulary = np.random.default_rng(7), config.model.sequence_len, config.model.vocab_size
    made = []
    for _ in range(count):
        text = (rng.zipf(1.3, (config.batch_tokens // length // RANKS, length + 1)) - 1) % vocabulary
        follows = rng.random(text.shape) < 0.5
        text[:, 1:] = np.where(follows[:, 1:], (31 * text[:, :-1] + 17) % vocabulary, text[:, 1:])
        made.append((text[:, :-1].copy(), text[:, 1:].copy()))
    return made


def attempted(run: Run, section: str, measure: Callable[[], T]) -> T | None:
    """Measure a section; what it raises is a failed check, and the next sections still have their turn."""
    try:
        return measure()
    except Exception as error:  # whatever a compiler, a driver or the memory raises
        traceback.print_exc()
        run.kept.add_check(f"{section}: runs", False, f"{type(error).__name__}: {error}"[:800])
        return None
    finally:
        _let_go()


def ours(run: Run, name: str, weights: dict[str, Tensor]) -> Outcome:
    """Measure our step of a recipe."""
    config = run.config(name)
    rank = OurRank(config, weights, batches(config), device=run.options.device, compiler=run.compiler)
    found = run.timed(name, "ours", rank)
    falls = found.losses[-1] < found.losses[0]
    run.kept.add_check(f"{name} ours: the loss falls", falls, f"{found.losses[0]} to {found.losses[-1]}")
    return found


def upstream(run: Run, weights: dict[str, Tensor]) -> Outcome:
    """Measure upstream's step of d20."""
    with torch.device("meta"):
        model = GPT(run.config("d20").model)
    return run.timed("d20", "upstream", UpstreamRank(run, weights, owned(model, world().group)))


def d20(run: Run, weights: dict[str, Tensor]) -> None:
    """Measure ours and upstream's step."""
    mine = attempted(run, "d20 ours", lambda: ours(run, "d20", weights))
    if mine is not None and run.options.device == "cuda" and not run.tiny:
        for goal in ("d20 step", "d20 step, stretch"):
            run.kept.set_goal(goal, mine.median_ms)
    if not run.begins("d20 upstream"):
        return
    theirs = attempted(run, "d20 upstream", lambda: upstream(run, weights))
    if mine is None or theirs is None:
        return
    run.kept.add_row(section="d20", upstream_over_ours=theirs.median_ms / mine.median_ms)
    pairs = list(zip(mine.losses, theirs.losses, strict=True))
    furthest = max(abs(a - b) / b for a, b in pairs)
    detail = f"ours and upstream's {pairs}: {furthest:.2%} apart at most, {LOSS_TOLERANCE:.0%} allowed"
    run.kept.add_check("d20: losses of both sides agree", furthest <= LOSS_TOLERANCE, detail)


def decode(run: Run, weights: dict[str, Tensor]) -> None:
    """Measure how fast d20 writes."""
    text = decode_speed.Text(prompt=8, new=4) if run.tiny else decode_speed.Text()
    config = run.config("d20").model
    with torch.device(run.options.device):
        model = GPT(config)
    model.load_state_dict(weights)
    for dtype in (torch.float32, torch.bfloat16):
        decode_speed.cast(model, dtype)
        for rows in (1, 8, 32):
            numbers, finite = decode_speed.measured(model, rows, text)
            kind = str(dtype).removeprefix("torch.")
            run.kept.add_row(section="d20 decode", type=kind, **numbers)
            run.kept.add_check(f"d20 decode, {kind}, batch {rows}: logits are finite", finite)


def _let_go() -> None:
    """Free what a section has held."""
    torch.compiler.reset()  # what it kept of the model is garbage only then
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> int:
    """Measure all sections that fit; return 1 if a number is wrong."""
    options = arguments(__doc__).parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("bench_gpu_step: no CUDA device, so nothing is timed (--device cpu --sizes tiny: a dry run)")
        return 0
    run = Run(options, Measurement.start("step", options))
    weights = initial_weights(run.config("d20").model)
    d20(run, weights)
    if run.begins("d20 decode"):
        attempted(run, "d20 decode", lambda: decode(run, weights))
    if run.begins("2026-d12 ours"):
        other = initial_weights(run.config("2026-d12").model)
        attempted(run, "2026-d12 ours", lambda: ours(run, "2026-d12", other))
    print(run.kept.path)
    return 1 if run.kept.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
