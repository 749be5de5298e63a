"""What follows from a recipe's fields: the numbers that people compare with published ones.

For showing only: nothing here is hashed or trained with. Costs come from `nanochat.costs.forecast`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nanochat.config import Recipe, learning_rates
from nanochat.costs.forecast import Forecast, training_rows
from nanochat.model.flops import flops_per_token, parameter_count, tensor_count


class Derived(NamedTuple):
    """One number with its dotted name."""

    name: str
    value: int | float | None  # None: only known once the data is there
    meaning: str


def derived(recipe: Recipe, cost: Forecast) -> tuple[Derived, ...]:
    """Return the derived numbers of a recipe and its predicted cost."""
    return (*_model(recipe), *_training(recipe, cost), *_learning_rates(recipe), *_costs(cost))


def _model(recipe: Recipe) -> Iterator[Derived]:
    model = recipe.pretrain.model
    parameters = parameter_count(model)
    tokens = recipe.pretrain.steps * recipe.pretrain.batch_tokens
    yield Derived("model.parameters", parameters, "Embeddings and head included.")
    yield Derived("model.tensors", tensor_count(model), "In a checkpoint.")
    yield Derived("model.head_dim", model.n_embd // model.n_head, "Channels of one attention head.")
    yield Derived("model.flops_per_token", flops_per_token(model), "Forward and backward, at full context.")
    yield Derived("pretrain.tokens", tokens, "steps x batch_tokens.")
    yield Derived("pretrain.tokens_per_parameter", tokens / parameters, "The horizon.")
    rows = recipe.pretrain.batch_tokens // model.sequence_len
    yield Derived("pretrain.batch_rows", rows, "Rows per optimizer step, all ranks together.")


def _training(recipe: Recipe, cost: Forecast) -> Iterator[Derived]:
    for stage in ("midtrain", "sft"):
        about = "predicted from published lengths of rows" if stage == "midtrain" else "rows // batch_rows"
        yield Derived(f"{stage}.rows", training_rows(recipe, stage), "Conversations in an epoch.")
        yield Derived(f"{stage}.steps", cost.of(stage).steps, f"Optimizer steps: {about}.")


def _learning_rates(recipe: Recipe) -> Iterator[Derived]:
    stages = (
        ("pretrain", recipe.pretrain.optimizer, 1.0),
        ("midtrain", recipe.midtrain.optimizer, 1.0),
        ("sft", recipe.sft.optimizer, recipe.sft.init_lr_frac),
    )
    for stage, optimizer, factor in stages:
        for group, lr in learning_rates(recipe.pretrain.model, optimizer).items():
            yield Derived(f"{stage}.lr.{group}", lr * factor, "At the schedule's highest point.")


def _costs(cost: Forecast) -> Iterator[Derived]:
    machine = cost.machine
    yield Derived("cost.flops", cost.flops, "Of all training whose length is known.")
    hours = None if cost.seconds is None else cost.seconds / 3600
    yield Derived(
        "cost.hours",
        hours,
        f"On {machine.name} at {machine.utilisation:.0%} of its peak; not for small recipes.",
    )
    yield Derived("cost.disk_bytes", cost.disk_bytes, "In the store, restart points included.")
    if cost.memory is not None:
        about = "Rows a pass for which memory_bytes is estimated: the most that may fit."
        yield Derived("cost.memory_rows", cost.memory.rows, about)
        yield Derived("cost.memory_bytes", cost.memory.total, "On one GPU, at least; `plan` shows the parts.")
