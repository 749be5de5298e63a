"""One training run from start or restart point to finished artifact; pretrain, midtrain and sft share it.

The artifact is `model.safetensors`, `config.json`, `metrics.jsonl`, `samples.jsonl` (the same bytes for the
same inputs and number of ranks, also when the run was killed and continued) and `throughput.jsonl` (times,
not part of them). All ranks of a run call `train`; rank 0 alone writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from nanochat.config import MidtrainConfig, PretrainConfig, SftConfig
from nanochat.model.checkpoint import save_model
from nanochat.model.flops import parameter_count
from nanochat.model.gpt import GPT
from nanochat.model.reproducible import cpu_threads
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.ranks.rank_group import RankGroup
from nanochat.runtime import Runtime
from nanochat.train.hooks import Every, Keeper, Sampler
from nanochat.train.loop import Cut, TrainingPlan, training_steps
from nanochat.train.micro_batch import fitting_cut, out_of_memory_explained
from nanochat.train.recorder import Recorder
from nanochat.train.state import TrainState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What a stage adds to the loop."""

    config: PretrainConfig | MidtrainConfig | SftConfig  # also names the run a restart point belongs to
    plan: TrainingPlan
    lr_factor: float = 1.0
    measure_name: str
    measure: Callable[[Cut, RankGroup], float]  # called by all ranks together
    answer: Callable[[str], str]
    statistics: Mapping[str, float]


def train(model: GPT, job: TrainingJob, out: Path, runtime: Runtime) -> dict[str, Any]:
    """Train `model` in place, write the artifact to `out`, return the run's numbers."""
    with cpu_threads(runtime.threads):
        state, keeper = _start(model, job, runtime)
        cut = fitting_cut(state, job.plan, runtime.micro_batch_rows)
        recorder = Recorder(state, runtime.tracker, job.plan.steps)
        measure, sample = _hooks(state, job, cut, runtime)
        with out_of_memory_explained(state, job.plan, cut):
            for result in training_steps(state, job.plan, cut):
                value = measure(result)
                sample(result)
                recorder(result, {} if value is None else {job.measure_name: value})
                keeper(result)
        if state.world.main:
            save_model(out, model)
            state.journal.write(out)
    return {**recorder.summary(job.measure_name), **job.statistics}


def _start(model: GPT, job: TrainingJob, runtime: Runtime) -> tuple[TrainState, Keeper]:
    """Return the run as it begins or goes on, and what keeps its restart points."""
    world, steps = RankGroup.current(), job.plan.steps
    optimizer = ModelOptimizer(model, job.config.optimizer, lr_factor=job.lr_factor, group=world.group)
    model.precision = getattr(torch, job.config.compute.precision)
    compiled = cast(GPT, torch.compile(model)) if job.config.compute.compile else None
    state = TrainState(model, optimizer, world, compiled=compiled)
    run = {"config": job.config.model_dump(mode="json"), "steps": steps}
    if state.restore(runtime.restart_points, run):
        runtime.tracker.log_text(f"continuing after step {state.step}", step=state.step)
    else:
        logger.info("training %d parameters for %d steps", parameter_count(model.config), steps)
    return state, Keeper(state, runtime, run, steps)


def _hooks(
    state: TrainState, job: TrainingJob, cut: Cut, runtime: Runtime
) -> tuple[Every[float], Every[None]]:
    steps, config = job.plan.steps, job.config
    sampler = Sampler(state, runtime, config.prompts, job.answer)
    return (
        Every(every=config.eval_every, steps=steps, call=lambda step: job.measure(cut, state.world)),
        Every(every=config.sample_every, steps=steps, call=sampler),
    )
