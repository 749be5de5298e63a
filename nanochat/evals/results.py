"""The benchmark table: what is in it, in which order, and how its numbers are written.

Takes the `results.json` of one or more models as `nanochat.evals.evaluate` writes it, checked as it is read.
The terminal, the report and the model card lay the rows out; titles and columns are theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from nanochat.errors import DataError

ABSENT = "–"
_TITLES = {"core": "CORE", "chatcore": "ChatCORE", "val_bpb": "Validation bits per byte"}


@dataclass(frozen=True)
class BenchmarkRow:
    """One task or metric, with its value for each model in turn."""

    part: str  # of results.json: tasks, core or metrics
    name: str
    chance: float | None  # accuracy of guessing; None for a metric
    values: tuple[float | None, ...]  # accuracies, or a metric's values; None where a model was not asked

    @property
    def label(self) -> str:
        """Return a name that distinguishes a CORE task from the chat task of the same name."""
        return core_label(self.name) if self.part == "core" else self.name

    def texts(self, *, brief: bool = False) -> tuple[str, ...]:
        """Return chance (empty for a metric) and the values as text; `brief` is the form for a terminal."""
        if self.part == "metrics":
            return ("", *(_text(value, "{:.4f}", brief) for value in self.values))
        return tuple(percent(part, brief=brief) for part in (self.chance, *self.values))


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True)


class _Task(_Checked):
    baseline: float
    accuracy: float


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
    return dict(json.loads(data))


def benchmark_rows(results: Mapping[str, Mapping[str, Any]]) -> list[BenchmarkRow]:
    """Return the rows of a table with a column for each model of `results` (model -> `results.json`)."""
    return [*_task_rows("tasks", results), *_task_rows("core", results), *_metric_rows(results)]


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


def core_label(name: str) -> str:
    """Return the name of a CORE task where it appears beside chat tasks."""
    return f"{name} (CORE)"


def percent(part: float | None, *, brief: bool = False) -> str:
    """Return a part of one in percent: `12.34 %` on a page, `12.3%` in a terminal."""
    return _text(None if part is None else 100 * part, "{:.1f}%" if brief else "{:.2f} %", brief)


def _task_rows(part: str, results: Mapping[str, Mapping[str, Any]]) -> list[BenchmarkRow]:
    rows = []
    tables = [result.get(part, {}) for result in results.values()]
    for name in dict.fromkeys(name for table in tables for name in table):
        found = [table.get(name) for table in tables]
        chance = next(task["baseline"] for task in found if task is not None)
        values = tuple(None if task is None else task["accuracy"] for task in found)
        rows.append(BenchmarkRow(part, name, chance, values))
    return rows


def _metric_rows(results: Mapping[str, Mapping[str, Any]]) -> list[BenchmarkRow]:
    return [
        BenchmarkRow("metrics", name, None, tuple(r["metrics"].get(name) for r in results.values()))
        for name in metric_names(results.values())
    ]


def _benchmark(metric: str) -> str:
    """Return what a metric sums up, which its name begins with; empty if that is not known."""
    return next((name for name in _TITLES if metric == name or metric.startswith(f"{name}_")), "")


def _text(value: float | None, form: str, brief: bool) -> str:
    if value is None:
        return "" if brief else ABSENT
    return form.format(value)
