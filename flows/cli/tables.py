"""How plans, records and results look as text: rich tables for people, plain data for `--json`.

Only formats what it is passed; reads no store and runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from flows.display.quantities import duration
from flows.run.headline import brief
from flows.stage import Stage
from flows.stages import STAGES
from flows.store import Record
from nanochat.evals.results import benchmark_rows

if TYPE_CHECKING:
    from nanochat.publish.published_scores import PublishedScores


def run_table(records: Mapping[str, Record], executed: Iterable[str]) -> Table:
    """One row per stage: whether it ran, its digest, how long it took."""
    made = set(executed)
    table = plain_table("stage", "status", "digest", "time", "result")
    groups: dict[str, list[str]] = {}
    for node in records:
        groups.setdefault(node.partition("/")[0], []).append(node)
    for name, nodes in groups.items():
        ran = [n for n in nodes if n in made]
        status = (
            "cached" if not ran else "done" if len(ran) == len(nodes) else f"{len(ran)} of {len(nodes)} done"
        )
        seconds = sum(float(records[n].provenance.get("seconds") or 0) for n in nodes)
        digest = records[nodes[0]].digest[:12] if len(nodes) == 1 else ""
        result = brief(records[nodes[0]].metrics) if len(nodes) == 1 else ""
        table.add_row(stage_label(STAGES[name], len(nodes)), status, digest, duration(seconds), result)
    return table


def results_table(results: Mapping[str, Mapping[str, Any]], published: Sequence[PublishedScores]) -> Table:
    """The benchmark table: a row per chat task and metric, a column per model; without CORE's tasks."""
    table = plain_table("benchmark", "chance", *results, *(one.title for one in published))
    for row in benchmark_rows(results):
        if row.part != "core":
            others = (one.text(row, brief=True) for one in published)
            table.add_row(row.name, *row.texts(brief=True), *others)
    return table


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row per mapping; all have the same keys."""
    table = plain_table(*rows[0])
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def stage_label(stage: Stage, nodes: int) -> str:
    """Return a stage's name, with how many parts it has if it fans out."""
    return stage.name if nodes == 1 else f"{stage.name} ({nodes} {stage.one_of})"


def fields_table(fields: Iterable[tuple[str, Any, str]]) -> Table:
    """One row per recipe field: its dotted name, value and help text."""
    table = plain_table("field", "value", "meaning")
    for name, value, text in fields:
        table.add_row(name, value_text(value), text)
    return table


def plain_table(*columns: str) -> Table:
    """Return an empty table in the style that all tables share."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def value_text(value: Any) -> str:
    """Return the value of a recipe field as text."""
    if isinstance(value, tuple):
        return ", ".join(value_text(v) for v in value) or "(none)"
    if hasattr(value, "model_dump"):
        return " ".join(f"{k}={v}" for k, v in value.model_dump(exclude_defaults=True).items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value) or "(empty)"
