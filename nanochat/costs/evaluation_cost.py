"""What our evaluations cost, by count: tokens through the model, tokens through the head, tokens written.

Per item of each task the counts below, means over 400 items of the published data with a vocabulary of
65,536, as `uv run python tests/benchmarks/count_evaluation.py --data FOLDER` prints them; beginnings that
rows share count once, as they are read once. Reading takes its operations at a part of the machine's speed
in training. Writing takes a step of all layers for each token of a batch, in which weights and caches are
read from memory, or which waits for its launches. All is shared among the GPUs of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from nanochat.config import EvaluateConfig, Recipe
from nanochat.costs.reference_figures import Machine
from nanochat.data.chat.core_table import CORE_ITEMS
from nanochat.data.chat.task_table import TASKS
from nanochat.model.flops import parameter_counts

WRITTEN_TOGETHER = 32  # replies of a batch

_READING_SHARE = 0.5  # of the speed of training; assumed: short passes that are not compiled
_STEP_S = 4e-4  # least time of a layer's part of a step; assumed: its kernels wait for their launches
_START_S = 30.0  # assumed: processes, data and model, each time
_BYTES = 2  # of a number in bfloat16


@dataclass(frozen=True)
class Reading:
    """Means over the items of a task, in tokens."""

    read: int
    scored: float = 0.0  # through the head
    steps: int = 0  # of a batch of replies, at most: until its longest reference answer is written


CHAT_TOKENS = {
    "arc_easy": Reading(75),
    "arc_challenge": Reading(85),
    "mmlu": Reading(129),
    "gsm8k": Reading(65, steps=215),
    "humaneval": Reading(123, steps=258),
}
CORE_TOKENS = {
    "hellaswag_zeroshot": Reading(91, scored=62.4),
    "jeopardy": Reading(330, scored=2.6),
    "bigbench_qa_wikidata": Reading(122, scored=1.1),
    "arc_easy": Reading(359, scored=16.7),
    "arc_challenge": Reading(418, scored=21.7),
    "copa": Reading(20, scored=11.2),
    "commonsense_qa": Reading(473, scored=4.0),
    "piqa": Reading(414, scored=28.3),
    "openbook_qa": Reading(22, scored=12.6),
    "lambada_openai": Reading(76, scored=1.4),
    "hellaswag": Reading(565, scored=62.4),
    "winograd": Reading(26, scored=10.0),
    "winogrande": Reading(29, scored=11.4),
    "bigbench_dyck_languages": Reading(549, scored=1.9),
    "agi_eval_lsat_ar": Reading(884, scored=4.0),
    "bigbench_cs_algorithms": Reading(410, scored=1.2),
    "bigbench_operators": Reading(417, scored=2.3),
    "bigbench_repeat_copy_logic": Reading(454, scored=16.3),
    "squad": Reading(2123, scored=4.3),
    "boolq": Reading(1613, scored=2.0),
    "bigbench_language_identification": Reading(1756, scored=4.0),
    "coqa": Reading(420, scored=3.0),  # assumed: it is not in the data that was counted
}


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
        if _is_known(name):
            items = _asked(TASKS[name].splits["test"].rows, config.max_problems)
            total += _chat(CHAT_TOKENS[name], items, config, base=base)
    if base and config.core:
        for label, tokens in CORE_TOKENS.items():
            items = _asked(CORE_ITEMS[label], config.core_max_problems)
            total += EvaluationWork(read=items * tokens.read, scored=items * tokens.scored)
    return total + EvaluationWork(read=config.bpb_tokens, scored=config.bpb_tokens)


def evaluation_seconds(recipe: Recipe, machine: Machine, work: EvaluationWork) -> float:
    """Return how long the work takes, with the start of the processes."""
    model = recipe.pretrain.model
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
    left_out = ", ".join(name for name in config.chat_tasks if not _is_known(name))
    return (
        f"counted: {work.read / 1e6:.1f} million tokens read, {work.steps:,.0f} steps of"
        f" {WRITTEN_TOGETHER} replies, on all GPUs; assumed: {_READING_SHARE:.0%} of the speed of training,"
        f" {1e3 * _STEP_S:g} ms a step and layer, {_START_S:.0f} s to start"
        + (f"; not counted: {left_out}" if left_out else "")
    )


def _is_known(chat_task: str) -> bool:
    return chat_task in TASKS and chat_task in CHAT_TOKENS


def _chat(tokens: Reading, items: int, config: EvaluateConfig, *, base: bool) -> EvaluationWork:
    """Count the work of a chat task; a base model does not end its replies."""
    if not tokens.steps:
        return EvaluationWork(read=items * tokens.read)
    replies = items * config.num_samples
    steps = config.max_new_tokens if base else min(tokens.steps, config.max_new_tokens)
    context = tokens.read + steps / 2
    batches = ceil(replies / WRITTEN_TOGETHER)
    return EvaluationWork(read=replies * tokens.read, steps=batches * steps, cached=replies * steps * context)


def _asked(items: int, most: int | None) -> int:
    return min(items, most or items)
