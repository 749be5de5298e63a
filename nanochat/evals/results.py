"""The benchmark table: what is in it, in which order, and how its numbers and their intervals are written.

Takes the `results.json` of one or more models as `nanochat.evals.evaluate` writes it, checked as it is read.
Rows come in the order of the published model card. Intervals follow from what is in the file; bits per byte
has none. The terminal, the report and the model card lay the rows out; titles and columns are theirs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nanochat.data.chat.task_table import TASKS
from nanochat.errors import DataError
from nanochat.evals.intervals import Estimate, centered_mean, share
from nanochat.evals.problem_sets import CHATCORE

ABSENT = "–"
_CHATCORE = sorted(CHATCORE, key=lambda name: TASKS[name].card_place or 0)  # first on a card, others follow
_TITLES = {"chatcore": "ChatCORE", "core": "CORE", "val_bpb": "Validation bits per byte"}
_PARTS = {"chatcore": "tasks", "core": "core"}  # of results.json, that a metric is the mean over
_MOST_DIGITS = 300


@dataclass(frozen=True)
class BenchmarkRow:
    """One task or metric, with its value for each model in turn."""

    part: str  # of results.json: tasks, core or metrics; or samples, numbers of a task beside its accuracy
    name: str
    chance: float | None  # accuracy of guessing; None for a metric
    values: tuple[float | None, ...]  # accuracies, or a metric's values; None where a model was not asked
    intervals: tuple[Estimate | None, ...]  # of each value; None where none is known

    @property
    def label(self) -> str:
        """Return a name that distinguishes a CORE task from the chat task of the same name."""
        return core_label(self.name) if self.part == "core" else self.name

    def texts(self, *, brief: bool = False) -> tuple[str, ...]:
        """Return chance (empty for a metric) and the values as text; `brief` is the form for a terminal."""
        chance = "" if self.part == "metrics" else percent(self.chance, brief=brief)
        pairs = zip(self.values, self.intervals, strict=True)
        return (chance, *(self._text(value, interval, brief) for value, interval in pairs))

    def _text(self, value: float | None, interval: Estimate | None, brief: bool) -> str:
        text = measure_text(self.part, value, brief=brief)
        return text if interval is None else f"{text} {interval_text(self.part, interval, brief=brief)}"


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True)


class _Task(_Checked):
    baseline: float = Field(ge=0, lt=1)
    accuracy: float = Field(ge=0, le=1)
    problems: int = Field(ge=0, le=2**53)
    pass_at: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    majority: float = Field(default=0, ge=0, le=1)


class _Results(_Checked):
    tasks: dict[str, _Task]
    core: dict[str, _Task]
    metrics: dict[str, float | None]


def parse_results(data: bytes, source: str) -> dict[str, Any]:
    """Return the content of a `results.json`; raise DataError, naming `source`, where it is not results."""
    try:
        _Results.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        problem = ": ".join((*map(str, first["loc"]), first["msg"]))
        raise DataError(
            f"{source}: results.json is not the results of an evaluation: {problem}",
            hint="make it again: --force with the stage that made it",
        ) from None
    return dict(json.loads(data, parse_int=_whole))


def _whole(digits: str) -> float:
    """Return a whole number; one too large to calculate with is infinite, as for the check above."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def benchmark_rows(results: Mapping[str, Mapping[str, Any]]) -> list[BenchmarkRow]:
    """Return the rows of a table with a column for each model of `results` (model -> `results.json`)."""
    return [*_task_rows("tasks", results), *_metric_rows(results), *_task_rows("core", results)]


def metric_names(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of what sums up any of the models: means over CORE, over chat tasks, bits per byte."""
    names = dict.fromkeys(
        name for result in results for name, value in result["metrics"].items() if value is not None
    )
    return sorted(names, key=lambda name: [*_TITLES, ""].index(_benchmark(name)))


def metric_title(name: str) -> str:
    """Return the name of a metric on a page: `CORE`, or `CORE (of 4 tasks 81 each)` for another set."""
    benchmark = _benchmark(name)
    rest = name.removeprefix(benchmark).replace("_", " ").strip()
    title = _TITLES.get(benchmark, "")
    return f"{title} ({rest})" if title and rest else title or name


def is_mean(name: str) -> bool:
    """Return whether a metric is a mean over tasks: `core`, `chatcore`, or one of them over another set."""
    benchmark = _benchmark(name)
    return benchmark in _PARTS and (name == benchmark or name.startswith(f"{benchmark}_of_"))


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names of chat tasks, each once, those of ChatCORE first, as on the published card."""
    found = dict.fromkeys(names)
    return list(dict.fromkeys((*(name for name in _CHATCORE if name in found), *found)))


def core_label(name: str) -> str:
    """Return the name of a CORE task where it appears beside chat tasks."""
    return f"{name} (CORE)"


def percent(part: float | None, *, brief: bool = False) -> str:
    """Return a part of one in percent: `12.34 %` on a page, `12.3%` in a terminal."""
    return _text(None if part is None else 100 * part, "{:.1f}%" if brief else "{:.2f} %", brief)


def measure_text(part: str, value: float | None, *, brief: bool = False) -> str:
    """Return an accuracy in percent, or a metric as the number it is."""
    return _text(value, "{:.4f}", brief) if part == "metrics" else percent(value, brief=brief)


def interval_text(part: str, interval: Estimate, *, brief: bool = False) -> str:
    """Return the limits of an interval, or for a terminal the greater of the distances to them."""
    scale, digits = (1, 3 if brief else 4) if part == "metrics" else (100, 1 if brief else 2)
    if brief:
        most = max(interval.value - interval.low, interval.high - interval.value)
        return f"±{scale * most:.{digits}f}"
    return f"({scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f})"


def task_interval(task: Mapping[str, Any]) -> Estimate:
    """Return the accuracy of a task of `results.json` with its interval."""
    return share(task["accuracy"], task["problems"])


def sample_estimates(task: Mapping[str, Any]) -> dict[str, Estimate]:
    """Return what several answers to each problem give beside the accuracy: pass@k, and the majority.

    The interval of pass@k is that of as many right and wrong problems, which is never too narrow.
    """
    drawn = sorted(task.get("pass_at", {}).items(), key=lambda entry: (len(entry[0]), entry[0]))
    numbers = {f"pass@{k}": value for k, value in drawn if k != "1"}  # pass@1 is the accuracy
    numbers |= {"majority": task["majority"]} if "majority" in task else {}
    return {what: share(value, task["problems"]) for what, value in numbers.items()}


def metric_interval(name: str, result: Mapping[str, Any]) -> Estimate | None:
    """Return a mean over tasks with its interval; None where it is not the mean of the tasks there are."""
    value, tasks = result["metrics"].get(name), metric_tasks(name, result)
    if value is None or not tasks:
        return None
    found = centered_mean([(task_interval(task), task["baseline"]) for task in tasks.values()])
    return found if math.isclose(found.value, value, abs_tol=1e-6) else None


def metric_tasks(name: str, result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the tasks of a result that a metric is the mean over; none for bits per byte."""
    tasks: dict[str, Mapping[str, Any]] = dict(result.get(metric_part(name), {}))
    if name in ("chatcore", "chatcore_sampled"):  # the published set, whatever else was asked
        return {task: numbers for task, numbers in tasks.items() if task in _CHATCORE}
    return tasks


def metric_part(name: str) -> str:
    """Return the part of results.json that a metric is the mean over; empty for bits per byte."""
    return _PARTS.get(_benchmark(name), "")


def _task_rows(part: str, results: Mapping[str, Mapping[str, Any]]) -> list[BenchmarkRow]:
    rows = []
    tables = [result.get(part, {}) for result in results.values()]
    names = dict.fromkeys(name for table in tables for name in table)
    for name in in_order(names) if part == "tasks" else names:
        found = [table.get(name) for table in tables]
        chance = next(task["baseline"] for task in found if task is not None)
        values = tuple(None if task is None else task["accuracy"] for task in found)
        intervals = tuple(None if task is None else task_interval(task) for task in found)
        rows.append(BenchmarkRow(part, name, chance, values, intervals))
        rows += _sample_rows(name, found)
    return rows


def _sample_rows(name: str, found: Sequence[Mapping[str, Any] | None]) -> list[BenchmarkRow]:
    tables = [{} if task is None else sample_estimates(task) for task in found]
    rows = []
    for what in dict.fromkeys(what for table in tables for what in table):
        intervals = tuple(table.get(what) for table in tables)
        values = tuple(None if one is None else one.value for one in intervals)
        rows.append(BenchmarkRow("samples", f"{name} {what}", None, values, intervals))
    return rows


def _metric_rows(results: Mapping[str, Mapping[str, Any]]) -> list[BenchmarkRow]:
    return [
        BenchmarkRow(
            "metrics",
            name,
            None,
            tuple(result["metrics"].get(name) for result in results.values()),
            tuple(metric_interval(name, result) for result in results.values()),
        )
        for name in metric_names(results.values())
    ]


def _benchmark(metric: str) -> str:
    """Return what a metric sums up, which its name begins with; empty if that is not known."""
    return next((name for name in _TITLES if metric == name or metric.startswith(f"{name}_")), "")


def _text(value: float | None, form: str, brief: bool) -> str:
    if value is None:
        return "" if brief else ABSENT
    return form.format(value)
