"""Our results in the harness's own layout, for programs that read or show what it writes.

`results_<time>.json` has a number for each task, `samples_<task>_<time>.jsonl` a line for each item. `acc` is
by our rule; whether an option is the likeliest text of all, which the harness keeps too, we do not know.
Numbers and items are those of our own evaluation; no model is run here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from nanochat.evals.item_results import ItemResult
from nanochat.harness.task_folder import HarnessTask, requests, task_config

_FILTER = "none"  # the harness's name for answers that are taken as they are


def write_results(
    folder: Path,
    tasks: Sequence[HarnessTask],
    items: Mapping[str, Sequence[ItemResult]],
    *,
    model: str,
    time: datetime,
) -> None:
    """Write the results of `tasks`; `items` has them by the name of the task."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = time.isoformat().replace(":", "-")
    names = [task.name for task in tasks]
    content = {
        "results": {task.name: _numbers(task, items[task.name]) for task in tasks},
        "group_subtasks": {name: [] for name in names},
        "configs": {task.name: task_config(task, f"{task.name}.jsonl") for task in tasks},
        "versions": dict.fromkeys(names, 1.0),
        "n-shot": dict.fromkeys(names, 0),
        "higher_is_better": {name: {"acc": True} for name in names},
        "n-samples": {n: {"original": len(items[n]), "effective": len(items[n])} for n in names},
        "config": {"model": "nanochat", "model_args": {"pretrained": model, "score": "mean"}},
        "date": time.timestamp(),
        "model_source": "nanochat",
        "model_name": model,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (folder / f"results_{stamp}.json").write_text(f"{text}\n", encoding="utf-8", newline="\n")
    for task in tasks:
        by_item = {result.item: result for result in items[task.name]}
        samples = [_sample(task, place, row, by_item[row["item"]]) for place, row in enumerate(task.rows)]
        lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
        path = folder / f"samples_{task.name}_{stamp}.jsonl"
        path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _numbers(task: HarnessTask, results: Sequence[ItemResult]) -> dict[str, Any]:
    """Return accuracy and its standard error as the harness computes it, from the spread of the items."""
    count = len(results)
    accuracy = sum(result.right[0] for result in results) / count
    error: float | str = math.sqrt(accuracy * (1 - accuracy) / (count - 1)) if count > 1 else "N/A"
    return {"alias": task.name, f"acc,{_FILTER}": accuracy, f"acc_stderr,{_FILTER}": error}


def _sample(task: HarnessTask, place: int, row: Mapping[str, Any], result: ItemResult) -> dict[str, Any]:
    asked = requests(task, row)
    # Of a continuation we keep the verdict alone.
    scores = [str(score) for score in result.loglikelihoods] or ["None"]
    target = str(row["gold"] if "gold" in row else row["continuation"])
    return {
        "doc_id": place,
        "doc": dict(row),
        "target": target,
        "arguments": {f"gen_args_{i}": {"arg_0": a, "arg_1": b} for i, (a, b) in enumerate(asked)},
        "resps": [[[score, "None"]] for score in scores],
        "filtered_resps": [[score, "None"] for score in scores],
        "filter": _FILTER,
        "metrics": ["acc"],
        "doc_hash": _digest(json.dumps(row, indent=2, ensure_ascii=False)),
        "prompt_hash": _digest(asked[0][0]),
        "target_hash": _digest(target),
        "acc": float(result.right[0]),
    }


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
