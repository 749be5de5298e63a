"""Which file of the data root holds which task, and whether a source has the files that a recipe names.

Names and places only: a plan can check them before anything is downloaded. What is in the files is read by
`nanochat.data.chat.tasks`.
"""

from __future__ import annotations

from nanochat.data.chat.spelling import ROWS as SPELLING
from nanochat.data.chat.spelling import WORDS
from nanochat.errors import ConfigError

SUFFIXES = (".jsonl", ".parquet")
HELD_OUT = "test"  # the conversations that are not for training
OWN = "own"  # the folder of the conversations that a user adds

# Name of the task -> split -> file below the data root, without suffix.
TASK_FILES: dict[str, dict[str, str]] = {
    "arc_easy": {s: f"tasks/arc/ARC-Easy/{s}" for s in ("train", "test")},
    "arc_challenge": {s: f"tasks/arc/ARC-Challenge/{s}" for s in ("train", "test")},
    "mmlu": {"train": "tasks/mmlu/auxiliary_train", "dev": "tasks/mmlu/dev", "test": "tasks/mmlu/test"},
    "gsm8k": {s: f"tasks/gsm8k/{s}" for s in ("train", "test")},
    "humaneval": {"test": "tasks/humaneval/HumanEval"},
}

# The CORE bundle: its folder, and in it the list of its tasks, their baselines and the folder of their items.
CORE = "core"
CORE_LIST, CORE_BASELINES, CORE_ITEMS = CORE_PARTS = ("core.yaml", "eval_meta_data.csv", "eval_data")

TOY_CONVERSATIONS = ("functions", "smalltalk", HELD_OUT)


def task_file(task: str, split: str) -> str:
    """Return the place of a task's file, without suffix; raise ConfigError for a split that it has not.

    The spelling tasks have a list of words instead, which is named with its suffix.
    """
    splits = TASK_FILES.get(task) or SPELLING.get(task)
    if splits is not None:
        if split not in splits:
            raise ConfigError(
                f"task {task} has no split {split!r}", hint=f"its splits are {', '.join(splits)}"
            )
        return TASK_FILES[task][split] if task in TASK_FILES else WORDS
    if split != "train" and task != HELD_OUT:
        raise ConfigError(
            f"conversations {task} have no split {split!r}",
            hint=f"held-out conversations are the task {HELD_OUT!r}",
        )
    return f"conversations/{task}"
