"""How much better the second of two runs scores, with how sure that is: paired item by item where it can be.

Where the items differ or are not kept, the two scores are taken as independent, whose difference has a wider
interval and no p-value.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.report.record_links import link
from flows.report.recorded_run import RecordedRun
from flows.stages import EVALUATIONS
from nanochat.errors import DataError
from nanochat.evals.intervals import Difference, Estimate, centering_weights, weighted_sum
from nanochat.evals.item_files import read_items
from nanochat.evals.kept_rows import ITEMS
from nanochat.evals.paired import compared
from nanochat.evals.results import BenchmarkRow, benchmark_rows, metric_part, metric_tasks
from nanochat.evals.shown_items import CORE_PREFIX


@dataclass(frozen=True)
class ScoreDifference:
    """One score of a model that differs: both values, and what the second has more."""

    model: str
    row: BenchmarkRow  # of both runs
    links: tuple[str, str]
    change: Estimate | None  # None where one was not asked; of bits per byte, without an interval
    paired: bool
    p: float | None

    @property
    def has_interval(self) -> bool:
        """Return whether it is known how sure the difference is."""
        return self.change is not None and self.change.low < self.change.high


def score_differences(first: RecordedRun, second: RecordedRun) -> tuple[tuple[ScoreDifference, ...], int]:
    """Return the scores that differ, and how many are equal."""
    found: list[ScoreDifference] = []
    equal = 0
    ours, theirs = first.results(), second.results()
    for model, stage in EVALUATIONS.items():
        pair = [results[model] for results in (ours, theirs) if model in results]
        if len(pair) < 2:
            continue
        records = [run.records[stage.name] for run in (first, second)]
        links = (link(records[0]), link(records[1]))
        items = _ItemPairs(first, second, stage.name)
        for row in benchmark_rows({"first": pair[0], "second": pair[1]}):
            if row.values[0] == row.values[1] or records[0].digest == records[1].digest:
                equal += 1
                continue
            paired = items.difference(row, pair[0], pair[1])
            if isinstance(paired, Difference):
                found.append(ScoreDifference(model, row, links, paired.estimate, True, paired.p))
            else:
                found.append(ScoreDifference(model, row, links, paired or _apart(row), bool(paired), None))
    return tuple(found), equal


class _ItemPairs:
    """The items of two evaluations; each task's are read once, when its score differs."""

    def __init__(self, first: RecordedRun, second: RecordedRun, node: str) -> None:
        self._runs, self._node = (first, second), node
        self._known: dict[str, Difference | None] = {}

    def difference(
        self, row: BenchmarkRow, first: Mapping[str, Any], second: Mapping[str, Any]
    ) -> Difference | Estimate | None:
        """Return what the second has more in a task or a mean over tasks; None where it is not paired."""
        if row.part in ("tasks", "core"):
            return self._of_task(f"{CORE_PREFIX if row.part == 'core' else ''}{row.name}")
        if row.part != "metrics" or None in row.intervals:
            return None
        members = metric_tasks(row.name, first)
        if members.keys() != metric_tasks(row.name, second).keys():
            return None
        prefix = CORE_PREFIX if metric_part(row.name) == "core" else ""
        changes = [self._of_task(f"{prefix}{task}") for task in members]
        known = [change.estimate for change in changes if change]
        if len(known) < len(changes):
            return None
        weights = centering_weights([task["baseline"] for task in members.values()])
        return weighted_sum(zip(weights, known, strict=True))

    def _of_task(self, task: str) -> Difference | None:
        if task not in self._known:
            self._known[task] = self._compared(task)
        return self._known[task]

    def _compared(self, task: str) -> Difference | None:
        path = f"{ITEMS}/{task}.parquet"
        with tempfile.TemporaryDirectory() as scratch:
            both = []
            for run in self._runs:
                data = run.content(self._node, path)
                if data is None:
                    return None
                file = Path(scratch, "items.parquet")
                file.write_bytes(data)
                try:
                    both.append(read_items(file))
                except DataError:
                    run.note(f"{run.name}: {path} of {self._node} is not a file of item results")
                    return None
        try:
            return compared({task: both[1]}, {task: both[0]})[task].difference
        except DataError:  # not the same items
            return None


def _apart(row: BenchmarkRow) -> Estimate | None:
    """Return the difference of two independent scores."""
    first, second = row.values
    if first is None or second is None:
        return None
    ours, theirs = row.intervals
    if ours is None or theirs is None:
        return Estimate(second - first, second - first, second - first)
    return weighted_sum([(1.0, theirs), (1.0, Estimate(-ours.value, -ours.high, -ours.low))])
