"""A cell of a table on a page: its text, the record that it is from, and what stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.evals.results import BenchmarkRow, interval_text, measure_text


@dataclass(frozen=True)
class Cell:
    """A text, with the address of the record that it is from."""

    text: str
    href: str = ""
    note: str = ""  # beside it, such as an interval


def score_cells(row: BenchmarkRow, links: Sequence[str]) -> list[Cell]:
    """Return the values of a row of the benchmark table with their intervals; `links` has one of each."""
    return [
        Cell(
            measure_text(row.part, value),
            "" if value is None else href,
            "" if interval is None else interval_text(row.part, interval),
        )
        for value, interval, href in zip(row.values, row.intervals, links, strict=True)
    ]
