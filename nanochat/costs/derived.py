"""What follows from a recipe's fields: the numbers that people compare with published ones.

For showing only: nothing here is hashed or trained with. Costs come from `nanochat.costs.forecast`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nanochat.config import MidtrainConfig, ModelConfig, PretrainConfig, Recipe, SftConfig, learning_rates
from nanochat.costs.forecast import Forecast, training_rows
from nanochat.model.flops import flops_per_token, parameter_count, tensor_count


class Derived(NamedTuple):
    """One number with its dotted name."""

    name: str
    value: int | float | None  # None: only known once the data is there
    meaning: str


def derived(recipe: Recipe, cost: Forecast) -> tuple[Derived, ...]:
    """Return the derived numbers of a recipe and its predicted cost."""
    return (*_model(recipe.model), *_training(recipe, cost), *_learning_rates(recipe), *_costs(cost))


def _model(model: ModelConfig) -> Iterator[Derived]:
    yield Derived("model.parameters", parameter_count(model), "Embeddings and head included.")
    yield Derived("model.tensors", tensor_count(model), "In a checkpoint.")
    yield Derived("model.head_dim", model.n_embd // model.n_head, "Channels of one attention head.")
    yield Derived("model.flops_per_token", flops_per_token(model), "Forward and backward, at full context.")


def _training(recipe: Recipe, cost: Forecast) -> Iterator[Derived]:
    for stage, config in recipe.training.items():
        if isinstance(config, PretrainConfig):
            yield from _text_training(stage, config)
            continue
        predicted = isinstance(config, MidtrainConfig)
        about = "predicted from published lengths of rows" if predicted else "rows // batch_rows"
        yield Derived(f"{stage}.rows", training_rows(recipe, config), "Conversations in an epoch.")
        yield Derived(f"{stage}.steps", cost.of(stage).steps, f"Optimizer steps: {about}.")


def _text_training(stage: str, config: PretrainConfig) -> Iterator[Derived]:
    tokens = config.steps * config.batch_tokens
    per_parameter = tokens / parameter_count(config.model)
    rows = config.batch_tokens // config.model.sequence_len
    yield Derived(f"{stage}.tokens", tokens, "steps x batch_tokens.")
    yield Derived(f"{stage}.tokens_per_parameter", per_parameter, "The horizon.")
    yield Derived(f"{stage}.batch_rows", rows, "Rows per optimizer step, all ranks together.")


def _learning_rates(recipe: Recipe) -> Iterator[Derived]:
    for stage, config in recipe.training.items():
        factor = config.init_lr_frac if isinstance(config, SftConfig) else 1.0
        for group, lr in learning_rates(recipe.model, config.optimizer).items():
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
