"""What our evaluations cost, by count: tokens through the model, tokens through the head, tokens written.

What an item of each task takes stands in the tables of tasks. Reading takes its operations at a part of the
machine's speed in training. Writing takes a step of all layers for each token of a batch, in which weights
and caches are read from memory, or which waits for its launches. All GPUs of the machine share the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from nanochat.config import EvaluateConfig, Recipe
from nanochat.costs.reference_figures import Machine
from nanochat.data.chat.core_table import CORE_TASKS
from nanochat.data.chat.task_table import TASKS, TaskDeclaration
from nanochat.model.flops import parameter_counts

WRITTEN_TOGETHER = 32  # replies of a batch

_READING_SHARE = 0.5  # of the speed of training; assumed: short passes that are not compiled
_STEP_S = 4e-4  # least time of a layer's part of a step; assumed: its kernels wait for their launches
_START_S = 30.0  # assumed: processes, data and model, each time
_BYTES = 2  # of a number in bfloat16


@dataclass(frozen=True, kw_only=True)
class EvaluationWork:
    """What one evaluation does, all ranks together."""

    read: float = 0.0  # tokens through all layers
    scored: float = 0.0  # tokens through the head
    steps: float = 0.0  # of batches of replies
    cached: float = 0.0  # tokens of caches that these steps read

    def __add__(self, other: EvaluationWork) -> EvaluationWork:
        return EvaluationWork(
            read=self.read + other.read,
            scored=self.scored + other.scored,
            steps=self.steps + other.steps,
            cached=self.cached + other.cached,
        )


def evaluation_work(config: EvaluateConfig, *, base: bool) -> EvaluationWork:
    """Count the work of an evaluation; tasks whose items are not known are left out."""
    total = EvaluationWork()
    for name in config.chat_tasks:
        if _is_counted(name):
            items = _asked(TASKS[name].splits["test"].rows, config.max_problems)
            total += _chat(TASKS[name], items, config, base=base)
    if base and config.core:
        for core in CORE_TASKS.values():
            items = _asked(core.items, config.core_max_problems)
            total += EvaluationWork(read=items * core.read, scored=items * core.scored)
    return total + EvaluationWork(read=config.bpb_tokens, scored=config.bpb_tokens)


def evaluation_seconds(recipe: Recipe, machine: Machine, work: EvaluationWork) -> float:
    """Return how long the work takes, with the start of the processes."""
    model = recipe.model
    counts = parameter_counts(model)
    operations = 2.0 * (counts["matrices"] * work.read + counts["lm_head"] * work.scored)
    reading = operations / (machine.flops_per_s * _READING_SHARE)
    weights = _BYTES * (counts["matrices"] + counts["lm_head"])
    cache = _BYTES * 2 * model.n_layer * model.n_kv_head * (model.n_embd // model.n_head)
    from_memory = (weights * work.steps + cache * work.cached) / machine.memory_bytes_per_s
    writing = max(from_memory, work.steps * model.n_layer * _STEP_S) / machine.gpus
    return _START_S + reading + writing


def evaluation_basis(config: EvaluateConfig, work: EvaluationWork) -> str:
    """Say what the time follows from, and which tasks it leaves out."""
    left_out = ", ".join(name for name in config.chat_tasks if not _is_counted(name))
    return (
        f"counted: {work.read / 1e6:.1f} million tokens read, {work.steps:,.0f} steps of"
        f" {WRITTEN_TOGETHER} replies, on all GPUs; assumed: {_READING_SHARE:.0%} of the speed of training,"
        f" {1e3 * _STEP_S:g} ms a step and layer, {_START_S:.0f} s to start"
        + (f"; not counted: {left_out}" if left_out else "")
    )


def _is_counted(chat_task: str) -> bool:
    return chat_task in TASKS and TASKS[chat_task].prompt_tokens > 0


def _chat(task: TaskDeclaration, items: int, config: EvaluateConfig, *, base: bool) -> EvaluationWork:
    """Count the work of a chat task; a base model does not end its replies."""
    if not task.reply_steps:
        return EvaluationWork(read=items * task.prompt_tokens)
    replies = items * config.num_samples
    steps = config.max_new_tokens if base else min(task.reply_steps, config.max_new_tokens)
    read, batches = replies * task.prompt_tokens, ceil(replies / WRITTEN_TOGETHER)
    cached = replies * steps * (task.prompt_tokens + steps / 2)
    return EvaluationWork(read=read, steps=batches * steps, cached=cached)


def _asked(items: int, most: int | None) -> int:
    return min(items, most or items)
