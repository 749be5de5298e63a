"""Two runs on one page: what differs, scores side by side with intervals, both curves in one picture."""

from __future__ import annotations

from pathlib import Path

from flows.report import difference_text as text
from flows.report.cells import Cell, score_cells
from flows.report.page_file import write_page
from flows.report.record_links import listed_by_stage
from flows.report.run_difference import NumberDifference, RunDifference
from flows.report.score_bars import bars_of
from flows.report.score_difference import ScoreDifference
from flows.report.training_charts import curves_of, shared_charts


def write_difference(found: RunDifference, target: Path) -> Path:
    """Write the page of two runs to `target`; return it.

    Raises ConfigError where `target` is something else than an earlier page.
    """
    curves = [curves_of(run) for run in found.runs]
    own = {record.key: record for run in found.runs for record in run.records.values()}
    return write_page(
        "difference.html.j2",
        target,
        names=found.names,
        equal=found.is_none,
        remarks=text.remarks(found),
        problems=[
            (name, problem)
            for name, run in zip(found.names, found.runs, strict=True)
            for problem in run.problems
        ],
        fields=[_row(field.field, text.field_texts(field)) for field in found.fields],
        surroundings=[_row(text.label(field.field), text.field_texts(field)) for field in found.surroundings],
        numbers=[_number_row(number) for number in text.readable(found.numbers)],
        groups=[
            group
            for score in found.scores
            if (group := bars_of(score.row, text.score_title(score), ("A", "B")))
        ],
        scores=[_score_row(score) for score in found.scores],
        charts=shared_charts(found.names, curves, found.comparability),
        records=listed_by_stage(own),
    )


def _row(name: str, values: tuple[str, str]) -> list[Cell]:
    return [Cell(name), *map(Cell, values)]


def _number_row(number: NumberDifference) -> list[Cell]:
    first, second, change = text.number_texts(number)
    return [
        Cell(text.label(number.name)),
        Cell(first, number.links[0]),
        Cell(second, number.links[1]),
        Cell(change),
    ]


def _score_row(score: ScoreDifference) -> list[Cell]:
    values = score_cells(score.row, score.links)
    return [Cell(text.score_title(score)), *values, *map(Cell, text.change_texts(score))]
