"""A short training on a GPU, its losses beside those of the same steps on a CPU in float32.

Run with `python -m tests.benchmarks.gpu_training` after `infra/gpu/prepare.py` has filled a folder with
tokens and the CPU's losses; `--device cpu --sizes tiny` is a dry run on made-up tokens, whose CPU losses it
computes itself. It writes `training.json` (`kernels.measurement`). The run goes through the training loop in
bfloat16, compiled; in the middle of the compared steps it is thrown away and continued from a restart point.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from kernels.measurement import Measurement, arguments
from nanochat.config import PretrainConfig
from nanochat.errors import TrainingError
from nanochat.evals.bpb import bits_per_byte
from nanochat.model.flops import flops_per_token
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.runtime import FolderRestartPoints
from nanochat.train.loop import StepResult, training_steps
from nanochat.train.micro_batch import fitting_cut
from nanochat.train.state import TrainState
from tests.benchmarks import short_training as short
from tests.benchmarks.short_training import Curve, Size, Text
from tests.benchmarks.step_timing import PEAK
from tests.support.greedy import greedy

PREPARED = Path(".gpu")
_END_S = 20.0  # for validation and samples
_STEADY = 100  # steps before speed counts
_JUDGED = 20  # steps before the loss has to have fallen: time may have ended sooner
_SHOWN_EVERY = 100  # steps, after those that are compared


# How far a step in bfloat16 may be from the CPU's in float32: a loss, and a gradient norm by its ratio.
# Rounding grows with the steps, since Muon amplifies last bits. A model of depth 4 on rows of 128 tokens of
# the same text, both on a CPU, was apart by at most: losses 0.001, 0.004, 0.005, 0.015 and norms 0.3, 0.5,
# 2.7, 2.7 % in the first 20, 40, 60 and 100 steps.
def loss_tolerance(step: int) -> float:
    """Return how far apart two losses of a step may be."""
    return 0.005 + 0.0005 * step


def norm_tolerance(step: int) -> float:
    """Return how far from 1 the ratio of two gradient norms of a step may be."""
    return 0.005 + 0.001 * step


@dataclass(frozen=True)
class Run:
    """The options, where results go, what is trained, and when it began."""

    options: argparse.Namespace
    kept: Measurement
    size: Size
    text: Text
    curve: Curve
    began: float = field(default_factory=time.perf_counter)

    @property
    def has_time(self) -> bool:
        """Return whether another step may begin."""
        return self.options.seconds - (time.perf_counter() - self.began) > _END_S or self.size is short.TINY

    def check_curve(self, results: list[StepResult]) -> None:
        """Compare the first steps with the CPU's."""
        pairs = list(zip(results, self.curve.losses, self.curve.norms, strict=False))
        losses = {r.step: abs(r.loss - loss) / loss_tolerance(r.step) for r, loss, _ in pairs}
        norms = {r.step: abs(r.grad_norm / norm - 1) / norm_tolerance(r.step) for r, _, norm in pairs}
        for name, used in (("losses", losses), ("gradient norms", norms)):
            step = max(used, key=lambda number: used[number])
            detail = f"{len(used)} steps; at most {used[step]:.0%} of what is allowed, in step {step}"
            self.kept.add_check(f"{name} follow the CPU's", max(used.values()) <= 1, detail)


def train(run: Run) -> tuple[GPT, list[StepResult]]:
    """Take all steps that fit; return the model and what each step measured."""
    config = short.config_for(run.size, run.text, "bfloat16", compiled=True)
    state, results = short.new_state(config, run.options.device), list[StepResult]()
    start = short.fingerprint(state.model)
    same = abs(start / run.curve.start - 1) < 1e-6
    run.kept.add_check("initial weights are the CPU's", same, f"{start} and {run.curve.start}")
    try:
        for result in _steps(run, config, state):
            results.append(result)
            _keep(run, result)
            if not run.has_time:
                break
    except TrainingError as error:
        run.kept.add_check("losses are finite", False, str(error))
    else:
        run.kept.add_check("losses are finite", True, f"{len(results)} steps")
    return state.model, results


def _steps(run: Run, config: PretrainConfig, state: TrainState) -> Iterator[StepResult]:
    """Take the steps, half of the compared ones before a restart."""
    plan = short.plan_for(config, run.text)
    began = time.perf_counter()
    cut = fitting_cut(state, plan)
    run.kept.add_row(compile_s=time.perf_counter() - began)
    middle = max(1, len(run.curve.losses) // 2)
    yield from training_steps(state, dataclasses.replace(plan, steps=middle), cut)
    yield from training_steps(_restarted(run, config, state), plan, cut)


def _restarted(run: Run, config: PretrainConfig, state: TrainState) -> TrainState:
    """Keep a restart point, lose the run, and return it continued from there."""
    settings, model = {"config": config.model_dump(mode="json")}, state.model
    with tempfile.TemporaryDirectory() as name:
        points = FolderRestartPoints(Path(name))
        state.save(points, settings)
        before = {key: weight.clone() for key, weight in model.state_dict().items()}
        for weight in model.state_dict().values():
            weight.fill_(float("nan"))
        # The same model: a new one would be compiled anew.
        fresh = TrainState(model, ModelOptimizer(model, config.optimizer), compiled=state.compiled)
        found = fresh.restore(points, settings)
    after = model.state_dict()
    same = found and fresh.step == state.step and all(torch.equal(before[key], after[key]) for key in before)
    run.kept.add_check("a restart point gives the weights back", same, f"step {fresh.step}")
    return fresh


def _keep(run: Run, result: StepResult) -> None:
    number, compared = result.step, len(run.curve.losses)
    if number <= compared:
        cpu, norm = run.curve.losses[number - 1], run.curve.norms[number - 1]
        run.kept.add_row(
            step=number,
            loss=result.loss,
            cpu=cpu,
            difference=result.loss - cpu,
            grad_norm=result.grad_norm,
            cpu_grad_norm=norm,
        )
    elif number % _SHOWN_EVERY == 0:
        run.kept.add_row(step=number, loss=result.loss, grad_norm=result.grad_norm)


def judge(run: Run, model: GPT, results: list[StepResult]) -> None:
    """Keep speed, validation and a sample; check that the model has learned."""
    steady = [result.seconds for result in results[min(_STEADY, len(results) // 2) :]]
    tokens_per_s = run.size.rows * run.size.length / statistics.median(steady)
    mfu = flops_per_token(model.config) * tokens_per_s / PEAK
    run.kept.add_row(steps=len(results), tokens_per_s=tokens_per_s, mfu=mfu)
    run.check_curve(results)
    end = statistics.mean(result.loss for result in results[-10:])
    if len(results) >= _JUDGED:
        detail = f"{results[0].loss:.3f} to {end:.3f} in {len(results)} steps"
        run.kept.add_check("the loss falls", end < 0.9 * results[0].loss, detail)
    bpb = bits_per_byte(model, short.val_batches(run.text, run.size), run.text.token_bytes)
    run.kept.add_row(val_bpb=bpb, train_loss=end)
    prompt = run.text.val[:16].tolist()
    written = greedy(model, prompt, 48 if run.size is short.FULL else 4)
    run.kept.add_row(prompt=_decoded(run.text, prompt), sample=_decoded(run.text, written))


def _decoded(text: Text, tokens: list[int]) -> str:
    return b"".join(text.vocabulary[token] for token in tokens).decode(errors="replace")


def cpu_curve(size: Size, text: Text) -> Curve:
    """Take the compared steps of a dry run on a CPU in float32."""
    config = short.config_for(size, text, "float32", compiled=False)
    state = short.new_state(config, "cpu")
    curve = Curve(short.fingerprint(state.model))
    plan = dataclasses.replace(short.plan_for(config, text), steps=size.compared)
    for result in training_steps(state, plan):
        curve.add(result)
    return curve


def _prepared(options: argparse.Namespace) -> tuple[Size, Text, Curve] | str:
    """Return what is trained, or why there is nothing."""
    if options.sizes == "tiny":
        text = Text.made_up(short.TINY)
        return short.TINY, text, cpu_curve(short.TINY, text)
    if options.device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device; --device cpu --sizes tiny is a dry run"
    if not (short.has_tokens(options.prepared) and short.has_curve(options.prepared)):
        return f"nothing is prepared in {options.prepared}; run python -m infra.gpu.prepare"
    return short.FULL, Text.load(options.prepared), Curve.load(options.prepared)


def main() -> int:
    """Train, compare and validate; return 1 if a number is wrong."""
    parser = arguments(__doc__)
    parser.set_defaults(seconds=180.0)
    parser.add_argument("--prepared", type=Path, default=PREPARED, help="folder of tokens and CPU losses")
    options = parser.parse_args()
    prepared = _prepared(options)
    if isinstance(prepared, str):
        print(f"gpu_training: {prepared}", file=sys.stderr)
        return 2
    run = Run(options, Measurement.start("training", options), *prepared)
    run.kept.add_row(size=dataclasses.asdict(run.size), cpu=run.curve.about)
    model, results = train(run)
    if results:
        judge(run, model, results)
    print(json.dumps({"results": str(run.kept.path), "steps": len(results)}))
    return 1 if run.kept.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
