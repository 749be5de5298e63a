"""The one training loop: pretraining, midtraining and SFT differ only in the `Plan` they hand it.

`training_steps` takes one optimizer step at a time and yields what it measured; logging, evaluation, samples
and restart points are hooks around it (`nanochat.train.run`). Nothing here is random: batches are functions
of the step. One process, one device.

A batch is cut into micro-batches, whose sums of losses are divided by the number of targets in the whole
batch, so how it is cut never changes what is computed. It does change the order in which floats are added,
and with it the last bits: the default cut therefore depends on the batch's shape and the kind of device only,
and `Runtime.micro_batch_rows` is for memory limits, where equal bits are not asked for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nanochat.errors import TrainingError
from nanochat.model.gpt import GPT, IGNORED
from nanochat.train.schedules import constant
from nanochat.train.state import TrainState

Ints = npt.NDArray[np.int64]
Batch = tuple[Ints, Ints]  # inputs and targets, (B, T) each

# Tokens per forward pass. CPU: the size hardly matters for the work (4 layers of width 128, 4,096 tokens a
# step: 785, 780, 852, 736 ms of CPU time at 1, 2, 4, 16 rows of 256), but small passes wait more often for
# the other thread on a busy machine, and large ones hold large logits. GPU: upstream's 32 rows of 2,048.
_PASS_TOKENS = {"cpu": 2048, "cuda": 65_536}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one training run does at each step."""

    steps: int
    batch: Callable[[int], Batch]
    lr_multiplier: Callable[[int], float]
    momentum: Callable[[int], float]
    weight_decay: Callable[[int], float] = constant  # multiplier of the matrices' decay


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step measured; `step` counts finished steps, so the first one is 1."""

    step: int
    loss: float  # mean over all targets of the batch, before the update
    grad_norm: float  # before clipping
    lr_multiplier: float
    tokens: int  # padding left out
    seconds: float


def training_steps(
    state: TrainState, plan: Plan, *, micro_batch_rows: int | None = None
) -> Iterator[StepResult]:
    """Train until the plan's last step, yielding after each one; `state` is always whole at a yield."""
    while state.step < plan.steps:
        started = time.perf_counter()
        inputs, targets = plan.batch(state.step)
        loss = accumulate_gradients(state.model, inputs, targets, micro_batch_rows)
        grad_norm = float(state.optimizer.clip())
        _require_finite(state, loss, grad_norm)
        multiplier = plan.lr_multiplier(state.step)
        state.optimizer.step(multiplier, plan.momentum(state.step), plan.weight_decay(state.step))
        state.step += 1
        seconds = time.perf_counter() - started
        state.seconds += seconds
        yield StepResult(
            step=state.step,
            loss=loss,
            grad_norm=grad_norm,
            lr_multiplier=multiplier,
            tokens=int(_used_lengths(targets).sum()),
            seconds=seconds,
        )


def accumulate_gradients(
    model: GPT, inputs: Ints, targets: Ints, micro_batch_rows: int | None = None
) -> float:
    """Add the gradients of a batch's mean loss to the model; return that loss in nats."""
    counted = int(np.count_nonzero(targets != IGNORED))
    total = torch.zeros((), device=model.device)
    for part_inputs, part_targets in micro_batches(inputs, targets, model.device.type, micro_batch_rows):
        x = torch.from_numpy(part_inputs).to(model.device)
        y = torch.from_numpy(part_targets).to(model.device)
        with compute_precision(model.device):
            loss = model(x, y, loss_reduction="sum") / max(counted, 1)
        loss.backward()
        total += loss.detach()
    return float(total)


def micro_batches(
    inputs: Ints, targets: Ints, device_type: str, rows: int | None = None
) -> Iterator[tuple[Ints, Ints]]:
    """Cut a batch into forward passes of rows of similar length, without the padding at their ends.

    What follows a row's last target cannot change its loss, since attention is causal.
    """
    used = _used_lengths(targets)
    order = np.argsort(-used, kind="stable")
    order = order[used[order] > 0]
    begin = 0
    while begin < len(order):
        longest = int(used[order[begin]])
        count = rows or rows_per_pass(longest, device_type)
        chosen = order[begin : begin + count]
        yield inputs[chosen, :longest], targets[chosen, :longest]
        begin += count


def _used_lengths(targets: Ints) -> Ints:
    """Return how many positions of each row end with its last target."""
    counted = targets != IGNORED
    return np.where(counted.any(axis=1), targets.shape[1] - np.argmax(counted[:, ::-1], axis=1), 0)


def rows_per_pass(length: int, device_type: str) -> int:
    """Return how many rows of a length go through the model at once."""
    return max(1, _PASS_TOKENS.get(device_type, _PASS_TOKENS["cuda"]) // length)


def compute_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass: bfloat16 products on a GPU, float32 on a CPU."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Use so many threads for operations on the CPU, and the former number afterwards."""
    former = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def _require_finite(state: TrainState, loss: float, grad_norm: float) -> None:
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if not math.isfinite(value):
            kept = "none" if state.kept_step is None else f"step {state.kept_step}"
            raise TrainingError(
                f"{name} is {value} in step {state.step + 1}; last restart point: {kept}",
                hint="lower the learning rates or set a gradient clip",
            )
