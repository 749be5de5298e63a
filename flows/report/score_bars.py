"""The benchmarks of a run: bars with intervals, chance and what others published, and the same as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flows.display.quantities import is_number
from flows.report.cells import Cell, score_cells
from flows.report.charts import BarGroup, Score, bar_group
from nanochat.evals.intervals import Estimate
from nanochat.evals.results import (
    BenchmarkRow,
    benchmark_rows,
    interval_text,
    is_mean,
    measure_text,
    metric_title,
    percent,
)
from nanochat.publish.published_scores import PublishedScores

STYLES = ("first", "second", "third", "fourth")
_PARTS = {
    "tasks": "Tasks",
    "metrics": "Means over tasks, above chance",
    "core": "Tasks of CORE",
}


def score_groups(
    results: Mapping[str, Mapping[str, Any]], published: Sequence[PublishedScores]
) -> dict[str, list[BarGroup]]:
    """Return the bars of each benchmark under the title of its part."""
    found: dict[str, list[BarGroup]] = {}
    for row in benchmark_rows(results):
        others = [
            (one.title, value, one.text(row)) for one in published if (value := _value(one, row)) is not None
        ]
        group = bars_of(row, title_of(row), list(results), others)
        if group:
            found.setdefault(_PARTS[row.part], []).append(group)
    return found


def bars_of(
    row: BenchmarkRow, title: str, labels: Sequence[str], marks: Sequence[tuple[str, float, str]] = ()
) -> BarGroup | None:
    """Return the bars of a benchmark; None where it is not a share, as bits per byte, or nobody was asked."""
    if row.part not in _PARTS or (row.part == "metrics" and not is_mean(row.name)):
        return None
    each = zip(labels, STYLES, row.values, row.intervals, strict=False)
    scores = [_score(row.part, label, style, v, limits) for label, style, v, limits in each if is_number(v)]
    if not scores:
        return None
    return bar_group(
        title,
        scores,
        chance=row.chance,
        chance_text=percent(row.chance),
        marks=marks,
        in_percent=row.part != "metrics",
    )


def score_table(
    results: Mapping[str, Mapping[str, Any]], links: Mapping[str, str], published: Sequence[PublishedScores]
) -> tuple[list[str], list[list[Cell]]]:
    """Return the head and the rows of the table of benchmarks."""
    own = [links.get(model, "") for model in results]
    rows = [
        [
            Cell(title_of(row)),
            Cell(row.texts()[0]),
            *score_cells(row, own),
            *(Cell(one.text(row)) for one in published),
        ]
        for row in benchmark_rows(results)
    ]
    return ["benchmark", "chance", *results, *(one.title for one in published)], rows


def title_of(row: BenchmarkRow) -> str:
    """Return what a benchmark is called on a page."""
    return metric_title(row.name) if row.part == "metrics" else row.label


def _score(part: str, label: str, style: str, value: float, interval: Estimate | None) -> Score:
    full = measure_text(part, value)
    return Score(
        label=label,
        style=style,
        estimate=interval or Estimate(value, value, value),
        exact=interval is None,
        text=f"{value:.3f}" if part == "metrics" else f"{100 * value:.1f} %",
        full=full if interval is None else f"{full} {interval_text(part, interval)}",
    )


def _value(one: PublishedScores, row: BenchmarkRow) -> float | None:
    return {"tasks": one.tasks, "metrics": one.metrics}.get(row.part, {}).get(row.name)
