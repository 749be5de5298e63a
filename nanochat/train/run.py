"""One training run from start or restart point to finished artifact; pretrain, midtrain and sft share it.

The artifact is `model.safetensors`, `config.json`, `metrics.jsonl`, `samples.jsonl` (the same bytes for the
same inputs, also when the run was killed and continued) and `throughput.jsonl` (times, not part of them).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanochat.config import Config, OptimizerConfig
from nanochat.errors import ConfigError
from nanochat.model.checkpoint import save_model
from nanochat.model.flops import parameter_count, peak_flops
from nanochat.model.gpt import GPT
from nanochat.runtime import Runtime
from nanochat.train.hooks import Every, Keeper, Sampler
from nanochat.train.loop import Plan, StepResult, cpu_threads, training_steps
from nanochat.train.optimizer import ModelOptimizer
from nanochat.train.state import TrainState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a stage adds to the loop."""

    config: Config  # of the stage: names the run a restart point belongs to
    plan: Plan
    optimizer: OptimizerConfig
    lr_factor: float = 1.0
    measure_name: str
    measure: Callable[[], float]
    eval_every: int
    prompts: Sequence[str] = ()
    answer: Callable[[str], str]
    sample_every: int
    statistics: Mapping[str, float]


def train(model: GPT, job: Job, out: Path, runtime: Runtime) -> dict[str, Any]:
    """Train `model` in place, write the artifact to `out`, return the run's numbers."""
    with cpu_threads(runtime.threads):
        state = TrainState(model, ModelOptimizer(model, job.optimizer, lr_factor=job.lr_factor))
        run = {"config": job.config.model_dump(mode="json"), "steps": job.plan.steps}
        if state.restore(runtime.checkpoints, run):
            runtime.tracker.log_text(f"continuing after step {state.step}", step=state.step)
        else:
            logger.info("training %d parameters for %d steps", parameter_count(model.config), job.plan.steps)
        recorder = _Recorder(state, job, runtime)
        keeper = Keeper(state, runtime, run, job.plan.steps)
        for result in training_steps(state, job.plan, micro_batch_rows=runtime.micro_batch_rows):
            recorder(result)
            keeper(result)
        save_model(out, model)
        state.journal.write(out)
    return recorder.summary()


def device_of(runtime: Runtime) -> torch.device:
    """Return the device to train on; ConfigError if this machine lacks it."""
    device = torch.device(runtime.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {runtime.device!r} but no CUDA device was found", hint="use device cpu")
    return device


class _Recorder:
    """Turns step results into journal lines and tracker calls."""

    def __init__(self, state: TrainState, job: Job, runtime: Runtime) -> None:
        self._state, self._job, self._runtime = state, job, runtime
        steps = job.plan.steps
        self._measured: dict[str, float] = {}
        self._measure = Every(every=job.eval_every, steps=steps, call=self._take_measure)
        sampler = Sampler(state, runtime, job.prompts, job.answer)
        self._sample = Every(every=job.sample_every, steps=steps, call=sampler)
        device = state.model.device
        self._peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None

    def __call__(self, result: StepResult) -> None:
        """Record one step."""
        self._measured = {}
        self._measure(result)
        self._sample(result)
        metrics = {
            "train/loss": result.loss,
            "train/lr_multiplier": result.lr_multiplier,
            "train/grad_norm": result.grad_norm,
            **self._measured,
        }
        self._state.journal.add("metrics", {"step": result.step, **metrics})
        rate = result.tokens / result.seconds
        speed = {"throughput/tokens_per_s": rate}
        if self._peak is not None:
            speed["throughput/mfu"] = rate * self._state.model.flops_per_token() / self._peak
        times = {"step": result.step, "tokens": result.tokens, "seconds": result.seconds}
        self._state.journal.add("throughput", {**times, **speed})
        self._runtime.tracker.log({**metrics, **speed}, step=result.step, total_steps=self._job.plan.steps)

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the finished run."""
        last = json.loads(self._state.journal.lines["metrics"][-1])
        tokens = sum(json.loads(line)["tokens"] for line in self._state.journal.lines["throughput"])
        seconds = self._state.seconds
        return {
            **{name: last[name] for name in ("train/loss", self._job.measure_name)},
            "parameters": parameter_count(self._state.model.config),
            "steps": self._state.step,
            "tokens": tokens,
            "flops": tokens * self._state.model.flops_per_token(),
            "seconds_training": seconds,
            "tokens_per_s": tokens / seconds,
            **self._job.statistics,
        }

    def _take_measure(self, step: int) -> None:
        del step
        self._measured = {self._job.measure_name: self._job.measure()}
