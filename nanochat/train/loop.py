"""The one training loop: pretraining, midtraining and SFT differ only in the `TrainingPlan` they hand it.

`training_steps` takes one optimizer step at a time and yields what it measured; logging, evaluation, samples
and restart points are hooks around it (`nanochat.train.training_run`). Nothing here is random: batches are
functions of the step, and each rank takes its rows of them (`RankGroup.rows`), so the global batch is the
same for any number of ranks.

A rank cuts its rows into micro-batches, whose sums of losses are divided by the number of targets in the
whole global batch; gradients are summed over micro-batches and ranks. So neither cut changes what is
computed. Both change the order in which floats are added, and with it the last bits: the default cut
therefore depends on the batch's shape and the kind of device only (and on a GPU's memory where that is
short: `nanochat.train.micro_batch`), and equal bits are promised for equal numbers of ranks.

A step waits for the device once, at its end: loss and gradient norm are read when all of its work has been
queued, the optimizer's too. The weights that a step with a number that is not finite leaves behind are lost:
the run ends with an error before anyone can keep them.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat.config import IGNORED
from nanochat.data.text.prefetch import Prefetch
from nanochat.errors import TrainingError
from nanochat.model.gpt import GPT
from nanochat.optim.schedules import constant
from nanochat.train.feed import Feed, Ints, Sent
from nanochat.train.state import TrainState

Batch = tuple[Ints, Ints]  # inputs and targets, (B, T) each

# Tokens per forward pass. CPU: the size hardly matters for the work (4 layers of width 128, 4,096 tokens a
# step: 785, 780, 852, 736 ms of CPU time at 1, 2, 4, 16 rows of 256), but small passes wait more often for
# the other thread on a busy machine, and large ones hold large logits. GPU: upstream's 32 rows of 2,048.
_PASS_TOKENS = {"cpu": 2048, "cuda": 65_536}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How large a forward pass is: `rows` rows, or as many as hold `tokens` tokens."""

    rows: int | None = None
    tokens: int | None = None  # None: what suits the kind of device

    def rows_of(self, length: int, device_type: str) -> int:
        """Return how many rows of a length go through the model at once."""
        tokens = self.tokens or _PASS_TOKENS.get(device_type, _PASS_TOKENS["cuda"])
        return self.rows or max(1, tokens // length)


DEFAULT_CUT = Cut()


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What one training run does at each step."""

    steps: int
    batch_rows: int  # of the global batch
    longest: int  # positions of the longest row in any batch
    batch: Callable[[int, slice], Batch]  # some rows of a step's global batch
    lr_multiplier: Callable[[int], float]
    momentum: Callable[[int], float]
    weight_decay: Callable[[int], float] = constant  # multiplier of the matrices' decay


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step measured, on all ranks together; `step` counts finished steps, so the first one is 1."""

    step: int
    loss: float  # mean over all targets of the global batch, before the update
    grad_norm: float  # before clipping
    lr_multiplier: float
    tokens: int  # padding left out
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A rank's part of a step's batch, cut into passes that are on their way to the device."""

    sent: Sent
    counted: int  # targets
    tokens: int  # padding left out


def training_steps(state: TrainState, plan: TrainingPlan, cut: Cut = DEFAULT_CUT) -> Iterator[StepResult]:
    """Train until the plan's last step, yielding after each one; `state` is always whole at a yield."""
    rows, feed = state.world.rows(plan.batch_rows), Feed(state.model.device)
    with Prefetch(lambda step: _prepared(feed, *plan.batch(step, rows), cut), plan.steps) as batch:
        while state.step < plan.steps:
            yield _take_step(state, plan, batch)


def _prepared(feed: Feed, inputs: Ints, targets: Ints, cut: Cut) -> _Prepared:
    passes = list(micro_batches(inputs, targets, feed.device.type, cut)) or [_nothing(inputs.shape[1])]
    counted, tokens = _count(targets), int(_used_lengths(targets).sum())
    return _Prepared(sent=feed.send(passes), counted=counted, tokens=tokens)


def _take_step(state: TrainState, plan: TrainingPlan, batch: Callable[[int], _Prepared]) -> StepResult:
    started = time.perf_counter()
    mine = batch(state.step)
    counted, tokens = state.world.total(mine.counted, mine.tokens)
    loss = _accumulate(state.passes, mine.sent, int(counted), state.optimizer.reducing)
    norm = state.optimizer.clip()
    multiplier = plan.lr_multiplier(state.step)
    state.optimizer.step(multiplier, plan.momentum(state.step), plan.weight_decay(state.step))
    total, grad_norm = _read(state, loss, norm)
    state.step += 1
    seconds = time.perf_counter() - started
    state.seconds += seconds
    return StepResult(
        step=state.step,
        loss=total,
        grad_norm=grad_norm,
        lr_multiplier=multiplier,
        tokens=int(tokens),
        seconds=seconds,
    )


def _read(state: TrainState, loss: Tensor, norm: Tensor) -> tuple[float, float]:
    """Wait for the device; return the losses' sum over all ranks, and the norm, once both are finite."""
    mine, grad_norm = torch.stack((loss, norm)).tolist()
    losses = [theirs for (theirs,) in state.world.gather(mine)]
    _require_finite_losses(state, losses)
    _require_finite_norm(state, grad_norm)
    return sum(losses), grad_norm


def accumulate_gradients(
    model: GPT,
    inputs: Ints,
    targets: Ints,
    cut: Cut = DEFAULT_CUT,
    *,
    last: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Tensor:
    """Add the gradients of a batch's mean loss to the model; return that loss in nats, (), on its device."""
    mine = _prepared(Feed(model.device), inputs, targets, cut)
    return _accumulate(model, mine.sent, mine.counted, last)


def _accumulate(
    model: GPT, sent: Sent, counted: int, last: Callable[[], AbstractContextManager[object]]
) -> Tensor:
    """Add the gradients of the summed losses over `counted`, the targets in the global batch; return the sum.

    `last` is the context of the last backward pass, in which ranks reduce their gradients. There is always
    one, if need be with gradients of zero, so that a rank without rows or targets does not keep the others
    waiting.
    """
    total = torch.zeros((), device=model.device)
    for number, (inputs, targets) in enumerate(sent.received(), 1):
        loss = model(inputs, targets, loss_reduction="sum") / max(counted, 1)
        with last() if number == len(sent.pairs) else contextlib.nullcontext():
            loss.backward()
        total += loss.detach()
    return total


def micro_batches(
    inputs: Ints,
    targets: Ints,
    device_type: str,
    cut: Cut = DEFAULT_CUT,
) -> Iterator[Batch]:
    """Cut a batch into forward passes of rows of similar length, without the padding at their ends.

    What follows a row's last target cannot change its loss, since attention is causal.
    """
    used = _used_lengths(targets)
    order = np.argsort(-used, kind="stable")
    order = order[used[order] > 0]
    begin = 0
    while begin < len(order):
        longest = int(used[order[begin]])
        count = cut.rows_of(longest, device_type)
        chosen = order[begin : begin + count]
        yield inputs[chosen, :longest], targets[chosen, :longest]
        begin += count


def _used_lengths(targets: Ints) -> Ints:
    """Return how many positions of each row end with its last target."""
    counted = targets != IGNORED
    return np.where(counted.any(axis=1), targets.shape[1] - np.argmax(counted[:, ::-1], axis=1), 0)


def _count(targets: Ints) -> int:
    return int(np.count_nonzero(targets != IGNORED))


def _nothing(length: int) -> Batch:
    """Return a pass in which nothing is counted."""
    return np.zeros((1, length), np.int64), np.full((1, length), IGNORED, np.int64)


def _require_finite_losses(state: TrainState, losses: list[float]) -> None:
    for rank, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise _not_finite(state, "loss", loss, f" on rank {rank} of {len(losses)}")


def _require_finite_norm(state: TrainState, norm: float) -> None:
    if not math.isfinite(norm):
        raise _not_finite(state, "gradient norm", norm, f" over the sum of {state.world.size} ranks")


def _not_finite(state: TrainState, name: str, value: float, where: str) -> TrainingError:
    kept = "none" if state.kept_step is None else f"step {state.kept_step}"
    place = where if state.world.size > 1 else ""
    return TrainingError(
        f"{name} is {value} in step {state.step + 1}{place}; last restart point: {kept}",
        hint="lower the learning rates or set a gradient clip",
    )
