"""The benchmarks of a run: bars with intervals, chance and what others published, and the same as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class ScoreRow:
    """A row of the table of benchmarks."""

    title: str
    chance: str
    cells: tuple[tuple[str, str, str], ...]  # value, interval and link of each model
    others: tuple[str, ...]


def score_groups(
    results: Mapping[str, Mapping[str, Any]], links: Mapping[str, str], published: Sequence[PublishedScores]
) -> dict[str, list[BarGroup]]:
    """Return the bars of each benchmark under the title of its part; bits per byte are not a share."""
    found: dict[str, list[BarGroup]] = {}
    for row in benchmark_rows(results):
        if row.part not in _PARTS or (row.part == "metrics" and not is_mean(row.name)):
            continue
        scores = [
            _score(row, model, style, links, index)
            for index, (model, style) in enumerate(zip(results, STYLES, strict=False))
            if row.values[index] is not None
        ]
        marks = [
            (one.title, value, one.text(row)) for one in published if (value := _value(one, row)) is not None
        ]
        if scores:
            found.setdefault(_PARTS[row.part], []).append(
                bar_group(
                    title_of(row),
                    scores,
                    chance=row.chance,
                    chance_text=percent(row.chance),
                    marks=marks,
                    in_percent=row.part != "metrics",
                )
            )
    return found


def score_rows(
    results: Mapping[str, Mapping[str, Any]], links: Mapping[str, str], published: Sequence[PublishedScores]
) -> list[ScoreRow]:
    """Return the table of benchmarks."""
    return [
        ScoreRow(
            title_of(row),
            row.texts()[0],
            tuple(
                (
                    measure_text(row.part, value),
                    interval_text(row.part, interval) if interval else "",
                    links.get(model, "") if value is not None else "",
                )
                for model, value, interval in zip(results, row.values, row.intervals, strict=True)
            ),
            tuple(one.text(row) for one in published),
        )
        for row in benchmark_rows(results)
    ]


def title_of(row: BenchmarkRow) -> str:
    """Return what a benchmark is called on a page."""
    return metric_title(row.name) if row.part == "metrics" else row.label


def _score(row: BenchmarkRow, model: str, style: str, links: Mapping[str, str], index: int) -> Score:
    value, interval = row.values[index] or 0.0, row.intervals[index]
    text = f"{value:.3f}" if row.part == "metrics" else f"{100 * value:.1f} %"
    full = measure_text(row.part, value)
    return Score(
        label=model,
        style=style,
        estimate=interval or Estimate(value, value, value),
        exact=interval is None,
        text=text,
        full=full if interval is None else f"{full} {interval_text(row.part, interval)}",
        href=links.get(model, ""),
    )


def _value(one: PublishedScores, row: BenchmarkRow) -> float | None:
    return {"tasks": one.tasks, "metrics": one.metrics}.get(row.part, {}).get(row.name)
