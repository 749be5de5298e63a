"""Which problems are asked, which of them are a full benchmark, and what a mean over them is called.

`core` and `chatcore` are the names of means over exactly the published sets, whole. A mean over anything else
says of what in its name, which is letters, digits and `_`, so that MLflow and file systems take it:

- `chatcore_of_100_each`, `core_of_up_to_500_each`: all tasks, a part of each
- `chatcore_of_spelling_bee`, `core_of_21_tasks`: these tasks, whole (more than three are counted)
- `core_of_4_tasks_up_to_100_each`: both
- `chatcore_with_spelling_bee`: the full set and more tasks; `chatcore` is then given as well
- `chatcore_sampled`: answers were drawn, where the published protocol takes the likeliest
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import numpy as np

from nanochat.data.chat.core_table import CORE_ITEMS
from nanochat.data.chat.task_table import TASKS
from nanochat.data.chat.tasks import ChatTask
from nanochat.evals.task_results import TaskResult

SUBSET_SEED = 42
_NAMED = 3  # tasks that are listed by name; more are counted

CHATCORE = {name: task.splits["test"].rows for name, task in TASKS.items() if task.card_place is not None}
"""Tasks of ChatCORE and their problems, as upstream published it."""
_FULL_SETS = {"core": CORE_ITEMS, "chatcore": CHATCORE}
_PUBLISHED = {
    "core": CORE_ITEMS,
    "chatcore": {name: task.splits["test"].rows for name, task in TASKS.items()},
}


def asked(task: ChatTask, limit: int | None) -> list[int]:
    """Return the numbers of the rows that upstream asks under a limit, in its order.

    Upstream permutes a data set when it loads it (`datasets` draws that from numpy) and then takes the first;
    rows that are made from a list of words are taken as they come.
    """
    declared = TASKS.get(task.name)
    if declared and declared.from_words:
        return list(range(len(task)))[:limit]
    order: list[int] = np.random.default_rng(SUBSET_SEED).permutation(len(task)).tolist()
    return order[:limit]


def means(benchmark: str, results: Mapping[str, TaskResult], *, sampled: bool = False) -> dict[str, float]:
    """Return the means over tasks of the accuracy above guessing, by name; none where there are no tasks."""
    full = _FULL_SETS[benchmark]
    suffix = "_sampled" if sampled and any(map(_is_written, results)) else ""
    published = _PUBLISHED[benchmark]
    partial = {name for name, result in results.items() if result.problems != published.get(name)}
    if not full.keys() <= results.keys() - partial:
        return {f"{benchmark}_of_{_set(results, full, partial)}{suffix}": _mean(results)} if results else {}
    found = {f"{benchmark}{suffix}": _mean({name: results[name] for name in full})}
    if more := [name for name in results if name not in full]:
        found[f"{benchmark}_with_{_tasks(more)}{suffix}"] = _mean(results)
    return found


def _set(results: Mapping[str, TaskResult], full: Mapping[str, int], partial: Set[str]) -> str:
    parts = [] if results.keys() == full.keys() else [_tasks(list(results))]
    if partial:
        counts = {result.problems for result in results.values()}
        parts.append(f"{max(counts)}_each" if len(counts) == 1 else f"up_to_{max(counts)}_each")
    return "_".join(parts)


def _is_written(name: str) -> bool:
    """Return whether the answers of a chat task are written; those of CORE and of choices never are."""
    return name in TASKS and TASKS[name].form not in ("labelled_choices", "numbered_choices")


def _tasks(names: list[str]) -> str:
    return "_".join(names) if len(names) <= _NAMED else f"{len(names)}_tasks"


def _mean(results: Mapping[str, TaskResult]) -> float:
    return sum(result.centered for result in results.values()) / len(results)
