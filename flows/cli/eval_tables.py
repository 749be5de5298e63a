"""How scores look as text: a line per task, two models side by side, and single items.

Only formats what it is passed; what is in it is decided in `flows.models.scored`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table

from flows.cli.tables import plain_table
from nanochat.evals.results import measure_text, percent

if TYPE_CHECKING:
    from flows.models.scored import Example, MeanDifference, TaskLine
    from nanochat.evals.intervals import Estimate
    from nanochat.evals.paired import TaskComparison

_LONGEST_PROMPT = 2_000  # characters: few-shot examples come first and can be pages
_SMALLEST_P = 0.0001


def scores_table(
    tasks: Mapping[str, TaskLine], metrics: Mapping[str, tuple[float, Estimate | None]], *, groups: bool
) -> Table:
    """One row per task, with `groups` also per part of a task, then what sums them up."""
    table = plain_table("task", "accuracy", "95 % interval", "chance", "items", "seconds")
    for name, line in tasks.items():
        table.add_row(*_cells(name, line))
        for what, estimate in line.samples.items():
            cells = (percent(estimate.value, brief=True), _limits("tasks", estimate))
            table.add_row(f"  {what}", *cells, "", "", "")
        for part, of_part in (line.groups or {}).items() if groups else ():
            table.add_row(*_cells(f"  {part}", of_part))
    for name, (value, interval) in metrics.items():
        table.add_row(name, measure_text("metrics", value), _limits("metrics", interval), "", "", "")
    return table


def comparison_table(
    names: tuple[str, str],
    values: Mapping[str, tuple[float, float]],
    tasks: Mapping[str, TaskComparison],
    metrics: Mapping[str, MeanDifference],
) -> Table:
    """One row per task and metric: both models, the difference, and how sure it is."""
    table = plain_table("task", *names, "difference", "95 % interval", "p", "better", "worse")
    for name, task in tasks.items():
        found = task.difference
        both = [percent(value, brief=True) for value in values[name]]
        change = f"{100 * found.estimate.value:+.1f}"
        sure = (_limits("tasks", found.estimate), _p_text(found.p), str(found.better), str(found.worse))
        table.add_row(name, *both, change, *sure)
    for name, metric in metrics.items():
        both = [measure_text("metrics", value) for value in values[name]]
        table.add_row(name, *both, f"{metric.value:+.4f}", _limits("metrics", metric.interval), "", "", "")
    return table


def example_text(example: Example) -> str:
    """Return an item with its prompt and what each model made of it."""
    subject = f" ({example.group})" if example.group else ""
    lines = [f"{example.task}, item {example.item}{subject}", _indented(_end_of(example.asked.prompt))]
    lines += [f"  option: {text.strip()}" for text in example.asked.options]
    if example.asked.gold:
        lines.append(f"expected: {example.asked.gold.strip()}")
    for model, result in example.answers.items():
        for text, right in zip(example.asked.said(result), result.right, strict=True):
            lines.append(f"{model}, {'right' if right else 'wrong'}:\n{_indented(text.strip())}")
    return "\n".join(lines)


def _cells(name: str, line: TaskLine) -> tuple[str, ...]:
    return (
        name,
        percent(line.accuracy.value, brief=True),
        _limits("tasks", line.accuracy),
        percent(line.chance, brief=True),
        f"{line.items:,}",
        "" if line.seconds is None else f"{line.seconds:.1f}",
    )


def _limits(part: str, interval: Estimate | None) -> str:
    if interval is None:
        return ""
    if part == "metrics":
        return f"{interval.low:.4f} to {interval.high:.4f}"
    return f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"


def _p_text(p: float) -> str:
    return f"<{_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.4f}"


def _end_of(prompt: str) -> str:
    left = len(prompt) - _LONGEST_PROMPT
    return f"[{left:,} characters before] {prompt[left:]}" if left > 0 else prompt


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))
