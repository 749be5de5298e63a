"""Our tasks in the harness's own format: per task a YAML file and one of JSON lines, with the texts we ask.

A row holds its prompt whole, with the solved examples and the chat format, so that the harness has nothing
to decide: it joins, scores and counts. Written answers (word problems, functions) are not among them, since
they are judged by our own rules. The texts are the same for all models; items have the numbers that our
results have.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nanochat.data.chat.tasks import ChatTask
from nanochat.errors import DataError
from nanochat.evals.core.bundle import CoreTask
from nanochat.harness.chat_text import chat_text

TAG = "nanochat"
"""What the harness calls all tasks of a folder together."""
_CHOICE_METRICS = ("acc", "acc_norm")
_TEXTS = {"doc_to_text": "context", "doc_to_choice": "choices", "doc_to_target": "gold"}
# Options before a common end: the harness wants the number of the right one where a text usually is.
_SCHEMA_TEXTS = {"doc_to_text": "gold", "doc_to_choice": "choices", "doc_to_target": "continuation"}


@dataclass(frozen=True, kw_only=True)
class HarnessTask:
    """One task as the harness is to ask it."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    texts: Mapping[str, str]  # which column the harness takes for what
    delimiter: str = ""  # what it puts between context and continuation
    output_type: str = "multiple_choice"
    metrics: Sequence[str] = _CHOICE_METRICS


def chat_task(task: ChatTask, items: Sequence[int]) -> HarnessTask:
    """Return the problems of a multiple choice task, as a chat model is asked for a letter."""
    if task.kind != "choice":
        raise DataError(f"{task.name} has written answers, which the harness cannot judge as we do")
    rows = []
    for item in items:
        problem = task.problem(item)
        letters = list(problem.letters)
        context = chat_text(task.conversation(item))
        gold = letters.index(problem.answer)
        rows.append({"item": item, "context": context, "choices": letters, "gold": gold})
    return HarnessTask(name=f"{TAG}_{task.name}", rows=rows, texts=_TEXTS)


def core_task(task: CoreTask) -> HarnessTask:
    """Return the items of a CORE task with the solved examples before each."""
    write = {"multiple_choice": _choice_row, "schema": _schema_row, "language_modeling": _continuation_row}
    rows = [{"item": task.number(i), **write[task.kind](task, i)} for i in range(len(task.items))]
    name = f"{TAG}_core_{task.label}"
    if task.kind == "language_modeling":
        texts = {"doc_to_text": "context", "doc_to_target": "continuation"}
        return HarnessTask(name=name, rows=rows, texts=texts, output_type="loglikelihood", metrics=("acc",))
    texts = _SCHEMA_TEXTS if task.kind == "schema" else _TEXTS
    return HarnessTask(name=name, rows=rows, texts=texts, delimiter=task.delimiter)


def write_tasks(folder: Path, tasks: Sequence[HarnessTask]) -> None:
    """Write the folder for the harness's `--include_path`; its files name each other by their full paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        rows = folder.resolve() / f"{task.name}.jsonl"
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in task.rows]
        rows.write_text("".join(lines), encoding="utf-8", newline="\n")
        described = yaml.safe_dump(task_config(task, str(rows)), sort_keys=False, allow_unicode=True)
        (folder / f"{task.name}.yaml").write_text(described, encoding="utf-8", newline="\n")


def task_config(task: HarnessTask, rows: str) -> dict[str, Any]:
    """Return the harness's description of a task whose rows are in a file."""
    metrics = [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in task.metrics]
    return {
        "task": task.name,
        "tag": TAG,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": rows}},
        "test_split": "test",
        "num_fewshot": 0,
        "output_type": task.output_type,
        **task.texts,
        "target_delimiter": task.delimiter,
        "metric_list": metrics,
        "metadata": {"version": 1.0},
    }


def requests(task: HarnessTask, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the contexts and continuations of an item, as the harness joins them."""
    if task.output_type == "loglikelihood":
        return [(row["context"], row["continuation"])]
    if task.texts is _SCHEMA_TEXTS:
        return [(context, f"{task.delimiter}{row['continuation']}") for context in row["choices"]]
    return [(row["context"], f"{task.delimiter}{choice}") for choice in row["choices"]]


def _choice_row(task: CoreTask, index: int) -> dict[str, Any]:
    choices = list(task.items[index]["choices"])
    context = task.prompts(index)[0].removesuffix(f"{task.delimiter}{choices[0]}")
    return {"context": context, "choices": choices, "gold": int(task.items[index]["gold"])}


def _schema_row(task: CoreTask, index: int) -> dict[str, Any]:
    item = task.items[index]
    end = f"{task.delimiter}{item['continuation']}"
    contexts = [prompt.removesuffix(end) for prompt in task.prompts(index)]
    return {"choices": contexts, "continuation": item["continuation"], "gold": int(item["gold"])}


def _continuation_row(task: CoreTask, index: int) -> dict[str, Any]:
    context, whole = task.prompts(index)
    return {"context": context, "continuation": whole.removeprefix(context)}
