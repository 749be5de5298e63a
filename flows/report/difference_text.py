"""How differences read, in a terminal and on a page: values, changes and intervals as text, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flows.display.quantities import duration
from flows.report.axes import short
from flows.report.run_difference import FieldDifference, NumberDifference, RunDifference, grouped
from flows.report.score_bars import title_of
from flows.report.score_difference import ScoreDifference
from nanochat.evals.results import ABSENT

_SMALLEST_P = 0.0001
_LABELS = {"hours": "time", "tokens": "tokens trained on", "dollars": "cost", "dirty": "local changes"}
_FORMS: dict[str, Callable[[float], str]] = {
    "hours": lambda hours: duration(3600 * hours),
    "dollars": "${:,.2f}".format,
    "parameters": "{:,.0f}".format,
    "tokens": "{:,.0f}".format,
    "flops": short,
    "steps": "{:,.0f}".format,
    "tokens_per_s": "{:,.0f}".format,
}


def field_texts(field: FieldDifference) -> tuple[str, str]:
    """Return both values of a field; a run that does not have it has a dash."""
    return field.first or ABSENT, field.second or ABSENT


def label(name: str) -> str:
    """Return what a number or a field is called where people read it."""
    return _LABELS.get(name, name)


def number_texts(number: NumberDifference) -> tuple[str, str, str]:
    """Return both values of a number and by how much it changed."""
    form = _FORMS.get(number.name.rpartition(" ")[2], "{:.4f}".format)
    first, second = (ABSENT if value is None else form(value) for value in number.values)
    change = number.change
    return first, second, "" if change is None else f"{100 * change:+.1f} %"


def readable(numbers: Iterable[NumberDifference]) -> list[NumberDifference]:
    """Return those numbers whose difference can be seen in their texts."""
    return [number for number in numbers if len(set(number_texts(number)[:2])) > 1]


def change_texts(score: ScoreDifference) -> tuple[str, str, str]:
    """Return the difference of a score, its interval and its p-value; shares in percent."""
    if score.change is None:
        return "", "", ""
    scale, digits = (1, 4) if score.row.part == "metrics" else (100, 1)
    change = f"{scale * score.change.value:+.{digits}f}"
    limits = ""
    if score.has_interval:
        limits = f"{scale * score.change.low:+.{digits}f} to {scale * score.change.high:+.{digits}f}"
    return change, limits, p_text(score.p)


def score_title(score: ScoreDifference) -> str:
    """Return which score of which model it is."""
    return f"{title_of(score.row)}, {score.model}"


def p_text(p: float | None) -> str:
    """Return a p-value; nothing where items were not paired."""
    if p is None:
        return ""
    return f"<{_SMALLEST_P}" if p < _SMALLEST_P else f"{p:.4f}"


def remarks(found: RunDifference) -> list[str]:
    """Return in sentences what cannot be compared, what one run lacks, and what is alike."""
    said = list(found.comparability.remarks)
    for name, nodes in zip(found.names, found.only, strict=True):
        if nodes:
            said.append(f"Only {name} has: {grouped(nodes)}.")
    for name, run in zip(found.names, found.runs, strict=True):
        if run.absent:
            said.append(f"{name} is not finished: {grouped(run.absent)} not in the store.")
    if found.other_code:
        said.append(f"Made by other code: {', '.join(found.other_code)}.")
    if found.alike:
        said.append(f"The same bytes: {grouped(found.alike)}.")
    if found.equal_scores:
        said.append(f"Equal scores: {found.equal_scores:,}.")
    return said


def as_json(found: RunDifference) -> dict[str, Any]:
    """Return all differences for programs."""
    return {
        "runs": list(found.names),
        "equal": found.is_none,
        "fields": [_field_json(field) for field in found.fields],
        "surroundings": [_field_json(field) for field in found.surroundings],
        "other_code": list(found.other_code),
        "numbers": [{"name": one.name, "values": list(one.values)} for one in found.numbers],
        "scores": [_score_json(score) for score in found.scores],
        "equal_scores": found.equal_scores,
        "alike": list(found.alike),
        "only": [list(nodes) for nodes in found.only],
        "not_comparable": list(found.comparability.remarks),
        "problems": [list(run.problems) for run in found.runs],
    }


def _field_json(field: FieldDifference) -> dict[str, Any]:
    return {"field": field.field, "values": [field.first, field.second], "stages": list(field.stages)}


def _score_json(score: ScoreDifference) -> dict[str, Any]:
    row, change = score.row, score.change
    both = [interval and interval.to_json() for interval in row.intervals]
    said: dict[str, Any] = {"model": score.model, "part": row.part, "name": row.name}
    said |= {"values": list(row.values), "intervals": both, "paired": score.paired, "p": score.p}
    if change is not None:
        said["difference"] = change.to_json() if score.has_interval else {"value": change.value}
    return said
