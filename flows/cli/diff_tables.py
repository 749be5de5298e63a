"""How the differences of two runs look in a terminal: one table of each kind, and sentences before them."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from flows.cli.tables import plain_table
from flows.report import difference_text as text
from flows.report.run_difference import RunDifference
from nanochat.evals.results import ABSENT


def difference_tables(found: RunDifference) -> Iterator[Table]:
    """Yield the tables that have rows: fields, scores, numbers, and what the runs were made with."""
    for title, fields in (("field", found.fields), ("made with", found.surroundings)):
        table = plain_table(title, *found.names)
        for field in fields:
            table.add_row(text.label(field.field), *text.field_texts(field))
        if fields:
            yield table
    scores = plain_table("score, model", *found.names, "difference", "95 % interval", "p")
    for score in found.scores:
        values = (value or ABSENT for value in score.row.texts(brief=True)[1:])
        scores.add_row(text.score_title(score), *values, *text.change_texts(score))
    if found.scores:
        yield scores
    numbers = plain_table("number", *found.names, "change")
    for number in text.readable(found.numbers):
        numbers.add_row(text.label(number.name), *text.number_texts(number))
    if numbers.row_count:
        yield numbers
