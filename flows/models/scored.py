"""What scoring models gave, as plain data: a line per task, and the comparison of two models.

Made from `flows.models.score.Scores`; how lines look as text is decided in `flows.cli.eval_tables`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flows.models.score import Questions, Scores
from nanochat.evals.intervals import Estimate, centering_weights, share, weighted_sum
from nanochat.evals.item_results import ItemResult
from nanochat.evals.paired import TaskComparison, compared
from nanochat.evals.results import (
    in_order,
    metric_interval,
    metric_names,
    metric_part,
    metric_tasks,
    sample_estimates,
    task_interval,
)
from nanochat.evals.shown_items import CORE_PREFIX, Prompts, ShownItem

Which = Literal["right", "wrong", "flips"]


@dataclass(frozen=True, kw_only=True)
class TaskLine:
    """How one model did on one task, or on one part of it."""

    accuracy: Estimate
    chance: float
    items: int
    seconds: float | None = None  # None where it was not measured
    groups: Mapping[str, TaskLine] | None = None  # parts of the task, such as subjects
    samples: Mapping[str, Estimate] = field(default_factory=dict)  # pass@k and majority

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        found: dict[str, Any] = {"accuracy": self.accuracy.value}
        found |= {"low": self.accuracy.low, "high": self.accuracy.high}
        found |= {"chance": self.chance, "items": self.items}
        if self.seconds is not None:
            found["seconds"] = self.seconds
        if self.samples:
            found["samples"] = {
                what: {"value": e.value, "low": e.low, "high": e.high} for what, e in self.samples.items()
            }
        if self.groups:
            return found | {"groups": {name: group.to_json() for name, group in self.groups.items()}}
        return found


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """What the first model has more than the second in a mean over tasks, or in bits per byte."""

    value: float
    interval: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        limits = {"low": self.interval.low, "high": self.interval.high} if self.interval else {}
        return {"difference": self.value, **limits}


def task_lines(scores: Scores) -> dict[str, TaskLine]:
    """Return a line for each task, those of CORE after the chat tasks and under names that begin so."""
    tables = {"": scores.results["tasks"], CORE_PREFIX: scores.results["core"]}
    return {
        f"{prefix}{name}": _line(f"{prefix}{name}", table[name], scores)
        for prefix, table in tables.items()
        for name in (table if prefix else in_order(table))
    }


def _line(name: str, numbers: Mapping[str, Any], scores: Scores) -> TaskLine:
    return TaskLine(
        accuracy=task_interval(numbers),
        chance=numbers["baseline"],
        items=numbers["problems"],
        seconds=scores.seconds.get(name),
        groups=_groups(scores.items[name], numbers["baseline"]),
        samples=sample_estimates(numbers),
    )


def _groups(items: Sequence[ItemResult], chance: float) -> dict[str, TaskLine]:
    parts: dict[str, list[float]] = {}
    for result in items:
        if result.group:
            parts.setdefault(result.group, []).append(sum(result.right) / len(result.right))
    return {
        name: TaskLine(
            accuracy=share(sum(rights) / len(rights), len(rights)), chance=chance, items=len(rights)
        )
        for name, rights in sorted(parts.items())
    }


def metric_lines(scores: Scores) -> dict[str, tuple[float, Estimate | None]]:
    """Return what sums up a model, each with its interval where there is one."""
    return {
        name: (scores.results["metrics"][name], metric_interval(name, scores.results))
        for name in metric_names([scores.results])
    }


def comparison(first: Scores, second: Scores) -> tuple[dict[str, TaskComparison], dict[str, MeanDifference]]:
    """Compare two models task by task and in what sums them up."""
    tasks = compared(first.items, second.items)
    in_order = {name: tasks[name] for name in task_lines(first) if name in tasks}
    names = [
        name for name in metric_names([first.results]) if second.results["metrics"].get(name) is not None
    ]
    return in_order, {name: _change(name, first, second, tasks) for name in names}


def _change(name: str, first: Scores, second: Scores, tasks: Mapping[str, TaskComparison]) -> MeanDifference:
    value = first.results["metrics"][name] - second.results["metrics"][name]
    if not metric_interval(name, first.results) or not metric_interval(name, second.results):
        return MeanDifference(value=value, interval=None)
    members = metric_tasks(name, first.results)
    prefix = CORE_PREFIX if metric_part(name) == "core" else ""
    weights = centering_weights([task["baseline"] for task in members.values()])
    changes = [tasks[f"{prefix}{task}"].difference.estimate for task in members]
    return MeanDifference(value=value, interval=weighted_sum(zip(weights, changes, strict=True)))


def comparison_json(
    tasks: Mapping[str, TaskComparison], metrics: Mapping[str, MeanDifference]
) -> dict[str, Any]:
    """Return a comparison for programs."""
    return {
        "tasks": {
            name: {
                "difference": task.difference.estimate.value,
                "low": task.difference.estimate.low,
                "high": task.difference.estimate.high,
                "p": task.difference.p,
                "items": task.items,
                "gained": list(task.gained),
                "lost": list(task.lost),
            }
            for name, task in tasks.items()
        },
        "metrics": {name: change.to_json() for name, change in metrics.items()},
    }


@dataclass(frozen=True, kw_only=True)
class Example:
    """One item to show: what was asked, and what each model made of it."""

    task: str
    item: int
    group: str
    asked: ShownItem
    answers: Mapping[str, ItemResult]  # by model

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        found: dict[str, Any] = {"task": self.task, "item": self.item, "prompt": self.asked.prompt}
        found |= {"expected": self.asked.gold} | ({"subject": self.group} if self.group else {})
        if self.asked.options:
            found["options"] = list(self.asked.options)
        answers = {
            name: {
                "predictions": list(result.predictions),
                "right": list(result.right),
                "replies": list(result.replies),
                "loglikelihoods": list(result.loglikelihoods),
            }
            for name, result in self.answers.items()
        }
        return found | {"answers": answers}


def examples(questions: Questions, scores: Sequence[Scores], which: Which, most: int) -> list[Example]:
    """Return the first items of each task that the first model has right or wrong, or they differ on."""
    prompts = Prompts(questions.tasks, scores[0].tokenizer, questions.config)
    found = []
    for task in task_lines(scores[0]):
        by_model = {s.examinee.name: {r.item: r for r in s.items[task]} for s in scores}
        own, *others = by_model.values()
        chosen = [i for i in sorted(own) if _is_wanted(which, own[i], [other[i] for other in others])]
        for item in chosen[:most]:
            answers = {name: results[item] for name, results in by_model.items()}
            asked = prompts.shown(task, own[item])
            found.append(Example(task=task, item=item, group=own[item].group, asked=asked, answers=answers))
    return found


def _is_wanted(which: Which, own: ItemResult, others: Sequence[ItemResult]) -> bool:
    if which == "flips":
        return any(sum(own.right) != sum(other.right) for other in others)
    return all(own.right) == (which == "right")
