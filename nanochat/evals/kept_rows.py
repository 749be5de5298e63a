"""What an evaluation has made so far, in a folder: answers as parquet, the rest as JSON.

A restart point is such a folder, and so, for answers, is the artifact. What is damaged is a miss: it is made
again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nanochat.errors import DataError
from nanochat.evals.item_files import as_result, as_row, read_items, write_items
from nanochat.evals.portions import EvaluationPart, Row

logger = logging.getLogger(__name__)
Found = dict[str, dict[int, Row]]
"""Rows by part and number of the item."""

ITEMS = "items"
_OTHERS = "rows.json"


def write_rows(folder: Path, parts: Sequence[EvaluationPart], found: Mapping[str, Mapping[int, Row]]) -> None:
    """Write the rows of all parts."""
    write_answers(folder, parts, found)
    others = {part.name: list(found[part.name].items()) for part in parts if part.baseline is None}
    (folder / _OTHERS).write_text(json.dumps(others), encoding="utf-8")


def write_answers(
    folder: Path, parts: Sequence[EvaluationPart], found: Mapping[str, Mapping[int, Row]]
) -> None:
    """Write the rows of the parts that have answers, each part into its `items/<name>.parquet`."""
    for part in parts:
        if part.baseline is not None:
            write_items(_file(folder, part), map(as_result, found[part.name].values()))


def read_rows(folder: Path, parts: Sequence[EvaluationPart]) -> Found:
    """Return the rows of a folder, as far as they can be read."""
    found = dict(_others(folder))
    for part in parts:
        if part.baseline is not None:
            try:
                found[part.name] = {result.item: as_row(result) for result in read_items(_file(folder, part))}
            except (DataError, FileNotFoundError) as error:
                logger.warning("%s; its items are asked again", error)
    return found


def _file(folder: Path, part: EvaluationPart) -> Path:
    return folder / ITEMS / f"{part.name}.parquet"


def _others(folder: Path) -> Iterator[tuple[str, dict[int, Row]]]:
    try:
        for name, rows in json.loads((folder / _OTHERS).read_text(encoding="utf-8")).items():
            yield name, dict(rows)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("%s/%s cannot be read, and is made again: %s", folder, _OTHERS, error)
