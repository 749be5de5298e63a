"""The command line that turns a user's csv, JSON or plain text files into parquet files with a column `text`.

It is printed, not run: which column holds the text, and what is one document, is for the user to see. The
files are read by polars and written beside those they are made from; compressed ones are unpacked by fsspec.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

_PACKED = ("", ".gz", ".bz2", ".xz")
_OPEN = 'fsspec.open(str(f), compression="infer").open()'
_TABLES = {
    ".csv": f"pl.read_csv({_OPEN}, infer_schema=False)",
    ".tsv": f"pl.read_csv({_OPEN}, infer_schema=False, separator=chr(9))",
    ".jsonl": f"pl.read_ndjson({_OPEN})",
    ".ndjson": f"pl.read_ndjson({_OPEN})",
    ".json": f"pl.read_json({_OPEN})",
}
_TEXT = f"{_OPEN}.read().decode()"
_WRITE = 'write_parquet(f"{f}.parquet")'
_DOCUMENT = ".txt"
_MOST_SHARDS = 20  # more files of one document each become two shards
_VALIDATION_EVERY = 20


def convertible_suffix(path: str) -> str | None:
    """Return the suffix by which a file can be converted, such as `.csv.gz`, as it is written; or None."""
    for packed in _PACKED:
        for kind in (*_TABLES, _DOCUMENT):
            if path.lower().endswith(kind + packed):
                return path[-len(kind + packed) :]
    return None


def command_to_convert(root: Path, suffix: str, count: int) -> str:
    """Return one line for a shell that converts all files of a suffix below a folder on this machine."""
    kind = next(kind for kind in (*_TABLES, _DOCUMENT) if suffix.lower().startswith(kind))
    folder = json.dumps(str(root), ensure_ascii=False)
    files = f'[f for f in sorted(pathlib.Path({folder}).rglob("*{suffix}")) if f.name[0] not in "._"]'
    if kind in _TABLES:
        code = f'[{_TABLES[kind]}.select(pl.col("text").cast(pl.String)).{_WRITE} for f in {files}]'
    elif count <= _MOST_SHARDS:
        code = f'[pl.DataFrame({{"text": [{_TEXT}]}}).{_WRITE} for f in {files}]'
    else:
        code = (
            f"t = [{_TEXT} for f in {files}]; n = {_VALIDATION_EVERY};"
            ' parts = {"val": t[::n], "train": [x for i, x in enumerate(t) if i % n]};'
            f' [pl.DataFrame({{"text": p}}).write_parquet({folder} + f"/{{k}}{suffix}.parquet")'
            " for k, p in parts.items()]"
        )
    return f"uv run python -c {shlex.quote('import fsspec, pathlib, polars as pl; ' + code)}"
