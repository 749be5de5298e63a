"""A folder for lm-evaluation-harness: a model, the tasks as it was asked, and what our evaluation found.

`model/` is the model in nanochat's published format, `tasks/` what the harness's `--include_path` takes,
`results/` our results in its layout. Tasks with written answers are left out, since their judging is ours.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.models.import_export import export_model, refuse_used
from flows.models.score import Questions, Scores
from nanochat.data.chat.task_table import TASKS
from nanochat.data.chat.tasks import load_scored_task
from nanochat.errors import ConfigError
from nanochat.evals.core.bundle import load_core
from nanochat.evals.item_results import ItemResult
from nanochat.evals.shown_items import CORE_PREFIX
from nanochat.formats.published import Choice
from nanochat.harness.result_files import write_results
from nanochat.harness.task_folder import TAG, HarnessTask, chat_task, core_task, write_tasks


@dataclass(frozen=True)
class HarnessFolder:
    """What was written."""

    folder: Path
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def command(self) -> str:
        """Return the command that asks the harness for the same answers."""
        model = f"pretrained={self.folder / 'model'},score=mean"
        words = ["python", "-m", "nanochat.harness", "run", "--model", "nanochat", "--model_args", model]
        words += ["--include_path", str(self.folder / "tasks"), "--tasks", TAG]
        return shlex.join([*words, "--device", "cpu"])  # else the harness looks for a GPU


def write_harness_folder(folder: Path, asked: Questions, scores: Scores, choice: Choice) -> HarnessFolder:
    """Write the folder for one model that was scored.

    Raises ConfigError for a folder that is in use, or where nothing was asked that the harness can ask.
    """
    refuse_used(folder)
    folder = folder.resolve()
    tasks, left_out = _tasks(asked, scores.items)
    if not tasks:
        raise ConfigError("the harness can ask none of these tasks", hint="take one with choices")
    items = {task.name: scores.items[name] for name, task in tasks.items()}
    write_tasks(folder / "tasks", list(tasks.values()))
    model = folder / "model"
    now = datetime.now(UTC).replace(tzinfo=None)
    write_results(folder / "results", list(tasks.values()), items, model=str(model), time=now)
    export_model(asked.store, scores.examinee.name, model, form="nanochat", layout="flat", choice=choice)
    return HarnessFolder(folder, tuple(task.name for task in tasks.values()), left_out)


def _tasks(
    asked: Questions, items: Mapping[str, Sequence[ItemResult]]
) -> tuple[dict[str, HarnessTask], tuple[str, ...]]:
    """Return by our names the tasks that the harness can ask, and the names of the others."""
    found, left_out = dict[str, HarnessTask](), list[str]()
    for name in (name for name in items if name in TASKS):
        task = load_scored_task(asked.tasks, name)
        if task.kind == "choice":
            found[name] = chat_task(task, [result.item for result in items[name]])
        else:
            left_out.append(name)
    if any(name.startswith(CORE_PREFIX) for name in items):
        for core in load_core(asked.tasks, asked.config.core_max_problems):
            found[f"{CORE_PREFIX}{core.label}"] = core_task(core)
    return found, tuple(left_out)
