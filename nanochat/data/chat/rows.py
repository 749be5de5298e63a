"""The rows of a JSON Lines or parquet file, each with its number, for errors that name the place.

What a row must have is for the caller to say. A file is read whole: chat data, not pretraining text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.data.chat.messages import shown
from nanochat.errors import DataError

Row = dict[str, Any]
Numbered = tuple[int, Row]  # with the number of its line, or of its row in a parquet file

_KINDS: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
_FORMATS = "one JSON object per line; `nanochat/data/chat/tasks.py` has the fields of each task"


def read_objects(path: Path, needed: Mapping[str, type]) -> list[Numbered]:
    """Read objects that have the needed fields; raise DataError with the number of one that does not."""
    rows = read_rows(path)
    for number, row in rows:
        missing = [name for name in needed if not isinstance(row, dict) or row.get(name) is None]
        if missing:
            raise bad_row(path, number, f"no {', '.join(missing)}")
        for name, kind in needed.items():
            if not isinstance(row[name], kind):
                found = f"{name} is {shown(row[name])}, which is not {_KINDS[kind]}"
                raise bad_row(path, number, found, _FORMATS)
    return rows


def read_rows(path: Path) -> list[tuple[int, Any]]:
    """Read whatever the rows are; raise DataError for a file that cannot be read or has none."""
    try:
        if path.suffix == ".parquet":
            rows: list[tuple[int, Any]] = list(enumerate(pq.read_table(path).to_pylist(), 1))
        else:
            # Not splitlines(): JSON strings may hold other line separators, such as U+2028.
            lines = enumerate(path.read_text("utf-8-sig").split("\n"), 1)
            rows = [(number, _json(line, path, number)) for number, line in lines if line.strip()]
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:  # a date of parquet's own
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def bad_row(path: Path, number: int, what: str, hint: str | None = None) -> DataError:
    """Return the error that names the line or row and what is wrong in it."""
    unit = "row" if path.suffix == ".parquet" else "line"
    return DataError(f"{path}, {unit} {number}: {what}", hint=hint)


def _json(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise bad_row(path, number, f"not JSON: {error}", _FORMATS) from error
    except ValueError as error:
        raise bad_row(path, number, str(error)) from error
    except RecursionError as error:
        raise bad_row(path, number, "brackets are nested too deeply", _FORMATS) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; a reader that keeps the last of equal keys would drop the others without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {shown(_first_repeated([key for key, _ in pairs]))} is there twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _first_repeated(names: list[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)
