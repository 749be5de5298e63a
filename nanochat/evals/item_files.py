"""Files of item results: one parquet file for each task, a row for each item, sorted by the item's number.

The columns are the fields of `ItemResult`, in their order; lists are lists. Equal results give equal bytes.
Beside it the form in which ranks hand results to each other, a value of JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.errors import DataError
from nanochat.evals.item_results import ItemResult
from nanochat.writing import whole_file

_TYPES = {
    "int": pa.int64(),
    "str": pa.string(),
    "tuple[str, ...]": pa.list_(pa.string()),
    "tuple[bool, ...]": pa.list_(pa.bool_()),
    "tuple[int, ...]": pa.list_(pa.int64()),
    "tuple[float, ...]": pa.list_(pa.float64()),
}
_SCHEMA = pa.schema(
    [
        pa.field(field.name, _TYPES[str(field.type)], nullable=False)
        for field in dataclasses.fields(ItemResult)
    ]
)


def write_items(path: Path, results: Iterable[ItemResult]) -> None:
    """Write the results of a task, sorted by item."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [as_row(result) for result in sorted(results, key=lambda result: result.item)]
    with whole_file(path) as part:
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        pq.write_table(table, part, compression="zstd", compression_level=3, write_statistics=False)


def read_items(path: Path) -> list[ItemResult]:
    """Read the results of a task; raise DataError for a file that does not hold any."""
    try:
        rows = pq.read_table(path).to_pylist()
        return [as_result(row) for row in rows]
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:  # of text that is not UTF-8, too
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(f"{path}: not a file of item results: {error}") from error


def as_row(result: ItemResult) -> dict[str, Any]:
    """Return a result as a value of JSON."""
    fields = dataclasses.fields(result)
    return {
        field.name: list(value) if isinstance(value := getattr(result, field.name), tuple) else value
        for field in fields
    }


def as_result(row: dict[str, Any]) -> ItemResult:
    """Return the result that `as_row` gave."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return ItemResult(**fields)
