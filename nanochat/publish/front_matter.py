"""The metadata of a model card, in the hub's `model-index` schema: what its pages and search read."""

from __future__ import annotations

import re
from typing import Any

from nanochat.data.chat.task_table import TASKS
from nanochat.evals.results import in_order, metric_names, metric_title
from nanochat.publish.card_inputs import CardInputs, Records, is_toy

OTHER_SET = "_of_"  # in the name of a mean over another set than the published one
_HUB_NAME = re.compile(r"(?!.*(--|\.\.))[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)


def front_matter(card: CardInputs) -> dict[str, Any]:
    """Return the card's metadata; of the final model's results those of whole benchmarks."""
    about = card.publish.card
    results = []
    tasks = card.final["tasks"]
    for name in in_order(name for name, task in tasks.items() if task["problems"] == task["of"]):
        value = round(100 * tasks[name]["accuracy"], 4)
        results.append(_entry(dataset_of(name, card.records), metric_of(name), value))
    for name in (name for name in metric_names([card.final]) if OTHER_SET not in name):
        dataset = {"name": metric_title(name), "type": f"nanochat/{name}"}
        results.append(_entry(dataset, name, round(card.final["metrics"][name], 6)))
    datasets = [name for name in card.publish.datasets if _HUB_NAME.fullmatch(name)]
    return {
        "language": list(about.languages),
        **({"license": license} if (license := " ".join(card.publish.license.split())) else {}),
        "library_name": "nanochat",
        "pipeline_tag": "text-generation",
        "tags": ["text-generation", "transformer", "conversational", "nanochat"],
        **({"base_model": about.base_model} if about.base_model else {}),
        **({"datasets": datasets} if datasets else {}),
        "model-index": [{"name": " ".join(card.publish.title.split()), "results": results}],
    }


def dataset_of(name: str, records: Records) -> dict[str, str]:
    """Return a task's data set as the hub names it; the built-in world gets no real benchmark's name."""
    task = TASKS.get(name)
    title = task.title if task else name
    if is_toy(records):
        return {"name": f"{title} (toy world)", "type": f"nanochat/toy_{name}"}
    if task is None or not task.repo:
        return {"name": title, "type": name if task is None else f"nanochat/{name}"}
    # Results are listed under the names that data sets had before they had owners.
    found = {"name": title, "type": task.repo.removeprefix("openai/")}
    config, _, split = task.splits["test"].hub.partition("/") if "test" in task.splits else ("", "", "")
    return {**found, "config": config, "split": split} if split else found


def metric_of(name: str) -> str:
    """Return what a task's score is called on the hub."""
    return TASKS[name].metric if name in TASKS else "accuracy"


def _entry(dataset: dict[str, str], metric: str, value: float) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": dataset,
        "metrics": [{"type": metric, "name": metric, "value": value}],
    }
