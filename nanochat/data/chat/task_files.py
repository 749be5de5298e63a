"""Which file of the data root holds which task, and whether a source has the files that a recipe names.

Names and places only: a plan can check them before anything is downloaded. What is in the files is read by
`nanochat.data.chat.tasks`.
"""

from __future__ import annotations

from nanochat.data.chat.task_table import TASKS
from nanochat.errors import ConfigError

SUFFIXES = (".jsonl", ".parquet")
HELD_OUT = "test"  # the conversations that are not for training
OWN = "own"  # the folder of the conversations that a user adds, and how their names in a mixture begin


# The CORE bundle: its folder, and in it the list of its tasks, their baselines and the folder of their items.
CORE = "core"
CORE_LIST, CORE_BASELINES, CORE_ITEMS = CORE_PARTS = ("core.yaml", "eval_meta_data.csv", "eval_data")

TOY_CONVERSATIONS = ("functions", "smalltalk", HELD_OUT)


def task_file(task: str, split: str) -> str:
    """Return the place of a task's file, without suffix; raise ConfigError for a split that does not exist.

    The spelling tasks have a list of words instead, which is named with its suffix.
    """
    if task in TASKS:
        splits = TASKS[task].splits
        if split not in splits:
            raise ConfigError(
                f"task {task} has no split {split!r}", hint=f"its splits are {', '.join(splits)}"
            )
        return splits[split].place
    if split != "train" and task != HELD_OUT:
        raise ConfigError(
            f"conversations {task} have no split {split!r}",
            hint=f"held-out conversations are the task {HELD_OUT!r}",
        )
    return task if is_own_task(task) else f"conversations/{task}"


def is_own_task(task: str) -> bool:
    """Return whether a task is a file of the user's own conversations."""
    return task.startswith(f"{OWN}/")
