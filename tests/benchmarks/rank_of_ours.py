"""Our training step on one rank of eight, through the training loop: what `bench_gpu_step.py` times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.profiler import record_function

from nanochat.config import PretrainConfig
from nanochat.model.gpt import GPT
from nanochat.optim.optimizer import ModelOptimizer
from nanochat.optim.schedules import pretrain_schedule
from nanochat.train.loop import TrainingPlan, training_steps
from nanochat.train.micro_batch import fitting_cut
from nanochat.train.state import TrainState
from tests.benchmarks.one_of_eight import others_restored, owned, world
from tests.benchmarks.plain_rank import OPTIMIZER

Batch = tuple[np.ndarray, np.ndarray]


class MarkedOptimizer(ModelOptimizer):
    """The optimizer under a name of its own in the profiler."""

    def clip(self) -> Tensor:
        with record_function(OPTIMIZER):
            return super().clip()

    def step(self, *args: Any, **named: Any) -> None:
        with record_function(OPTIMIZER):
            super().step(*args, **named)


class OurRank:
    """Rank 0 of eight on some batches, over and over."""

    def __init__(
        self,
        config: PretrainConfig,
        state: Mapping[str, Tensor],
        batches: Sequence[Batch],
        *,
        device: str,
        compiler: Callable[[GPT], GPT],
    ) -> None:
        with torch.device(device):
            self.model = GPT(config.model)
        self.model.load_state_dict(state)
        self.model.precision = getattr(torch, config.compute.precision)
        ranks = world()
        optimizer = MarkedOptimizer(self.model, config.optimizer, group=ranks.group)
        self.owned = owned(self.model, ranks.group)
        self._state = TrainState(self.model, optimizer, ranks, compiled=compiler(self.model))
        schedule, length = pretrain_schedule(config), config.model.sequence_len
        self._plan = TrainingPlan(
            steps=config.steps,
            batch_rows=config.batch_tokens // length,
            longest=length,
            batch=lambda step, _: batches[step % len(batches)],
            lr_multiplier=schedule.lr_multiplier,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
        )

    def fit(self) -> None:
        """Find the rows of a pass, as every run does first; this compiles the model."""
        cut = fitting_cut(self._state, self._plan)
        self.rows = min(
            self._plan.batch_rows // self._state.world.size,
            cut.rows_of(self._plan.longest, self.model.device.type),
        )
        self._steps = training_steps(self._state, self._plan, cut)

    def step(self) -> float:
        """Take a step; return its loss."""
        return next(self._steps).loss

    def compared(self, steps: int) -> list[float]:
        """Take the first steps and leave what the other ranks own as it was; return the losses."""
        restore, losses = others_restored(self.model, self.owned), []
        for _ in range(steps):
            losses.append(self.step())
            restore()
        return losses
